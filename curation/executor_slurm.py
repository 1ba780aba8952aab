"""Runs stages through Slurm: every stage an array of jobs, all submitted at once, each waiting for the stage before.

The jobs are datatrove's and go on without this process, which only waits for them and tells how they ended. It asks
squeue, so Slurm needs no accounting; nodes and this machine share a disk, the same Python and the same paths.
"""

import json
import os
import re
import resource
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datatrove.executor import SlurmPipelineExecutor
from tqdm import tqdm

from curation.executor import Stage, StageReport, Task, check_done
from curation.settings import ExecutorSettings
from shared.console import Failure, UserError, say
from shared.files import write_text

JOBS_FILE = "slurm_jobs.json"  # job ids by stage, while they may be going on
POLL_SECONDS = (0.5, 30.0)  # between two questions to Slurm: at first, and after a while
SETTLE_SECONDS = 60.0  # an NFS client may know for so long that a file is not there (acdirmax)
TAIL_LINES = 6
ENDED_WELL = "COMPLETED"
ENDED_BADLY = {
    *("BOOT_FAIL", "CANCELLED", "DEADLINE", "FAILED", "NODE_FAIL", "OUT_OF_MEMORY", "PREEMPTED", "REVOKED", "TIMEOUT")
}
NEVER = "DependencyNeverSatisfied"
USUAL_REASONS = ("None", "Priority", "Resources", "Dependency", "JobArrayTaskLimit", "BeginTime")
REPAIRS = {
    "OUT_OF_MEMORY": "ask for more with executor.memory_gb in pipelines.yaml; ",
    "TIMEOUT": "ask for more with executor.slurm_time in pipelines.yaml; ",
}


class SlurmExecutor(SlurmPipelineExecutor):
    """datatrove's Slurm executor: with all its job ids, a record of each rank, and this very Python."""

    def __init__(
        self, stage: Stage, tasks: Sequence[Task], settings: ExecutorSettings, workers: int, logs: Path
    ) -> None:
        log = _quoted(logs / "slurm" / "%A_%a.out")
        super().__init__(
            pipeline=stage.pipeline(tasks),
            tasks=len(tasks),
            time=settings.slurm_time,
            partition=settings.slurm_partition,
            mem_per_cpu_gb=settings.memory_gb,
            workers=workers,
            job_name=logs.name,
            qos="",  # the account's default
            logging_dir=str(logs),
            skip_completed=False,  # what is done is told by the outputs, not by datatrove's ranks
            slurm_logs_folder=str(logs / "slurm"),
            tasks_per_job=settings.slurm_tasks_per_job,
            max_array_size=_max_array_size(),
            job_id_retriever=self._all_ids,
            sbatch_args={"output": log, "error": log, "kill-on-invalid-dep": "yes", **settings.slurm_flags},
            with_srun=False,
        )
        self.stage_tasks = tasks
        self.job_ids: list[str] = []
        self.ranks_folder = logs / "ranks"

    def _all_ids(self, told: str) -> str:
        """Returns all jobs so far. More tasks than an array holds make several, and the next stage needs each of them.

        datatrove knows only the last one: a stage would begin although an earlier array had failed.
        """
        self.job_ids.append(re.findall(r"\d+", told)[0])
        return ":".join(self.job_ids)

    def launch_merge_stats(self) -> None:
        """Does nothing: it would be a job more for each stage."""

    def get_sbatch_args(self, max_array: int = 1) -> dict[str, Any]:
        """Returns the flags of sbatch; without a partition the cluster's default is taken."""
        flags: dict[str, Any] = super().get_sbatch_args(max_array)
        return {name: value for name, value in flags.items() if name != "partition" or value}

    def get_launch_file_contents(self, sbatch_args: dict[str, Any], run_script: str) -> str:
        """Returns the job's script; it needs no PATH, and paths may hold spaces."""
        pickled = str(self.logging_dir.resolve_paths("executor.pik"))
        command = shlex.join([sys.executable, "-m", "datatrove.tools.launch_pickled_pipeline", pickled])
        script: str = super().get_launch_file_contents(sbatch_args, f"exec {command}")
        return script

    def _run_for_rank(self, rank: int, local_rank: int = 0, node_rank: int = -1) -> Any:
        started, error = time.time(), ""
        try:
            statistics = super()._run_for_rank(rank, local_rank, node_rank)
            if not self.stage_tasks[rank].is_done():  # told here, before the next stage stumbles over it
                raise RuntimeError(f"the task has ended, but is not done: {str(self.stage_tasks[rank])[:200]}")
            return statistics
        except Exception as raised:
            error = f"{type(raised).__name__}: {raised}"
            raise
        finally:
            record = {
                "job": f"{os.environ['SLURM_ARRAY_JOB_ID']}_{os.environ['SLURM_ARRAY_TASK_ID']}",
                "started": started,
                "ended": time.time(),
                "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
                "error": error,
            }
            write_text(self.ranks_folder / f"{rank:05}.json", json.dumps(record))

    def records(self) -> Iterator[dict[str, Any]]:
        """Yields what the ranks that have ended left, in the order of the ranks."""
        for path in sorted(self.ranks_folder.glob("[0-9]*.json")):
            yield json.loads(path.read_bytes())


def run_on_slurm(stages: Sequence[Stage], settings: ExecutorSettings, workers: int, logs: Path) -> StageReport:
    """Returns what it took to run the tasks that are not done, as run_stages does.

    A stage that follows one with anything to do is submitted with all its tasks: what is done by then ends at once.
    Raises Failure when a job failed, after cancelling the others.
    """
    logs = logs.resolve()
    jobs: dict[str, SlurmExecutor] = {}
    try:
        for stage in stages:
            tasks = stage.tasks if jobs else stage.pending()
            if tasks:
                before = list(jobs.values())[-1] if jobs else None
                job = jobs[stage.name] = SlurmExecutor(stage, tasks, settings, workers, stage.logs(logs))
                _submit(job, before, stage.name)
                write_text(logs / JOBS_FILE, json.dumps({name: job.job_ids for name, job in jobs.items()}))
                numbers = ", ".join(job.job_ids)
                say(f"stage {stage.name}: {len(tasks)} tasks in Slurm job {numbers}, logs in {stage.logs(logs)}")
        if jobs:
            _wait(jobs)
    except UserError:
        _cancel(jobs)
        raise
    except (KeyboardInterrupt, SystemExit):
        if ids := _ids(jobs):
            say(f"\nthe jobs go on without this command; to end them: scancel {' '.join(ids)}")
        raise
    for stage in stages:
        _check_done_soon(stage, logs)
    (logs / JOBS_FILE).unlink(missing_ok=True)
    return _report(stages, jobs)


def check_no_jobs(logs: Path) -> None:
    """Raises UserError while jobs of an earlier run, which somebody stopped waiting for, still go on."""
    try:
        jobs = json.loads((logs / JOBS_FILE).read_bytes())
    except FileNotFoundError:
        return
    ids = [job_id for ids in jobs.values() for job_id in ids]
    hint = f"wait for them, or: scancel {' '.join(ids)}"
    try:
        states = job_states(ids)
    except FileNotFoundError:
        states = None
        hint = f"go to a machine of the cluster; or remove {logs / JOBS_FILE}, when you know that they have ended"
    if states is None or any(state.goes_on for state in states):
        raise UserError(f"Slurm jobs of an earlier run still work on these files: {', '.join(ids)}", hint)


def _submit(job: SlurmExecutor, before: SlurmExecutor | None, name: str) -> None:
    job.depends_job_id = before.job_id if before else None
    try:
        job.launch_job()  # not run(): inside somebody's array job that would do a task here
    except subprocess.CalledProcessError:
        raise Failure(
            f"sbatch refused stage {name} (its reason stands above)",
            "mend executor in pipelines.yaml: slurm_partition, slurm_time, memory_gb, slurm_flags (account, qos), or "
            "slurm_tasks_per_job where a user may have only so many jobs",
        ) from None


def _max_array_size() -> int:
    """Returns how many jobs an array of this cluster may have. Raises UserError where there is no cluster."""
    try:
        config = subprocess.run(["scontrol", "show", "config"], capture_output=True, text=True)
    except FileNotFoundError:
        raise UserError(
            "--executor slurm needs sbatch, which is not on this machine",
            "give the command on a login node of the cluster, or take --executor local or ray",
        ) from None
    size = re.search(r"^MaxArraySize\s*=\s*(\d+)", config.stdout, re.MULTILINE)
    if config.returncode or not size:
        told = config.stderr.strip().splitlines()[-1:] or ["no MaxArraySize in its configuration"]
        raise UserError(
            f"Slurm does not answer: {told[0]}", "see whether sinfo does; --executor local needs no cluster"
        )
    return int(size[1])


@dataclass(frozen=True)
class JobState:
    """What squeue says of an array's jobs: `12_3`, or `12_[4-9]` of those that wait together."""

    job: str
    state: str
    reason: str

    @property
    def is_bad(self) -> bool:
        return self.state in ENDED_BADLY or self.reason == NEVER

    @property
    def goes_on(self) -> bool:
        return self.state not in ENDED_BADLY and self.state != ENDED_WELL


def job_states(job_ids: Sequence[str]) -> list[JobState] | None:
    """Returns what Slurm knows of jobs, nothing of those it has forgotten; None where it does not answer."""
    flags = ["--noheader", "--states=all", "--format=%i|%T|%r", f"--jobs={','.join(job_ids)}"]
    asked = subprocess.run(["squeue", *flags], capture_output=True, text=True)
    if asked.returncode:
        return [] if "Invalid job id" in asked.stderr else None
    return [JobState(*line.split("|", 2)) for line in asked.stdout.splitlines()]


def _wait(jobs: dict[str, SlurmExecutor]) -> None:
    """Returns when no job goes on. Raises Failure as soon as one has failed."""
    pause, told = POLL_SECONDS[0], set[str]()
    n_tasks = sum(job.tasks for job in jobs.values())
    with tqdm(total=n_tasks, desc="slurm", unit="task", disable=None, leave=False) as bar:
        while True:
            states = job_states(_ids(jobs))
            if states is None and "squeue" not in told:
                say("Slurm does not answer; its jobs go on, and it is asked again")
                told.add("squeue")
            _raise_failure(jobs, states or [])
            if states is not None and not any(state.goes_on for state in states):
                return
            for state in states or []:
                if state.state == "PENDING" and state.reason not in (*USUAL_REASONS, *told):
                    say(f"job {state.job} waits: {state.reason}")
                    told.add(state.reason)
            if not bar.disable:
                bar.update(sum(1 for job in jobs.values() for _ in job.ranks_folder.glob("[0-9]*.json")) - bar.n)
            time.sleep(pause)
            pause = min(pause * 1.2, POLL_SECONDS[1])


def _raise_failure(jobs: dict[str, SlurmExecutor], states: Sequence[JobState]) -> None:
    """Raises Failure for the first stage with a job that ended badly: its task's error, or the end of its log."""
    for name, job in jobs.items():
        bad = [state for state in states if state.is_bad and state.job.partition("_")[0] in job.job_ids]
        if not bad:
            continue
        state = min(bad, key=lambda state: (state.state == "CANCELLED", state.job))
        error = next((record for record in job.records() if record["error"]), None)
        number = error["job"] if error else state.job
        log = Path(job.slurm_logs_folder) / f"{number}.out"
        why = error["error"] if error else _tail(log)
        how = NEVER if state.reason == NEVER else state.state
        raise Failure(
            f"stage {name}: job {number} ended as {how}: {why}",
            f"{REPAIRS.get(state.state, '')}its log is {log}; what was finished is kept, the other jobs are cancelled",
        )


def _tail(log: Path) -> str:
    try:
        lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
    except FileNotFoundError:
        return "it never began"
    return "its last words were\n" + "\n".join(lines[-TAIL_LINES:])


def _cancel(jobs: dict[str, SlurmExecutor]) -> None:
    if ids := _ids(jobs):
        subprocess.run(["scancel", "--quiet", *ids], capture_output=True)


def _ids(jobs: dict[str, SlurmExecutor]) -> list[str]:
    return [job_id for job in jobs.values() for job_id in job.job_ids]


def _check_done_soon(stage: Stage, logs: Path) -> None:
    deadline = time.monotonic() + SETTLE_SECONDS
    while True:
        try:
            return check_done(stage, logs)
        except Failure:
            if time.monotonic() > deadline:
                raise
        time.sleep(min(5.0, SETTLE_SECONDS))


def _report(stages: Sequence[Stage], jobs: dict[str, SlurmExecutor]) -> StageReport:
    report = StageReport({stage.name: 0.0 for stage in stages}, {stage.name: 0 for stage in stages})
    for name, job in jobs.items():
        report.n_tasks[name] = job.tasks
        if records := list(job.records()):
            report.seconds[name] = round(max(r["ended"] for r in records) - min(r["started"] for r in records), 3)
            report.peak_worker_bytes = max(report.peak_worker_bytes, *(r["peak_bytes"] for r in records))
    return report


def _quoted(path: Path) -> str:
    return f'"{path}"'
