"""What passes down the pipeline: datatrove Documents with the schema's columns as metadata; and how texts are cut.

A step never removes a document: it marks it with `drop`, later steps pass it on, and the writer keeps it with its
reason. So what came in is always what was kept plus what was dropped.
"""

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import islice

from datatrove.data import Document

from curation.outputs import MAX_REJECT_CHARS, ParquetFile
from curation.settings import CleaningSettings, SourceSettings

REASON, DETAIL = "dropped", "detail"  # metadata keys
BATCH_DOCUMENTS = 512  # that pass down the pipeline together, where a step works on many at once


def make_document(
    source: str,
    settings: SourceSettings,
    work: str,
    position: str,
    text: str,
    *,
    title: str | None = None,
    url: str | None = None,
    license: str | None = None,
    genre: str | None = None,
    subject: str | None = None,
) -> Document:
    """Returns one document of a source. Its doc_id says where it is from: source, work, position within the work."""
    name = f"{source}/{work}"
    return Document(
        text=text,
        id=f"{name}#{position}",
        metadata={
            "work": name,
            "source": source,
            "title": title,
            "url": url,
            "license": license or settings.license,
            "genre": genre or settings.genre,
            "subject": subject or settings.subject,
        },
    )


def drop(document: Document, reason: str, detail: str | None = None) -> Document:
    """Returns the document, marked as dropped for a reason; the detail names what else it has to do with."""
    document.metadata |= {REASON: reason, DETAIL: detail}
    return document


def is_dropped(document: Document) -> bool:
    return REASON in document.metadata


def kept_batches(
    documents: Iterable[Document], rejected: ParquetFile, reasons: Counter[str]
) -> Iterator[list[Document]]:
    """Yields the kept documents, some at a time; the others are written to `rejected` and counted by reason."""
    documents = iter(documents)
    while batch := list(islice(documents, BATCH_DOCUMENTS)):
        rejects = [_rejected_row(document) for document in batch if is_dropped(document)]
        rejected.write(rejects)
        reasons.update(str(row["reason"]) for row in rejects)
        yield [document for document in batch if not is_dropped(document)]


def _rejected_row(document: Document) -> dict[str, object]:
    """Returns a dropped document as a row of REJECTED_SCHEMA, with the beginning of its text."""
    facts = {"reason": document.metadata[REASON], "n_words": len(document.text.split())}
    return {"doc_id": document.id, "text": document.text[:MAX_REJECT_CHARS], **document.metadata, **facts}


def cut(paragraphs: Iterable[str], settings: CleaningSettings, whole: bool = False) -> Iterator[list[str]]:
    """Yields a work's paragraphs in documents of about target_words, at most max_words, all of similar length.

    With `whole`, a work that is no longer than a document may be is left as it is.
    """
    paragraphs = list(paragraphs)
    if whole and sum(len(paragraph.split()) for paragraph in paragraphs) <= settings.max_words:
        yield paragraphs
        return
    pieces = [piece for paragraph in paragraphs for piece in _short_enough(paragraph, settings.max_words // 2)]
    lengths = [len(piece.split()) for piece in pieces]
    total = sum(lengths)
    quota = total / max(1, round(total / settings.target_words))
    document: list[str] = []
    done = n_words = 0
    for piece, length in zip(pieces, lengths, strict=True):
        next_cut = quota * (1 + int((done - n_words) / quota + 0.5))  # cuts belong at whole multiples of the quota
        if document and (done + length / 2 >= next_cut or n_words + length > settings.max_words):
            yield document
            document, n_words = [], 0
        document.append(piece)
        n_words += length
        done += length
    if document:
        yield document


_SENTENCE_END = re.compile(r"(?<=[.!?])[\"')\]]*\s+")


def _short_enough(paragraph: str, max_words: int) -> Iterator[str]:
    """Yields a paragraph whole, or cut at sentence ends; at words where a sentence is longer than max_words."""
    if len(paragraph.split()) <= max_words:
        yield paragraph
        return
    kept: list[str] = []
    n_words = 0
    start = 0
    ends = [match.end() for match in _SENTENCE_END.finditer(paragraph)]
    for end in [*ends, len(paragraph)]:
        words = paragraph[start:end].split()
        start = end
        for i in range(0, len(words), max_words):
            sentence = words[i : i + max_words]
            if n_words + len(sentence) > max_words:
                yield " ".join(kept)
                kept, n_words = [], 0
            kept += sentence
            n_words += len(sentence)
    if kept:
        yield " ".join(kept)
