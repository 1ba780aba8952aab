"""Processes: started, stopped, ended and named as promised; none is left behind; what they say together is the same."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

from shared.console import UserError
from tests.conftest import ROOT
from training import distributed
from training.distributed import StopRequest, barrier, join, process_count, sum_ranks, usable_device

# A command that starts two of itself. What a test has the two do follows; they import torch only where they must.
COMMAND = """
import os, signal, sys, time
from pathlib import Path

if "RANK" not in os.environ:
    from training.distributed import launch
    sys.exit(launch(2))
rank = int(os.environ["RANK"])

def tell(*values):  # in one write: both write to one pipe
    os.write(1, (" ".join(map(str, values)) + "\\n").encode())

def ready():
    (Path("making") / str(rank)).write_text(str(os.getpid()))
    (Path("making") / str(rank)).rename(f"ready-{rank}")
"""
WAITS = "ready()\ntime.sleep(60)\n"
COUNTS_SIGNALS = """
arrived = []
for number in (signal.SIGINT, signal.SIGTERM):
    signal.signal(number, lambda number, frame: arrived.append(number))
ready()
while not arrived:
    time.sleep(0.01)
time.sleep(0.5)
tell(*arrived)
sys.exit(128 + arrived[0])
"""

Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Returns a function that runs `python -m script`, or another command, with a script in a folder of its own."""
    (tmp_path / "making").mkdir()
    started: list[subprocess.Popen[str]] = []

    def start(script: str, *command: str) -> "subprocess.Popen[str]":
        (tmp_path / "script.py").write_text(script)
        environment = {key: value for key, value in os.environ.items() if key != "OMP_NUM_THREADS"}
        environment |= {"PYTHONPATH": str(ROOT), "GLOO_SOCKET_IFNAME": "lo"}
        started.append(
            subprocess.Popen(
                [sys.executable, "-m", *(command or ["script"])], cwd=tmp_path, env=environment, text=True,
                stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
            )
        )  # fmt: skip
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.communicate()


def until(condition: Callable[[], bool], seconds: float) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"not within {seconds} seconds"
        time.sleep(0.02)


def ready_children(folder: Path) -> list[int]:
    """Returns the process ids of both children, once they are ready."""
    files = [folder / f"ready-{rank}" for rank in range(2)]
    until(lambda: all(file.is_file() for file in files), 60)
    return [int(file.read_text()) for file in files]


def is_running(process_id: int) -> bool:
    try:
        return Path(f"/proc/{process_id}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


# Launched


def test_the_exit_code_is_that_of_all_or_of_the_first_to_fail(start: Start) -> None:
    codes = ["0 0", "143 143", "130 130", "2 2", "5 0", "0 7"]
    each = f"""for codes in {codes}:
        os.environ["CODES"] = codes
        print(launch(2))
    sys.exit()"""
    leave = 'sys.exit(int(os.environ["CODES"].split()[rank]))'
    told, errors = start(COMMAND.replace("sys.exit(launch(2))", each) + leave).communicate(timeout=60)
    assert told.split() == ["0", "143", "130", "2", "5", "7"]
    assert "error: process 0 of 2 left with code 5" in errors
    assert "error: process 1 of 2 left with code 7" in errors


def test_the_children_get_the_same_command_and_share_the_cores(start: Start) -> None:
    tells = 'tell(rank, sys.argv[1:], os.environ["LOCAL_RANK"], os.environ["OMP_NUM_THREADS"])'
    told, _ = start(COMMAND + tells, "script", "--steps", "5").communicate(timeout=60)
    n_threads = max(1, len(os.sched_getaffinity(0)) // 2)
    assert sorted(told.splitlines()) == [f"{rank} ['--steps', '5'] {rank} {n_threads}" for rank in range(2)]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_to_the_whole_terminal_reaches_each_child_once(
    start: Start, tmp_path: Path, number: signal.Signals
) -> None:
    process = start(COMMAND + COUNTS_SIGNALS)
    ready_children(tmp_path)
    os.killpg(process.pid, number)
    told, errors = process.communicate(timeout=60)
    assert told.split() == [str(int(number))] * 2
    assert process.returncode == 128 + number
    assert not errors


@pytest.mark.parametrize(("seconds", "told"), [(60, "saved\n"), (0, "")])
def test_after_a_child_that_was_stopped_alone_the_others_have_time_to_save(
    start: Start, tmp_path: Path, seconds: int, told: str
) -> None:
    launch = f"from training import distributed\n    distributed.SAVE_SECONDS = {seconds}\n    sys.exit(launch(2))"
    process = start(COMMAND.replace("sys.exit(launch(2))", launch) + "ready()\ntime.sleep(2)\nprint('saved')")
    os.kill(ready_children(tmp_path)[1], signal.SIGTERM)
    assert process.communicate(timeout=60) == (told, "")
    assert process.returncode == 143


def test_no_child_outlives_a_killed_launcher(start: Start, tmp_path: Path) -> None:
    process = start(COMMAND + "from training.distributed import stay_with_launcher\nstay_with_launcher()\n" + WAITS)
    children = ready_children(tmp_path)
    process.kill()
    until(lambda: not any(map(is_running, children)), 5)


def test_a_child_whose_launcher_was_killed_before_leaves_at_once(start: Start) -> None:
    script = "import os\nos.environ['GRADED_LAUNCHER'] = '1'\nfrom training.distributed import stay_with_launcher\n"
    process = start(script + "stay_with_launcher()\nprint('still here')")
    assert process.communicate(timeout=60) == ("", "")
    assert process.returncode == 1


def test_a_killed_child_is_named_and_takes_even_a_deaf_one_along(start: Start, tmp_path: Path) -> None:
    process = start(COMMAND + "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n" + WAITS)
    children = ready_children(tmp_path)
    os.kill(children[1], signal.SIGKILL)
    _, errors = process.communicate(timeout=distributed.GRACE_SECONDS + 5)
    assert process.returncode == 1
    assert errors == "error: process 1 of 2 was ended by signal 9 (Killed), and the others with it\n"
    assert not any(map(is_running, children))


# Joined

JOINS = """
import torch
import torch.distributed as dist
from shared.console import UserError, run_command
from training.distributed import StopRequest, barrier, gather_ranks, join, sum_ranks

def main():
    with join("cpu") as place:
        work(place)
    assert not dist.is_initialized()

def work(place):
    stop = StopRequest()
    stop.arm()
    assert stop.agreed(place) is None
    if place.rank == 1:
        os.kill(os.getpid(), signal.SIGTERM)
    barrier(place)
    parts = gather_ranks(torch.tensor([0.5, place.rank]).bfloat16(), place)
    total = sum_ranks(torch.tensor(0.1 * (place.rank + 1), dtype=torch.float64), place)
    tell(place.rank, place.is_first, parts.tolist(), total.item(), stop.agreed(place))
    barrier(place)
    if place.rank == 1 and "fail" in sys.argv:
        raise UserError("broken", "mend it")
    barrier(place)

run_command(main)
"""
TORCHRUN = ("torch.distributed.run", "--nproc-per-node", "2", "--standalone", "-m", "script")


@pytest.mark.parametrize(
    ("command", "code"), [(("script", "fail"), 2), (TORCHRUN, 0)], ids=["launched, one fails", "torchrun"]
)
def test_processes_find_one_another_and_agree(start: Start, command: tuple[str, ...], code: int) -> None:
    process = start(COMMAND + JOINS, *command)
    told, errors = process.communicate(timeout=120)
    assert process.returncode == code, errors
    parts = "[[0.5, 0.0], [0.5, 1.0]]"
    assert sorted(told.splitlines()) == [f"0 True {parts} {0.1 + 0.2} 15", f"1 False {parts} {0.1 + 0.2} 15"]
    for line in ("error: broken", "hint: mend it", "error: process 1 of 2 left with code 2, and the others with it"):
        assert errors.splitlines().count(line) == (code == 2)


def test_one_process_needs_no_group() -> None:
    with join("cpu") as place:
        assert (place.rank, place.world_size, place.is_first, place.device) == (0, 1, True, torch.device("cpu"))
        assert not dist.is_initialized()
        barrier(place)
        values = torch.rand(3, 2)
        assert torch.equal(sum_ranks(values, place), values)


def test_gpus_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    assert usable_device("auto") == usable_device("cpu") == "cpu"
    assert (process_count(None, "cpu"), process_count(3, "cpu")) == (1, 3)
    with pytest.raises(UserError, match="--device cuda"):
        usable_device("cuda")
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    assert usable_device("auto") == usable_device("cuda") == "cuda"
    assert (process_count(None, "cuda"), process_count(1, "cuda")) == (2, 1)
    with pytest.raises(UserError, match="3 processes need 3 GPUs; torch sees 2"):
        process_count(3, "cuda")
    for name, value in {"RANK": "2", "WORLD_SIZE": "3", "LOCAL_RANK": "2", "LOCAL_WORLD_SIZE": "3"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match="3 processes need 3 GPUs"), join("cuda"):
        pass


# Stopping


@pytest.fixture
def stop_request() -> Iterator[StopRequest]:
    handlers = {number: signal.getsignal(number) for number in distributed.STOPS}
    yield StopRequest()
    for number, handler in handlers.items():
        signal.signal(number, handler)


def agreed(request: StopRequest) -> int | None:
    with join("cpu") as place:
        return request.agreed(place)


def test_until_armed_a_signal_is_obeyed_at_once(stop_request: StopRequest) -> None:
    with pytest.raises(SystemExit) as left:
        signal.raise_signal(signal.SIGTERM)
    assert left.value.code == 143


def test_until_armed_ctrl_c_is_obeyed_at_once(stop_request: StopRequest) -> None:
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)


def test_once_armed_a_signal_waits_and_a_second_one_does_not(
    stop_request: StopRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    stop_request.arm()
    assert agreed(stop_request) is None
    signal.raise_signal(signal.SIGINT)
    signal.raise_signal(signal.SIGINT)  # the same one, delivered twice
    assert agreed(stop_request) == signal.SIGINT
    monkeypatch.setattr(distributed, "SAME_SIGNAL_SECONDS", 0)
    with pytest.raises(SystemExit) as left:
        signal.raise_signal(signal.SIGTERM)
    assert left.value.code == 143
