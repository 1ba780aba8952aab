"""Runs datatrove pipelines on this machine: a task an output, so many at a time, and no task lost without a word.

datatrove's own local executor waits for ever when the system kills one of its workers, as it does for want of memory;
this one says so. Tasks, logs and statistics are datatrove's; its progress goes to log files, ours to stderr.
"""

import contextlib
import io
import multiprocessing
import os
import resource
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

from datatrove.executor import LocalPipelineExecutor
from datatrove.pipeline.base import PipelineStep
from loguru import logger
from tqdm import tqdm

from shared.console import Failure


def run_pipeline(pipeline: list[PipelineStep], n_tasks: int, workers: int, logs: Path, what: str) -> int:
    """Runs a pipeline's tasks on so many processes. Returns the peak memory of the largest of them, in bytes.

    Raises what a task raised, and Failure when a process was killed.
    """
    logger.remove()
    executor = LocalPipelineExecutor(
        pipeline=pipeline,
        tasks=n_tasks,
        logging_dir=str(logs),
        skip_completed=False,  # what is done is told by the outputs, not by datatrove's ranks
    )
    workers = min(workers, n_tasks)
    finished = _in_this_process(executor) if workers == 1 else _in_processes(executor, workers)
    return max(tqdm(finished, total=n_tasks, desc=what, unit="task", disable=None, leave=False))


def _in_this_process(executor: LocalPipelineExecutor) -> Iterator[int]:
    for rank in range(executor.tasks):
        yield _run_task(executor, rank)


def _in_processes(executor: LocalPipelineExecutor, workers: int) -> Iterator[int]:
    context = multiprocessing.get_context("forkserver")
    try:
        with ProcessPoolExecutor(workers, mp_context=context, initializer=_obey_the_main_process) as pool:
            futures = [pool.submit(_run_task, executor, rank) for rank in range(executor.tasks)]
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


def _obey_the_main_process() -> None:
    """Leaves Ctrl-C to the main process, and ends with it however it ends: its lock is free from then on."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    main_process = multiprocessing.parent_process()
    assert main_process is not None

    def follow() -> None:
        main_process.join()
        os._exit(1)

    threading.Thread(target=follow, daemon=True).start()


def _run_task(executor: LocalPipelineExecutor, rank: int) -> int:
    with contextlib.redirect_stderr(io.StringIO()):
        executor._run_for_rank(rank)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
