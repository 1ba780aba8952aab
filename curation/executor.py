"""Runs stages of tasks with datatrove: on this machine, on a Ray cluster or through Slurm, and the bytes are the same.

A stage is a map, whose tasks know nothing of each other, or a shuffle, whose one task sees what all stages before it
wrote. A task tells by its own outputs whether it is done, so only what is not yet done is run, and a run that lost a
task says so. Other executors are in executor_ray.py and executor_slurm.py.
"""

import contextlib
import io
import multiprocessing
import os
import pickle
import resource
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

from datatrove.executor import LocalPipelineExecutor
from datatrove.executor.base import PipelineExecutor
from datatrove.pipeline.base import PipelineStep
from loguru import logger
from tqdm import tqdm

from curation.settings import ExecutorSettings
from shared.console import Failure

CHECKING_THREADS = 8  # files of a network disk are waited for, not worked on


class Task(Protocol):
    """A piece of work that can be pickled and knows its own outputs."""

    def is_done(self) -> bool:
        """Do all outputs stand as they were written?"""
        ...


@dataclass(frozen=True)
class Stage:
    """Tasks of one kind, and the pipeline whose rank r does task r; its steps do nothing for a task that is done."""

    name: str
    kind: Literal["map", "shuffle"]
    tasks: Sequence[Task]
    pipeline: Callable[[Sequence[Any]], list[PipelineStep]]

    def __post_init__(self) -> None:
        if self.kind == "shuffle" and len(self.tasks) != 1:
            raise ValueError(f"shuffle {self.name} has {len(self.tasks)} tasks, not 1")

    def logs(self, folder: Path) -> Path:
        """Returns the folder for the logs and statistics of this stage."""
        return folder / self.name.replace(" ", "_")

    def pending(self) -> list[Task]:
        """Returns the tasks that are not done."""
        with ThreadPoolExecutor(CHECKING_THREADS) as pool:
            done = list(pool.map(lambda task: task.is_done(), self.tasks))
        return [task for task, is_done in zip(self.tasks, done, strict=True) if not is_done]


# What runs tasks of a stage, so many at a time, with logs in a folder; it yields the peak memory (bytes) of the worker
# that ended a task.
RunTasks = Callable[[Stage, Sequence[Task], int, Path], Iterator[int]]


@dataclass
class StageReport:
    """What a run took: seconds and number of tasks run by stage, and the peak memory of the largest worker."""

    seconds: dict[str, float] = field(default_factory=dict)
    n_tasks: dict[str, int] = field(default_factory=dict)
    peak_worker_bytes: int = 0  # 0 where nothing ran


def run_stages(stages: Sequence[Stage], executor: ExecutorSettings, workers: int, logs: Path) -> StageReport:
    """Returns what it took to run the tasks that are not done, stage after stage, so many at a time.

    Raises what a task raised, Failure when a worker was killed or a task left its outputs unwritten, and UserError when
    the executor is not to be had. Whatever was in `logs` is removed first.
    """
    from curation.executor_slurm import check_no_jobs, run_on_slurm

    check_no_jobs(logs)
    shutil.rmtree(logs, ignore_errors=True)
    logger.remove()
    if executor.name == "slurm":
        return run_on_slurm(stages, executor, workers, logs)
    report = StageReport()
    with contextlib.ExitStack() as cluster:
        run: RunTasks = _run_here
        if executor.name == "ray":
            from curation.executor_ray import ray_cluster

            run = cluster.enter_context(ray_cluster(executor, workers, logs))
        for stage in stages:
            started = time.perf_counter()
            tasks = stage.pending()
            if tasks:
                finished = run(stage, tasks, workers, stage.logs(logs))
                bar = tqdm(finished, total=len(tasks), desc=stage.name, unit="task", disable=None, leave=False)
                report.peak_worker_bytes = max(report.peak_worker_bytes, *bar)
                check_done(stage, logs)
            report.n_tasks[stage.name] = len(tasks)
            report.seconds[stage.name] = round(time.perf_counter() - started, 3)
    return report


def check_done(stage: Stage, logs: Path) -> None:
    """Raises Failure naming the first task of a stage that is not done."""
    if pending := stage.pending():
        number = next(i for i, task in enumerate(stage.tasks) if task is pending[0])
        raise Failure(
            f"stage {stage.name} has ended, but {len(pending)} of its {len(stage.tasks)} tasks are not done, "
            f"the first of them task {number}: {str(pending[0])[:200]}",
            f"its logs are in {stage.logs(logs)}; run the same command again to repeat what is not done",
        )


def _run_here(stage: Stage, tasks: Sequence[Task], workers: int, logs: Path) -> Iterator[int]:
    """Yields, as tasks end, the peak memory of the process each ran in, in bytes.

    datatrove's own local executor waits for ever when the system kills one of its workers, as it does for want of
    memory; this one says so. Tasks, logs and statistics are datatrove's.
    """
    executor = LocalPipelineExecutor(
        pipeline=stage.pipeline(tasks),
        tasks=len(tasks),
        logging_dir=str(logs),
        skip_completed=False,  # what is done is told by the outputs, not by datatrove's ranks
    )
    workers = min(workers, len(tasks))
    return _in_this_process(executor) if workers == 1 else _in_processes(executor, workers)


def _in_this_process(executor: LocalPipelineExecutor) -> Iterator[int]:
    for rank in range(executor.tasks):
        yield run_rank(executor, rank)


def _in_processes(executor: LocalPipelineExecutor, workers: int) -> Iterator[int]:
    context = multiprocessing.get_context("forkserver")
    try:
        with ProcessPoolExecutor(workers, context, _start_worker, (pickle.dumps(executor),)) as pool:
            futures = [pool.submit(_run_rank_in_worker, rank) for rank in range(executor.tasks)]
            try:
                for future in as_completed(futures):
                    yield future.result()
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                for worker in multiprocessing.active_children():
                    worker.terminate()  # what it was writing has a temporary name
                raise
    except BrokenProcessPool:
        raise Failure(
            "a worker process was killed, perhaps for want of memory",
            "what was finished is kept: run the same command with fewer --workers",
        ) from None


_worker_executor: LocalPipelineExecutor  # of a worker process, sent to it once: it holds every task of the stage


def _start_worker(executor: bytes) -> None:
    """Leaves Ctrl-C to the main process, and ends with it however it ends: its lock is free from then on."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    main_process = multiprocessing.parent_process()
    assert main_process is not None

    def follow() -> None:
        main_process.join()
        os._exit(1)

    threading.Thread(target=follow, daemon=True).start()
    global _worker_executor
    _worker_executor = pickle.loads(executor)


def _run_rank_in_worker(rank: int) -> int:
    return run_rank(_worker_executor, rank)


def run_rank(executor: PipelineExecutor, rank: int) -> int:
    """Runs one rank of a datatrove executor in this process. Returns the peak memory of the process, in bytes."""
    with contextlib.redirect_stderr(io.StringIO()):  # its log is a file
        executor._run_for_rank(rank)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
