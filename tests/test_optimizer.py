"""Optimizer: every parameter in one group, AdamW as torch has it, Muon as a slow version has it, states that return."""

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from shared.settings import PIPELINES_FILE
from tests.conftest import run_module
from training.distributed import Place
from training.model import GPT
from training.optimizer import GROUPS, POLYNOMIALS, Optimizers, group_of, lr_factor, orthogonalized
from training.settings import ModelSettings, OptimizerSettings, RecipeSettings, read_training_file

HERE = Place(torch.device("cpu"))
PRESETS = read_training_file(PIPELINES_FILE).models
TIED = ModelSettings(vocab_size=300, n_layer=2, n_embd=32, head_dim=16, n_kv_head=1, qk_norm="layer")
UNTIED = TIED.model_copy(update={"tie_weights": False, "use_output_projection": False, "use_confidence": False})


@pytest.fixture(autouse=True)
def in_fp32(monkeypatch: pytest.MonkeyPatch) -> None:
    """Has Muon compute in fp32, for sharp comparisons."""
    monkeypatch.setattr("training.optimizer.multiplies_bf16_fast", lambda device: False)


def draw_gradients(model: nn.Module, step: int) -> None:
    generator = torch.Generator().manual_seed(step)
    for parameter in model.parameters():
        parameter.grad = torch.randn(parameter.shape, generator=generator) * 1e-3


def steps(model: nn.Module, optimizers: Optimizers, first: int, last: int) -> None:
    for step in range(first, last):
        draw_gradients(model, step)
        optimizers.step(1 / (step + 1), step)


# Groups


@pytest.mark.parametrize("preset", PRESETS)
def test_every_parameter_of_every_preset_is_in_one_group(preset: str) -> None:
    with torch.device("meta"):
        model = GPT(PRESETS[preset].model)
    for name, parameter in model.named_parameters():
        assert [group for group, pattern in GROUPS.items() if re.fullmatch(pattern, name)] == [group_of(name)]
        is_matrix = parameter.ndim == 2 and name.startswith(("blocks.", "output_projection."))
        assert (group_of(name) == "muon") == is_matrix, name


def test_a_parameter_that_fits_no_group_is_refused() -> None:
    with pytest.raises(ValueError, match=r"blocks\.0\.attention\.c_q\.bias"):
        group_of("blocks.0.attention.c_q.bias")
    model = GPT(TIED)
    model.extra = nn.Linear(3, 3)
    with pytest.raises(ValueError, match=r"extra\.weight"):
        Optimizers(model, OptimizerSettings(), HERE)


def test_learning_rates_follow_group_and_width() -> None:
    settings = OptimizerSettings()
    scale = (32 / 768) ** -0.5
    tied = Optimizers(GPT(TIED), settings, HERE).learning_rates(0.5)
    wanted = {"muon": 0.02, "wte": 0.01 * scale, "confidence": 0.004 * scale, "norms": 5e-4}
    assert tied == pytest.approx({group: rate / 2 for group, rate in wanted.items()})
    untied = Optimizers(GPT(UNTIED), settings, HERE).learning_rates(1.0)
    assert untied == pytest.approx({"muon": 0.02, "wte": 0.2 * scale, "lm_head": 0.004 * scale, "norms": 5e-4})
    unscaled = Optimizers(GPT(UNTIED), settings.model_copy(update={"scale_by_width": False}), HERE)
    assert unscaled.learning_rates(1.0) == pytest.approx({"muon": 0.02, "wte": 0.2, "lm_head": 0.004, "norms": 5e-4})


def test_gradient_norms_are_by_group() -> None:
    model = GPT(TIED)
    optimizers = Optimizers(model, OptimizerSettings(), HERE)
    draw_gradients(model, 0)
    norms = optimizers.gradient_norms()
    for group in optimizers.groups:
        gradients = [
            p.grad.flatten() for n, p in model.named_parameters() if group_of(n) == group and p.grad is not None
        ]
        assert norms[group] == pytest.approx(float(torch.cat(gradients).norm()), rel=1e-5)
    optimizers.zero_grad()
    assert all(parameter.grad is None for parameter in model.parameters())


def test_a_loss_scale_is_taken_out_again_and_a_step_that_overflowed_is_left_out() -> None:
    scaled, plain = (GPT(TIED).initialize(0) for _ in range(2))
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    ours, theirs = (Optimizers(model, OptimizerSettings(), HERE) for model in (scaled, plain))
    for factor in (1024.0, float("inf")):
        draw_gradients(plain, 0)
        for (name, parameter), its in zip(scaled.named_parameters(), plain.parameters(), strict=True):
            assert its.grad is not None, name
            parameter.grad = scaler.scale(its.grad) * (factor / 1024.0)
        scaler.unscale_(ours)  # type: ignore[arg-type]
        scaler.step(ours, 1.0, 0)  # type: ignore[arg-type]
        scaler.update()
    theirs.step(1.0, 0)
    for name, parameter in plain.named_parameters():
        assert torch.equal(parameter, scaled.get_parameter(name)), name


# AdamW


@pytest.mark.parametrize("model_settings", [TIED, UNTIED], ids=["tied", "untied"])
def test_adamw_groups_change_as_torch_changes_them(model_settings: ModelSettings) -> None:
    ours, theirs = (GPT(model_settings).initialize(0) for _ in range(2))
    settings = OptimizerSettings()
    optimizers = Optimizers(ours, settings, HERE)
    plain = {
        name: torch.optim.AdamW([parameter], betas=settings.betas, eps=settings.eps, weight_decay=0, fused=True)
        for name, parameter in theirs.named_parameters()
        if group_of(name) != "muon"
    }
    for step in range(20):
        for model in (ours, theirs):
            draw_gradients(model, step)
        factor = lr_factor(step, 20, RecipeSettings())
        optimizers.step(factor, step)
        for name, optimizer in plain.items():
            optimizer.param_groups[0]["lr"] = optimizers.learning_rates(factor)[group_of(name)]
            optimizer.step()
    for name in plain:
        assert torch.equal(ours.get_parameter(name), theirs.get_parameter(name)), name


# Muon


def slow_muon(weight: Tensor, gradients: list[Tensor], settings: OptimizerSettings) -> Tensor:
    """Muon for one matrix, step by step, as its paper and ours describe it."""
    momentum = torch.zeros_like(weight)
    for step, gradient in enumerate(gradients):
        mu = min(0.95, 0.85 + 0.10 * step / settings.muon_momentum_steps)
        momentum = mu * momentum + (1 - mu) * gradient
        direction = mu * momentum + (1 - mu) * gradient
        update = orthogonalized(direction[None], settings.muon_iterations, torch.float32)[0]
        update = update * max(1, weight.shape[0] / weight.shape[1]) ** 0.5
        lr = settings.muon_lr / (step + 1)
        decayed = (update * weight > 0) if settings.muon_cautious_decay else torch.ones_like(weight)
        weight = weight * (1 - lr * settings.muon_weight_decay * decayed) - lr * update
    return weight


@pytest.mark.parametrize(
    "changes",
    [
        {"muon_momentum_steps": 2},
        {"muon_iterations": 3},
        {"muon_weight_decay": 0.5},
        {"muon_weight_decay": 0.5, "muon_cautious_decay": True},
    ],
    ids=str,
)
def test_muon_changes_each_matrix_as_a_slow_version_does(changes: dict[str, float]) -> None:
    settings = OptimizerSettings(**changes)
    model = GPT(TIED).initialize(0)
    before = {name: p.detach().clone() for name, p in model.named_parameters() if group_of(name) == "muon"}
    gradients: dict[str, list[Tensor]] = {name: [] for name in before}
    optimizers = Optimizers(model, settings, HERE)
    for step in range(4):
        steps(model, optimizers, step, step + 1)
        for name in before:
            gradient = model.get_parameter(name).grad
            assert gradient is not None
            gradients[name].append(gradient)
    for name, weight in before.items():
        torch.testing.assert_close(
            model.get_parameter(name).detach(), slow_muon(weight, gradients[name], settings), rtol=0, atol=2e-6
        )


def best_quintic(low: float, high: float) -> tuple[list[float], float]:
    """Returns (a, b, c) of the odd quintic closest to 1 on [low, high], and its largest distance from 1 (Remez)."""
    inner = np.array([(3 * low + high) / 4, (low + 3 * high) / 4])
    for _ in range(50):
        x = np.array([low, *inner, high])
        a, b, c, error = np.linalg.solve(np.stack([x, x**3, x**5, [1, -1, 1, -1]], axis=1), np.ones(4))
        root = np.sqrt(9 * b * b - 20 * a * c)
        inner = np.sort(np.sqrt(np.array([-3 * b - root, -3 * b + root]) / (10 * c)))  # where the slope is 0
    return [a, b, c], error


def test_the_polynomials_are_each_the_best_on_what_those_before_leave() -> None:
    low, high = 1e-3, 1.0
    for polynomial in POLYNOMIALS:
        best, error = best_quintic(low, 1.01 * high)
        assert polynomial == pytest.approx(best, rel=1e-8)
        low, high = 1 - error, 1 + error
    assert high < 1.125


def ill_conditioned(n_rows: int, n_columns: int) -> Tensor:
    """Returns a matrix whose singular values fall evenly, by ratio, from 1 to 0.005."""
    n = min(n_rows, n_columns)
    left, _ = torch.linalg.qr(torch.randn(n_rows, n))
    right, _ = torch.linalg.qr(torch.randn(n_columns, n))
    matrix: Tensor = left * torch.logspace(0, np.log10(0.005), n) @ right.mT
    return matrix


@pytest.mark.parametrize("make", [torch.randn, ill_conditioned])
@pytest.mark.parametrize("shape", [(64, 128), (128, 64), (96, 384)], ids=str)
def test_orthogonalized_keeps_singular_vectors_and_brings_values_to_1(
    make: Callable[[int, int], Tensor], shape: tuple[int, int]
) -> None:
    torch.manual_seed(0)
    matrices = torch.stack([1e-5 * make(*shape), 1e5 * make(*shape)])
    left, _, right = torch.linalg.svd(matrices, full_matrices=False)
    exact = left.mT @ orthogonalized(matrices, 5, torch.float32) @ right.mT
    values = exact.diagonal(dim1=-2, dim2=-1)
    assert values.min() > 0.875
    assert values.max() < 1.125
    assert (exact - values.diag_embed()).abs().max() < 1e-4
    rounded = left.mT @ orthogonalized(matrices, 5, torch.bfloat16).float() @ right.mT
    assert (rounded - exact).abs().max() < 0.1


def test_a_zero_gradient_moves_nothing() -> None:
    assert not orthogonalized(torch.zeros(2, 4, 3), 5, torch.float32).any()


def test_two_processes_share_the_work_and_agree_with_one(tmp_path: Path) -> None:
    (tmp_path / "shared_steps.py").write_text(SHARED_STEPS)
    done = run_module("shared_steps", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert sorted(done.stdout.splitlines()) == ["0 of 2", "1 of 2"]


SHARED_STEPS = """
import sys
from training.distributed import Place, is_launched, join, launch

if not is_launched():
    sys.exit(launch(2))

import torch
from training.model import GPT
from training.optimizer import Optimizers
from training.settings import ModelSettings, OptimizerSettings

# One layer: an odd number of some matrices, and of others a single one.
settings = ModelSettings(vocab_size=300, n_layer=1, n_embd=32, head_dim=16)
with join("cpu") as place:
    together, alone = (GPT(settings).initialize(0) for _ in range(2))
    runs = [(together, place), (alone, Place(place.device))]
    runs = [(model, Optimizers(model, OptimizerSettings(), where)) for model, where in runs]
    for model, optimizers in runs:
        torch.manual_seed(0)
        for step in range(3):
            for parameter in model.parameters():
                parameter.grad = torch.randn_like(parameter)
            optimizers.step(1.0, step)
    for name, parameter in together.named_parameters():
        torch.testing.assert_close(parameter, alone.get_parameter(name), rtol=0, atol=1e-6)
    for name, tensor in runs[0][1].state_tensors().items():
        assert torch.equal(tensor, runs[1][1].state_tensors()[name]), name
    sys.stdout.write(f"{place.rank} of {place.world_size}\\n")
"""


# State


def test_ten_steps_are_five_and_five_more_from_a_file(tmp_path: Path) -> None:
    whole, halved, resumed = (GPT(TIED).initialize(0) for _ in range(3))
    optimizers = [Optimizers(model, OptimizerSettings(), HERE) for model in (whole, halved, resumed)]
    steps(whole, optimizers[0], 0, 10)
    steps(halved, optimizers[1], 0, 5)
    save_file(optimizers[1].state_tensors(), tmp_path / "optimizer.safetensors")
    resumed.load_state_dict(halved.state_dict())
    optimizers[2].load_state_tensors(load_file(tmp_path / "optimizer.safetensors"))
    steps(resumed, optimizers[2], 5, 10)
    for name, parameter in whole.named_parameters():
        assert torch.equal(parameter, resumed.get_parameter(name)), name
    for name, tensor in optimizers[0].state_tensors().items():
        assert torch.equal(tensor, optimizers[2].state_tensors()[name]), name


def test_a_state_has_every_parameter_by_name_and_no_other() -> None:
    model = GPT(TIED)
    optimizers = Optimizers(model, OptimizerSettings(), HERE)
    state = optimizers.state_tensors()
    kinds = ("adamw_step", "exp_avg", "exp_avg_sq")
    assert state.keys() == {
        f"{kind}.{name}"
        for name, _ in model.named_parameters()
        for kind in (["momentum"] if group_of(name) == "muon" else kinds)
    }
    key = "exp_avg.wte.weight"
    without = {name: tensor for name, tensor in state.items() if name != key}
    for wrong in (without, state | {key: torch.zeros(1, 32)}, without | {"exp_avg.wte.weights": state[key]}):
        with pytest.raises(ValueError, match=r"exp_avg\.wte\.weight"):
            optimizers.load_state_tensors(wrong)


# Schedule

shares = st.floats(0, 1)
recipes = st.builds(
    RecipeSettings,
    warmup_steps=st.integers(0, 200),
    warmup_fraction=shares,
    cooldown_fraction=shares,
    final_lr_fraction=shares,
)


@given(recipes, st.integers(1, 500))
def test_the_schedule_rises_stays_and_falls_within_bounds(recipe: RecipeSettings, n_steps: int) -> None:
    factors = [lr_factor(step, n_steps, recipe) for step in range(n_steps)]
    assert all(0 <= factor <= 1 for factor in factors)
    assert all(factor > 0 for factor in factors[:-1])
    top = factors.index(max(factors))
    assert factors[: top + 1] == sorted(factors[: top + 1])
    assert factors[top:] == sorted(factors[top:], reverse=True)
    n_warmup = min(recipe.warmup_steps, int(np.ceil(recipe.warmup_fraction * n_steps)))
    if recipe.cooldown_fraction and n_warmup < n_steps:
        assert factors[-1] == recipe.final_lr_fraction
    n_before_fall = n_steps - 1 - int(np.ceil(recipe.cooldown_fraction * n_steps))
    plateau = factors[max(0, n_warmup - 1) : max(0, n_before_fall)]
    assert set(plateau) <= {1.0}


def test_the_schedule_is_straight_up_and_straight_down() -> None:
    recipe = RecipeSettings(warmup_steps=100, warmup_fraction=0.02, cooldown_fraction=0.4, final_lr_fraction=0.05)
    factors = [lr_factor(step, 200, recipe) for step in range(200)]
    assert factors[:4] == pytest.approx([0.25, 0.5, 0.75, 1.0])
    assert set(factors[4:119]) == {1.0}
    assert np.diff(factors[119:]) == pytest.approx(np.full(80, -0.95 / 80))
    assert lr_factor(0, 1, recipe) == 0.05
