"""Runs the tasks of a stage on a Ray cluster: one that is there, or one started on this machine for the run.

Pipeline, ranks, logs and statistics are datatrove's; the tasks are Ray's own. datatrove (0.10.1) runs each rank in a
child of an actor and waits for ever when that child is killed, tells nobody what a task raised, and gives the logs of
all runs on a machine the same names in /tmp.
"""

import contextlib
import logging
import os
import re
import signal
import socket
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from datatrove.executor import RayPipelineExecutor
from datatrove.executor.base import PipelineExecutor

from curation.executor import RunTasks, Stage, Task, run_rank
from curation.settings import ExecutorSettings
from shared.console import EXIT_TERMINATED, Failure, UserError, say

MAX_TRIES = 3  # of a task whose worker is killed; what a task raises is not tried again
START_HERE = "local"
CONNECT_SECONDS = 10
OBJECT_STORE_BYTES = 100_000_000  # it holds a stage's pipeline, never documents


class RayExecutor(RayPipelineExecutor):
    """datatrove's Ray executor, with its tasks given to Ray one by one."""

    _run_for_rank = PipelineExecutor._run_for_rank  # logs of a task go straight to the folder of its run

    def __init__(self, stage: Stage, tasks: Sequence[Task], workers: int, memory_gb: float, logs: Path) -> None:
        super().__init__(
            pipeline=stage.pipeline(tasks),
            tasks=len(tasks),
            workers=workers,
            logging_dir=str(logs.resolve()),
            skip_completed=False,  # what is done is told by the outputs, not by datatrove's ranks
            mem_per_cpu_gb=memory_gb,
        )
        self.stage_name = stage.name

    def finished(self) -> Iterator[int]:
        """Yields, as tasks end, the peak memory of the process each ran in, in bytes.

        Raises what a task raised, and Failure when its worker was killed again and again.
        """
        import ray
        from ray.exceptions import RayError, RayTaskError

        run_one = ray.remote(_run_rank_from).options(
            num_cpus=1,
            memory=int(self.mem_per_cpu_gb * 2**30),
            max_retries=0,  # Ray itself would retry for ever what lacks memory
        )
        executor, folder = ray.put(self), os.getcwd()
        waiting, running, kills = deque(range(self.tasks)), dict[Any, int](), Counter[int]()
        while waiting or running:
            while waiting and len(running) < self.workers:
                rank = waiting.popleft()
                running[run_one.remote(executor, rank, folder)] = rank
            ended = ray.wait(list(running))[0][0]
            rank = running.pop(ended)
            try:
                yield ray.get(ended)
            except RayTaskError as error:
                raise self._told(rank, error.cause) from None
            except RayError as error:
                kills[rank] += 1
                if kills[rank] == MAX_TRIES:
                    raise self._killed(rank, error) from None
                say(f"the worker of task {rank} of stage {self.stage_name} was killed; the task begins again")
                waiting.append(rank)

    def _told(self, rank: int, cause: Exception) -> Exception:
        if isinstance(cause, UserError | OSError):
            return cause  # the command knows how to tell it
        return Failure(
            f"task {rank} of stage {self.stage_name} failed: {type(cause).__name__}: {cause}",
            f"its log is {self.logging_dir.resolve_paths(f'logs/task_{rank:05}.log')}",
        )

    def _killed(self, rank: int, error: Exception) -> Failure:
        return Failure(
            f"the worker of task {rank} of stage {self.stage_name} was killed {MAX_TRIES} times, perhaps for want of "
            f"memory ({type(error).__name__})",
            "what was finished is kept: run the same command with fewer --workers, or a larger executor.memory_gb",
        )


def _run_rank_from(executor: RayExecutor, rank: int, folder: str) -> int:
    os.chdir(folder)  # paths of a task may be relative to where the command was given
    return run_rank(executor, rank)


@contextmanager
def ray_cluster(settings: ExecutorSettings, workers: int, logs: Path) -> Iterator[RunTasks]:
    """Yields what runs tasks of a stage on the cluster; a cluster started for this run ends with it.

    Raises UserError where there is no Ray, or no cluster at the address.
    """
    here = settings.ray_address == START_HERE
    memory_gb = 0 if here else settings.memory_gb  # on one machine --workers alone decides
    logs.mkdir(parents=True, exist_ok=True)
    with (logs / "ray.log").open("w") as said, contextlib.redirect_stdout(said):  # Ray speaks on stdout
        _connect(settings.ray_address, {"num_cpus": workers, "include_dashboard": False} if here else {})
        import ray

        try:
            if not here:
                _warn_of_small_nodes(memory_gb)
            yield lambda stage, tasks, n, folder: RayExecutor(stage, tasks, n, memory_gb, folder).finished()
        except SystemExit:
            raise SystemExit(EXIT_TERMINATED) from None  # by SIGTERM, of which Ray makes a 1
        finally:
            ray.shutdown()


def _connect(address: str, options: dict[str, Any]) -> None:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # else a warning for each worker
    try:
        import ray
    except ImportError:
        raise UserError(
            "--executor ray needs Ray", "python -m pip install -c constraints.txt -e '.[cluster]'"
        ) from None

    _check_reachable(address)
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    if options:
        options = {**options, "object_store_memory": OBJECT_STORE_BYTES}
    try:
        ray.init(address=address, logging_level=logging.ERROR, log_to_driver=False, **options)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise _no_cluster(address, str(error).partition("\n")[0]) from None
    finally:
        for number, handler in handlers.items():  # Ray's own speak of SIGTERM at length and change the exit code
            with contextlib.suppress(ValueError):  # only a main thread may, and only there Ray has
                signal.signal(number, handler)


def _check_reachable(address: str) -> None:
    """Raises UserError where nothing listens at host:port; Ray itself would try for more than ten minutes."""
    if place := re.fullmatch(r"([^:/]+):(\d+)", address):
        try:
            socket.create_connection((place[1], int(place[2])), timeout=CONNECT_SECONDS).close()
        except OSError as error:
            raise _no_cluster(address, error.strerror or str(error)) from None


def _no_cluster(address: str, why: str) -> UserError:
    hint = f"start one (ray start --head), or set executor.ray_address to {START_HERE}"
    return UserError(f"no Ray cluster answers at {address}: {why}", hint)


def _warn_of_small_nodes(memory_gb: float) -> None:
    import ray

    listed: list[dict[str, Any]] = ray.nodes()
    nodes = [node["Resources"] for node in listed if node["Alive"]]
    if not any(node.get("CPU", 0) >= 1 and node.get("memory", 0) >= memory_gb * 2**30 for node in nodes):
        say(f"warning: no node of the Ray cluster has a CPU and {memory_gb:g} GB for a task: waiting until one joins")
