"""Evaluation and generation: figures against slow versions, and the two commands on a run's folder."""

import json
import math
import re
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
import torch.nn.functional as F
import yaml
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer
from torch import Tensor

from shared.console import UserError
from shared.files import sha256_file
from shared.manifest import read_manifest, shard_paths
from shared.metrics import Unmeasurable, auroc, brier, ece, r, r2
from shared.schema import PARTS
from tests.conftest import ROOT, Mix, run_module
from training import evaluation
from training.batches import Batches
from training.checkpoint import save_checkpoint
from training.distributed import Place
from training.evaluate import main as evaluate_main
from training.evaluation import HeldOut, evaluate, grade_bands, look
from training.generate import main as generate_main
from training.generate import over_figures, running_text, wrapped
from training.model import GPT
from training.run_folder import TrainedRun, open_run
from training.sampling import BYTE_OF, Continuation, Token, continue_tokens, pieces, samples
from training.settings import ConfidenceSettings, ModelSettings, TokenizerSettings
from training.token_shards import TokenShard, ensure_token_shards
from training.tokenizer import BOS_ID, encode_document, load_tokenizer, save_tokenizer, train_tokenizer

CPU = torch.device("cpu")
CONFIDENCE = ConfidenceSettings()
SHAPE: dict[str, Any] = {"n_layer": 2, "n_embd": 32, "head_dim": 16, "sequence_length": 48}


class SmallRun(NamedTuple):
    """A run's folder as training leaves it, and what it was made from."""

    folder: Path
    manifest: Path
    val: list[TokenShard]

    def open(self) -> TrainedRun:
        return open_run(self.folder, CPU)

    def copied_to(self, folder: Path) -> Path:
        return Path(shutil.copytree(self.folder, folder))


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Threads only wait for each other on models as small as these."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def run(starter_mix: Mix, tmp_path_factory: pytest.TempPathFactory) -> SmallRun:
    """Returns a run whose model a plain loop trained for a few steps on the starter mix."""
    path, folder = starter_mix.manifest(), tmp_path_factory.mktemp("runs") / "small"
    manifest, tokenizer = read_manifest(path), folder / "tokenizer.json"
    save_tokenizer(train_tokenizer(shard_paths(path, manifest)["train"], 600, TokenizerSettings()), tokenizer)
    shards = ensure_token_shards(path, manifest, tokenizer, starter_mix.data)
    shape = ModelSettings(vocab_size=load_tokenizer(tokenizer).get_vocab_size(), **SHAPE)
    model = GPT(shape).initialize(0)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    batches = Batches(shards["train"], shape.sequence_length, 16, seed=0)
    for step in range(60):
        losses = model(*batches.batch(step), CONFIDENCE)
        optimizer.zero_grad()
        (losses.cross_entropy + losses.confidence).backward()
        optimizer.step()
    recorded = {
        "manifest": str(path),
        "manifest_sha256": sha256_file(path),
        "tokenizer_sha256": sha256_file(tokenizer),
        "data_dir": str(starter_mix.data),
        "settings": {
            "preset": "small",
            "model": shape.model_dump(),
            "recipe": {"batch_tokens": shape.sequence_length, "confidence": CONFIDENCE.model_dump()},
        },
    }
    (folder / "settings.yaml").write_text(yaml.safe_dump(recorded))
    _save(folder, {"step": 60, "val": None, **recorded}, model)
    return SmallRun(folder, path, shards["val"])


def _save(folder: Path, state: dict[str, Any], model: GPT) -> None:
    save_checkpoint(folder / "checkpoints", state, model=model.state_dict(), optimizer={}, rng={}, best_by="val/bpb")


def _random_model(**changes: Any) -> GPT:
    """Returns a model in which every part has an effect; the initial one's sublayers begin at zero."""
    model = GPT(ModelSettings(**{"vocab_size": 300, **SHAPE, "sequence_length": 16, **changes}))
    generator = torch.Generator().manual_seed(1)
    for parameter in model.parameters():
        parameter.data.normal_(0, 0.3, generator=generator)
    return model


# Figures of calibration


@given(st.lists(st.tuples(st.integers(-3, 3), st.booleans()), min_size=1, max_size=40))
def test_auroc_is_the_share_of_pairs_in_the_right_order(pairs: list[tuple[int, bool]]) -> None:
    confidence, is_right = np.array([c / 3 for c, _ in pairs]), np.array([right for _, right in pairs])
    won = [
        1.0 if high > low else 0.5 if high == low else 0.0
        for high in confidence[is_right]
        for low in confidence[~is_right]
    ]
    if won:
        assert auroc(confidence, is_right) == pytest.approx(sum(won) / len(won), abs=1e-12)
    else:
        with pytest.raises(Unmeasurable, match="every one is"):
            auroc(confidence, is_right)


def test_ece_and_brier_of_a_hand_example() -> None:
    # Bins of 1/15: 0.01 and 1/15 share the first, 0.5 is alone in the eighth, 1.2 counts as 1 in the last.
    confidence = np.array([0.01, 1 / 15, 0.5, 1.2])
    is_right = np.array([False, True, True, True])
    assert ece(confidence, is_right, n_bins=15) == pytest.approx((abs(0.01 + 1 / 15 - 1) + 0.5 + 0) / 4)
    assert brier(confidence, is_right) == pytest.approx((0.01**2 + (14 / 15) ** 2 + 0.25 + 0) / 4)


def test_ece_of_calibrated_draws_is_small() -> None:
    random = np.random.default_rng(0)
    confidence = random.random(100_000)
    is_right = random.random(100_000) < confidence
    assert ece(confidence, is_right) < 0.01
    assert ece(confidence, ~is_right) == pytest.approx(0.5, abs=0.01)


def test_r_and_r2_are_numpys() -> None:
    random = np.random.default_rng(0)
    target = random.normal(size=1000)
    predicted = 0.5 * target + random.normal(size=1000) + 0.1
    assert r(predicted, target) == pytest.approx(np.corrcoef(predicted, target)[0, 1])
    residual, total = ((target - predicted) ** 2).sum(), ((target - target.mean()) ** 2).sum()
    assert r2(predicted, target) == pytest.approx(1 - residual / total)
    assert r2(np.full(1000, target.mean()), target) == pytest.approx(0)
    with pytest.raises(Unmeasurable, match="never changes"):
        r(np.full(1000, 0.1), target)
    with pytest.raises(Unmeasurable, match="not finite"):
        r(predicted, np.full(1000, np.nan))


# Evaluation


@torch.no_grad()
def _read_slowly(run: SmallRun) -> dict[str, list[Any]]:
    """Returns, by name, what the model makes of each held-out token: each document alone, a window at a time."""
    model = run.open().model
    columns: dict[str, list[Any]] = {name: [] for name in ("part", "nll", "max", "right", "o_conf", "target")}
    for shard in run.val:
        for part, start, end in zip(shard.column("part"), shard.starts[:-1], shard.starts[1:], strict=True):
            document = torch.from_numpy(shard.tokens[start:end].astype(np.int64))
            for first in range(0, len(document) - 1, SHAPE["sequence_length"]):
                window = document[first : first + SHAPE["sequence_length"] + 1]
                h_pre, h_post = (h[0] for h in model.hidden(window[None, :-1]))
                p, t_exp = (h_post @ model.wte.weight.T).softmax(-1), window[1:]
                columns["part"] += [part] * len(t_exp)
                columns["nll"] += (-p.gather(1, t_exp[:, None]).squeeze(1).log()).tolist()
                columns["max"] += p.amax(-1).tolist()
                columns["right"] += (p.argmax(-1) == t_exp).tolist()
                columns["o_conf"] += model.o_conf(h_pre).tolist()
                columns["target"] += F.cosine_similarity(h_post, model.wte.weight[t_exp], dim=-1).tolist()
    return columns


@pytest.fixture(scope="module")
def tokenizer(run: SmallRun) -> Tokenizer:
    return run.open().tokenizer


@pytest.fixture(scope="module")
def answer(run: SmallRun) -> dict[str, Any]:
    trained = run.open()
    return evaluate(trained.model, trained.confidence, HeldOut(run.val, SHAPE["sequence_length"], CPU))


def test_evaluation_equals_a_slow_one(run: SmallRun, answer: dict[str, Any]) -> None:
    columns = {name: np.array(values) for name, values in _read_slowly(run).items()}
    val = [
        row
        for path in shard_paths(run.manifest, read_manifest(run.manifest))["val"]
        for row in pq.read_table(path).to_pylist()
    ]
    for part in ("all", *PARTS):
        mine = (columns["part"] == part) | (part == "all")
        nll, top, right, o_conf, target = (columns[name][mine] for name in ("nll", "max", "right", "o_conf", "target"))
        n_bytes = sum(len(row["text"].encode()) for row in val if part in ("all", row["part"]))
        assert answer["bpb"][part] == pytest.approx(nll.sum() / math.log(2) / n_bytes, rel=1e-5)
        assert answer["loss"][part] == pytest.approx(nll.mean(), rel=1e-5)
        assert answer["accuracy"][part] == pytest.approx(right.mean())
        assert answer["auroc"]["max_softmax"][part] == pytest.approx(auroc(top, right), rel=1e-3)
        assert answer["auroc"]["o_conf"][part] == pytest.approx(auroc(o_conf, right), rel=1e-3)
        assert answer["confidence"]["r"][part] == pytest.approx(np.corrcoef(o_conf, target)[0, 1], rel=1e-3)
        assert answer["confidence"]["target_mean"][part] == pytest.approx(target.mean(), rel=1e-4)
    assert answer["n_docs"] == len(val)
    assert answer["n_tokens"] == len(columns["nll"])
    assert answer["reasons"] == {}


def test_groups_add_up(answer: dict[str, Any]) -> None:
    bits = answer["bpb"]["all"] * answer["n_bytes"]
    for by in ("by_source", "by_grade"):
        rows = answer[by].values()
        assert sum(row["bpb"] * row["n_bytes"] for row in rows) == pytest.approx(bits)
        for name in ("n_docs", "n_tokens", "n_bytes"):
            assert sum(row[name] for row in rows) == answer[name] == sum(p[name] for p in answer["by_part"].values())


def test_grade_bands_are_those_of_composition() -> None:
    grades = np.array([-1.0, 0.49, 0.5, 2.49, 2.5, 3.49, 12.49, 12.5, 40.0, np.nan])
    assert grade_bands(grades).tolist() == ["K", "K", "1", "2", "3", "3", "12", "13+", "13+", "ungraded"]


def test_windows_share_a_batch_with_their_like(run: SmallRun) -> None:
    held_out = HeldOut(run.val, SHAPE["sequence_length"], CPU)
    assert sorted(np.concatenate(held_out.batches)) == list(range(len(held_out.windows.length)))
    sizes = [len(batch) * held_out.windows.length[batch].max() for batch in held_out.batches]
    assert max(sizes) <= evaluation.BATCH_TOKENS["cpu"]
    assert 0 <= held_out.padding < 0.05
    assert held_out.padding == pytest.approx(1 - held_out.windows.length.sum() / sum(sizes))


def _look(held_out: HeldOut, trained: TrainedRun, place: Place | None = None) -> dict[str, float | None]:
    figures = look(trained.model, trained.confidence, held_out, place or Place(CPU), lambda: False)
    assert figures is not None
    return figures


def test_a_look_at_everything_tells_what_evaluation_tells(run: SmallRun, answer: dict[str, Any]) -> None:
    assert _look(HeldOut(run.val, SHAPE["sequence_length"], CPU), run.open()) == {
        "val/bpb": pytest.approx(answer["bpb"]["all"]),
        "val/bpb_grade3": pytest.approx(answer["bpb"]["grade3"]),
        "val/bpb_all_ages": pytest.approx(answer["bpb"]["all_ages"]),
        "val/loss": pytest.approx(answer["loss"]["all"]),
        "val/accuracy": pytest.approx(answer["accuracy"]["all"]),
        "val/confidence_r": pytest.approx(answer["confidence"]["r"]["all"]),
    }


def test_a_short_look_reads_the_same_documents_each_time(run: SmallRun) -> None:
    held_out = HeldOut(run.val, SHAPE["sequence_length"], CPU, max_tokens_per_part=300)
    assert held_out.windows.length.sum() < 1500
    assert _look(held_out, run.open()) == _look(
        HeldOut(run.val, SHAPE["sequence_length"], CPU, max_tokens_per_part=300), run.open()
    )


def test_processes_share_a_look(run: SmallRun, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluation, "BATCH_TOKENS", {"cpu": 200})
    held_out, trained = HeldOut(run.val, SHAPE["sequence_length"], CPU), run.open()
    alone = _look(held_out, trained)
    sums: list[Tensor] = []

    def summed(own: Tensor, place: Place) -> Tensor:
        sums.append(own)
        return sum(sums, torch.zeros_like(own))

    monkeypatch.setattr(evaluation, "sum_ranks", summed)
    asked = [0, 0, 0]
    for rank in range(3):

        def stopped(rank: int = rank) -> bool:
            asked[rank] += 1
            return False

        figures = look(trained.model, trained.confidence, held_out, Place(CPU, rank, 3), stopped)
    assert asked == [math.ceil(len(held_out.batches) / 3)] * 3
    assert figures is not None
    assert list(figures.values()) == pytest.approx(list(alone.values()), rel=1e-9)


def test_a_look_that_is_stopped_tells_nothing(run: SmallRun, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluation, "BATCH_TOKENS", {"cpu": 200})
    held_out, trained = HeldOut(run.val, SHAPE["sequence_length"], CPU), run.open()
    answers = iter([False, True])
    assert look(trained.model, CONFIDENCE, held_out, Place(CPU), lambda: next(answers)) is None


def _empty_places(value: Any, place: str = "") -> list[str]:
    if isinstance(value, dict):
        return [found for key, inner in value.items() for found in _empty_places(inner, f"{place}.{key}")]
    return [place.removeprefix(".")] if value is None else []


@pytest.mark.parametrize("case", ["no head", "one part", "diverged"])
def test_what_cannot_be_measured_has_its_reason(case: str, run: SmallRun) -> None:
    trained = run.open()
    held_out = HeldOut(run.val, SHAPE["sequence_length"], CPU)
    model = trained.model
    if case == "no head":
        model = GPT(model.settings.model_copy(update={"use_confidence": False})).initialize(0)
    elif case == "one part":
        held_out.part = np.full_like(held_out.part, "all_ages")
    else:
        model.wte.weight.data.fill_(math.nan)
    answer = evaluate(model, CONFIDENCE, held_out)
    json.dumps(answer, allow_nan=False)
    empty, reasons = _empty_places(answer), answer["reasons"]
    assert empty
    assert [place for place in empty if not any(f"{place}.".startswith(f"{known}.") for known in reasons)] == []
    figures = _look(held_out, TrainedRun(**{**vars(trained), "model": model}))
    json.dumps(figures, allow_nan=False)
    if case == "no head":
        assert {place.split(".")[1] for place in empty if not place.startswith("confidence")} == {"o_conf"}
        assert figures["val/confidence_r"] is None
    elif case == "one part":
        assert answer["bpb"]["grade3"] is figures["val/bpb_grade3"] is None
        assert answer["bpb"]["all_ages"] == answer["bpb"]["all"]
    else:
        assert figures["val/bpb"] is figures["val/loss"] is None


def test_an_empty_held_out_set_is_refused() -> None:
    with pytest.raises(UserError, match="no held-out text"):
        HeldOut([], 16, CPU)


# Generation


@torch.no_grad()
def _continue_slowly(model: GPT, prompt: Sequence[int], n_tokens: int, temperature: float, top_k: int) -> Continuation:
    """Returns what continue_tokens returns, with seed 0, from the whole context at every token."""
    generator, context = torch.Generator().manual_seed(0), list(prompt)
    tokens: list[Token] = []
    for _ in range(n_tokens):
        if len(context) > model.settings.sequence_length:
            context = context[-(model.settings.sequence_length // 2) :]
        h_pre, h_post = model.hidden(torch.tensor([context]))
        logits = model.logits(h_post)[0, -1]
        if temperature == 0:
            chosen = int(logits.argmax())
        else:
            kept, ids = logits.topk(top_k)
            chosen = int(ids[torch.multinomial((kept / temperature).softmax(-1), 1, generator=generator)])
        if chosen == BOS_ID:
            return Continuation(tokens, True)
        o_conf = float(model.o_conf(h_pre[0, -1])) if model.settings.use_confidence else None
        tokens.append(Token(chosen, float(logits.softmax(-1)[chosen]), o_conf))
        context.append(chosen)
    return Continuation(tokens, False)


SHAPES: dict[str, dict[str, Any]] = {
    "default": {},
    "windows": {"window_pattern": "alternating", "window_size": 5},
    "shared keys": {"n_kv_head": 1},
    "untied": {"tie_weights": False, "use_output_projection": False, "use_confidence": False},
}


@pytest.mark.parametrize("temperature", [0, 0.9])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("n_prompt", [1, 9, 16, 40])
def test_the_cache_changes_nothing(shape: str, temperature: float, n_prompt: int) -> None:
    model = _random_model(**SHAPES[shape])
    prompt = [BOS_ID, *range(5, 4 + n_prompt)]
    slow = _continue_slowly(model, prompt, 60, temperature, 20)
    fast = continue_tokens(model, prompt, 60, temperature, 20, seed=0)
    assert [token.id for token in fast.tokens] == [token.id for token in slow.tokens]
    assert fast.ended == slow.ended
    for mine, theirs in zip(fast.tokens, slow.tokens, strict=True):
        assert mine.probability == pytest.approx(theirs.probability, rel=1e-4)
        assert mine.o_conf == pytest.approx(theirs.o_conf, abs=1e-4)


def test_a_seed_decides_the_draws_and_nothing_else_does(run: SmallRun) -> None:
    trained = run.open()
    torch.manual_seed(5)
    before = torch.get_rng_state()
    texts = [samples(trained.model, trained.tokenizer, ["Once", ""], 20, seed) for seed in (1, 1, 2)]
    assert torch.equal(torch.get_rng_state(), before)
    assert texts[0] == texts[1] != texts[2]
    assert texts[0][0].startswith("Once")
    assert continue_tokens(trained.model, [BOS_ID], 20, 1.0, top_k=1, seed=3) == continue_tokens(
        trained.model, [BOS_ID], 20, temperature=0
    )


def test_a_document_ends_at_bos(run: SmallRun, monkeypatch: pytest.MonkeyPatch) -> None:
    model = run.open().model
    monkeypatch.setattr(model, "logits", lambda h_post: -torch.arange(600.0))
    assert continue_tokens(model, [BOS_ID, 7], 5, temperature=0) == Continuation([], ended=True)
    assert continue_tokens(model, [BOS_ID, 7], 5, top_k=1) == Continuation([], ended=True)


@given(st.text(max_size=30), st.binary(max_size=30))
def test_pieces_are_the_text_whatever_the_bytes(tokenizer: Tokenizer, text: str, raw: bytes) -> None:
    assert "".join(pieces(tokenizer, encode_document(tokenizer, text)[1:])) == text
    vocabulary, char_of = tokenizer.get_vocab(), {byte: char for char, byte in BYTE_OF.items()}
    found = pieces(tokenizer, [vocabulary[char_of[byte]] for byte in raw])
    assert "".join(found) == raw.decode("utf-8", "replace")
    assert len(found) == len(raw)


@given(st.text("ab  \n", max_size=60), st.integers(1, 12))
def test_wrapping_only_turns_spaces_into_line_breaks(text: str, width: int) -> None:
    lines = wrapped(text, width)
    assert len(lines) == len(text)
    assert lines.replace("\n", " ") == text.replace("\n", " ")
    assert all(len(line.rstrip()) <= width or " " not in line.strip() for line in lines.split("\n"))


def test_the_page_shows_what_the_model_was_unsure_of() -> None:
    added = [" the", "re", "\n", "", "\u00e9", "\x1b[2J"]
    tokens = [Token(1, p, o) for p, o in ((0.5, 0.9), (1.0, -0.25), (0.004, 0.5), (0.2, 0.4), (0.3, 0.6), (0.3, 0.7))]
    page = over_figures("Hello", added, tokens, {1}, 80)
    assert page.splitlines() == [
        "        the +re  \\n  ... \u00e9   \\x1b[2J",
        "p       .50 1.00 .00 .20 .30 .30",
        "o_conf  .90 -.25 .50 .40 .60 .70",
        "            ^^^",
    ]
    plain = [Token(1, 0.5, None)] * 40
    lines = over_figures("", [" word"] * 40, plain, set(), 60).splitlines()
    assert max(map(len, lines)) <= 60
    assert not any(line.startswith("o_conf") for line in lines)
    assert running_text("Hello", added, {1}, None, has_colour=False) == "Hello there\n\u00e9\ufffd[2J"
    assert (
        re.sub("\x1b[^m]*m", "", running_text("Hello", added, {1}, 80, has_colour=True))
        == "Hello there\n\u00e9\ufffd[2J"
    )


# Commands


Command = Callable[..., tuple[str, str]]  # stdout and stderr


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """Returns a function that runs a command's main in this process, for want of seconds to import torch anew."""

    def run_main(main: Callable[[], None], *args: object) -> tuple[str, str]:
        monkeypatch.setattr(sys, "argv", ["command", *map(str, args)])
        main()
        return capsys.readouterr()

    return run_main


def test_evaluate_prints_and_writes_the_same_figures(
    run: SmallRun, answer: dict[str, Any], tmp_path: Path, command: Command
) -> None:
    folder = run.copied_to(tmp_path / "small")
    done = run_module("training.evaluate", folder, "--json", "--device", "cpu")
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told == json.loads((folder / "evaluation.json").read_text())
    assert told == {
        "run": "small",
        "step": 60,
        "checkpoint": "step-00000060",
        "manifest": "mix70",
        "manifest_sha256": sha256_file(run.manifest),
        **json.loads(json.dumps(answer)),
    }
    tables, _ = command(evaluate_main, folder, "--device", "cpu")
    for figure in (told["bpb"]["grade3"], told["auroc"]["o_conf"]["all"], told["ece"]["max_softmax"]["all_ages"]):
        assert f"{figure:.4f}" in tables


def test_generate_says_the_same_to_people_and_scripts(run: SmallRun, command: Command) -> None:
    args = (run.folder, "--prompt", "The moon", "--tokens", 30, "--seed", 3, "--device", "cpu")
    told = json.loads(command(generate_main, *args, "--json")[0])
    assert told["text"] == "The moon" + "".join(token["text"] for token in told["tokens"])
    assert len(told["tokens"]) == 30 or told["ended"]
    assert all(0 < token["probability"] <= 1 for token in told["tokens"])
    page, _ = command(generate_main, *args)
    assert page.startswith(told["text"])
    assert "\x1b" not in page
    done = run_module("training.generate", *args)
    assert (done.returncode, done.stdout) == (0, page)


def test_generate_begins_a_document_without_a_prompt(run: SmallRun, command: Command) -> None:
    args = (run.folder, "--temperature", 0, "--tokens", 5, "--json", "--device", "cpu")
    told = json.loads(command(generate_main, *args)[0])
    assert told["text"]
    assert told["tokens"][0]["id"] == continue_tokens(run.open().model, [BOS_ID], 1, temperature=0).tokens[0].id


def test_generate_tells_of_a_prompt_that_is_too_long(run: SmallRun, command: Command) -> None:
    _, told = command(generate_main, run.folder, "--prompt", "zebra " * 40, "--tokens", 2, "--device", "cpu")
    assert "more than the model's 48" in told


def _no_tokenizer(folder: Path, run: SmallRun) -> None:
    (folder / "tokenizer.json").unlink()


def _other_tokenizer(folder: Path, run: SmallRun) -> None:
    (folder / "tokenizer.json").write_text((folder / "tokenizer.json").read_text() + "\n")


def _no_checkpoint(folder: Path, run: SmallRun) -> None:
    shutil.rmtree(folder / "checkpoints")


def _damaged_checkpoint(folder: Path, run: SmallRun) -> None:
    weights = folder / "checkpoints" / "step-00000060" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])


def _no_settings(folder: Path, run: SmallRun) -> None:
    (folder / "settings.yaml").unlink()
    run.copied_to(folder.with_name("runn"))


def _half_settings(folder: Path, run: SmallRun) -> None:
    (folder / "settings.yaml").write_text("manifest: data_manifests/mix70.json\n")


@pytest.mark.parametrize(
    ("harm", "told"),
    [
        (_no_tokenizer, r"tokenizer\.json not found"),
        (_other_tokenizer, r"tokenizer\.json is not the tokenizer the run was trained with"),
        (_no_checkpoint, r"run has no checkpoint yet"),
        (_damaged_checkpoint, r"checkpoints are damaged"),
        (_no_settings, r"run is not the folder of a run: settings\.yaml is missing.*did you mean runn\?"),
        (_half_settings, r"settings\.yaml: manifest_sha256 is required"),
    ],
)
def test_a_harmed_run_is_told_with_its_repair(harm: Any, told: str, run: SmallRun, tmp_path: Path) -> None:
    folder = run.copied_to(tmp_path / "run")
    harm(folder, run)
    with pytest.raises(UserError) as raised:
        open_run(folder, CPU)
    assert raised.value.hint
    assert re.search(told, f"{raised.value.message} {raised.value.hint}")


def test_an_edited_manifest_is_refused(run: SmallRun, tmp_path: Path, command: Command) -> None:
    folder, manifest = run.copied_to(tmp_path / "run"), tmp_path / "mix70.json"
    manifest.write_text(run.manifest.read_text() + "\n")
    recorded = yaml.safe_load((folder / "settings.yaml").read_text())
    (folder / "settings.yaml").write_text(yaml.safe_dump({**recorded, "manifest": str(manifest)}))
    with pytest.raises(UserError, match="is not the manifest that"):
        command(evaluate_main, folder)
    manifest.unlink()
    with pytest.raises(UserError, match=f"{manifest}, which .* was trained on, is not found"):
        command(evaluate_main, folder)
    assert not (folder / "evaluation.json").exists()


def test_a_run_that_is_not_there_is_told_with_its_neighbour(run: SmallRun) -> None:
    with pytest.raises(UserError, match="smal is not the folder of a run") as raised:
        open_run(run.folder.with_name("smal"), CPU)
    assert raised.value.hint == "did you mean small?"


@pytest.mark.parametrize("module", ["training.evaluate", "training.generate"])
def test_help_comes_without_torch(module: str, tmp_path: Path) -> None:
    (tmp_path / "torch.py").write_text("raise RuntimeError('imported')\n")
    done = run_module(module, "--help", PYTHONPATH=f"{tmp_path}:{ROOT}")
    assert done.returncode == 0, done.stderr
    assert f"Example: python -m {module}" in done.stdout
