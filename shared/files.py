"""Files that are whole or absent: written under a temporary name, synced, renamed. File hashes and a folder's lock."""

import fcntl
import hashlib
import json
import os
import shutil
import socket
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from shared.console import UserError, say

TEMPORARY_PREFIX = ".half-written-"
MAX_COMMAND_CHARS = 120  # of a command line that a lock names


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """Yields a temporary path to write to; afterwards the file stands at `path`, whole and on disk, or not at all.

    A link stays, and what it names is replaced. Raises UserError where a folder or device stands.
    """
    path = path.resolve()
    if path.exists() and not path.is_file():
        raise UserError(f"{path} is {'a folder' if path.is_dir() else 'no file'}", "name a file, new or to be replaced")
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{TEMPORARY_PREFIX}{socket.gethostname()[:20]}-{os.getpid()}-{path.name}")
    try:
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
        sync_folder(path.parent)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_text(path: Path, text: str) -> None:
    """Writes a UTF-8 text file, whole or not at all."""
    with written_whole(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def sync_folder(folder: Path) -> None:
    """Makes renames and removals inside a folder survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def remove_temporary_files(folder: Path, recursive: bool = True) -> int:
    """Removes what a killed run left half-written in a folder. Returns how many files that were."""
    pattern = f"{TEMPORARY_PREFIX}*"
    leftovers = [path for path in (folder.rglob(pattern) if recursive else folder.glob(pattern)) if path.is_file()]
    for leftover in leftovers:
        leftover.unlink(missing_ok=True)
    return len(leftovers)


def sha256_file(path: Path) -> str:
    """Returns the SHA-256 of a file's bytes in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def full_hash(value: object) -> str:
    """Returns the SHA-256 in hexadecimal of any value JSON can hold, whatever the order of its keys."""
    canonical = json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"), default=str)
    return hashlib.sha256(canonical.encode()).hexdigest()


def short_hash(value: object) -> str:
    """Returns the first 16 digits of full_hash, for names of folders."""
    return full_hash(value)[:16]


@contextmanager
def sole_writer(
    folder: Path, name: str = ".lock", hint: str = "wait for it to end, or give this run a --data-dir of its own"
) -> Iterator[None]:
    """Holds a lock in a folder, freed by the system however the process ends. Raises UserError naming the holder."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except FileNotFoundError:  # as /proc says of any folder
        raise UserError(f"{folder} cannot be made", "choose another folder") from None
    lock = folder / name
    with lock.open("a+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            holder = file.read().strip() or "another run"
            raise UserError(f"{folder} is in use by {holder}", hint) from None
        file.truncate(0)
        command = " ".join(" ".join(sys.orig_argv[1:]).split())[:MAX_COMMAND_CHARS]
        file.write(f"process {os.getpid()} on {socket.gethostname()} since {time.strftime('%H:%M:%S')} ({command})\n")
        file.flush()
        try:
            yield
        finally:
            with suppress(OSError):
                file.truncate(0)


@contextmanager
def taking_turns(folder: Path) -> Iterator[None]:
    """Waits until no other run makes anything in a folder, then sweeps what killed runs left half-made there."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"waiting for another run, which is busy in {folder}")
            fcntl.flock(lock, fcntl.LOCK_EX)
        for leftover in folder.glob(f"{TEMPORARY_PREFIX}*"):
            shutil.rmtree(leftover)
        yield


@contextmanager
def made_whole(folder: Path) -> Iterator[Path]:
    """Yields a temporary folder to fill; afterwards it stands at `folder`, in place of any other, or not at all."""
    with tempfile.TemporaryDirectory(prefix=TEMPORARY_PREFIX, dir=folder.parent) as temporary:
        filling = Path(temporary) / folder.name
        filling.mkdir()
        yield filling
        if folder.exists():
            folder.rename(Path(temporary) / "replaced")
        filling.rename(folder)
        sync_folder(folder.parent)
