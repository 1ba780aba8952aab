"""What of our code and the libraries can change a result, as a hash that is part of every path results lie under."""

import sys
from functools import cache
from pathlib import Path

from shared import schema
from shared.files import sha256_file, short_hash
from shared.run_record import library_versions

_HERE = Path(__file__).parent
_SCORING = (
    "sources",
    "clean.py",
    "documents.py",
    "grade_classifier.py",
    "grading.py",
    "label_sets.py",
    "labels.py",
    "normalise.py",
    "readability.py",
    "score.py",
    "syllables.txt.gz",
)
_LIBRARIES = ("fasttext", "ftfy", "numpy", "orjson", "pyarrow", "py3langid", "pyphen", "wordfreq")


@cache
def code_version() -> str:
    """Returns a hash of the files and library versions that reading, cleaning and grading depend on."""
    paths = sorted(path for name in _SCORING for path in _files_of(_HERE / name))
    files = {path.relative_to(_HERE).as_posix(): sha256_file(path) for path in paths}
    return short_hash([files, _schema(), library_versions(*_LIBRARIES), sys.version_info[:2]])


@cache
def mixing_version() -> str:
    """Returns a hash of the files and library versions that dedup, mixing and writing shards depend on."""
    files = {name: sha256_file(_HERE / name) for name in ("pool.py", "mix.py", "shards.py")}
    return short_hash([files, _schema(), library_versions("duckdb", "numpy", "pyarrow")])


def _schema() -> str:
    return sha256_file(Path(schema.__file__))


def _files_of(path: Path) -> list[Path]:
    return [path] if path.is_file() else [p for p in path.rglob("*") if p.is_file() and p.suffix in (".py", ".csv")]
