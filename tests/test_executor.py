"""Executors: the same bytes on any of them, only what is not done is run, and no task is lost without a word."""

import json
import os
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curation import executor_slurm
from curation.executor import Stage, StageReport, run_stages
from curation.executor_slurm import JOBS_FILE, check_no_jobs
from curation.settings import ExecutorSettings
from shared.console import Failure, UserError
from tests.conftest import ROOT
from tests.executor_steps import make_stages
from tests.slurm_cluster import slurm_cluster, why_not

N_FILES = 6


class Work:
    """A folder of numbers, and the stages over it."""

    def __init__(self, folder: Path, **words: str) -> None:
        self.folder, self.numbers, self.outputs, self.logs = folder, folder / "in", folder / "out", folder / "the logs"
        self.numbers.mkdir(parents=True)
        for i in range(N_FILES - len(words)):
            (self.numbers / f"{i}.txt").write_text(f"{i} {i + 1} {i + 2}")
        for name, text in words.items():
            (self.numbers / f"{name}.txt").write_text(text)

    def run(self, workers: int = 2, name: str = "local", **others: object) -> StageReport:
        chosen = ExecutorSettings.model_validate({"name": name, "memory_gb": 1, **others})
        return run_stages(make_stages(self.numbers, self.outputs), chosen, workers, self.logs)

    def bytes(self) -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in self.outputs.iterdir() if path.suffix in (".squares", ".sum")}

    def runs(self) -> list[str]:
        """Returns the names of what was run since the last call."""
        log = self.outputs / "runs.log"
        names = sorted(log.read_text().split()) if log.exists() else []
        log.unlink(missing_ok=True)
        return names

    def waits(self) -> int:
        """Returns the process of a task that says `wait`, once it does."""
        deadline = time.monotonic() + 30
        while not (found := [path.read_text() for path in self.outputs.glob("*.waits") if path.read_text()]):
            assert time.monotonic() < deadline, "no task waits"
            time.sleep(0.05)
        return int(found[0])


ALL = [*(f"{i}.txt" for i in range(N_FILES)), "sum"]


@pytest.fixture
def expected(tmp_path: Path) -> dict[str, bytes]:
    work = Work(tmp_path / "expected")
    work.run(workers=1)
    assert (
        work.bytes()["total.sum"]
        == f"18 numbers, sum of squares {sum(n * n for i in range(6) for n in (i, i + 1, i + 2))}".encode()
    )
    return work.bytes()


@pytest.mark.parametrize("workers", [2, 4])
def test_workers_change_no_byte(tmp_path: Path, expected: dict[str, bytes], workers: int) -> None:
    work = Work(tmp_path / "work")
    report = work.run(workers)
    assert work.bytes() == expected
    assert work.runs() == ALL
    assert report.n_tasks == {"square it": N_FILES, "sum": 1}
    assert set(report.seconds) == {"square it", "sum"}
    assert report.peak_worker_bytes > 10_000_000


@given(lost=st.sets(st.sampled_from([*(f"{i}.squares" for i in range(N_FILES)), "total.sum"])), harm=st.booleans())
@settings(max_examples=8, deadline=None)
def test_what_is_not_done_is_run_and_nothing_else(lost: set[str], harm: bool) -> None:
    with tempfile.TemporaryDirectory() as folder:
        work = Work(Path(folder))
        work.run(workers=1)
        before = work.bytes()
        work.runs()
        for name in lost:
            (work.outputs / name).write_text("broken") if harm else (work.outputs / name).unlink()
        report = work.run(workers=1)
        assert work.bytes() == before
        assert work.runs() == sorted(name.replace("total.sum", "sum").replace("squares", "txt") for name in lost)
        assert sum(report.n_tasks.values()) == len(lost)


def test_a_task_that_writes_nothing_is_named(tmp_path: Path) -> None:
    work = Work(tmp_path, empty="")
    with pytest.raises(Failure, match=r"stage square it has ended, but 1 of its 6 tasks .* task 5: .*empty"):
        work.run()
    assert not (work.outputs / "total.sum").exists()


def test_what_a_task_raises_reaches_the_caller(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="oops"):
        Work(tmp_path, odd="1 oops").run()


def test_a_killed_worker_is_told_of_and_the_same_run_goes_on(tmp_path: Path) -> None:
    work = Work(tmp_path, dies="die-once")
    with pytest.raises(Failure, match="a worker process was killed"):
        work.run()
    done = len(work.runs())
    assert sum(work.run().n_tasks.values()) == len(ALL) - done


def test_a_shuffle_is_one_task() -> None:
    with pytest.raises(ValueError, match="shuffle sum has 0 tasks"):
        Stage("sum", "shuffle", [], lambda tasks: [])


# Clusters that are not there --------------------------------------------------------------------------------------


def test_without_slurm_a_hint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UserError, match="needs sbatch") as raised:
        Work(tmp_path).run(name="slurm")
    assert "--executor local or ray" in raised.value.hint


def test_without_ray_a_hint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UserError, match="needs Ray") as raised:
        Work(tmp_path).run(name="ray")
    assert "[cluster]" in raised.value.hint


def program(folder: Path, name: str, script: str) -> None:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(f"#!/bin/sh\n{script}\n")
    (folder / name).chmod(stat.S_IRWXU)


@pytest.mark.parametrize(
    ("squeue", "hint"),
    [
        ("echo '7_[2-5]|PENDING|Dependency'; echo '7_1|COMPLETED|None'", "scancel 7"),
        ("echo '7_1|COMPLETED|None'", None),
        ("echo '7_1|FAILED|NonZeroExitCode'", None),
        ("echo 'slurm_load_jobs error: Invalid job id specified' >&2; exit 1", None),  # long forgotten
        ("echo 'Unable to contact slurm controller' >&2; exit 1", "scancel 7"),
        (None, "remove"),
    ],
)
def test_jobs_that_still_work_on_the_files_keep_others_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, squeue: str | None, hint: str | None
) -> None:
    programs = tmp_path / "programs"
    programs.mkdir()
    if squeue is not None:
        program(programs, "squeue", squeue)
    monkeypatch.setenv("PATH", str(programs))
    (tmp_path / JOBS_FILE).write_text(json.dumps({"read": ["7"]}))
    if hint is None:
        check_no_jobs(tmp_path)
    else:
        with pytest.raises(UserError, match="earlier run still work on these files: 7") as raised:
            check_no_jobs(tmp_path)
        assert hint in raised.value.hint


def test_a_stage_waits_for_every_array_of_the_stage_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Six tasks are two arrays where an array has four jobs at most; then Slurm forgets them all."""
    programs, asked = tmp_path / "programs", tmp_path / "asked"
    program(programs, "scontrol", "echo 'MaxArraySize            = 4'")
    program(programs, "sbatch", f'echo "$@" >> {asked}; echo "Submitted batch job $(wc -l < {asked})"')
    program(programs, "squeue", "echo 'slurm_load_jobs error: Invalid job id specified' >&2; exit 1")
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    monkeypatch.setattr(executor_slurm, "SETTLE_SECONDS", 0.1)
    with pytest.raises(Failure, match="6 of its 6 tasks are not done"):
        Work(tmp_path).run(name="slurm")
    depends = [[flag for flag in line.split() if "dependency" in flag] for line in asked.read_text().splitlines()]
    assert depends == [[], ["--dependency=afterany:1"], ["--dependency=afterok:1:2"]]


# Ray --------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def ray_address() -> Iterator[str]:
    """Yields the address of a Ray cluster with two CPUs."""
    pytest.importorskip("ray")
    head = [sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block", "--include-dashboard=false"]
    flags = ["--port=0", "--num-cpus=2", "--object-store-memory=100000000", "--disable-usage-stats"]
    process = subprocess.Popen(
        [*head, *flags],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    try:
        assert process.stdout is not None
        for line in process.stdout:
            if "--address=" in line:
                address = line.split("--address=")[1].strip().strip("'")
                break
        threading.Thread(target=process.stdout.read, daemon=True).start()
        yield address
    finally:
        process.terminate()
        process.wait()


@pytest.mark.ray
def test_ray_started_here_changes_no_byte(
    tmp_path: Path, expected: dict[str, bytes], capfd: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("ray")
    handler = signal.getsignal(signal.SIGTERM)
    work = Work(tmp_path / "work")
    report = work.run(name="ray")
    assert work.bytes() == expected
    assert work.runs() == ALL
    assert report.peak_worker_bytes > 10_000_000
    assert capfd.readouterr().out == ""  # results alone stand there
    assert signal.getsignal(signal.SIGTERM) is handler


@pytest.mark.ray
def test_a_ray_cluster_changes_no_byte(
    tmp_path: Path, expected: dict[str, bytes], ray_address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # the cluster's workers live elsewhere
    work = Work(Path("work"))
    work.run(name="ray", ray_address=ray_address)
    assert work.bytes() == expected


@pytest.mark.ray
def test_a_killed_ray_worker_begins_again(tmp_path: Path, ray_address: str, capfd: pytest.CaptureFixture[str]) -> None:
    work = Work(tmp_path, dies="die-once")
    work.run(name="ray", ray_address=ray_address)
    assert work.runs() == sorted([*ALL[:5], "dies.txt", "sum"])
    said = capfd.readouterr()
    assert "the worker of task 5 of stage square it was killed; the task begins again" in said.err
    assert said.out == ""


@pytest.mark.ray
@pytest.mark.parametrize(
    ("word", "told"),
    [
        ("die", "worker of task 5 of stage square it was killed 3 times"),
        ("oops", "task 5 of stage square it failed: ValueError: .*oops"),
    ],
)
def test_what_fails_on_ray_is_named(tmp_path: Path, ray_address: str, word: str, told: str) -> None:
    work = Work(tmp_path, odd=f"1 {word}")
    with pytest.raises(Failure, match=told):
        work.run(name="ray", ray_address=ray_address)
    assert not (work.outputs / "total.sum").exists()


def test_no_ray_at_the_address(tmp_path: Path) -> None:
    pytest.importorskip("ray")
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{deaf.getsockname()[1]}"
        with pytest.raises(UserError, match=f"no Ray cluster answers at {address}: Connection refused"):
            Work(tmp_path).run(name="ray", ray_address=address)


# Slurm ------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def slurm() -> Iterator[Path]:
    """Yields a Slurm of this machine whose arrays have four jobs at most: fewer than a stage here has tasks."""
    if reason := why_not():
        pytest.skip(f"no Slurm: {reason}")
    with slurm_cluster(max_array_size=4) as config:
        yield config


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(executor_slurm, "POLL_SECONDS", (0.2, 0.5))
    monkeypatch.setattr(executor_slurm, "SETTLE_SECONDS", 0.1)


@pytest.mark.slurm
@pytest.mark.usefixtures("slurm", "impatient")
@pytest.mark.parametrize("tasks_per_job", [1, 4])
def test_slurm_changes_no_byte(tmp_path: Path, expected: dict[str, bytes], tasks_per_job: int) -> None:
    work = Work(tmp_path / "work")
    report = work.run(name="slurm", slurm_tasks_per_job=tasks_per_job)
    assert work.bytes() == expected
    assert work.runs() == ALL
    assert report.n_tasks == {"square it": N_FILES, "sum": 1}
    assert report.peak_worker_bytes > 10_000_000
    assert not (work.logs / JOBS_FILE).exists()


@pytest.mark.slurm
@pytest.mark.usefixtures("slurm", "impatient")
def test_slurm_runs_what_is_not_done(tmp_path: Path) -> None:
    work = Work(tmp_path)
    work.run()
    work.runs()
    (work.outputs / "2.squares").unlink()
    report = work.run(name="slurm")
    assert work.runs() == ["2.txt"]
    assert report.n_tasks == {"square it": 1, "sum": 1}  # the sum was submitted with it, and found itself done


@pytest.mark.slurm
@pytest.mark.usefixtures("slurm", "impatient")
@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("1 oops", "ended as FAILED: ValueError: .*oops"),
        ("die", "ended as FAILED: its last words were"),
        ("", "not done: .*0first"),
    ],
)
def test_what_fails_on_slurm_is_named_and_nothing_goes_on(tmp_path: Path, text: str, told: str) -> None:
    """The task stands in the first of the two arrays of its stage: the second one ends well, and must not be enough."""
    work = Work(tmp_path, **{"0first": text})
    with pytest.raises(
        Failure, match=rf"(?s)stage square it: job \d+_1 {told}|stage square it: job \d+_1 .*{told}"
    ) as raised:
        work.run(name="slurm")
    log = raised.value.hint.split("its log is ")[1].split(";")[0]
    assert Path(log).is_file()
    assert not (work.outputs / "total.sum").exists()
    ids = [job for jobs in json.loads((work.logs / JOBS_FILE).read_text()).values() for job in jobs]
    wait_for(lambda: not any(state.goes_on for state in executor_slurm.job_states(ids) or []))


@pytest.mark.slurm
@pytest.mark.usefixtures("slurm", "impatient")
def test_a_cancelled_slurm_job_is_told_of(tmp_path: Path) -> None:
    work = Work(tmp_path, **{"0first": "wait"})

    def cancel() -> None:
        work.waits()
        job = json.loads((work.logs / JOBS_FILE).read_text())["square it"][0]
        subprocess.run(["scancel", f"{job}_1"], check=True)

    canceller = threading.Thread(target=cancel)
    canceller.start()
    with pytest.raises(Failure, match=r"stage square it: job \d+_1 ended as CANCELLED"):
        work.run(name="slurm")
    canceller.join()


@pytest.mark.slurm
@pytest.mark.usefixtures("slurm", "impatient")
def test_a_refused_slurm_job_is_told_of(tmp_path: Path) -> None:
    with pytest.raises(Failure, match="sbatch refused stage square it") as raised:
        Work(tmp_path).run(name="slurm", slurm_partition="nowhere")
    assert "slurm_partition" in raised.value.hint


@pytest.mark.slurm
@pytest.mark.usefixtures("slurm", "impatient")
def test_after_ctrl_c_the_jobs_go_on(tmp_path: Path) -> None:
    work = Work(tmp_path, **{"0first": "wait"})
    code = f"""
from pathlib import Path
from shared.console import run_command
from tests.test_executor import Work
work = object.__new__(Work)
work.numbers, work.outputs, work.logs = (Path({str(tmp_path)!r}) / name for name in ("in", "out", "the logs"))
run_command(lambda: print(work.run(name="slurm")))
"""
    process = subprocess.Popen(
        [sys.executable, "-c", code], cwd=ROOT, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    waiting = work.waits()
    os.killpg(process.pid, signal.SIGINT)
    said = process.communicate(timeout=20)[1]
    assert process.returncode == 130, said
    assert "Traceback" not in said
    ids = [job for jobs in json.loads((work.logs / JOBS_FILE).read_text()).values() for job in jobs]
    assert f"scancel {' '.join(ids)}" in said
    assert Path(f"/proc/{waiting}").exists()
    with pytest.raises(UserError, match="earlier run still work on these files"):
        work.run()
    subprocess.run(["scancel", *ids], check=True)
    wait_for(lambda: not any(state.goes_on for state in executor_slurm.job_states(ids) or []))
    (work.numbers / "0first.txt").write_text("0")
    work.run()
    assert (work.outputs / "total.sum").exists()


def wait_for(ready: Callable[[], bool], seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not ready():
        assert time.monotonic() < deadline
        time.sleep(0.1)
