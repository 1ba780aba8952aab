"""What of our code and the libraries can change a result, as hashes that are part of every path results lie under."""

import sys
from functools import cache
from pathlib import Path

from shared import schema
from shared.files import sha256_file, short_hash
from shared.run_record import library_versions

_HERE = Path(__file__).parent
_CLEANING = ("clean.py", "normalise.py", "pii.py", "repetition.py", "documents.py", "outputs.py")
_BOOKS = ("sources/gutenberg.py", "sources/gutenberg_books.csv", "readability.py", "syllables.txt.gz")
_LABELS = (*_BOOKS, "sources/picture_books.py", "sources/starter.py")
# Beside the module named like it, what a reader calls, and the libraries that those call (tests/test_pipeline.py).
_CALLED = {
    "gutenberg": _BOOKS,
    "babylm": (
        "sources/talk.py", "sources/restore.py", "sources/wikipedia.py", "sources/works.py", "sources/rows.py",
        "readability.py", "syllables.txt.gz",
    ),
    "local_files": ("sources/rows.py",),
    "openstax": ("sources/cnxml.py", "sources/mathml.py", "sources/rows.py"),
    "quizzes": ("sources/quiz_*.py", "set_files.py"),
    "web": ("extraction.py", *_BOOKS),
    "wikipedia": ("sources/works.py", "sources/rows.py"),
}  # fmt: skip
_LIBRARIES = {
    "gutenberg": ("pyphen",),
    "babylm": ("pyphen",),
    "quizzes": ("openpyxl",),
    "web": ("trafilatura", "justext", "warcio", "lz4", "pyphen"),
}
_GRADING = (
    "grade_classifier.py", "grading.py", "label_sets.py", "labels.py", "normalise.py", "readability.py", "set_files.py",
    "suitability.py", "suitability.csv", "syllables.txt.gz", "sources/storybook_levels.csv",
)  # fmt: skip
_CLEANING_LIBRARIES = ("ftfy", "numpy", "orjson", "pyarrow", "py3langid", "wordfreq")


@cache
def reading_version(reader: str) -> str:
    """Returns a hash of what the documents of a reader depend on: its module, cleaning, sketches."""
    files = (f"sources/{reader}.py", *_CALLED.get(reader, ()), *_CLEANING, "read.py", "sketch.py", "ngrams.py")
    return _version(files, (*_CLEANING_LIBRARIES, "lxml", "rensa", *_LIBRARIES.get(reader, ())))


@cache
def grading_version() -> str:
    """Returns a hash of what grades depend on, from the labelled texts on."""
    return _version((*_CLEANING, *_LABELS, *_GRADING), (*_CLEANING_LIBRARIES, "fasttext", "openpyxl", "pyphen"))


@cache
def evaluations_version() -> str:
    """Returns a hash of what the index of evaluations depends on."""
    return _version(
        (
            "decontaminate.py",
            "documents.py",
            "evaluations.py",
            "label_sets.py",
            "labels.py",
            "ngrams.py",
            "set_files.py",
            "sources/quiz_*.py",
            *_LABELS,
        ),
        ("numpy", "openpyxl", "orjson", "pyarrow", "pyphen"),
    )


@cache
def scoring_version() -> str:
    """Returns a hash of what the scored documents depend on, besides reading and grading."""
    return _version(
        (
            "score.py",
            "decontaminate.py",
            "dedup.py",
            "ngrams.py",
            "reasons.py",
            "subjects.py",
            "concepts.csv",
            "clean.py",
        ),
        ("numpy", "pyarrow"),
    )


@cache
def pool_version() -> str:
    """Returns a hash of what the choice of duplicates and held-out works depends on."""
    return _version(
        (
            "database.py",
            "decontaminate.py",
            "dedup.py",
            "licenses.py",
            "ngrams.py",
            "pool.py",
            "reasons.py",
            "sketch.py",
            "stages.py",
        ),
        ("duckdb", "numpy", "pyarrow"),
    )


@cache
def mix_version() -> str:
    """Returns a hash of what a mix of a pool depends on, besides its settings."""
    return _version(("database.py", "mix.py", "shards.py"), ("duckdb", "numpy", "pyarrow"))


def _version(files: tuple[str, ...], libraries: tuple[str, ...]) -> str:
    paths = sorted(path for name in files for path in (_HERE.glob(name) if "*" in name else [_HERE / name]))
    hashes = {path.relative_to(_HERE).as_posix(): sha256_file(path) for path in paths}
    return short_hash([hashes, sha256_file(Path(schema.__file__)), library_versions(*libraries), sys.version_info[:2]])
