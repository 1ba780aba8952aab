"""Which evaluations a text quotes: an index of their word n-grams, built once, and looked up for every document.

In: the texts of evaluations (curation.evaluations) or of held-out works. Out: their names, for a text that shares
NGRAM_WORDS words in a row with one of theirs.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import orjson
from numpy.typing import NDArray

from curation.ngrams import Hashes, Indices, Words, batches, read_words
from shared.console import UserError
from shared.files import written_whole

NGRAM_WORDS = 13  # Brown et al. 2020, appendix C: documents that share 13 words in a row with a test set
MIN_WORDS = 6  # a shorter text, such as "What is the answer?", says nothing about where it is from
MAX_TEXTS = (
    10  # of one evaluation: an n-gram that stands in more of them is its template ("Which of the following ...")
)
MIN_DIFFERENT_WORDS = 5  # in an n-gram: "one two one two ..." and "ha ha ha ..." are nobody's

_FILTER_BITS = 28  # in a table of 32 MB: one n-gram in a hundred is looked for in vain among two million
_FILTER_SHIFT = np.uint64(64 - _FILTER_BITS)
_BIT = np.uint8(1) << np.arange(8, dtype=np.uint8)


@dataclass(frozen=True)
class Indexed:
    """What of an evaluation can be found: its different texts, their n-grams, and how much was left out."""

    n_texts: int
    n_ngrams: int
    n_too_short: int  # texts of fewer than MIN_WORDS words
    n_template_ngrams: int  # in more than MAX_TEXTS texts
    n_poor_ngrams: int  # of fewer than MIN_DIFFERENT_WORDS different words


class NgramIndex:
    """The n-grams of evaluations by their hashes, and which evaluations each is from."""

    def __init__(
        self, hashes: Hashes, owners: NDArray[np.uint16], lengths: Indices, report: dict[str, Indexed]
    ) -> None:
        self._hashes, self._owners, self._lengths = hashes, owners, lengths  # hashes ascend; an n-gram may have several
        self.report = report  # by evaluation, in the order of their numbers in owners
        places = (hashes >> _FILTER_SHIFT).astype(np.int64)
        self._filter = np.zeros(1 << (_FILTER_BITS - 3), dtype=np.uint8)
        np.bitwise_or.at(self._filter, places >> 3, _BIT[places & 7])

    @classmethod
    def build(cls, evaluations: Mapping[str, Iterable[str]]) -> "NgramIndex":
        """Returns the index of texts, by the name of their evaluation.

        A text of MIN_WORDS words or more, but fewer than NGRAM_WORDS, is found only whole.
        """
        found: list[tuple[Hashes, NDArray[np.uint16]]] = [(np.zeros(0, np.uint64), np.zeros(0, np.uint16))]
        lengths: set[int] = set()
        report = {}
        for number, (name, texts) in enumerate(sorted(evaluations.items())):
            hashes, own_lengths, report[name] = _ngrams_of(texts)
            found.append((hashes, np.full(len(hashes), number, dtype=np.uint16)))
            lengths |= own_lengths
        hashes, owners = (np.concatenate(column) for column in zip(*found, strict=True))
        order = np.lexsort((owners, hashes))
        return cls(hashes[order], owners[order], np.array(sorted(lengths), dtype=np.int64), report)

    def save(self, path: Path) -> None:
        """Writes the index to a file (.npz), whole or not at all; the same index makes the same bytes."""
        report = orjson.dumps({name: asdict(indexed) for name, indexed in self.report.items()})
        with written_whole(path) as temporary, temporary.open("wb") as file:
            np.savez(
                file,
                hashes=self._hashes,
                owners=self._owners,
                lengths=self._lengths,
                report=np.frombuffer(report, dtype=np.uint8),
            )

    @classmethod
    def load(cls, path: Path) -> "NgramIndex":
        """Returns the index of a file. Raises UserError where it is none."""
        try:
            with np.load(path, allow_pickle=False) as file:
                report = {name: Indexed(**facts) for name, facts in orjson.loads(file["report"].tobytes()).items()}
                return cls(file["hashes"], file["owners"], file["lengths"], report)
        except (OSError, ValueError, KeyError, TypeError, EOFError, BadZipFile) as error:
            raise UserError(f"{path} is no index of evaluations: {error}", "remove it: it is made again") from error

    def find(self, text: str) -> list[str]:
        """Returns the names of the evaluations a text quotes, the one it quotes most first."""
        return self.find_all([text])[0]

    def find_all(self, texts: Sequence[str]) -> list[list[str]]:
        """Returns what find does for each text; many texts at once take half the time."""
        return [sorted(counts, key=lambda name: (-counts[name], name)) for counts in self.count(texts)]

    def count(self, texts: Sequence[str]) -> list[dict[str, int]]:
        """Returns for each text how many n-grams it shares with which evaluations; those without any are left out."""
        counts: list[dict[str, int]] = []
        for batch in batches(texts):
            counts += self._count(read_words(batch))
        return counts

    def _count(self, words: Words) -> list[dict[str, int]]:
        names = list(self.report)
        counts = np.zeros((len(words.counts), len(names)), dtype=np.int64)
        ngrams, first, last = self._candidates(words)
        texts = np.searchsorted(words.starts, first, "right") - 1
        inside = last < words.starts[texts + 1]
        low, high = (np.searchsorted(self._hashes, ngrams[inside], side) for side in ("left", "right"))
        np.add.at(counts, (np.repeat(texts[inside], high - low), self._owners[_ranges(low, high)]), 1)
        return [{names[i]: int(row[i]) for i in np.flatnonzero(row)} for row in counts]

    def _candidates(self, words: Words) -> tuple[Hashes, Indices, Indices]:
        """Returns n-grams with their first and last words: all those of the index, and few that are not in it."""
        found = [(np.zeros(0, np.uint64), np.zeros(0, np.int64), np.zeros(0, np.int64))]
        for n in self._lengths.tolist():
            ngrams = words.ngrams(n)
            bits = (ngrams >> _FILTER_SHIFT).astype(np.int64)
            first = np.flatnonzero(self._filter[bits >> 3] & _BIT[bits & 7])
            found.append((ngrams[first], first, first + n - 1))
        hashes, firsts, lasts = (np.concatenate(column) for column in zip(*found, strict=True))
        return hashes, firsts, lasts


def _ngrams_of(texts: Iterable[str]) -> tuple[Hashes, set[int], Indexed]:
    """Returns the different n-grams of an evaluation that tell something, their lengths, and what was left out."""
    parts: list[Hashes] = [np.zeros(0, np.uint64)]
    lengths: set[int] = set()
    n_texts = n_short = n_poor = 0
    for batch in batches(dict.fromkeys(texts)):  # a passage with four questions is one text
        words = read_words(batch)
        n_texts += len(batch)
        n_short += int(np.count_nonzero(words.counts < MIN_WORDS))
        owners = np.repeat(np.arange(len(batch)), words.counts)
        for n in range(MIN_WORDS, NGRAM_WORDS + 1):
            wanted = words.counts >= n if n == NGRAM_WORDS else words.counts == n
            places = np.flatnonzero(words.inside(n))
            places = places[wanted[owners[places]]]
            if not len(places):
                continue
            is_poor = _n_different(words.hashes, places, n) < MIN_DIFFERENT_WORDS
            n_poor += int(np.count_nonzero(is_poor))
            places = places[~is_poor]
            ngrams = np.stack([owners[places].astype(np.uint64), words.ngrams(n)[places]], axis=1)
            parts.append(np.unique(ngrams, axis=0)[:, 1])  # once for each text
            lengths.add(n)
    hashes, n_texts_with = np.unique(np.concatenate(parts), return_counts=True)
    rare = hashes[n_texts_with <= MAX_TEXTS]
    return rare, lengths, Indexed(n_texts, len(rare), n_short, len(hashes) - len(rare), n_poor)


def _n_different(hashes: Hashes, places: Indices, n: int) -> Indices:
    """Returns how many different words stand among the n from each place on."""
    ngrams = np.sort(hashes[places[:, None] + np.arange(n)], axis=1)
    counts: Indices = 1 + np.count_nonzero(ngrams[:, 1:] != ngrams[:, :-1], axis=1)
    return counts


def _ranges(first: Indices, last: Indices) -> Indices:
    """Returns the numbers from first to before last, pair after pair."""
    counts = last - first
    before = np.cumsum(counts) - counts
    return np.repeat(first - before, counts) + np.arange(counts.sum())
