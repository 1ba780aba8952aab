"""Figures reach metrics.jsonl to the last digit, and W&B where it is asked for, which never stops or delays a run."""

import http.server
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from shared.settings import PIPELINES_FILE
from tests.conftest import ROOT
from training.settings import preset_settings, read_training_file
from training.tracking import LEAVE_SECONDS, METRICS, Tracker, WandbMode

KEY = "0123456789abcdef" * 2 + "5ec2e7ed"  # 40 digits, as W&B's are


@pytest.fixture(autouse=True)
def nobody_logged_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Returns an empty home: no key, and nothing that W&B could put there unnoticed."""
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    home = tmp_path / "home"
    home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    return home


def tracker(folder: Path, mode: WandbMode = "off", rank: int = 0) -> Tracker:
    folder.parent.mkdir(exist_ok=True)
    manifest = folder.parent / "mix70.json"
    manifest.write_text("{}")
    settings = preset_settings(read_training_file(PIPELINES_FILE), PIPELINES_FILE, "tiny")
    return Tracker(folder, mode, settings, manifest, {"manifest_sha256": "0"}, rank)


def lines(folder: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in (folder / METRICS).read_text().splitlines()]


def wandb_file(folder: Path) -> bytes:
    """Returns what W&B would upload of the one offline run in a folder."""
    (file,) = folder.glob("wandb/offline-run-*/run-*.wandb")
    return file.read_bytes()


def test_figures_are_written_to_the_last_digit_and_at_once(tmp_path: Path) -> None:
    figures: dict[str, float | str | None] = {
        "step": 1,
        "loss": 0.1 + 0.2,
        "tokens": 2**53 + 1,
        "seconds": 1e-320,
        "text": "caf\u00e9\n",
    }
    with tracker(tmp_path / "run") as run:
        run.log(figures)
        assert lines(tmp_path / "run") == [figures]
        run.log({"step": 2, "loss": float("nan"), "val/bpb_grade3": float("-inf")})
    with tracker(tmp_path / "run") as resumed:
        resumed.log({"step": 3})
    assert lines(tmp_path / "run")[1:] == [{"step": 2, "loss": None, "val/bpb_grade3": None}, {"step": 3}]


def test_only_the_first_process_writes(tmp_path: Path) -> None:
    with tracker(tmp_path / "run", "offline", rank=1) as run:
        run.log({"step": 1})
        run.log_model(tmp_path)
    assert not (tmp_path / "run").exists()


def test_offline_everything_is_in_the_run_folder_and_no_secret(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], nobody_logged_in: Path
) -> None:
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    run_folder, checkpoint = tmp_path / "run", tmp_path / "step-00000050"
    checkpoint.mkdir()
    for name in ("model.safetensors", "state.json"):
        (checkpoint / name).write_text(name)
    with tracker(run_folder, "offline") as run:
        for step in range(50):
            run.log({"step": step, "loss": 1 / (step + 1)})
        run.log_model(checkpoint)
    kept = wandb_file(run_folder)
    assert kept.count(b"loss") >= 50
    assert all(name in kept for name in (b"tie_weights", b"mix70", b"pretrain", b"mix70.json", b"model.safetensors"))
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert not [path for path in files if KEY.encode() in path.read_bytes()]
    assert list(nobody_logged_in.iterdir()) == []
    (told,) = capfd.readouterr().err.splitlines()
    assert told.startswith("W&B: to upload this run: wandb sync ")


def test_a_resumed_run_is_the_same_run_for_wandb(tmp_path: Path) -> None:
    for _ in range(2):
        with tracker(tmp_path / "run", "offline") as run:
            run.log({"step": 1})
            time.sleep(1)  # W&B names folders by the second
    first, second = (path.name for path in tmp_path.glob("run/wandb/offline-run-*/run-*.wandb"))
    assert first == second


@pytest.fixture
def servers() -> Iterator[dict[str, str]]:
    """Yields addresses where W&B will not be found: nobody there, somebody who is silent, and who knows no such key."""

    class Refusing(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.send_error(401)

        def log_message(self, *_: object) -> None:
            pass

    with (
        socket.create_server(("127.0.0.1", 0)) as silent,
        http.server.ThreadingHTTPServer(("127.0.0.1", 0), Refusing) as refusing,
    ):
        threading.Thread(target=refusing.serve_forever, daemon=True).start()
        ports = {"dead": 9, "silent": silent.getsockname()[1], "refusing": refusing.server_port}
        yield {name: f"http://127.0.0.1:{port}" for name, port in ports.items()}
        refusing.shutdown()


def test_online_goes_offline_where_it_must_and_nothing_waits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], servers: dict[str, str]
) -> None:
    started = time.monotonic()
    with ExitStack() as open_trackers:
        runs = {"keyless": open_trackers.enter_context(tracker(tmp_path / "keyless", "online"))}
        monkeypatch.setenv("WANDB_API_KEY", KEY)
        for name, address in servers.items():
            monkeypatch.setenv("WANDB_BASE_URL", address)
            runs[name] = open_trackers.enter_context(tracker(tmp_path / name, "online"))
        for step in range(100):
            for run in runs.values():
                run.log({"step": step, "loss": 0.5})
        assert time.monotonic() - started < 1  # nothing has waited for W&B
    assert time.monotonic() - started < 15
    told = capfd.readouterr().err.splitlines()
    warnings = [line for line in told if line.startswith("warning: W&B cannot be used online (")]
    assert len(warnings) == len(runs) and len(told) == 2 * len(runs)
    assert sum("no API key" in line for line in warnings) == 1
    for name in runs:
        assert len(lines(tmp_path / name)) == 100
        assert wandb_file(tmp_path / name).count(b"loss") >= 100


def until(reached: Callable[[], bool]) -> None:
    """Waits, 20 seconds at most."""
    for _ in range(200):
        if reached():
            return
        time.sleep(0.1)
    pytest.fail("not reached in 20 seconds")


RUN = """
import sys, time
from pathlib import Path
from shared.console import run_command
from tests.test_tracking import tracker

def main():
    with tracker(Path(sys.argv[1]), sys.argv[2]) as run:
        for step in range(50):
            run.log({"step": step, "loss": 0.5})
        print("wandb" in sys.modules, flush=True)
        time.sleep(60)

run_command(main)
"""


def running(folder: Path, mode: WandbMode) -> "subprocess.Popen[str]":
    """Returns a run that has logged 50 figures."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(
        [sys.executable, "-c", RUN, str(folder), mode], cwd=ROOT, env=environment, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout and process.stdout.readline() == "False\n"  # wandb is not imported, whatever the mode
    return process


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGKILL, -9)])
def test_a_stopped_run_leaves_promptly_and_its_figures_stay(tmp_path: Path, number: int, code: int) -> None:
    process = running(tmp_path / "run", "offline")
    until(lambda: bool(list(tmp_path.glob("run/wandb/offline-run-*/*.wandb"))))
    stopped = time.monotonic()
    process.send_signal(number)
    process.wait()
    assert process.returncode == code
    assert time.monotonic() - stopped < LEAVE_SECONDS + 1
    process.communicate(timeout=10)  # nothing of W&B's holds stderr any longer
    assert len(lines(tmp_path / "run")) == 50
    until(lambda: wandb_file(tmp_path / "run").count(b"loss") >= 50)


def test_off_leaves_no_trace_of_wandb(tmp_path: Path) -> None:
    process = running(tmp_path / "run", "off")
    process.terminate()
    assert process.communicate() == ("", "")
    assert [path.name for path in (tmp_path / "run").iterdir()] == [METRICS]


def test_the_end_of_wandb_is_not_the_end_of_a_run(tmp_path: Path) -> None:
    with tracker(tmp_path / "run", "offline") as run:
        assert run._wandb
        run._wandb.kill()
        run._wandb.wait()
        run.log({"step": 1})
    assert lines(tmp_path / "run") == [{"step": 1}]


def test_a_wandb_that_hangs_is_left_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("training.tracking.FINISH_SECONDS", 1)
    with tracker(tmp_path / "run", "offline") as run:
        assert run._wandb
        run._wandb.send_signal(signal.SIGSTOP)
        run.log({"step": 1})
        started = time.monotonic()
    assert time.monotonic() - started < 3
    assert "wandb sync" in capfd.readouterr().err
    run._wandb.kill()
    run._wandb.wait()
