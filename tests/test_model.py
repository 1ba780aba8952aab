"""The model: its size, its start, attention against a slow version, the head against the plain one, confidence."""

import math
from collections.abc import Callable, Iterator
from itertools import product
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from shared.settings import PIPELINES_FILE
from training import head, model
from training.confidence import cosine_target, loss_weight
from training.head import chunked_cross_entropy, token_statistics
from training.model import GPT, MLP, KVCache, Losses, rotate
from training.settings import Activation, ConfidenceSettings, ModelSettings, read_training_file

SMALL = ModelSettings(vocab_size=300, n_layer=2, n_embd=32, head_dim=8, sequence_length=24)
UNTIED = {"tie_weights": False, "use_output_projection": False, "use_confidence": False}
WINDOWED = {"window_pattern": "alternating", "window_size": 5}
CONFIDENCE = ConfidenceSettings()


def settings_with(changes: dict[str, Any], base: ModelSettings = SMALL) -> ModelSettings:
    return ModelSettings(**{**base.model_dump(exclude_unset=True), **changes})


def awake(settings: ModelSettings, dtype: torch.dtype = torch.float32) -> GPT:
    """Returns a model in which nothing is at its start, so that every part shows."""
    gpt = GPT(settings, dtype).initialize(0)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in gpt.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator), alpha=settings.n_embd**-0.5)
    return gpt


def drawn(settings: ModelSettings, batch: int = 3, seed: int = 2) -> tuple[Tensor, Tensor]:
    """Returns random tokens and targets (B, T)."""
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randint(settings.vocab_size, (2, batch, settings.sequence_length), generator=generator)
    return tokens[0], tokens[1]


def gradients(gpt: GPT, loss: Tensor) -> dict[str, Tensor]:
    """Returns the gradient of each parameter, zero where the loss does not reach it."""
    names, parameters = zip(*gpt.named_parameters(), strict=True)
    found = torch.autograd.grad(loss, parameters, allow_unused=True, materialize_grads=True)
    return dict(zip(names, found, strict=True))


def deviation(value: Tensor, truth: Tensor) -> float:
    return float(((value.double() - truth.double()).norm() / truth.double().norm()).detach())


# Size

PRESETS = read_training_file(PIPELINES_FILE).models
N_PARAMETERS = {
    "tiny": 1_327_232,
    "10M": 9_502_976,
    "15M": 16_662_912,
    "25M": 25_428_480,
    "38M": 37_748_736,
    "100M": 98_108_160,
    "notes-192": 4_891_776,
}


def count_parameters(settings: ModelSettings) -> int:
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in GPT(settings).parameters())


def test_presets_have_the_parameters_that_they_say() -> None:
    assert {name: count_parameters(preset.model) for name, preset in PRESETS.items()} == N_PARAMETERS


@pytest.mark.parametrize(
    ("vocab_size", "n_embd", "n_layer", "changes", "n_parameters"),
    [
        (24_576, 512, 4, UNTIED, 37_748_736),
        (24_576, 512, 4, {"use_output_projection": False, "use_confidence": False}, 25_165_824),
        (24_576, 512, 4, {"use_confidence": False}, 25_427_968),
        (24_576, 512, 4, {}, 25_428_480),
        (65_536, 192, 29, UNTIED, 37_994_496),
        (32_768, 384, 7, UNTIED, 37_552_128),
        (24_576, 640, 17, {}, 99_697_280),
    ],
)
def test_switches_add_the_parameters_that_they_should(
    vocab_size: int, n_embd: int, n_layer: int, changes: dict[str, Any], n_parameters: int
) -> None:
    settings = ModelSettings(vocab_size=vocab_size, n_embd=n_embd, n_layer=n_layer, **changes)
    assert count_parameters(settings) == n_parameters


def test_parameters_have_the_names_that_checkpoints_and_groups_know() -> None:
    attention = ["c_q", "c_k", "c_v", "c_proj"]
    wanted = {"wte.weight", "output_projection.weight", "confidence_head.weight"} | {
        f"blocks.{layer}.{part}.weight"
        for layer, part in product(range(2), [f"attention.{name}" for name in attention] + ["mlp.fc1", "mlp.fc2"])
    }
    assert GPT(SMALL).state_dict().keys() == wanted
    norms = {f"blocks.{layer}.attention.{part}_norm.weight" for layer, part in product(range(2), "qk")}
    gates = {f"blocks.{layer}.mlp.gate.weight" for layer in range(2)}
    full = settings_with({"activation": "swiglu", "qk_norm": "layer"})
    assert GPT(full).state_dict().keys() == wanted | norms | gates
    untied = wanted - {"output_projection.weight", "confidence_head.weight"} | {"lm_head.weight"}
    assert GPT(settings_with(UNTIED)).state_dict().keys() == untied


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({**UNTIED, "use_output_projection": True}, "use_output_projection needs tie_weights"),
        ({**UNTIED, "use_confidence": True}, "use_confidence needs tie_weights"),
        ({"use_output_projection": False, "output_projection_residual": True}, "output_projection_residual has no"),
        ({"head_dim": 12}, "n_embd 32 is not a multiple of head_dim 12"),
        ({"n_kv_head": 3}, "4 query heads cannot share n_kv_head 3"),
        ({"window_size": 5}, "window_pattern alternating and window_size go together"),
        ({"window_pattern": "alternating"}, "window_pattern alternating and window_size go together"),
        ({"vocab_size": 65_537}, "vocab_size"),
        ({"head_dim": 7}, "head_dim"),
        ({"activation": "tanh"}, "activation"),
        ({"n_layers": 2}, "n_layers"),
    ],
)
def test_contradictions_are_refused_by_name(changes: dict[str, Any], told: str) -> None:
    with pytest.raises(ValidationError, match=told):
        settings_with(changes)


# Start


@pytest.mark.parametrize("n_embd", [64, 512, 768])
@pytest.mark.parametrize(
    "changes",
    [{}, {"use_output_projection": False}, {"output_projection_residual": True}, UNTIED],
    ids=["projected", "tied", "residual", "untied"],
)
def test_an_untrained_model_knows_nothing(n_embd: int, changes: dict[str, Any]) -> None:
    base = ModelSettings(vocab_size=4096, n_layer=2, n_embd=n_embd, sequence_length=128)
    settings = settings_with(changes, base)
    gpt = GPT(settings).initialize(0)
    tokens, targets = drawn(settings, batch=2)
    with torch.no_grad():
        cross_entropy = gpt(tokens, targets, CONFIDENCE).cross_entropy
        probabilities = gpt.logits(gpt.hidden(tokens)[1]).softmax(-1)
    assert abs(float(cross_entropy) - math.log(4096)) < 0.3
    assert probabilities.gather(2, tokens[..., None]).max() < 0.01  # of the input token
    if settings.use_output_projection and not settings.output_projection_residual:
        assert (probabilities.argmax(-1) == tokens).float().mean() < 0.01


def test_a_seed_gives_the_same_weights_whatever_was_drawn_before() -> None:
    first = GPT(SMALL).initialize(3)
    torch.rand(7)
    second, other = GPT(SMALL).initialize(3), GPT(SMALL).initialize(4)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
    assert not torch.equal(first.wte.weight, other.wte.weight)


# Attention


def slow_attention(q: Tensor, k: Tensor, v: Tensor, window: int | None) -> Tensor:
    """attend, one query at a time."""
    out = torch.empty_like(q)
    for b, h, i in product(*map(range, q.shape[:3])):
        group = h // (q.shape[1] // k.shape[1])
        position = k.shape[2] - q.shape[2] + i
        seen = slice(max(0, position + 1 - window) if window else 0, position + 1)
        weights = (k[b, group, seen] @ q[b, h, i] / math.sqrt(q.shape[3])).softmax(0)
        out[b, h, i] = weights @ v[b, group, seen]
    return out


@pytest.mark.parametrize("attend", [model._attend_in_blocks, model._attend_by_kernel])
@given(
    n_keys=st.integers(1, 20),
    n_queries=st.integers(1, 20),
    window=st.none() | st.integers(1, 25),
    n_kv_head=st.sampled_from([1, 2, 4]),
    block=st.integers(1, 8),
)
def test_attention_is_the_slow_version(
    attend: Callable[..., Tensor], n_keys: int, n_queries: int, window: int | None, n_kv_head: int, block: int
) -> None:
    generator = torch.Generator().manual_seed(n_keys)
    q = torch.randn(2, 4, min(n_queries, n_keys), 6, generator=generator)
    k, v = torch.randn(2, 2, n_kv_head, n_keys, 6, generator=generator)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(model, "QUERY_BLOCK", block)
        torch.testing.assert_close(attend(q, k, v, window), slow_attention(q, k, v, window), rtol=1e-5, atol=1e-6)


def test_rope_turns_each_pair_by_minus_its_angle_and_knows_only_distances() -> None:
    gpt = GPT(SMALL)
    pairs = SMALL.head_dim // 2
    generator = torch.Generator().manual_seed(0)
    q, k = torch.randn(2, 1, 1, 1, SMALL.head_dim, generator=generator)

    def turned(x: Tensor, position: int) -> Tensor:
        return rotate(x, gpt.cos[position : position + 1], gpt.sin[position : position + 1])[0, 0, 0]

    as_complex = torch.complex(q[0, 0, 0, :pairs], q[0, 0, 0, pairs:])
    angles = 7 * 10_000.0 ** (-torch.arange(pairs) / pairs)
    wanted = as_complex * torch.polar(torch.ones(pairs), -angles)
    torch.testing.assert_close(turned(q, 7), torch.cat([wanted.real, wanted.imag]))
    near, far = (turned(q, i + 5) @ turned(k, i) for i in (0, 16))
    torch.testing.assert_close(near, far)
    assert not torch.isclose(near, turned(q, 6) @ turned(k, 0))


VARIANTS: list[dict[str, Any]] = [
    {},
    WINDOWED,
    {"n_kv_head": 2},
    {**WINDOWED, "n_kv_head": 1, "activation": "swiglu", "qk_norm": "layer", "output_projection_residual": True},
    {"activation": "gelu", "qk_norm": "none", "d_ff": 40, "use_output_projection": False},
    UNTIED,
]


@pytest.mark.parametrize("changes", VARIANTS, ids=str)
def test_tokens_read_one_by_one_give_the_same_as_all_at_once(changes: dict[str, Any]) -> None:
    settings = settings_with(changes)
    gpt = awake(settings)
    tokens, _ = drawn(settings)
    with torch.no_grad():
        h_pre, h_post = gpt.hidden(tokens)
        cache = KVCache(settings, len(tokens), tokens.device, torch.float32)
        parts = [gpt.hidden(part, cache) for part in torch.split(tokens, [7, 1, 1, 9, *[1] * 6], dim=1)]
    assert cache.length == settings.sequence_length
    for whole, pieces in zip((h_pre, h_post), zip(*parts, strict=True), strict=True):
        torch.testing.assert_close(torch.cat(pieces, dim=1), whole, rtol=1e-4, atol=1e-5)
    with pytest.raises(ValueError, match="25 tokens do not fit the sequence length 24"):
        gpt.hidden(tokens[:, :1], cache)


@pytest.mark.parametrize("changes", VARIANTS, ids=str)
def test_a_token_changes_nothing_before_it(changes: dict[str, Any]) -> None:
    settings = settings_with(changes)
    gpt = awake(settings)
    tokens, _ = drawn(settings)
    changed = tokens.clone()
    changed[:, 11] = (changed[:, 11] + 1) % settings.vocab_size
    with torch.no_grad():
        before, after = (gpt.hidden(given)[0] for given in (tokens, changed))
    differs = (before - after).abs().amax(-1) > 1e-6  # (B, T)
    assert not differs[:, :11].any()
    assert differs[:, 11].all() and differs[:, 12:16].any(0).all()


def test_a_window_hides_what_lies_behind_it() -> None:
    settings = settings_with({**WINDOWED, "n_layer": 1})
    gpt = awake(settings)
    tokens, _ = drawn(settings)
    changed = tokens.clone()
    changed[:, 3] = (changed[:, 3] + 1) % settings.vocab_size
    with torch.no_grad():
        before, after = (gpt.hidden(given)[0] for given in (tokens, changed))
    differs = ((before - after).abs().amax(-1) > 1e-6).all(0)
    assert differs.nonzero().flatten().tolist() == [3, 4, 5, 6, 7]


def test_activations_are_what_their_names_say() -> None:
    torch.manual_seed(0)
    x = torch.randn(4, SMALL.n_embd)
    formulas: dict[Activation, Callable[[Tensor, Tensor], Tensor]] = {
        "relu2": lambda h, gate: h.clamp_min(0) ** 2,
        "gelu": lambda h, gate: h / (1 + torch.exp(-1.702 * h)),
        "swiglu": lambda h, gate: h * gate / (1 + torch.exp(-gate)),
    }
    for activation, formula in formulas.items():
        mlp = MLP(settings_with({"activation": activation, "d_ff": 40}))
        gate = mlp.gate if activation == "swiglu" else mlp.fc1
        wanted = formula(x @ mlp.fc1.weight.T, x @ gate.weight.T) @ mlp.fc2.weight.T
        torch.testing.assert_close(mlp(x), wanted, rtol=1e-4, atol=1e-6)


# From h_pre to the logits


def test_h_post_is_the_projection_of_the_normed_h_pre() -> None:
    tokens, _ = drawn(SMALL)
    projected, residual, bare = (
        awake(settings_with(changes))
        for changes in ({}, {"output_projection_residual": True}, {"use_output_projection": False})
    )
    for gpt in (residual, bare):
        gpt.load_state_dict(projected.state_dict(), strict=False)
    with torch.no_grad():
        (h_pre, h_post), (_, with_residual), (_, without) = (m.hidden(tokens) for m in (projected, residual, bare))
    torch.testing.assert_close(h_pre.square().mean(-1), torch.ones(tokens.shape))
    torch.testing.assert_close(h_post, h_pre @ projected.output_projection.weight.T)
    torch.testing.assert_close(with_residual, h_pre + h_post)
    assert torch.equal(without, h_pre)
    torch.testing.assert_close(projected.logits(h_post), h_post @ projected.wte.weight.T)


@pytest.mark.parametrize("n_embd", [32, 512])
def test_a_tied_and_projected_head_is_exactly_an_untied_one(n_embd: int) -> None:
    tied = awake(settings_with({"n_embd": n_embd}))
    untied = GPT(settings_with({**UNTIED, "n_embd": n_embd}))
    weights = {name: tensor for name, tensor in tied.state_dict().items() if name.split(".")[0] in ("wte", "blocks")}
    tokens, _ = drawn(SMALL)
    with torch.no_grad():
        weights["lm_head.weight"] = tied.wte.weight @ tied.output_projection.weight
        untied.load_state_dict(weights)
        wanted, exported = (gpt.logits(gpt.hidden(tokens)[1]) for gpt in (tied, untied))
    assert deviation(exported, wanted) < 1e-5


def test_bf16_stays_close_to_fp32() -> None:
    tokens, targets = drawn(SMALL)
    exact, rounded = (awake(SMALL, dtype)(tokens, targets, CONFIDENCE) for dtype in (torch.float32, torch.bfloat16))
    assert all(part.dtype == torch.float32 for part in rounded)
    torch.testing.assert_close(rounded.cross_entropy, exact.cross_entropy, rtol=0.01, atol=0)
    torch.testing.assert_close(rounded.confidence, exact.confidence, rtol=0.05, atol=0)


# The head

VOCAB_SIZE, WIDTH = 320, 24


@pytest.fixture
def chunks_of_16(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(head.CHUNK_LOGITS, "cpu", 16 * VOCAB_SIZE)


def head_input(n_tokens: int) -> tuple[Tensor, Tensor, Tensor]:
    """Returns h_post (N, C) and weight (V, C), which want gradients, and targets (N,)."""
    generator = torch.Generator().manual_seed(n_tokens)
    h_post = torch.randn(n_tokens, WIDTH, generator=generator).requires_grad_()
    weight = (0.3 * torch.randn(VOCAB_SIZE, WIDTH, generator=generator)).requires_grad_()
    return h_post, weight, torch.randint(VOCAB_SIZE, (n_tokens,), generator=generator)


def plain_cross_entropy(h_post: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
    return F.cross_entropy(F.linear(h_post, weight.to(h_post.dtype)).float(), targets)


@pytest.mark.usefixtures("chunks_of_16")
@pytest.mark.parametrize("scale", [1.0, 0.37, 1024.0])
@pytest.mark.parametrize("n_tokens", [1, 15, 16, 17, 64, 101])
def test_chunked_cross_entropy_is_the_plain_one(n_tokens: int, scale: float) -> None:
    h_post, weight, targets = head_input(n_tokens)
    losses = [cross_entropy(h_post, weight, targets) for cross_entropy in (chunked_cross_entropy, plain_cross_entropy)]
    ours, plain = (torch.autograd.grad(loss * scale, (h_post, weight)) for loss in losses)
    torch.testing.assert_close(losses[0], losses[1], rtol=0, atol=1e-6)
    for gradient, wanted in zip(ours, plain, strict=True):
        torch.testing.assert_close(gradient / scale, wanted / scale, rtol=0, atol=1e-6)
        assert deviation(gradient, wanted) < 1e-6


def test_chunked_cross_entropy_rounds_no_more_than_the_plain_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(head.CHUNK_LOGITS, "cpu", 256 * VOCAB_SIZE)
    exact, weight, targets = head_input(1024)  # a power of two, so that dividing by it rounds nothing
    h_post, rounded = (x.detach().bfloat16().requires_grad_() for x in (exact, weight))

    def results(cross_entropy: Callable[..., Tensor], h_post: Tensor, weight: Tensor) -> list[Tensor]:
        loss = cross_entropy(h_post, weight, targets)
        return [loss, *torch.autograd.grad(loss, (h_post, weight))]

    truth = results(plain_cross_entropy, h_post.float(), rounded.float())
    ours, plain = (
        [deviation(value, wanted) for value, wanted in zip(results(found, h_post, weight), truth, strict=True)]
        for found in (chunked_cross_entropy, plain_cross_entropy)
    )
    assert all(one <= 1.05 * other for one, other in zip(ours, plain, strict=True)), (ours, plain)


class LargestTensor(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notes how many numbers the largest tensor holds that anything makes, and how many matrix products there are."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.numel = self.n_products = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        self.n_products += func is torch.ops.aten.mm.default
        for tensor in result if isinstance(result, (tuple, list)) else [result]:
            self.numel = max(self.numel, tensor.numel() if isinstance(tensor, Tensor) else 0)
        return result


@pytest.mark.usefixtures("chunks_of_16")
def test_the_logits_of_all_tokens_never_exist() -> None:
    h_post, weight, targets = head_input(256)
    with LargestTensor() as training:
        torch.autograd.grad(chunked_cross_entropy(h_post, weight, targets), (h_post, weight))
    with LargestTensor() as reading, torch.no_grad():
        loss = chunked_cross_entropy(h_post, weight, targets)
        token_statistics(h_post, weight, targets)
    largest = max(16 * VOCAB_SIZE, VOCAB_SIZE * WIDTH)
    assert training.numel == reading.numel == largest < 256 * VOCAB_SIZE / 10
    assert training.n_products == 3 * 16 and reading.n_products == 2 * 16  # 16 chunks; no gradients unless asked for
    torch.testing.assert_close(loss, plain_cross_entropy(h_post, weight, targets))


@pytest.mark.usefixtures("chunks_of_16")
@pytest.mark.parametrize("n_tokens", [1, 16, 101])
def test_token_statistics_are_those_of_the_plain_softmax(n_tokens: int) -> None:
    h_post, weight, targets = head_input(n_tokens)
    targets[::2] = (h_post @ weight.T).argmax(-1)[::2]
    logits = h_post @ weight.T
    nll, max_softmax, is_right = token_statistics(h_post, weight, targets)
    torch.testing.assert_close(nll, F.cross_entropy(logits, targets, reduction="none"))
    torch.testing.assert_close(max_softmax, logits.softmax(-1).amax(-1))
    assert torch.equal(is_right, logits.argmax(-1) == targets) and is_right[::2].all()


# Confidence


def losses_of(gpt: GPT, confidence: ConfidenceSettings = CONFIDENCE) -> Losses:
    losses: Losses = gpt(*drawn(gpt.settings), confidence)
    return losses


def test_the_target_is_a_cosine_and_passes_no_gradient() -> None:
    gpt = awake(SMALL)
    tokens, targets = drawn(SMALL)
    losses = losses_of(gpt)
    found = gradients(gpt, losses.confidence)

    h_pre, h_post = gpt.hidden(tokens)
    h_exp = gpt.wte.weight[targets]
    cosine = (h_post * h_exp).sum(-1) / h_post.norm(dim=-1) / h_exp.norm(dim=-1)
    torch.testing.assert_close(cosine_target(h_post, h_exp), cosine)
    torch.testing.assert_close(losses.target_mean, cosine.mean())
    torch.testing.assert_close(losses.target_std, cosine.std())
    error = h_pre @ gpt.confidence_head.weight[0] - cosine.detach()
    wanted = gradients(gpt, error.square().mean())
    for name, gradient in wanted.items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-4, atol=1e-7, msg=name)
    assert not found["output_projection.weight"].any() and found["wte.weight"].any()


@pytest.mark.parametrize("trunk_gradient", [True, False])
def test_the_confidence_loss_reaches_the_trunk_only_where_it_may(trunk_gradient: bool) -> None:
    gpt = awake(SMALL)
    losses = losses_of(gpt, CONFIDENCE.model_copy(update={"trunk_gradient": trunk_gradient}))
    both = gradients(gpt, losses.cross_entropy + losses.confidence)
    alone = gradients(gpt, losses_of(gpt).cross_entropy)
    assert both["confidence_head.weight"].any() and not alone["confidence_head.weight"].any()
    trunk = [name for name in alone if name.startswith(("wte", "blocks"))]
    assert all(torch.equal(both[name], alone[name]) for name in trunk) != trunk_gradient


def test_a_model_without_confidence_has_the_same_cross_entropy() -> None:
    gpt = awake(SMALL)
    without = GPT(settings_with({"use_confidence": False}))
    without.load_state_dict({name: t for name, t in gpt.state_dict().items() if name != "confidence_head.weight"})
    with_head, alone = losses_of(gpt), losses_of(without)
    assert torch.equal(with_head.cross_entropy, alone.cross_entropy)
    assert [float(part) for part in alone[1:]] == [0, 0, 0]


def test_the_confidence_head_learns() -> None:
    gpt = awake(SMALL)
    optimizer = torch.optim.AdamW(gpt.parameters(), 3e-3, weight_decay=0)
    first = float(losses_of(gpt).confidence.detach())
    for _ in range(40):
        losses = losses_of(gpt)
        torch.autograd.backward(losses.cross_entropy + 0.1 * losses.confidence)
        optimizer.step()
        optimizer.zero_grad()
    assert float(losses_of(gpt).confidence.detach()) < 0.1 * first


def test_the_weight_of_the_confidence_loss_rises_and_stays() -> None:
    settings = CONFIDENCE.model_copy(update={"loss_weight": 0.2, "warmup_steps": 4})
    assert [loss_weight(step, settings) for step in (0, 1, 2, 4, 400)] == pytest.approx([0, 0.05, 0.1, 0.2, 0.2])
    assert loss_weight(0, settings.model_copy(update={"warmup_steps": 0})) == 0.2


# Compilation


@pytest.fixture
def compiled_anew() -> Iterator[None]:
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


@pytest.mark.usefixtures("compiled_anew")
@pytest.mark.parametrize(
    ("backend", "changes"),
    [
        ("aot_eager", {}),
        pytest.param("inductor", {}, marks=pytest.mark.slow),
        pytest.param("inductor", {**WINDOWED, "activation": "swiglu", "qk_norm": "layer"}, marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_compiled_in_one_graph_the_model_is_the_same(backend: str, changes: dict[str, Any]) -> None:
    gpt = awake(settings_with(changes))
    batch = drawn(gpt.settings)
    eager: Losses = gpt(*batch, CONFIDENCE)
    wanted = gradients(gpt, eager.cross_entropy + eager.confidence)
    losses: Losses = torch.compile(gpt, backend=backend, fullgraph=True)(*batch, CONFIDENCE)
    found = gradients(gpt, losses.cross_entropy + losses.confidence)
    torch.testing.assert_close(tuple(losses), tuple(eager), rtol=1e-5, atol=1e-6)
    assert all(deviation(found[name], wanted[name]) < 1e-4 for name in wanted)
