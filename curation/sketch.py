"""Sketches of documents, by which dedup compares them: a map step, a batch of documents in, a table beside them out.

A sketch holds a hash of the whole text, a MinHash signature of its 3-word shingles with its LSH bands, and fingerprints
of its passages. It depends on nothing but the document itself.
"""

from collections.abc import Sequence
from functools import cache

import numpy as np
import pyarrow as pa
from datatrove.data import Document
from numpy.typing import NDArray

from curation.ngrams import Hashes, Indices, Words, batches, mixed, read_words, run_hashes
from shared.schema import SCHEMA

# The sizes below are one design, measured as a whole by benchmarks/dedup.py. A text of which 5% of the words were
# changed shares about 0.75 of its 3-word shingles with the original, but only 0.63 of its 5-word ones, too few to tell
# it from a text cut elsewhere in the same book. With these bands (Leskovec et al., Mining of Massive Datasets, 3.4) two
# documents meet with probability 0.95 where 0.55 of their shingles are the same.
SHINGLE_WORDS = 3
N_PERMUTATIONS, N_BANDS = 128, 32
SIGNATURE_SEED = 1
FINGERPRINT_WORDS = 8
WINDOW = 9  # two texts that share a run of FINGERPRINT_WORDS + WINDOW - 1 words share a fingerprint of it
SHORT_WORDS = 24  # a paragraph with fewer words may be navigation; longer ones have fingerprints enough
LONG_WORDS = 30  # a paragraph with fewer words may be a quotation, and is not cut out for itself; nor is verse
VERSE_LINE_WORDS = 12  # a paragraph of shorter lines is verse
NO_PARAGRAPH = 2**16 - 1  # of a fingerprint that reaches into the next paragraph

SKETCH_SCHEMA = pa.schema(
    [
        *(SCHEMA.field(name) for name in ("doc_id", "work", "source", "license")),
        pa.field("n_words", pa.int32(), nullable=False),  # as curation.ngrams reads them
        pa.field("n_known_words", pa.int32(), nullable=False),
        pa.field("text_hash", pa.uint64(), nullable=False),
        pa.field("signature", pa.binary(2 * N_PERMUTATIONS), nullable=False),  # uint16
        pa.field("bands", pa.list_(pa.uint64()), nullable=False),
        pa.field("fingerprints", pa.list_(pa.uint64()), nullable=False),  # each once
        pa.field("paragraphs", pa.list_(pa.uint16()), nullable=False),  # of each fingerprint: where it first stands
        pa.field("long_paragraphs", pa.list_(pa.uint16()), nullable=False),  # those that may be cut out for themselves
        pa.field("lines", pa.list_(pa.uint64()), nullable=False),  # hashes of short paragraphs, where asked for
        pa.field("line_paragraphs", pa.list_(pa.uint16()), nullable=False),
    ]
)


def sketch_documents(documents: Sequence[Document], with_lines: bool = False) -> pa.Table:
    """Returns the sketches of documents (SKETCH_SCHEMA), a row each.

    `with_lines` is for web pages: it adds the hashes of short paragraphs, by which navigation is found.
    """
    tables, done = [], 0
    for texts in batches(document.text for document in documents):
        tables.append(_sketch(documents[done : done + len(texts)], read_words(texts), with_lines))
        done += len(texts)
    return pa.concat_tables(tables) if tables else SKETCH_SCHEMA.empty_table()


def _sketch(documents: Sequence[Document], words: Words, with_lines: bool) -> pa.Table:
    signatures = _signatures(words)
    n_known = np.concatenate([[0], np.cumsum(_is_known(words.hashes))])[words.starts]
    of_facts = {name: [d.metadata[name] for d in documents] for name in ("work", "source", "license")}
    facts = {
        "doc_id": [document.id for document in documents],
        **of_facts,
        "n_words": words.counts.astype(np.int32),
        "n_known_words": np.diff(n_known).astype(np.int32),
        "text_hash": mixed(run_hashes(words.hashes, words.starts[:-1], words.starts[1:])),
        "signature": pa.FixedSizeBinaryArray.from_buffers(
            pa.binary(2 * N_PERMUTATIONS), len(documents), [None, pa.py_buffer(signatures.astype("<u2"))]
        ),
        "bands": _lists(_bands(signatures).ravel(), np.full(len(documents), N_BANDS)),
    }
    fingerprints, places, counts = _fingerprints(words)
    facts |= {"fingerprints": _lists(fingerprints, counts), "paragraphs": _lists(_numbers(places), counts)}
    lines, short, n_short, long, n_long = _paragraphs(words, with_lines)
    facts |= {"lines": _lists(lines, n_short), "line_paragraphs": _lists(_numbers(short), n_short)}
    return pa.table({**facts, "long_paragraphs": _lists(_numbers(long), n_long)}, schema=SKETCH_SCHEMA)


def _numbers(paragraphs: Indices) -> NDArray[np.uint16]:
    return np.minimum(paragraphs, NO_PARAGRAPH).astype(np.uint16)


def _lists(values: NDArray[np.unsignedinteger], counts: Indices) -> pa.ListArray:
    """Returns values in lists of so many each."""
    offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(values))


def _signatures(words: Words) -> NDArray[np.uint32]:
    """Returns the MinHash signature of each text, (n, N_PERMUTATIONS); of a text without shingles, of all its words."""
    import rensa

    shingles = mixed(words.ngrams(SHINGLE_WORDS)[words.inside(SHINGLE_WORDS)])
    counts = np.maximum(words.counts - SHINGLE_WORDS + 1, 0)
    whole = mixed(run_hashes(words.hashes, words.starts[:-1], words.starts[1:]))
    shingles = np.insert(shingles, np.cumsum(counts)[counts == 0], whole[counts == 0])
    ends = np.concatenate([[0], np.cumsum(np.maximum(counts, 1))]).astype(np.uint64)
    rows = rensa.RMinHash.digest_matrix_from_flat_token_hashes(shingles, ends, N_PERMUTATIONS, SIGNATURE_SEED)
    return np.array(rows.to_rows(), dtype=np.uint32)


def _bands(signatures: NDArray[np.uint32]) -> Hashes:
    """Returns the keys of each signature's bands, (n, N_BANDS): two with the same key agree in all rows of a band."""
    rows = signatures.reshape(len(signatures), N_BANDS, -1).astype(np.uint64)
    keys = np.broadcast_to(np.arange(N_BANDS, dtype=np.uint64), rows.shape[:2])
    for i in range(rows.shape[2]):
        keys = mixed(keys ^ rows[:, :, i])
    return keys


def _fingerprints(words: Words) -> tuple[Hashes, Indices, Indices]:
    """Returns the fingerprints of all texts, the paragraph of each, and how many each text has.

    Winnowing (Schleimer et al. 2003): of each WINDOW n-grams in a row the one with the smallest hash is taken.
    """
    inside = words.inside(FINGERPRINT_WORDS)
    positions = np.flatnonzero(inside)  # of the first word
    texts = np.repeat(np.arange(len(words.counts)), words.counts)[positions]
    hashes = mixed(words.ngrams(FINGERPRINT_WORDS)[positions])
    counts = np.bincount(texts, minlength=len(words.counts))
    in_text = np.arange(len(hashes)) - (np.cumsum(counts) - counts)[texts]
    whole = in_text <= np.maximum(counts - WINDOW, 0)[texts]  # windows from here on; a short text is one window
    gap = WINDOW - 1  # before, between and after texts, so that no window sees two of them
    spread = np.full(len(hashes) + gap * (len(counts) + 1), np.iinfo(np.uint64).max)
    places = np.arange(len(hashes)) + gap * (texts + 1)
    spread[places] = hashes
    smallest = np.zeros(len(spread) - gap, dtype=np.uint64)
    smallest[places[whole]] = _slide(np.minimum, spread)[places[whole]]
    taken = np.flatnonzero(_slide(np.maximum, smallest)[places - gap] == hashes)
    taken = taken[_first_of_each(texts[taken], hashes[taken])]
    starts = positions[taken]
    paragraphs = words.paragraphs[starts]
    paragraphs = np.where(words.paragraphs[starts + FINGERPRINT_WORDS - 1] == paragraphs, paragraphs, NO_PARAGRAPH)
    return hashes[taken], paragraphs, np.bincount(texts[taken], minlength=len(words.counts))


def _slide(of_two: np.ufunc, values: Hashes) -> Hashes:
    """Returns the smallest or largest of each WINDOW values in a row, in a few passes over them all."""
    width = 1
    while width < WINDOW:
        step = min(width, WINDOW - width)
        values = of_two(values[:-step], values[step:])
        width += step
    return values


def _first_of_each(texts: Indices, hashes: Hashes) -> Indices:
    """Returns where each hash stands first in its text, in order."""
    order = np.lexsort((hashes, texts))
    new = np.ones(len(order), dtype=bool)
    new[1:] = (np.diff(texts[order]) != 0) | (hashes[order][1:] != hashes[order][:-1])
    return np.sort(order[new])


def _paragraphs(words: Words, with_lines: bool) -> tuple[Hashes, Indices, Indices, Indices, Indices]:
    """Returns hashes, numbers and counts a text of the short paragraphs; numbers and counts of the long ones."""
    texts = np.repeat(np.arange(len(words.counts)), words.counts)
    new = np.ones(len(texts), dtype=bool)
    new[1:] = (np.diff(texts) != 0) | (np.diff(words.paragraphs) != 0)
    starts = np.flatnonzero(new)
    ends = np.append(starts, len(texts))[1:]
    n_lines = words.lines[ends - 1] - words.lines[starts] + 1
    is_verse = (n_lines > 1) & (ends - starts < VERSE_LINE_WORDS * n_lines)
    short = starts[with_lines & (ends - starts < SHORT_WORDS)]
    long = starts[(ends - starts >= LONG_WORDS) & ~is_verse]
    n_short, n_long = (np.bincount(texts[some], minlength=len(words.counts)) for some in (short, long))
    hashes = mixed(run_hashes(words.hashes, starts, ends))[with_lines & (ends - starts < SHORT_WORDS)]
    return hashes, words.paragraphs[short], n_short, words.paragraphs[long], n_long


def _is_known(hashes: Hashes) -> NDArray[np.bool_]:
    """Returns whether each word is English. One in fifty strangers is taken for a word, the same one everywhere."""
    known: NDArray[np.bool_] = _known_words()[hashes >> _TABLE_SHIFT]
    return known


_TABLE_SHIFT = np.uint64(40)


@cache
def _known_words() -> NDArray[np.bool_]:
    """Returns wordfreq's large English list as a table over the first 24 bits of a hash."""
    from wordfreq import get_frequency_dict

    table = np.zeros(1 << 24, dtype=bool)
    for words in batches(get_frequency_dict("en", "large")):
        table[read_words([" ".join(words)]).hashes >> _TABLE_SHIFT] = True
    return table
