"""The manifest of a mix: all that training may know of curation. Written last, so a mix it names is whole."""

import json
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from shared.console import UserError
from shared.files import sha256_file, write_text

FORMAT_VERSION: Literal[1] = 1
RUN_RECORD = "run.json"
NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$"  # of mixes and runs


class _Entry(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class GradeRatio(_Entry):
    """Third-grade share of the train words."""

    target: float
    actual: float
    unit: Literal["words"] = "words"


class SourceEntry(_Entry):
    """What one source gave to the train split; a document taken twice counts twice."""

    name: str
    license: str  # an SPDX expression: ids of all its documents joined by AND
    revision: str
    n_docs: int
    n_words: int
    n_words_grade3: int


class InputEntry(_Entry):
    """The files a source was read from: how many, and a hash of their names and SHA-256 in order."""

    n_files: int
    sha256: str


class ShardEntry(_Entry):
    """One parquet file; `path` is relative to the folder above the manifest's."""

    path: str
    sha256: str
    bytes: int
    n_docs: int
    n_words: int
    n_words_grade3: int


class Manifest(_Entry):
    """A mix: its settings, its shards with their hashes, and the account of what was left out."""

    format_version: Literal[1] = FORMAT_VERSION
    name: str = Field(pattern=NAME_PATTERN)  # it becomes a file's and a folder's
    profile: str
    settings: dict[str, Any]
    settings_hash: str
    pool_hash: str
    scorer: dict[str, Any]
    grade_ratio: GradeRatio
    sources: list[SourceEntry]
    inputs: dict[str, InputEntry]
    documents_in: dict[str, int]  # by source, before anything was dropped: in = kept in the pool + sum of dropped
    dropped: dict[str, dict[str, int]]  # source -> reason -> documents
    # source -> what was masked in documents that reading kept, or cut out of those that were graded -> how often
    edited: dict[str, dict[str, int]] = {}
    licenses: dict[str, int] = {}  # licence -> train words
    missing: list[str]
    splits: dict[Literal["train", "val"], list[ShardEntry]]


def write_manifest(manifest: Manifest, path: Path) -> None:
    """Writes the manifest, whole or not at all: from this rename on, the mix exists."""
    write_text(path, json.dumps(manifest.model_dump(), indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def read_manifest(path: Path) -> Manifest:
    """Returns the manifest at `path`. Raises UserError naming what is wrong with it and the command that mends it."""
    again = "make it again with python -m curation.run --grade-ratio R --replace"
    try:
        return Manifest.model_validate_json(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        raise UserError(f"{path} not found", _how_to_make(path)) from None
    except IsADirectoryError:
        raise UserError(f"{path} is a folder, not a manifest", "name the .json file inside it") from None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise UserError(f"{path} is not a manifest: {where}: {first['msg']}".replace(": :", ":"), again) from None


def _how_to_make(path: Path) -> str:
    digits = path.stem.removeprefix("mix")
    ratio = f"0.{digits}" if digits.isdigit() and "50" <= digits <= "90" else "0.7"
    return f"python -m curation.run --grade-ratio {float(ratio):g}"


def shard_paths(manifest_path: Path, manifest: Manifest) -> dict[str, list[Path]]:
    """Returns the shards of each split.

    Paths may leave the folder above the manifest's only into the data folder of the run that made it, as the run record
    beside the shards says, which must name this manifest. Raises UserError for any other, and for shards not there.
    """
    return {
        split: [_shard_path(manifest_path, entry.path) for entry in entries]
        for split, entries in manifest.splits.items()
    }


def verified_shards(manifest_path: Path, manifest: Manifest) -> dict[str, list[Path]]:
    """Returns the parquet shards of train and val, each of the size and SHA-256 that the manifest says.

    Raises UserError naming the first that is not, and the command that makes it again.
    """
    paths = {"train": [], "val": [], **shard_paths(manifest_path, manifest)}
    if not paths["train"]:
        raise UserError(f"{manifest_path} names no train shards", _how_to_remake(manifest))
    pairs = [pair for split in manifest.splits for pair in zip(manifest.splits[split], paths[split], strict=True)]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for (_, path), problem in zip(pairs, pool.map(_problem, *zip(*pairs, strict=True)), strict=True):
            if problem:
                raise UserError(
                    f"{path} is not the shard that {manifest_path} names: {problem}", _how_to_remake(manifest)
                )
    return paths


def _problem(entry: ShardEntry, path: Path) -> str | None:
    if (size := path.stat().st_size) != entry.bytes:
        return f"{size:,} bytes, not {entry.bytes:,}"
    return None if sha256_file(path) == entry.sha256 else f"its SHA-256 is not {entry.sha256[:16]}..."


def _how_to_remake(manifest: Manifest) -> str:
    mix = manifest.settings.get("mix", {})
    options = {"name": manifest.name, **{key: mix.get(key) for key in ("words", "seed", "max_repeats", "licenses")}}
    told = " ".join(f"--{key.replace('_', '-')} {value}" for key, value in options.items() if value is not None)
    ratio = f"--grade-ratio {manifest.grade_ratio.target:g} --profile {manifest.profile}"
    return f"make it again: python -m curation.run {ratio} {told}"


def _shard_path(manifest_path: Path, relative: str) -> Path:
    root = manifest_path.resolve().parent.parent
    path = (root / relative).resolve()
    if not path.is_relative_to(root) and not _is_in_data_folder(path, manifest_path):
        raise UserError(
            f"{manifest_path} names {relative}, outside its own folder and its run's data folder",
            "make the mix again where it is to be used: python -m curation.run",
        )
    if not path.is_file():
        raise UserError(f"{path} is named by {manifest_path} but not there", "python -m curation.run makes it again")
    return path


def _is_in_data_folder(path: Path, manifest_path: Path) -> bool:
    record = _run_record(path.parent)
    owner = recorded_manifest(path.parent)
    return owner == manifest_path.resolve() and path.is_relative_to(Path(str(record.get("data_dir", path))).resolve())


def recorded_manifest(shards: Path) -> Path | None:
    """Returns the manifest whose shards a folder holds, by its run record, or None where there is no record."""
    named = _run_record(shards).get("manifest")
    return (shards / named).resolve() if isinstance(named, str) else None  # relative: folders get copied


def _run_record(folder: Path) -> dict[str, Any]:
    try:
        record = json.loads((folder / RUN_RECORD).read_bytes())
    except (OSError, ValueError):
        return {}
    return record if isinstance(record, dict) else {}
