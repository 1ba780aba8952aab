"""Checkpoints come back bit by bit, survive kills and full disks, and nothing damaged or hostile is let in."""

import errno
import json
import multiprocessing
import os
import pickle
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest
import torch

from shared.console import UserError
from shared.files import TEMPORARY_PREFIX, sha256_file
from tests.conftest import ROOT
from training.checkpoint import (
    FILES,
    MARKER,
    OLD_BEHAVIOUR,
    STATE,
    Checkpoint,
    forget_figures_after,
    load_weights,
    model_settings,
    newest_checkpoint,
    read_checkpoint,
    remove_leftovers,
    save_checkpoint,
)
from training.settings import ModelSettings

MODEL = {"vocab_size": 300, "n_layer": 1, "n_embd": 64}
BEST_BY = "val/bpb_grade3"


def save(folder: Path, step: int, val: float | None = None, size: int = 50) -> Path:
    state = {"step": step, "settings": {"model": MODEL}, "val": None if val is None else {BEST_BY: val}}
    weights = {"wte.weight": torch.full((size,), float(step))}
    return save_checkpoint(folder, state, model=weights, optimizer={}, rng={}, best_by=BEST_BY)


def bits(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.reshape(-1).view(torch.uint8)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def newest(folder: Path) -> Checkpoint:
    found = newest_checkpoint(folder)
    assert found is not None
    return found


def test_a_checkpoint_comes_back_bit_by_bit(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = {
        "bf16": torch.randn(3, 5).bfloat16(),
        "fp32": torch.tensor([float("nan"), -0.0, 1e-45, float("inf")]),
        "turned": torch.randn(4, 6).T,
        "nothing": torch.empty(0, 3),
    }
    optimizer = {"wte.weight.step": torch.tensor(7.0), "wte.weight.exp_avg": torch.randn(9, dtype=torch.float64)}
    rng = {"cpu.0": torch.get_rng_state(), "cpu.1": torch.zeros(16, dtype=torch.uint8)}
    state: dict[str, Any] = {
        "step": 200, "settings": {"model": MODEL}, "val": None, "position": {"document": 3}, "scaler": {"scale": 1 / 3},
    }  # fmt: skip
    path = save_checkpoint(tmp_path, state, model=model, optimizer=optimizer, rng=rng, best_by=BEST_BY)
    found = newest(tmp_path)
    assert (found.folder, found.step, found.state) == (path, 200, state)
    assert path.name == "step-00000200"
    assert names(path) == sorted([*FILES, MARKER])
    assert len({(path / name).stat().st_mode for name in FILES}) == 1
    for kind, before in (("model", model), ("optimizer", optimizer), ("rng", rng)):
        after = found.tensors(kind)  # type: ignore[arg-type]
        assert after.keys() == before.keys()
        for name, tensor in before.items():
            assert (after[name].dtype, after[name].shape) == (tensor.dtype, tensor.shape)
            assert torch.equal(bits(after[name]), bits(tensor))


def test_what_wraps_a_model_leaves_no_trace(tmp_path: Path) -> None:
    weights = {"module._orig_mod.blocks.0.mlp.fc1.weight": torch.ones(2), "_orig_mod.wte.weight": torch.ones(2)}
    state = {"step": 1, "settings": {}}
    save_checkpoint(tmp_path, state, model=weights, optimizer={}, rng={}, best_by=BEST_BY)
    assert newest(tmp_path).tensors("model").keys() == {"blocks.0.mlp.fc1.weight", "wte.weight"}


def test_using_what_was_loaded_does_not_change_the_file(tmp_path: Path) -> None:
    save(tmp_path, 1)
    newest(tmp_path).tensors("model")["wte.weight"].fill_(9)
    assert newest(tmp_path).tensors("model")["wte.weight"][0] == 1


def test_no_checkpoint_is_no_error(tmp_path: Path) -> None:
    assert newest_checkpoint(tmp_path) is None
    assert newest_checkpoint(tmp_path / "absent") is None


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("harm", [cut, flip, Path.unlink], ids=["cut", "flipped", "missing"])
@pytest.mark.parametrize("name", [*FILES, MARKER])
def test_a_damaged_checkpoint_is_named_and_passed_over(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, harm: Callable[[Path], None]
) -> None:
    save(tmp_path, 1)
    damaged = save(tmp_path, 2)
    harm(damaged / name)
    assert newest(tmp_path).step == 1
    (warning,) = capsys.readouterr().err.splitlines()
    assert warning.startswith("warning: ") and "step-00000002" in warning and name in warning
    shutil.rmtree(tmp_path / "step-00000001")
    with pytest.raises(UserError, match="all its 1 checkpoints are damaged"):
        newest_checkpoint(tmp_path)


def test_a_damaged_checkpoint_does_not_count_as_one_of_the_last_two(tmp_path: Path) -> None:
    save(tmp_path, 10)
    flip(save(tmp_path, 15) / "rng.safetensors")
    save(tmp_path, 20)
    assert names(tmp_path) == ["step-00000010", "step-00000020"]


class Bomb:
    """What pickle would run."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Callable[[Path], None], tuple[Path]]:
        return Path.touch, (self.target,)


@pytest.mark.parametrize("kind", ["pickle", "torch.save", "cut"])
def test_a_forged_checkpoint_is_refused_and_runs_nothing(tmp_path: Path, kind: str) -> None:
    folder, target = save(tmp_path / "checkpoints", 1), tmp_path / "exploded"
    weights = folder / "model.safetensors"
    if kind == "cut":
        cut(weights)
    elif kind == "pickle":
        weights.write_bytes(pickle.dumps(Bomb(target)))
    else:
        torch.save(Bomb(target), weights)
    marker = json.loads((folder / MARKER).read_text())
    marker["files"]["model.safetensors"] = {"sha256": sha256_file(weights), "bytes": weights.stat().st_size}
    (folder / MARKER).write_text(json.dumps(marker))
    forged = read_checkpoint(folder)
    with pytest.raises(UserError, match=r"model\.safetensors is not a whole safetensors file"):
        forged.tensors("model")
    assert not target.exists()


def test_a_marker_cannot_point_elsewhere(tmp_path: Path) -> None:
    folder = save(tmp_path / "checkpoints", 1)
    marker = json.loads((folder / MARKER).read_text())
    marker["files"]["../../secret"] = marker["files"].pop("rng.safetensors")
    (folder / MARKER).write_text(json.dumps(marker))
    with pytest.raises(UserError, match=r"names \.\./\.\./secret"):
        read_checkpoint(folder)


def test_the_last_two_and_the_best_are_kept(tmp_path: Path) -> None:
    values = {10: 2.0, 20: 1.5, 30: None, 40: 1.8, 50: 1.4, 60: 1.6, 70: 1.7}
    kept = {10: [10], 20: [10, 20], 30: [20, 30], 40: [20, 30, 40], 50: [40, 50], 60: [50, 60], 70: [50, 60, 70]}
    for step, value in values.items():
        save(tmp_path, step, value)
        assert names(tmp_path) == [f"step-{step:08d}" for step in kept[step]]


def test_a_step_may_be_saved_again(tmp_path: Path) -> None:
    save(tmp_path, 1)
    flip(save(tmp_path, 2) / STATE)
    save(tmp_path, 2, 1.0)
    assert newest(tmp_path).state["val"] == {BEST_BY: 1.0}
    assert names(tmp_path) == ["step-00000001", "step-00000002"]


def test_leftovers_of_kills_are_swept(tmp_path: Path) -> None:
    save(tmp_path, 1)
    (tmp_path / f"{TEMPORARY_PREFIX}step-00000002").mkdir()
    (tmp_path / f"{TEMPORARY_PREFIX}step-00000002" / STATE).write_text("{")
    (tmp_path / "step-00000001").rename(tmp_path / ".replaced-step-00000001")  # killed between two renames
    remove_leftovers(tmp_path)
    assert names(tmp_path) == ["step-00000001"]
    assert newest(tmp_path).step == 1


def save_and_tell(folder: Path, told: Connection) -> None:
    """Saves one checkpoint after the other, every second step twice, and tells each step when it stands."""
    last = newest_checkpoint(folder)
    step = last.step if last else 0
    while True:
        step += 1
        for _ in range(1 + step % 2):
            save(folder, step, val=1 / step, size=100_000)
        told.send(step)


def test_a_kill_at_any_moment_loses_no_finished_checkpoint(tmp_path: Path) -> None:
    server = multiprocessing.get_context("forkserver")
    server.set_forkserver_preload([__name__])
    moments, finished, kills = random.Random(0), 0, 25
    for kill in range(kills):
        here, there = server.Pipe(duplex=False)
        process = server.Process(target=save_and_tell, args=(tmp_path, there))
        process.start()
        there.close()
        finished = max(finished, here.recv())  # it is at work
        time.sleep(moments.uniform(0, 0.06))
        process.kill()
        process.join()
        assert process.exitcode == -signal.SIGKILL
        while here.poll():
            try:
                finished = max(finished, here.recv())
            except EOFError:
                break
        remove_leftovers(tmp_path)
        found = newest(tmp_path)
        assert found.step >= finished, kill
        assert torch.equal(found.tensors("model")["wte.weight"], torch.full((100_000,), float(found.step)))
        assert 1 <= len(names(tmp_path)) <= 4  # a kill before pruning leaves one more
    assert finished >= kills


FILL = """
import sys
from pathlib import Path
from tests.test_checkpoint import names, newest, save
folder = Path(sys.argv[1])
save(folder, 1)
try:
    save(folder, 2, size=2_000_000)
except OSError as error:
    print(error.errno, names(folder), newest(folder).step)
save(folder, 3)
print(names(folder))
"""


def test_a_disk_that_is_full_leaves_the_checkpoint_before(tmp_path: Path) -> None:
    small_disk = f"mount -t tmpfs -o size=1m none {tmp_path} && "
    own_mounts = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c"]
    if shutil.which("unshare") is None or subprocess.run([*own_mounts, small_disk + "true"]).returncode:
        pytest.skip("no small disk can be mounted here")
    done = subprocess.run(
        [*own_mounts, small_disk + f'exec {sys.executable} -c "$0" {tmp_path}', FILL],
        cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.stdout.splitlines() == [
        f"{errno.ENOSPC} ['step-00000001'] 1",
        "['step-00000001', 'step-00000003']",
    ], done.stderr


def test_a_quota_that_is_only_told_at_the_sync(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(tmp_path, 1)

    def full(descriptor: int) -> None:
        raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="quota"):
            save(tmp_path, 2)
    assert names(tmp_path) == ["step-00000001"]


def test_an_old_checkpoint_behaves_as_it_did(capsys: pytest.CaptureFixture[str]) -> None:
    old = model_settings({"settings": {"model": MODEL}})
    assert not (old.tie_weights or old.use_output_projection or old.use_confidence or old.output_projection_residual)
    assert (old.activation, old.qk_norm, old.window_pattern, old.head_dim) == ("relu2", "rms", "full", 64)
    assert capsys.readouterr().err == ""
    tied = model_settings({"settings": {"model": MODEL | {"tie_weights": True}}})
    assert tied.tie_weights and not tied.use_output_projection
    assert "use_output_projection" in capsys.readouterr().err
    now = ModelSettings.model_validate(MODEL)
    assert model_settings({"settings": {"model": now.model_dump(mode="json")}}) == now


def test_every_switch_has_an_old_behaviour() -> None:
    optional = {name for name, field in ModelSettings.model_fields.items() if not field.is_required()}
    assert OLD_BEHAVIOUR.keys() == optional


@pytest.mark.parametrize(
    ("model", "told"),
    [
        (MODEL | {"n_experts": 8}, r"settings\.model\.n_experts: the checkpoint is newer"),
        (MODEL | {"activation": "silu"}, r"settings\.model: activation"),
        ({"n_layer": 1, "n_embd": 64}, "vocab_size is required"),
    ],
)
def test_settings_this_program_does_not_know(model: dict[str, Any], told: str) -> None:
    with pytest.raises(UserError, match=told):
        model_settings({"settings": {"model": model}}, "runs/x")


def test_weights_fit_or_are_refused() -> None:
    layer, other = torch.nn.Linear(2, 3), torch.nn.Linear(2, 3)
    load_weights(layer, other.state_dict())
    assert torch.equal(layer.weight, other.weight)
    for wrong, told in (
        ({"weight": layer.weight}, "missing: bias"),
        ({**layer.state_dict(), "gate.weight": layer.bias}, r"unexpected: gate\.weight"),
        ({"weight": layer.weight.T, "bias": layer.bias}, "of another shape: weight"),
    ):
        with pytest.raises(UserError, match=told):
            load_weights(other, wrong)


def test_figures_of_steps_to_come_are_forgotten(tmp_path: Path) -> None:
    metrics = tmp_path / "metrics.jsonl"
    forget_figures_after(metrics, 3)
    lines = [f'{{"step": {step}, "loss": 0.1000}}\n' for step in range(6)]
    metrics.write_text("".join(lines) + '{"step": 3, "lo')
    forget_figures_after(metrics, 3)
    assert metrics.read_text() == "".join(lines[:4])
    metrics.write_text(lines[0] + "torn\n" + lines[1])
    with pytest.raises(UserError, match="line 2"):
        forget_figures_after(metrics, 3)
