"""How a command speaks: results on stdout, progress and errors on stderr, exit codes everywhere alike.

0 done; 1 a failure; 2 wrong use, or a request that cannot be met; 130 Ctrl-C; 143 stopped by SIGTERM.
"""

import errno
import os
import signal
import sys
from collections.abc import Callable, Sequence
from difflib import get_close_matches
from types import FrameType
from typing import Never

EXIT_FAILURE, EXIT_WRONG_USE, EXIT_INTERRUPTED, EXIT_TERMINATED = 1, 2, 130, 143


class UserError(Exception):
    """Something the person can repair: told as `error:` and `hint:` lines, exit 2."""

    exit_code = EXIT_WRONG_USE

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message, self.hint = message, hint

    def __reduce__(self) -> tuple[type, tuple[str, str]]:
        return type(self), (self.message, self.hint)  # travels whole between worker processes


class Failure(UserError):
    """Something went wrong that was not the person's doing: the same two lines, exit 1."""

    exit_code = EXIT_FAILURE


def say(message: str = "") -> None:
    """Prints one line of progress on stderr."""
    print(message, file=sys.stderr, flush=True)


def nearest(word: str, known: Sequence[str]) -> str:
    """Returns a hint with the closest known spelling, or the list of what is known."""
    close = get_close_matches(word, known, n=1)
    return f"did you mean {close[0]}?" if close else f"known: {', '.join(known)}"


def human(count: float) -> str:
    """Returns a count as people read it: 950, 41.2k, 58.9M, 1.3B."""
    for size, unit in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if round(count / size, 1) >= (10 if unit == "k" else 1):
            return f"{count / size:.1f}{unit}"
    return f"{count:,.0f}"


def table(rows: Sequence[Sequence[object]], header: Sequence[str]) -> str:
    """Returns rows as aligned columns; numbers to the right, words to the left."""
    cells = [[_cell(value) for value in row] for row in rows]
    widths = [max(len(line[i]) for line in [list(header), *cells]) for i in range(len(header))]
    numeric = [all(isinstance(row[i], int | float | None) for row in rows) for i in range(len(header))]

    def line(parts: Sequence[str]) -> str:
        aligned = (
            part.rjust(width) if right else part.ljust(width)
            for part, width, right in zip(parts, widths, numeric, strict=True)
        )
        return "  ".join(aligned).rstrip()

    return "\n".join([line(header), line(["-" * width for width in widths]), *map(line, cells)])


def _cell(value: object) -> str:
    if value is None:
        return "-"
    if isinstance(value, float):
        return f"{value:.4f}"
    if isinstance(value, int):
        return f"{value:,}"
    return str(value)


GOES_ON = "stopped; what was finished is kept, and the same command goes on from there"


def run_command(main: Callable[[], int | None], when_stopped: str = GOES_ON) -> Never:
    """Runs a command's main and exits with the code its outcome deserves; no traceback for what a person can repair."""
    terminated: list[int] = []

    def leave(signum: int, frame: FrameType | None) -> Never:
        terminated.append(signum)
        sys.exit(EXIT_TERMINATED)

    signal.signal(signal.SIGTERM, leave)
    try:
        code = main() or 0
        sys.stdout.flush()
    except UserError as error:
        code = _report(error)
    except KeyboardInterrupt:
        say(f"\n{when_stopped}")
        code = EXIT_INTERRUPTED
    except RuntimeError as error:
        if "Query interrupted" not in str(error):  # how DuckDB passes on the signal that stopped it
            raise
        say(f"\n{when_stopped}")
        code = EXIT_TERMINATED if terminated else EXIT_INTERRUPTED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    except OSError as error:
        if error.errno not in _REPAIRS:
            raise
        code = _report(_explain(error))
    sys.exit(code)


_REPAIRS = {
    errno.ENOSPC: "free some space, or name another disk (--data-dir, --runs-dir); then run the same command again",
    errno.EDQUOT: "free some of your quota, or name a folder on another disk with --data-dir",
    errno.EROFS: "the disk is read-only: choose another with --data-dir and --manifest-dir",
    errno.EACCES: "give yourself the right to it, or choose another place",
    errno.EPERM: "give yourself the right to it, or choose another place",
    errno.ENOTDIR: "a file stands where a folder is needed: move it, or choose another folder",
    errno.EISDIR: "a folder stands where a file is needed: move it, or choose another folder",
    errno.ENAMETOOLONG: "choose a shorter name",
    errno.EEXIST: "a file stands where a folder is needed: move it, or choose another folder",
}


def _explain(error: OSError) -> UserError:
    where = f"{error.filename}: " if error.filename else ""
    what = os.strerror(error.errno or 0).lower()
    kind = Failure if error.errno in (errno.ENOSPC, errno.EDQUOT) else UserError
    return kind(f"{where}{what}", _REPAIRS[error.errno or 0])


def _report(error: UserError) -> int:
    print(f"error: {error.message}", file=sys.stderr)
    if error.hint:
        print(f"hint: {error.hint}", file=sys.stderr)
    return error.exit_code
