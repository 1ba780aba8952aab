"""Processes: started by the command itself, one a GPU, or joined under torchrun; stopped together; summed over.

launch() in the command a person typed -> the same command once more for each rank -> join() there -> Place.
With one process there is nothing to join, and the helpers that take a Place return at once.
"""

import atexit
import ctypes
import math
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from types import FrameType

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed import TCPStore  # type: ignore[attr-defined]
from torch.distributed.distributed_c10d import _get_default_group

from shared.console import EXIT_FAILURE, EXIT_INTERRUPTED, EXIT_TERMINATED, EXIT_WRONG_USE, UserError, say

STOPS: dict[int, int] = {signal.SIGINT: EXIT_INTERRUPTED, signal.SIGTERM: EXIT_TERMINATED}
LAUNCHER = "GRADED_LAUNCHER"  # process id of the launch() that started this process; torchrun sets none
FAILED = "failed"  # rank and exit code of the first process to fail, in the store of launch()
TIMEOUT = timedelta(hours=2)  # that a process waits for another; the first one alone writes checkpoints and samples
POLL_SECONDS = 0.02
GRACE_SECONDS = 5  # from the failure of one process to the end of the others
SAVE_SECONDS = 120  # from the end of a process that was stopped alone to the end of the others
SAME_SIGNAL_SECONDS = 1  # `timeout` and some schedulers deliver one stop twice


@dataclass(frozen=True)
class Place:
    """Where a process stands among the others, and the device it computes on."""

    device: torch.device
    rank: int = 0
    world_size: int = 1
    local_rank: int = 0

    @property
    def is_first(self) -> bool:
        return self.rank == 0


def usable_device(asked: str) -> str:
    """Returns "cuda" or "cpu" for auto, cuda or cpu. Raises UserError when there is no GPU to use."""
    if asked == "cuda" and not torch.cuda.is_available():
        raise UserError("--device cuda: torch sees no GPU here", "--device cpu, or a torch built for this GPU's driver")
    return "cuda" if asked != "cpu" and torch.cuda.is_available() else "cpu"


def multiplies_bf16_fast(device: torch.device) -> bool:
    """Returns whether a device has instructions for bf16 matrices; without them bf16 is slower than fp32."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return device.type == "cpu" and bool(torch.cpu._is_avx512_bf16_supported())


def process_count(asked: int | None, device: str) -> int:
    """Returns how many processes this machine runs: as asked, or one a GPU, or one. Raises UserError without GPUs."""
    n_gpus = torch.cuda.device_count() if device == "cuda" else None
    if n_gpus is not None and asked is not None and asked > n_gpus:
        raise UserError(f"{asked} processes need {asked} GPUs; torch sees {n_gpus}", f"--processes {n_gpus}")
    return asked or n_gpus or 1


def is_launched() -> bool:
    """Returns whether launch() or torchrun started this process."""
    return {"RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE"} <= os.environ.keys()


def launch(n_processes: int) -> int:
    """Runs this very command n_processes times over, as ranks 0 to n_processes - 1. Returns the exit code of them all.

    SIGINT and SIGTERM are passed on. When one process fails, the others are ended and the failing one is named.
    """
    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)  # port 0: the system finds a free one
    stops: list[int] = []
    handlers = {number: signal.signal(number, lambda number, _: stops.append(number)) for number in STOPS}
    children: list[subprocess.Popen[bytes]] = []
    try:
        for rank in range(n_processes):
            environment = _environment(rank, n_processes, store.port)
            # In a group of its own, Ctrl-C in the terminal reaches a child once: through this process.
            children.append(subprocess.Popen([sys.executable, *sys.orig_argv[1:]], env=environment, process_group=0))
        return _watch(children, stops, store)
    finally:
        for child in children:
            child.kill()
            child.wait()
        for number, handler in handlers.items():
            signal.signal(number, handler)


def _environment(rank: int, n_processes: int, port: int) -> dict[str, str]:
    n_cores = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
    defaults = {"OMP_NUM_THREADS": str(max(1, n_cores // n_processes))}
    if sys.platform == "linux":
        defaults["GLOO_SOCKET_IFNAME"] = "lo"  # else gloo asks for the address of the host's name, which may have none
    return {
        **defaults,
        **os.environ,
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(n_processes),
        "LOCAL_WORLD_SIZE": str(n_processes),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "TORCHELASTIC_USE_AGENT_STORE": "True",  # as under torchrun: rank 0 need not open the port, it stands already
        LAUNCHER: str(os.getpid()),
    }


def _watch(children: list[subprocess.Popen[bytes]], stops: list[int], store: TCPStore) -> int:
    """Waits for all children, by rank, passing on what arrives in `stops`. Returns their exit code.

    Once one has failed, or has said in `store` that it does, the others have some seconds left.
    """
    statuses: dict[int, int] = {}  # by rank, as they ended; negative for the signal that ended one
    stopped_at, deadline = math.inf, math.inf
    while len(statuses) < len(children) and time.monotonic() < deadline:
        time.sleep(POLL_SECONDS)
        while stops:
            number, is_again = stops.pop(0), time.monotonic() - stopped_at > SAME_SIGNAL_SECONDS
            stopped_at = min(stopped_at, time.monotonic())
            # A process that hangs is not waited for: not long, and not at all when asked twice.
            deadline = min(deadline, time.monotonic() + (GRACE_SECONDS if is_again else SAVE_SECONDS))
            for child in children:
                child.send_signal(number)
        for rank, child in enumerate(children):
            if child.poll() is not None:
                statuses.setdefault(rank, child.returncode)
        codes = set(map(_exit_code, statuses.values()))
        if codes - {0, *STOPS.values()} or store.check([FAILED]):
            deadline = min(deadline, time.monotonic() + GRACE_SECONDS)
        elif codes - {0} and stopped_at == math.inf:  # the others have agreed to stop, or wait in vain
            deadline = min(deadline, time.monotonic() + SAVE_SECONDS)
    if failure := _first_failure(statuses, store):
        rank, status = failure
        if failure != (0, EXIT_WRONG_USE):  # of which the first process has told itself
            say(f"error: process {rank} of {len(children)} {_ending(status)}, and the others with it")
        return _exit_code(status)
    return next((code for code in map(_exit_code, statuses.values()) if code), 0)


def _first_failure(statuses: dict[int, int], store: TCPStore) -> tuple[int, int] | None:
    """Returns the rank and status of the process that failed first, if any did: the others fail of it."""
    failures = [(rank, status) for rank, status in statuses.items() if _exit_code(status) not in (0, *STOPS.values())]
    killed = [(rank, status) for rank, status in failures if status < 0]
    if store.check([FAILED]) and not killed:
        rank, status = map(int, store.get(FAILED).split())
        return rank, status
    return next(iter(killed + failures), None)


def _ending(status: int) -> str:
    return f"left with code {status}" if status > 0 else f"was ended by signal {-status} ({signal.strsignal(-status)})"


def _exit_code(status: int) -> int:
    return status if status >= 0 else STOPS.get(-status, EXIT_FAILURE)


def stay_with_launcher() -> None:
    """Has the system end this process when the launch() that started it is killed; leaves at once if it was before."""
    if LAUNCHER not in os.environ:
        return
    launcher = int(os.environ[LAUNCHER])
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG, prctl(2)
        if os.getppid() != launcher:
            sys.exit(EXIT_FAILURE)
    else:
        threading.Thread(target=_end_with, args=(launcher,), daemon=True).start()


def _end_with(launcher: int) -> None:
    while os.getppid() == launcher:
        time.sleep(1)
    os.kill(os.getpid(), signal.SIGKILL)


@contextmanager
def join(device: str) -> Iterator[Place]:
    """Yields this process's place on `device` (cuda or cpu), linked to the other processes where there are any.

    Raises UserError when the machine has fewer GPUs than processes.
    """
    stay_with_launcher()
    rank, world_size, local_rank = 0, 1, 0
    if is_launched():
        process_count(int(os.environ["LOCAL_WORLD_SIZE"]), device)
        rank, world_size, local_rank = (int(os.environ[name]) for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"))
    own = torch.device("cuda", local_rank) if device == "cuda" else torch.device(device)
    place = Place(own, rank, world_size, local_rank)
    if device == "cuda":
        torch.cuda.set_device(own)
    if world_size == 1:
        yield place
        return
    # Tensors on the CPU go through gloo also where GPUs use NCCL: a question among processes waits for no GPU.
    dist.init_process_group("cpu:gloo,cuda:nccl" if device == "cuda" else "gloo", timeout=TIMEOUT)
    try:
        yield place
    except BaseException as error:
        if isinstance(error, Exception) and LAUNCHER in os.environ:
            _tell_launcher(rank, error)
        atexit.register(_leave_others)  # once the error is told
        raise
    dist.destroy_process_group()


def _tell_launcher(rank: int, error: Exception) -> None:
    """Says that this process failed, unless another one did before."""
    code = error.exit_code if isinstance(error, UserError) else EXIT_FAILURE
    store = TCPStore(os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]), is_master=False)
    store.compare_set(FAILED, "", f"{rank} {code}")


def _leave_others() -> None:
    """Ends the links to the other processes without waiting for any."""
    _get_default_group().abort()
    dist.destroy_process_group()  # else gloo's threads, still running, would abort the process


def gather_ranks(values: Tensor, place: Place) -> Tensor:
    """Returns all processes' values, which have one shape, stacked by rank: (...) -> (world_size, ...)."""
    if place.world_size == 1:
        return values[None]
    gathered = values.new_empty(place.world_size, *values.shape)
    dist.all_gather(list(gathered), values.contiguous())
    return gathered


def sum_ranks(values: Tensor, place: Place) -> Tensor:
    """Returns the sum of all processes' values, which have one shape: added up by rank, so everywhere the same bits."""
    return gather_ranks(values, place).sum(0)


def barrier(place: Place) -> None:
    """Returns once every process has called it. GPUs may still be computing."""
    gather_ranks(torch.zeros(1), place)


class StopRequest:
    """SIGTERM and Ctrl-C: obeyed at once until arm(), noted for the loop from then on; a second one obeyed at once."""

    def __init__(self) -> None:
        self._armed = False
        self._number: int | None = None
        self._noted_at = -math.inf
        for number in STOPS:
            signal.signal(number, self._on_signal)

    def arm(self) -> None:
        """From now on the first signal waits for the loop."""
        self._armed = True

    def agreed(self, place: Place) -> int | None:
        """Returns the signal that any process got, the same in all of them, or None. All processes must ask."""
        number = torch.tensor(self._number or 0)
        if place.world_size > 1:
            dist.all_reduce(number, dist.ReduceOp.MAX)
        return int(number) or None

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        is_first, again = self._number is None, time.monotonic() - self._noted_at > SAME_SIGNAL_SECONDS
        if not (is_first or again):
            return
        self._number, self._noted_at = number, time.monotonic()
        if is_first and self._armed:
            return
        if number == signal.SIGINT:
            raise KeyboardInterrupt
        sys.exit(EXIT_TERMINATED)
