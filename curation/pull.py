"""Finds the files of sources and label sets: in the checkout, a --mirror, or by download (data/raw, hashes held)."""

import json
import os
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from curation.settings import LabelSettings, SourceSettings
from shared.console import Failure, UserError, say
from shared.files import sha256_file, write_text

HASHES = "hashes.json"
PATIENCE_SECONDS = 30.0  # without a byte received, over all retries
DEADLINE_SECONDS = 3600.0  # for all files of a source
CHUNK_BYTES = 1 << 16


@dataclass(frozen=True)
class SourceFile:
    """A file of a source, named by its path in its folder."""

    name: str
    path: Path
    sha256: str


@dataclass(frozen=True)
class Pulled:
    """What one source has: its files, and the names of those that could not be had."""

    files: list[SourceFile]
    missing: list[str]


def pull_source(name: str, source: SourceSettings, mirror: Path | None, raw_folder: Path) -> Pulled:
    """Returns the files of a source. Raises UserError or Failure where there are none to be had."""
    if source.reader == "starter":
        from curation.sources.starter import FOLDER

        return _listed(FOLDER, sorted(FOLDER.glob("grade*.jsonl")))
    if source.reader == "local_files":
        return _local_files(source)
    if mirror is not None:
        return _mirrored(name, source, mirror)
    return _downloaded(name, _addresses(name, source), raw_folder / name)


def pull_label_set(name: str, labels: LabelSettings, mirror: Path | None, raw_folder: Path) -> Pulled:
    """Returns the files of a label set that is no source. Raises Failure where they cannot be downloaded."""
    if labels.reader == "starter":
        from curation.sources.starter import FOLDER

        return _listed(FOLDER, [FOLDER / f"{name.partition('/')[2]}.jsonl"])
    if mirror is not None:
        found = _listed(mirror, sorted(mirror.glob(labels.mirror)))
        return found if found.files else Pulled([], [f"{name}: {labels.mirror}"])
    return _downloaded(name, {url.rpartition("/")[2]: url for url in labels.addresses}, raw_folder / name)


def _listed(folder: Path, paths: Iterable[Path]) -> Pulled:
    return Pulled([SourceFile(p.relative_to(folder).as_posix(), p, sha256_file(p)) for p in paths], [])


def _local_files(source: SourceSettings) -> Pulled:
    from curation.sources.local_files import SUFFIXES

    folder = source.folder
    if folder is None:
        raise UserError("source local/files has no folder", "name one with --local-files DIR")
    if not folder.is_dir():
        raise UserError(f"{folder} is not a folder", "name one with --local-files DIR")
    there = [p for p in sorted(folder.rglob("*")) if p.is_file() and not _is_hidden(p.relative_to(folder))]
    paths = [p for p in there if p.name.lower().endswith(SUFFIXES)]
    if not paths:
        raise UserError(f"{folder} holds no text", f"put {', '.join(SUFFIXES)} files there")
    for path in paths:
        if not path.as_posix().isprintable():
            raise UserError(f"{path.as_posix()!a} has a name that cannot be written down", "rename it")
    if others := sorted({p.suffix or p.name for p in there} - {p.suffix for p in paths}):
        say(f"note: {len(there) - len(paths)} files of other kinds are left out: {', '.join(others[:8])}")
    return _listed(folder, paths)


def _is_hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)


def _wanted(name: str) -> Iterator[tuple[str, str]]:
    """Yields (file in a mirror, Gutenberg number) of each book of a source."""
    from curation.sources.gutenberg import gutenberg_books

    for book in gutenberg_books():
        if book.source == name:
            yield book.file, str(book.gutenberg_id)


def _mirrored(name: str, source: SourceSettings, mirror: Path) -> Pulled:
    if source.reader != "gutenberg":
        found = _listed(mirror, sorted(mirror.glob(source.mirror)))
        return found if found.files else Pulled([], [f"{name}: {source.mirror}"])
    folder = mirror / source.mirror
    wanted = [file for file, _number in _wanted(name)]
    there = [folder / file for file in wanted if (folder / file).is_file()]
    missing = [f"{name}: {source.mirror}/{file}" for file in wanted if not (folder / file).is_file()]
    return Pulled(_listed(folder, there).files, [f"{name}: {source.mirror}"] if not there else missing)


def _addresses(name: str, source: SourceSettings) -> dict[str, str]:
    """Returns the address of each file of a source, by the name it gets."""
    if source.reader == "gutenberg":
        return {f"pg{number}.txt": source.addresses[0].format(id=number) for _file, number in _wanted(name)}
    if source.reader == "picture_books":
        return {f"{url.split('/')[4]}.tar.gz": url for url in source.addresses}
    return {url.rpartition("/")[2]: url for url in source.addresses}


def _downloaded(name: str, addresses: Mapping[str, str], folder: Path) -> Pulled:
    from tqdm import tqdm

    hashes_file = folder / HASHES
    held: dict[str, str] = json.loads(hashes_file.read_bytes()) if hashes_file.is_file() else {}
    files, missing = [], []
    deadline = time.monotonic() + DEADLINE_SECONDS
    for file, url in tqdm(addresses.items(), desc=name, unit="file", disable=None, leave=False):
        path = folder / file
        if not path.is_file() and not download(url, path, deadline=deadline - time.monotonic()):
            missing.append(f"{name}: {url}")
            continue
        sha256, is_new = sha256_file(path), file not in held
        if held.setdefault(file, sha256) != sha256:
            raise Failure(
                f"{path} has SHA-256 {sha256[:16]}..., its first download had {held[file][:16]}...",
                f"remove it to download it again; if {url} changed for good, remove its line from {hashes_file}",
            )
        files.append(SourceFile(file, path, sha256))
        if is_new:
            write_text(hashes_file, json.dumps(held, indent=1, sort_keys=True) + "\n")
    return Pulled(files, missing)


def download(url: str, path: Path, patience: float = PATIENCE_SECONDS, deadline: float = DEADLINE_SECONDS) -> bool:
    """Downloads a file, going on where an earlier try stopped. Returns whether the server has it.

    Raises Failure naming the address when no byte came for `patience` seconds, or the file took over `deadline`.
    """
    import requests

    path.parent.mkdir(parents=True, exist_ok=True)
    part, etag_file = path.with_name(path.name + ".part"), path.with_name(path.name + ".etag")
    started = last_byte = time.monotonic()
    pause, why = 1.0, ""
    while (left := min(last_byte + patience, started + deadline) - time.monotonic()) > 1:
        have = part.stat().st_size if part.exists() and etag_file.exists() else 0
        headers = {"User-Agent": "graded-corpus", "Accept-Encoding": "identity"}
        if have:
            headers |= {"Range": f"bytes={have}-", "If-Range": etag_file.read_text()}
        try:
            with requests.get(url, headers=headers, stream=True, timeout=min(10, left / 2)) as answer:
                if answer.status_code in (404, 410):
                    return False
                answer.raise_for_status()
                if etag := answer.headers.get("ETag") or answer.headers.get("Last-Modified"):
                    write_text(etag_file, etag)
                with part.open("ab" if answer.status_code == 206 else "wb") as file:
                    for chunk in answer.iter_content(CHUNK_BYTES):
                        file.write(chunk)
                        last_byte = time.monotonic()
                        if last_byte - started > deadline:
                            raise requests.Timeout(f"not whole within {deadline:.0f} s")
                    file.flush()
                    os.fsync(file.fileno())
                total = _total_bytes(answer.headers, answer.status_code)
            came = part.stat().st_size
            if total is None or came >= total:
                part.replace(path)
                etag_file.unlink(missing_ok=True)
                return True
            why = f"{came:,} of {total:,} bytes came"
            pause = 1.0 if came > have else pause
        except requests.RequestException as error:
            why = _plainly(error)
            if getattr(error.response, "status_code", 0) == 416:  # what we have is not part of what they have
                part.unlink(missing_ok=True)
        time.sleep(min(pause, max(0.0, last_byte + patience - time.monotonic())))
        pause *= 2
    raise Failure(
        f"could not download {url}: {why or 'it took too long'}",
        "what came is kept: run the same command again; or read a local copy with --mirror DIR (GRADED_MIRROR)",
    )


def _total_bytes(headers: Mapping[str, str], status: int) -> int | None:
    """Returns how many bytes the whole file has, where the server says."""
    if status == 206:
        total = headers.get("Content-Range", "").rpartition("/")[2]
    else:
        total = "" if "Content-Encoding" in headers else headers.get("Content-Length", "")
    return int(total) if total.isdigit() else None


def _plainly(error: Exception) -> str:
    """Returns the innermost message of a chain of network errors."""
    text = str(error)
    for sign, plain in (
        ("NameResolution", "no such host, or no network"),
        ("Connection refused", "connection refused"),
        ("timed out", "no answer within 10 s"),
        ("Network is unreachable", "network unreachable"),
    ):
        if sign in text:
            return plain
    return text[:200]


def warn_of_missing(missing: list[str], limit: int = 5) -> None:
    """Names what could not be had, on stderr."""
    for line in missing[:limit]:
        say(f"warning: missing {line}")
    if len(missing) > limit:
        say(f"warning: missing {len(missing) - limit} more; run.json lists all")
