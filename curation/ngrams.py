"""Words and word n-grams of many texts at once as 64-bit hashes, for dedup and decontamination.

Letter case, accents, quotes, hyphens and punctuation do not matter: a word is a run of letters and digits. The hashes
are polynomials over the integers mod 2**64, so numpy finds those of all runs from one running sum (Karp and Rabin
1987); they are the same in every process and on every machine.
"""

import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
from numpy.typing import NDArray

Hashes = NDArray[np.uint64]
Indices = NDArray[np.int64]

BATCH_CHARS = 1 << 20  # so that the arrays of a batch stay small

_BASE = 0x9E3779B97F4A7C15  # any odd number will do; this one has no pattern in its bits
_SEED = 20_250_731
_TEXT_END, _PARAGRAPH_END = "\x00", "\x01"
_ENDS = b"\x00\x01\n"
_JOINERS = b"'-"  # inside a word they join its halves: don't, to-day
_BYTES = bytes(c if chr(c).isalnum() or c > 127 or c in _ENDS else 32 for c in range(256)).lower()
_LETTER_VALUES = np.random.Generator(np.random.PCG64(_SEED)).integers(1, 2**63, 256, dtype=np.uint64)
_LETTER_VALUES[: ord("0")] = 0
_LOOKALIKES = {ord(sign): "'" for sign in "\u2018\u2019\u201a\u201b\u02bc\u2010\u2011\u00ad"}
_BROKEN_WORD = re.compile(r"(?<=[^\W_])-\n(?=[^\W_])")
_ACCENTS = re.compile(r"[\u0300-\u036f]+")
_NO_WORD = re.compile(r"[^\w\s']|_")


@dataclass(frozen=True)
class Words:
    """The words of a batch of texts. Those of text i are hashes[starts[i]:starts[i + 1]]."""

    hashes: Hashes
    starts: Indices  # one more than texts
    paragraphs: Indices  # of each word: the number of its paragraph in its text
    lines: Indices  # of each word: the number of line ends within paragraphs before it, in the batch

    @property
    def counts(self) -> Indices:
        return np.diff(self.starts)

    def ngrams(self, n: int) -> Hashes:
        """Returns the hash of the n words from each word on; those past the end of the last text are left out."""
        sums, inverses = self._sums
        n_ngrams = max(0, len(self.hashes) - n + 1)
        return (sums[n : n + n_ngrams] - sums[:n_ngrams]) * inverses[:n_ngrams]

    @cached_property
    def _sums(self) -> tuple[Hashes, Hashes]:
        return _running_sums(self.hashes)

    def inside(self, n: int) -> NDArray[np.bool_]:
        """Returns for each of ngrams(n) whether it lies within one text."""
        ends = np.repeat(self.starts[1:], self.counts)
        return np.arange(n, len(self.hashes) + 1) <= ends[: max(0, len(self.hashes) - n + 1)]


def batches(texts: Iterable[str]) -> Iterator[list[str]]:
    """Yields the texts in lists of about BATCH_CHARS characters."""
    batch: list[str] = []
    room = BATCH_CHARS
    for text in texts:
        batch.append(text)
        room -= len(text)
        if room <= 0:
            yield batch
            batch, room = [], BATCH_CHARS
    if batch:
        yield batch


def read_words(texts: Sequence[str]) -> Words:
    """Returns the words of texts, whose paragraphs are what text.split("\\n\\n") gives."""
    joined = "".join(_plain(text).replace("\n\n", _PARAGRAPH_END) + _TEXT_END for text in texts)
    letters = joined.replace("--", " ").encode("utf-8", "replace").translate(_BYTES, _JOINERS)
    signs = np.frombuffer(letters, dtype=np.uint8)
    in_word = np.zeros(len(signs) + 1, dtype=bool)
    in_word[1:] = signs > 32
    edges = np.flatnonzero(in_word[1:] != in_word[:-1])  # the last sign ends a text, so starts and ends alternate
    first, end = edges[::2], edges[1::2]
    text_ends = np.flatnonzero(signs == 0)
    starts = np.concatenate([[0], np.searchsorted(first, text_ends)])
    paragraph_ends = np.cumsum(signs == 1)
    before_text = np.concatenate([[0], paragraph_ends[text_ends[:-1]]])
    paragraphs = paragraph_ends[first] - np.repeat(before_text[: len(texts)], np.diff(starts))
    lines = np.cumsum(signs == ord("\n"))[first]
    return Words(mixed(run_hashes(_LETTER_VALUES[signs], first, end)), starts, paragraphs, lines)


def _plain(text: str) -> str:
    """Returns a text without the signs that read_words needs, and without accents and typographic signs."""
    if "\x00" in text or "\x01" in text:
        text = text.replace("\x00", " ").replace("\x01", " ")
    if "-\n" in text:
        text = _BROKEN_WORD.sub("-", text)
    if text.isascii():
        return text
    text = _ACCENTS.sub("", unicodedata.normalize("NFKD", text.translate(_LOOKALIKES))).casefold()
    return _NO_WORD.sub(lambda sign: "-" if sign[0] == "-" else " ", text)


def run_hashes(values: Hashes, first: Indices, end: Indices) -> Hashes:
    """Returns the polynomial of values[first:end] for each pair, whatever stands before it."""
    sums, inverses = _running_sums(values)
    return (sums[end] - sums[first]) * inverses[first]


def _running_sums(values: Hashes) -> tuple[Hashes, Hashes]:
    """Returns the sums of values[:i] times their powers of the base, and what each place is divided by."""
    powers, inverses = _powers(1 << max(12, len(values).bit_length()))
    sums = np.zeros(len(values) + 1, dtype=np.uint64)
    np.cumsum(values * powers[: len(values)], out=sums[1:])
    return sums, inverses


@lru_cache(maxsize=4)
def _powers(n: int) -> tuple[Hashes, Hashes]:
    """Returns the powers of _BASE and of its inverse mod 2**64, from 0 to n - 1."""
    steps = np.ones((2, n), dtype=np.uint64)
    steps[:, 1:] = np.array([[_BASE], [pow(_BASE, -1, 2**64)]], dtype=np.uint64)
    powers, inverses = np.cumprod(steps, axis=1)
    return powers, inverses


def mixed(hashes: Hashes) -> Hashes:
    """Returns the hashes with every bit made to depend on every other, one to one (splitmix64, Steele et al. 2014)."""
    hashes = (hashes ^ (hashes >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    hashes = (hashes ^ (hashes >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return hashes ^ (hashes >> np.uint64(31))
