"""Finds the files of sources, label sets and evaluations: in the checkout, a --mirror, or from their addresses.

What comes from an address lies in data/raw/<name>/ and is held to the hash it had when it first came; fetch.py brings
it, hub.py where only the first rows of it are wanted.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit

from curation.settings import FetchSettings, LabelSettings, SourceSettings
from shared.console import Failure, UserError, say
from shared.files import sha256_file, write_text

HASHES = "hashes.json"  # SHA-256 by address
PART_ROWS = 10_000  # of a streamed source, in each file it is kept in
_DEFAULTS = FetchSettings()


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


class Located(Protocol):
    """What says where its files are: a source, a label set, an evaluation."""

    @property
    def mirror(self) -> str: ...

    @property
    def addresses(self) -> list[str]: ...


def pull_source(
    name: str, source: SourceSettings, mirror: Path | None, raw_folder: Path, limits: FetchSettings = _DEFAULTS
) -> Pulled:
    """Returns the files of a source. Raises UserError or Failure where there are none to be had."""
    if source.reader == "starter":
        from curation.sources.starter import FOLDER

        return _listed(FOLDER, sorted(FOLDER.glob("grade*.jsonl")))
    if source.reader == "local_files":
        return _local_files(source)
    if source.reader == "gutenberg":
        if mirror is not None:
            return _mirrored_books(name, mirror, source.mirror)
        books = {f"pg{number}.txt": source.addresses[0].format(id=number) for _file, number in _books(name)}
        return _downloaded(name, books, raw_folder / name, limits)
    if source.max_documents is not None and mirror is None:
        return _streamed(name, name_files(source.addresses), source.max_documents, raw_folder / name, limits)
    return pull_files(name, source, mirror, raw_folder, limits)


def pull_label_set(
    name: str, labels: LabelSettings, mirror: Path | None, raw_folder: Path, limits: FetchSettings = _DEFAULTS
) -> Pulled:
    """Returns the files of a label set that is no source. Raises Failure where they cannot be downloaded."""
    if labels.reader == "starter":
        from curation.sources.starter import FOLDER

        return _listed(FOLDER, [FOLDER / f"{name.partition('/')[2]}.jsonl"])
    return pull_files(name, labels, mirror, raw_folder, limits)


def pull_files(
    name: str, located: Located, mirror: Path | None, raw_folder: Path, limits: FetchSettings = _DEFAULTS
) -> Pulled:
    """Returns the files that the glob finds in a mirror; without a mirror those of the addresses, into raw_folder/name.

    Raises Failure where an address has a file that cannot be downloaded; what it does not have is missing.
    """
    if mirror is None and not located.addresses:
        return Pulled([], [])  # a place for files of one's own in a mirror
    if mirror is None:
        return _downloaded(name, name_files(located.addresses), raw_folder / name, limits)
    if not located.mirror:
        return Pulled([], [f"{name}: it has no place in a mirror"])
    found = _listed(mirror, sorted(path for path in mirror.glob(located.mirror) if path.is_file()))
    return found if found.files else Pulled([], [f"{name}: {located.mirror}"])


def name_files(addresses: Sequence[str]) -> dict[str, str]:
    """Returns addresses by the names their files get: as many last parts of each as tell them all from one another.

    An archive of a GitHub repository has the repository's name. Names have no folders: readers go by the last part.
    Raises ValueError when addresses differ in nothing that a name could hold.
    """
    parts = {url: _parts(url) for url in addresses}
    for n_parts in range(1, max(map(len, parts.values()), default=0) + 1):
        named = {"-".join(path[-n_parts:]): url for url, path in parts.items()}
        if len(named) == len(parts):
            return named
    if parts:
        raise ValueError(f"addresses that differ in no part of their path: {', '.join(parts)}")
    return {}


def _parts(url: str) -> list[str]:
    host, path = urlsplit(url).netloc, urlsplit(url).path
    parts = [part for part in path.split("/") if part not in ("", ".", "..")]
    if host == "codeload.github.com" and parts[2:3] == ["tar.gz"]:
        owner, repository, _, *revision = parts
        parts = [*revision, owner, f"{repository}.tar.gz"]
    return [host, *parts]


def _listed(folder: Path, paths: Iterable[Path]) -> Pulled:
    files = []
    for path in paths:
        if not (name := path.relative_to(folder).as_posix()).isprintable():
            raise UserError(f"{name!a} in {folder} has a name that cannot be written down", "rename it")
        files.append(SourceFile(name, path, sha256_file(path)))
    return Pulled(files, [])


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
    if others := sorted({p.suffix or p.name for p in there} - {p.suffix for p in paths}):
        say(f"note: {len(there) - len(paths)} files of other kinds are left out: {', '.join(others[:8])}")
    return _listed(folder, paths)


def _is_hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)


def _books(name: str) -> Iterator[tuple[str, str]]:
    """Yields (file in a mirror, Gutenberg number) of each book of a source."""
    from curation.sources.gutenberg import gutenberg_books

    for book in gutenberg_books():
        if book.source == name:
            yield book.file, str(book.gutenberg_id)


def _mirrored_books(name: str, mirror: Path, place: str) -> Pulled:
    folder = mirror / place
    wanted = [file for file, _number in _books(name)]
    there = [folder / file for file in wanted if (folder / file).is_file()]
    missing = [f"{name}: {place}/{file}" for file in wanted if not (folder / file).is_file()]
    return Pulled(_listed(folder, there).files, [f"{name}: {place}"] if not there else missing)


class _Held:
    """A folder of downloads, and the hash that each address had when it first came."""

    def __init__(self, folder: Path) -> None:
        self.folder, self._file = folder, folder / HASHES
        self._hashes: dict[str, str] = json.loads(self._file.read_bytes()) if self._file.is_file() else {}

    def has(self, name: str, address: str) -> bool:
        """Does the file stand there, and is it from that address?"""
        return address in self._hashes and (self.folder / name).is_file()

    def checked(self, name: str, address: str) -> SourceFile:
        """Returns a file that came from an address. Raises Failure when it is not as it first was."""
        path = self.folder / name
        sha256 = sha256_file(path)
        first = self._hashes.get(address)
        if first is None:
            self._hashes[address] = sha256
            write_text(self._file, json.dumps(self._hashes, indent=1, sort_keys=True) + "\n")
        elif first != sha256:
            raise Failure(
                f"{path} has SHA-256 {sha256[:16]}..., its first download had {first[:16]}...",
                f"remove it to download it again; if {address} changed for good, remove its line from {self._file}",
            )
        return SourceFile(name, path, sha256)


def _downloaded(name: str, addresses: Mapping[str, str], folder: Path, limits: FetchSettings) -> Pulled:
    from tqdm import tqdm

    from curation.fetch import Fetcher

    held = _Held(folder)
    files, missing = [], []
    with Fetcher(limits) as fetcher:
        for file, url in tqdm(addresses.items(), desc=name, unit="file", disable=None, leave=False):
            if held.has(file, url) or fetcher.download(url, folder / file):
                files.append(held.checked(file, url))
            else:
                missing.append(f"{name}: {url}")
    return Pulled(files, missing)


def _streamed(
    name: str, addresses: Mapping[str, str], max_documents: int, folder: Path, limits: FetchSettings
) -> Pulled:
    """Returns the first so many rows of parquet addresses, in files of PART_ROWS each; what is there is not fetched."""
    import pyarrow.parquet as pq
    from tqdm import tqdm

    from curation.fetch import Fetcher
    from curation.hub import RemoteParquet

    held = _Held(folder)
    files, missing = [], []
    left = max_documents
    progress = tqdm(total=max_documents, desc=name, unit="document", disable=None, leave=False)
    with progress, Fetcher(limits) as fetcher:
        for file, url in addresses.items():
            remote = RemoteParquet(fetcher, url)
            start = 0
            while left > 0:
                end = start + min(PART_ROWS, left)
                part, rows = f"{file.removesuffix('.parquet')}-{start:09}-{end:09}.parquet", f"{url}#rows={start}-{end}"
                if not held.has(part, rows) and not remote.write_rows(folder / part, start, end):
                    missing.append(f"{name}: {url}")
                    break
                files.append(held.checked(part, rows))
                n_rows = pq.read_metadata(folder / part).num_rows
                progress.update(n_rows)
                left -= n_rows
                if n_rows < end - start:  # the last of this address
                    break
                start = end
    return Pulled(files, missing)


def warn_of_missing(missing: list[str], limit: int = 5) -> None:
    """Names what could not be had, on stderr."""
    for line in missing[:limit]:
        say(f"warning: missing {line}")
    if len(missing) > limit:
        say(f"warning: missing {len(missing) - limit} more; run.json lists all")
