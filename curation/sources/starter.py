"""The starter corpus: passages for grades 1-12 in curation/starter/grade*.jsonl, written for this project (CC0)."""

import re
from collections.abc import Iterator
from pathlib import Path

import orjson
from datatrove.data import Document

from curation.documents import make_document
from curation.settings import CleaningSettings, SourceSettings

FOLDER = Path(__file__).resolve().parent.parent / "starter"


def read_starter(path: Path, source: str, settings: SourceSettings, cleaning: CleaningSettings) -> Iterator[Document]:
    """Yields the passages of one grade; each is a work of its own."""
    for line in path.read_bytes().splitlines():
        passage = orjson.loads(line)
        yield make_document(
            source,
            settings,
            passage_work(path, passage["title"]),
            "0",
            passage["text"],
            title=passage["title"],
            genre=passage["genre"],
            subject=passage["subject"],
        )


def passage_work(path: Path, title: str) -> str:
    """Returns the name of a passage: its file and its title in lower case."""
    return f"{path.stem}/{re.sub(r'[^a-z0-9]+', '-', title.lower()).strip('-')}"
