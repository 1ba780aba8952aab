"""Runs datatrove pipelines on this machine. Datatrove's own progress goes to log files, ours to stderr."""

import contextlib
import io
import os
import signal
import threading
from pathlib import Path
from typing import Any

from datatrove.executor import LocalPipelineExecutor
from datatrove.pipeline.base import PipelineStep
from loguru import logger
from tqdm import tqdm


def run_pipeline(pipeline: list[PipelineStep], outputs: list[Path], workers: int, logs: Path, what: str) -> None:
    """Runs a pipeline with one task an output, on so many processes. Raises what a task raised."""
    logger.remove()
    executor = _QuietExecutor(
        pipeline=pipeline,
        tasks=len(outputs),
        workers=min(workers, len(outputs)),
        logging_dir=str(logs),
        skip_completed=False,  # what is done is told by the outputs, not by datatrove's ranks
    )
    done = threading.Event()
    watcher = threading.Thread(target=_show_progress, args=(outputs, done, what), daemon=True)
    watcher.start()
    try:
        executor.run()
    finally:
        done.set()
        watcher.join()


class _QuietExecutor(LocalPipelineExecutor):
    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._main_process = os.getpid()

    def _launch_run_for_rank(self, *args: Any, **kwargs: Any) -> Any:
        if os.getpid() != self._main_process:
            signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the main process's to answer
        with contextlib.redirect_stderr(io.StringIO()):
            return super()._launch_run_for_rank(*args, **kwargs)


def _show_progress(outputs: list[Path], done: threading.Event, what: str) -> None:
    with tqdm(total=len(outputs), desc=what, unit="task", disable=None, leave=False) as bar:
        while not done.wait(0.5):
            bar.update(sum(path.exists() for path in outputs) - bar.n)
