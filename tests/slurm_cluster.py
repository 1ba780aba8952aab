"""A Slurm of one machine in a temporary folder, for tests; or to try `--executor slurm` without a cluster.

    python -m tests.slurm_cluster COMMAND ...        runs a command with such a cluster, and ends with its exit code

It must be started as root and needs munged, slurmctld and slurmd (Debian: apt install slurm-wlm munge). It has no
accounting and no cgroups, its daemons listen on ports of their own and end with it.
"""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

DAEMONS = ("munged", "slurmctld", "slurmd")
PATH = f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin"

CONFIG = """
ClusterName=tests
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={controller_port}
SlurmdPort={node_port}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CredType=cred/munge
SlurmUser=root
SlurmdUser=root
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/pgid
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
MpiDefault=none
ReturnToService=2
KillWait=2
MaxArraySize={max_array_size}
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerType=sched/builtin
SchedulerParameters=batch_sched_delay=0,sched_interval=1
NodeName={host} NodeAddr=127.0.0.1 CPUs={cpus} RealMemory={memory_mb} State=UNKNOWN
PartitionName=tests Nodes={host} Default=YES MaxTime=INFINITE State=UP
"""


def why_not() -> str:
    """Returns why no cluster can be started here, or nothing."""
    missing = [daemon for daemon in DAEMONS if shutil.which(daemon, path=PATH) is None]
    if missing:
        return f"{', '.join(missing)} not installed"
    return "" if os.geteuid() == 0 else "only root may start slurmd"


@contextmanager
def slurm_cluster(cpus: int = 2, max_array_size: int = 1001) -> Iterator[Path]:
    """Yields the slurm.conf of a running cluster, which SLURM_CONF names meanwhile; so many jobs run at a time."""
    with tempfile.TemporaryDirectory(prefix="slurm-") as temporary, contextlib.ExitStack() as running:
        folder = Path(temporary)
        folder.chmod(0o755)
        for name in ("state", "spool"):
            (folder / name).mkdir()
        config = folder / "slurm.conf"
        config.write_text(
            CONFIG.format(
                host=socket.gethostname().partition(".")[0],
                folder=folder,
                cpus=cpus,
                memory_mb=_memory_mb(),
                max_array_size=max_array_size,
                controller_port=_free_port(),
                node_port=_free_port(),
            )
        )
        (folder / "munge.key").write_bytes(os.urandom(128))
        (folder / "munge.key").chmod(0o600)
        running.enter_context(_daemon("munged", "--foreground", "--force", *_munge_files(folder), folder=folder))
        _wait_for((folder / "munge.socket").exists, "munged", folder)
        before = os.environ.get("SLURM_CONF")
        os.environ["SLURM_CONF"] = str(config)
        try:
            running.enter_context(_daemon("slurmctld", "-D", "-f", str(config), folder=folder))
            running.enter_context(_daemon("slurmd", "-D", "-f", str(config), folder=folder))
            _wait_for(_node_is_idle, "slurmd", folder)
            yield config
            subprocess.run(["scancel", "--quiet", "--me"], capture_output=True)
        finally:
            running.close()
            os.environ.pop("SLURM_CONF") if before is None else os.environ.update(SLURM_CONF=before)


def _munge_files(folder: Path) -> list[str]:
    kinds = {"key-file": "key", "socket": "socket", "pid-file": "pid", "log-file": "log", "seed-file": "seed"}
    return [f"--{flag}={folder}/munge.{kind}" for flag, kind in kinds.items()]


@contextmanager
def _daemon(name: str, *flags: str, folder: Path) -> Iterator[None]:
    # It ends with this process, however that ends.
    command = ["setpriv", "--pdeathsig", "TERM", "--", shutil.which(name, path=PATH) or name, *flags]
    with (folder / f"{name}.out").open("wb") as said:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=said, stderr=said, start_new_session=True)
        try:
            yield
        finally:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


def _wait_for(ready: Callable[[], bool], what: str, folder: Path, seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not ready():
        if time.monotonic() > deadline:
            said = "\n".join((folder / f"{what}.{kind}").read_text(errors="replace")[-1500:] for kind in ("out", "log"))
            raise RuntimeError(f"{what} did not start in {seconds:g} s:\n{said}")
        time.sleep(0.1)


def _node_is_idle() -> bool:
    asked = subprocess.run(["sinfo", "--noheader", "--format=%T"], capture_output=True, text=True)
    return asked.stdout.strip() in ("idle", "mixed")


def _free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return int(listening.getsockname()[1])


def _memory_mb() -> int:
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2**20 * 9 // 10


def main() -> int:
    if reason := why_not():
        print(f"error: no Slurm can be started: {reason}", file=sys.stderr)
        return 2
    with slurm_cluster():
        return subprocess.run(sys.argv[1:]).returncode


if __name__ == "__main__":
    sys.exit(main())
