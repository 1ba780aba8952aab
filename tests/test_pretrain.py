"""training.pretrain as a person meets it: runs, stops, resumes, refuses. Small models on the starter mix, on the CPU."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
import yaml

from shared.console import UserError
from shared.files import TEMPORARY_PREFIX
from shared.manifest import read_manifest, shard_paths
from shared.settings import parse_command
from tests.conftest import ROOT, Mix, run_module
from tests.kill_training import command, kill, outcome
from training import loop
from training.distributed import Place
from training.prepare import Run, begin, get_ready
from training.settings import PretrainFlags


class Trained:
    """A mix with its token shards made, and training.pretrain on it."""

    def __init__(self, mix: Mix, folder: Path) -> None:
        self.mix, self.folder = mix, folder

    def arguments(self, runs: str, *args: object) -> list[str]:
        return command(self.mix.manifest(), self.mix.data, self.folder / runs, *map(str, args))

    def run(self, runs: str, *args: object, **env: str) -> "subprocess.CompletedProcess[str]":
        return run_module("training.pretrain", *self.arguments(runs, *args)[3:], cwd=ROOT, **env)

    def outcome(self, runs: str) -> tuple[list[dict[str, Any]], dict[str, str]]:
        return outcome(self.folder / runs)

    def losses(self, runs: str) -> list[float]:
        return [line["loss"] for line in self.outcome(runs)[0] if "loss" in line]


@pytest.fixture(scope="module")
def trained(starter_mix: Mix, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """Returns a place with one uninterrupted run, `whole`."""
    made = Trained(starter_mix, tmp_path_factory.mktemp("trained"))
    done = made.run("whole")
    assert done.returncode == 0, done.stderr
    return made


def stop_after(arguments: list[str], metrics: Path, n_lines: int, number: signal.Signals) -> tuple[int, float, str]:
    """Starts a run and signals it once it wrote n_lines of figures. Returns exit code, seconds to leave and stderr."""
    process = subprocess.Popen(arguments, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    while not metrics.is_file() or len(metrics.read_text().splitlines()) < n_lines:
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(number)
    started = time.monotonic()
    _, stderr = process.communicate(timeout=60)
    return process.returncode, time.monotonic() - started, stderr


def test_a_run_leaves_what_the_contract_says(trained: Trained) -> None:
    folder = trained.folder / "whole" / "run"
    figures, _ = trained.outcome("whole")
    steps = [line for line in figures if "loss" in line]
    looks = [line for line in figures if "val/bpb" in line]
    assert [line["step"] for line in steps] == list(range(1, 41))
    assert [line["step"] for line in looks] == [0, 10, 20, 30, 40]
    assert all(line["val/bpb_grade3"] > 0 and line["val/bpb_all_ages"] > 0 for line in looks)
    assert steps[-1]["tokens"] == 40 * 512
    raw = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert all(line["seconds"] > 0 for line in raw if "loss" in line)
    assert steps[-1]["loss"] < steps[0]["loss"] - 1
    assert looks[-1]["val/bpb"] < looks[0]["val/bpb"]
    record = json.loads((folder / "run.json").read_text())
    assert record["finished"] is True
    assert record["val"]["val/bpb"] == looks[-1]["val/bpb"]
    settings = yaml.safe_load((folder / "settings.yaml").read_text())
    assert settings["settings"]["model"]["n_embd"] == 64
    assert sorted(path.name for path in (folder / "checkpoints").glob("step-*"))[-2:] == [
        "step-00000039",
        "step-00000040",
    ]


def test_every_hundredth_step_tells_the_gradients_by_group(trained: Trained) -> None:
    done = trained.run("inspected", "--set", "loop.inspect_every=20")
    assert done.returncode == 0, done.stderr
    inspected = [line for line in trained.outcome("inspected")[0] if "grad_norm/muon" in line]
    assert [line["step"] for line in inspected] == [20, 40]
    for name in ("grad_norm/wte", "grad_norm/confidence", "lr/wte", "lr/muon", "output_projection_mean_abs"):
        assert inspected[0][name] > 0


def test_a_finished_run_says_so(trained: Trained) -> None:
    before = trained.outcome("whole")
    done = trained.run("whole")
    assert done.returncode == 0
    assert "is finished: 40 of 40 steps" in done.stderr
    assert trained.outcome("whole") == before


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_stopped_runs_save_and_go_on_as_if_nothing_had_been(
    trained: Trained, number: signal.Signals, code: int
) -> None:
    runs = f"stopped-{code}"
    metrics = trained.folder / runs / "run" / "metrics.jsonl"
    returncode, seconds, stderr = stop_after(trained.arguments(runs), metrics, 6, number)
    assert returncode == code, stderr
    assert seconds < 10
    assert "the same command goes on" in stderr
    assert trained.run(runs, "--resume").returncode == 0
    assert trained.outcome(runs) == trained.outcome("whole")


@pytest.mark.parametrize("during_a_save", [True, False])
def test_killed_runs_go_on_as_if_nothing_had_been(trained: Trained, during_a_save: bool) -> None:
    runs = f"killed-{during_a_save}"
    arguments = trained.arguments(runs)
    assert kill(arguments, trained.folder / runs, None if during_a_save else 4.0)
    (trained.folder / runs / "run").mkdir(parents=True, exist_ok=True)
    (trained.folder / runs / "run" / f"{TEMPORARY_PREFIX}1-run.json").touch()  # as of a kill while that was written
    done = trained.run(runs)
    assert done.returncode == 0, done.stderr
    assert trained.outcome(runs) == trained.outcome("whole")
    assert list((trained.folder / runs).rglob(f"{TEMPORARY_PREFIX}*")) == []


class ScriptedStop:
    """Stands for StopRequest: it stops the run once `when` is true."""

    when = staticmethod(lambda: False)

    def arm(self) -> None:
        pass

    def agreed(self, place: Place) -> int | None:
        return signal.SIGTERM if self.when() else None


@pytest.mark.parametrize("stopped_step", [20, 40])
@pytest.mark.parametrize("is_killed_later", [False, True])
def test_a_stop_during_a_look_loses_nothing(
    trained: Trained, monkeypatch: pytest.MonkeyPatch, stopped_step: int, is_killed_later: bool
) -> None:
    def train(runs: str) -> int:
        flags = parse_command(PretrainFlags, "", "", args=trained.arguments(runs)[3:])
        run = get_ready(flags, "cpu", leads=False)
        begin(run)
        return loop.train(run, Place(torch.device("cpu")), 0.0)

    if not (trained.folder / "in-process").exists():
        assert train("in-process") == 0
    runs = f"look-{stopped_step}-{is_killed_later}"
    metrics = trained.folder / runs / "run" / "metrics.jsonl"
    monkeypatch.setattr(loop, "StopRequest", ScriptedStop)
    # The line of the step is written, and the stop comes while its look is taken.
    monkeypatch.setattr(ScriptedStop, "when", staticmethod(lambda: _last_step(metrics) == stopped_step))
    assert train(runs) == 143
    assert json.loads((metrics.parent / "run.json").read_text())["finished"] is False
    monkeypatch.setattr(ScriptedStop, "when", staticmethod(lambda: False))
    if is_killed_later:  # after the look, before the checkpoint that holds it

        def killed(*_: object, **__: object) -> Path:
            raise InterruptedError("killed")

        with monkeypatch.context() as patch:
            patch.setattr(loop, "save_checkpoint", killed)
            with pytest.raises(InterruptedError):
                train(runs)
    assert train(runs) == 0
    assert trained.outcome(runs) == trained.outcome("in-process")
    assert json.loads((metrics.parent / "run.json").read_text())["finished"] is True


def _last_step(metrics: Path) -> int:
    lines = metrics.read_text().splitlines() if metrics.is_file() else []
    return int(json.loads(lines[-1])["step"]) if lines else -1


def test_a_run_that_diverges_keeps_its_checkpoints(trained: Trained) -> None:
    done = trained.run("diverged", "--set", "recipe.optimizer.wte_lr=1e38", "--precision", "fp32")
    assert done.returncode == 1
    assert "diverged" in done.stderr and "--name" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.fixture(scope="module")
def two_processes(trained: Trained) -> list[float]:
    done = trained.run("two", "--processes", 2, "--precision", "fp32")
    assert done.returncode == 0, done.stderr
    return trained.losses("two")


def test_two_processes_learn_as_one(trained: Trained, two_processes: list[float]) -> None:
    done = trained.run("one", "--micro-batch", 4, "--precision", "fp32")
    assert done.returncode == 0, done.stderr
    assert trained.losses("one") == pytest.approx(two_processes, abs=1e-4)


def test_torchrun_starts_the_same_run(trained: Trained, two_processes: list[float]) -> None:
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m"]
    arguments = trained.arguments("torchrun", "--precision", "fp32")[2:]
    done = subprocess.run([*launcher, *arguments], cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert trained.losses("torchrun") == two_processes
    assert done.stderr.count("tokens in the mix") == 1


def test_a_run_goes_on_with_more_processes(trained: Trained, two_processes: list[float]) -> None:
    metrics = trained.folder / "more" / "run" / "metrics.jsonl"
    one = trained.arguments("more", "--micro-batch", 4, "--precision", "fp32")
    returncode, _, stderr = stop_after(one, metrics, 8, signal.SIGTERM)
    assert returncode == 143, stderr
    done = trained.run("more", "--processes", 2, "--precision", "fp32")
    assert done.returncode == 0, done.stderr
    assert trained.losses("more") == pytest.approx(two_processes, abs=1e-4)


def test_four_processes_go_on_as_if_nothing_had_been(trained: Trained) -> None:
    done = trained.run("four", "--processes", 4)
    assert done.returncode == 0, done.stderr
    metrics = trained.folder / "four-stopped" / "run" / "metrics.jsonl"
    stopped = trained.arguments("four-stopped", "--processes", 4)
    returncode, _, stderr = stop_after(stopped, metrics, 8, signal.SIGTERM)
    assert returncode == 143, stderr
    assert trained.run("four-stopped", "--processes", 4).returncode == 0
    assert trained.outcome("four-stopped") == trained.outcome("four")


def test_fp16_scales_the_loss(trained: Trained) -> None:
    done = trained.run("fp16", "--precision", "fp16")
    assert done.returncode == 0, done.stderr
    losses = trained.losses("fp16")
    assert losses[-1] < losses[0] - 1
    state = json.loads((trained.folder / "fp16/run/checkpoints/step-00000040/state.json").read_text())
    assert state["loss_scale"]["scale"] > 0


def test_without_a_compiler_it_goes_on_uncompiled(trained: Trained) -> None:
    done = trained.run(
        "uncompiled", "--compile", "on", "--steps", 2, CXX="/nonexistent/c++", TORCHINDUCTOR_FORCE_DISABLE_CACHES="1"
    )
    assert done.returncode == 0, done.stderr
    assert "torch.compile does not work here" in done.stderr
    record = json.loads((trained.folder / "uncompiled/run/run.json").read_text())
    assert record["compiled"] is False


ARMS = {
    "untied": ["model.tie_weights=false", "model.use_output_projection=false", "model.use_confidence=false"],
    "tied": ["model.use_output_projection=false", "model.use_confidence=false"],
    "tied+projection": ["model.use_confidence=false"],
    "residual": ["model.output_projection_residual=true"],
    "no trunk gradient": ["recipe.confidence.trunk_gradient=false"],
    "swiglu, windows, layer norm": [
        *("model.activation=swiglu", "model.qk_norm=layer", "model.head_dim=32", "model.n_kv_head=1"),
        *("model.window_pattern=alternating", "model.window_size=16"),
    ],
}


@pytest.mark.parametrize("arm", ARMS)
def test_every_switch_trains_and_evaluates(trained: Trained, arm: str) -> None:
    done = trained.run(arm, *(argument for setting in ARMS[arm] for argument in ("--set", setting)))
    assert done.returncode == 0, done.stderr
    losses = trained.losses(arm)
    assert losses[-1] < losses[0] - 1
    evaluated = run_module("training.evaluate", trained.folder / arm / "run", "--json")
    assert evaluated.returncode == 0, evaluated.stderr
    figures = json.loads(evaluated.stdout)
    assert (figures["auroc"]["o_conf"]["all"] is None) == (arm in ("untied", "tied", "tied+projection"))


@pytest.mark.parametrize(("sequences", "hint"), [(16, "--micro-batch 8"), (1, "model.sequence_length")])
def test_too_little_memory_is_told_with_its_repair(monkeypatch: pytest.MonkeyPatch, sequences: int, hint: str) -> None:
    def run_out(*_: object) -> int:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(loop, "_train", run_out)
    run = SimpleNamespace(
        plan=SimpleNamespace(sequences=sequences), settings=SimpleNamespace(model=SimpleNamespace(sequence_length=1024))
    )
    with pytest.raises(UserError, match="too little memory") as raised:
        loop.train(cast("Run", run), Place(torch.device("cpu")), 0.0)
    assert hint in raised.value.hint


def test_a_dry_run_plans_and_trains_nothing(trained: Trained) -> None:
    done = trained.run("dry", "--dry-run")
    assert done.returncode == 0, done.stderr
    for told in ("parameters", "FLOPs a token", "epochs", "GiB a process", "dry run"):
        assert told in done.stderr
    assert not (trained.folder / "dry").exists()


def test_epochs_have_limits(trained: Trained) -> None:
    refused = trained.run("epochs", "--steps", 100_000)
    assert refused.returncode == 2
    assert "over 100 epochs" in refused.stderr and "--allow-epochs" in refused.stderr
    allowed = trained.run("epochs", "--steps", 100_000, "--allow-epochs", "--dry-run")
    assert allowed.returncode == 0
    assert "warning: " in allowed.stderr


@pytest.mark.parametrize(
    ("args", "told"),
    [
        (["--model", "tinny"], "did you mean tiny?"),
        (["--set", "model.tie_weight=false"], "did you mean tie_weights?"),
        (["--set", "model.tie_weights=false"], "use_output_projection needs tie_weights"),
        (["--set", "model.n_embd=65"], "not a multiple of head_dim"),
        (["--steps", "0"], "--steps 0"),
        (["--tokens-per-parameter", "1"], "give one of them"),
        (["--batch-tokens", "512"], "give one of them"),
        (["--set", "model.sequence_length=60"], "not a multiple of sequence_length"),
        (["--processes", "3"], "3 processes cannot share them evenly"),
        (["--resume"], "holds no checkpoint to go on from"),
        (["--shards", "data_manifests/none.json"], "data_manifests/none.json not found"),
        (["--tokenizer", "README.md"], "README.md is not a tokenizer.json"),
        (["--device", "cuda"], "no GPU"),
        (["--pipelines", "none.yaml"], "none.yaml not found"),
        (["--set", "model.activation=["], "is not YAML"),
        (["--set", "loop.prompts=[]"], "loop.prompts"),
        (["--seed", str(2**64)], "--seed"),
    ],
)
def test_wrong_use_is_one_clear_error(trained: Trained, args: list[str], told: str) -> None:
    done = run_module("training.pretrain", *trained.arguments("wrong", *args)[3:])
    assert done.returncode == 2, done.stderr
    assert told in done.stderr
    assert "Traceback" not in done.stderr
    assert not list((trained.folder / "wrong").rglob("settings.yaml"))


def test_another_run_of_the_same_name_is_refused(trained: Trained) -> None:
    before = trained.outcome("whole")
    done = trained.run("whole", "--seed", 7)
    assert done.returncode == 2
    assert "recipe.seed 0, now 7" in done.stderr and "--name" in done.stderr
    assert trained.outcome("whole") == before


@pytest.fixture
def spoilt(trained: Trained) -> Iterator[Path]:
    """Yields a train shard that a test may spoil, and puts it right afterwards."""
    shard = shard_paths(trained.mix.manifest(), read_manifest(trained.mix.manifest()))["train"][0]
    content = shard.read_bytes()
    yield shard
    shard.write_bytes(content)


@pytest.mark.parametrize("how", ["missing", "cut", "flipped"])
def test_a_wrong_shard_is_named_before_the_first_step(trained: Trained, spoilt: Path, how: str) -> None:
    content = spoilt.read_bytes()
    if how == "missing":
        spoilt.unlink()
    else:
        spoilt.write_bytes(content[:-1] if how == "cut" else bytes([content[0] ^ 1]) + content[1:])
    done = trained.run("spoilt")
    assert done.returncode == 2
    assert spoilt.name in done.stderr
    assert not (trained.folder / "spoilt").exists()


def test_two_runs_of_one_name_do_not_mix(trained: Trained) -> None:
    metrics = trained.folder / "twice" / "run" / "metrics.jsonl"
    first = subprocess.Popen(trained.arguments("twice"), cwd=ROOT, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    while not metrics.is_file():
        assert first.poll() is None
        time.sleep(0.01)
    os.kill(first.pid, signal.SIGSTOP)
    second = trained.run("twice")
    os.kill(first.pid, signal.SIGCONT)
    assert second.returncode == 2
    assert "is in use by process" in second.stderr and "--name" in second.stderr
    assert first.wait(120) == 0
    assert trained.outcome("twice") == trained.outcome("whole")
