"""Flesch-Kincaid grade, bit-identical to textstat 0.7.13 with the CMU dictionary, offline and many times faster.

textstat removes punctuation from the whole text, then splits it; since punctuation never holds white space, doing so
word by word gives the same words, and each distinct word needs to be looked at once. Syllables come from
syllables.txt.gz (built by build_syllables.py from the CMU Pronouncing Dictionary), else from pyphen's hyphenation.
"""

import gzip
import re
from collections.abc import Callable
from functools import cache
from pathlib import Path

SYLLABLES_FILE = Path(__file__).with_name("syllables.txt.gz")
SYLLABLE_COUNTER = "cmudict+pyphen"

_APOSTROPHE_OUTSIDE_CONTRACTION = re.compile(r"'(?![tsd]|ve|ll|re)")
_PUNCTUATION = re.compile(r"[^\w\s']")
_COMMON_MARKS = '.,;:!?"()-'
_MAX_MEMORY_WORDS = 1_000_000
_ONE_WORD = 1 << 32  # a token counts as this much plus its syllables, so that one sum gives both


class _Words(dict[str, int]):
    """Token as it stands in a text -> _ONE_WORD + syllables, or 0 where only punctuation is left of it."""

    def __init__(self) -> None:
        super().__init__()
        self._syllables = read_syllables()
        self._count_hyphenated = _hyphenated_syllables()

    def __missing__(self, token: str) -> int:
        word = token.strip(_COMMON_MARKS)
        if not word.isalnum():  # else the marks at its ends were all its punctuation: the quick way to the same word
            word = _PUNCTUATION.sub("", _APOSTROPHE_OUTSIDE_CONTRACTION.sub("", token))
        word = word.lower()
        syllables = self._syllables.get(word)
        if syllables is None:
            syllables = self._syllables[word] = self._count_hyphenated(word)
        if len(self) + len(self._syllables) >= _MAX_MEMORY_WORDS:
            self.clear()
            self._syllables = read_syllables()
        value = self[token] = _ONE_WORD + syllables if word else 0
        return value


def _hyphenated_syllables() -> Callable[[str], int]:
    """Returns a function that counts a word's syllables as len(Pyphen(lang="en_US").positions(word)) + 1 does.

    It looks up pyphen's patterns but leaves a start position as soon as no pattern begins that way (3x fewer look-ups).
    """
    from pyphen import Pyphen

    patterns: dict[str, tuple[int, tuple[int, ...]] | tuple[()]] = dict(Pyphen(lang="en_US").hd.patterns)
    for pattern in list(patterns):
        for end in range(1, len(pattern)):
            patterns.setdefault(pattern[:end], ())
    pattern_at = patterns.get

    def count(word: str) -> int:
        dotted = f".{word}."
        length = len(dotted)
        levels = [0] * (length + 1)
        for start in range(length - 1):
            for end in range(start + 1, length + 1):
                pattern = pattern_at(dotted[start:end])
                if pattern is None:
                    break
                if pattern:
                    offset, values = pattern
                    for position, value in enumerate(values, start + offset):
                        if value > levels[position]:
                            levels[position] = value
        return 1 + sum(level & 1 for level in levels[3 : length - 2])  # two letters stay at either end

    return count


def read_syllables() -> dict[str, int]:
    """Returns the syllables of every word of the CMU dictionary, first pronunciation."""
    table: dict[str, int] = {}
    with gzip.open(SYLLABLES_FILE, "rt", encoding="utf-8") as lines:
        for line in lines:
            count, _, words = line.partition(" ")
            table.update(dict.fromkeys(words.split(), int(count)))
    return table


@cache
def _words() -> _Words:
    return _Words()


def flesch_kincaid_grade(text: str) -> float:
    """Returns the US school grade of a text (Kincaid et al. 1975): 0.39 words/sentence + 11.8 syllables/word - 15.59.

    0.0 where textstat finds no word. Sentences of at most two words are not counted, but there is always one.
    """
    words = _words()
    n_words, n_syllables = divmod(sum(map(words.__getitem__, text.split())), _ONE_WORD)
    if not n_words or not n_syllables:
        return 0.0
    return 0.39 * (n_words / _count_sentences(text, words)) + 11.8 * (n_syllables / n_words) - 15.59


def _count_sentences(text: str, words: _Words) -> int:
    r"""Returns how many stretches between sentence ends hold more than two words, at least 1.

    textstat finds the stretches with the pattern \\b[^.!?]+[.!?]*; between two ends there is one where there is a word.
    """
    n_sentences = 0
    for stretch in text.replace("!", ".").replace("?", ".").split("."):
        tokens = stretch.split(None, 3)
        if len(tokens) < 3:
            continue
        if (words[tokens[0]] and words[tokens[1]] and words[tokens[2]]) or sum(
            1 for token in stretch.split() if words[token]
        ) > 2:
            n_sentences += 1
    return max(1, n_sentences)
