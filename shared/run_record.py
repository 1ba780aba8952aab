"""run.json: when, where, by whom and how long; all that may differ between two runs that made the same bytes."""

import json
import platform
import socket
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

from shared.files import write_text


def write_run_record(path: Path, started: float, **facts: Any) -> None:
    """Writes the record of the run that made the folder. `started` is time.time() at its start; paths become text."""
    record = {
        "command": sys.orig_argv,
        "started": time.strftime("%Y-%m-%dT%H:%M:%S%z", time.localtime(started)),
        "seconds": round(time.time() - started, 3),
        "host": socket.gethostname(),
        "platform": platform.platform(),
        "python": platform.python_version(),
        "git_commit": _git_commit(),
        **facts,
    }
    write_text(path, json.dumps(record, indent=2, default=str) + "\n")


def library_versions(*names: str) -> dict[str, str]:
    """Returns the installed version of each named distribution."""
    return {name: version(name) for name in names}


def _git_commit() -> str:
    here = Path(__file__).parent
    command = ["git", "-C", str(here), "describe", "--always", "--dirty", "--abbrev=40"]
    try:
        return subprocess.run(command, capture_output=True, text=True).stdout.strip() or "unknown"
    except OSError:  # no git here
        return "unknown"
