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


_Letters = dict[str, tuple["_Letters", list[tuple[int, int]]]]  # letter -> those after it, levels of a pattern's end


class _Words(dict[str, int]):
    """Token as it stands in a text -> _ONE_WORD + syllables, or 0 where only punctuation is left of it."""

    def __init__(self) -> None:
        super().__init__()
        self._count_hyphenated = _hyphenated_syllables()
        self._start_afresh()

    def _start_afresh(self) -> None:
        self._known = {word: _ONE_WORD + count for word, count in read_syllables().items()}
        self._known[""] = 0
        self.clear()
        self.update((word, value) for word, value in self._known.items() if word.isalnum())

    def __missing__(self, token: str) -> int:
        word = token.strip(_COMMON_MARKS)
        if not word.isalnum():  # else the marks at its ends were all its punctuation: the quick way to the same word
            word = _PUNCTUATION.sub("", _APOSTROPHE_OUTSIDE_CONTRACTION.sub("", token))
        word = word.lower()
        value = self._known.get(word)
        if value is None:
            value = self._known[word] = _ONE_WORD + self._count_hyphenated(word)
        self[token] = value
        return value

    def stay_bounded(self) -> None:
        """Forgets the words of past texts when there are too many of them."""
        if len(self) + len(self._known) > _MAX_MEMORY_WORDS:
            self._start_afresh()


def _hyphenated_syllables() -> Callable[[str], int]:
    """Returns a function that counts a word's syllables as len(Pyphen(lang="en_US").positions(word)) + 1 does.

    The patterns are pyphen's, in a tree of letters: one step a letter instead of one look-up a substring (4x faster).
    """
    from pyphen import Pyphen

    root: _Letters = {}
    for pattern, (offset, values) in Pyphen(lang="en_US").hd.patterns.items():
        letters = root
        for letter in pattern[:-1]:
            letters = letters.setdefault(letter, ({}, []))[0]
        letters.setdefault(pattern[-1], ({}, []))[1].extend(enumerate(values, offset))

    def count(word: str) -> int:
        dotted = f".{word}."
        levels = [0] * (len(dotted) + 1)
        for start in range(len(dotted) - 1):
            letters = root
            for letter in dotted[start:]:
                found = letters.get(letter)
                if found is None:
                    break
                letters, marks = found
                for position, level in marks:
                    if level > levels[start + position]:
                        levels[start + position] = level
        return 1 + sum(level & 1 for level in levels[3:-3])  # two letters stay at either end

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
    words.stay_bounded()
    tokens = text.split()
    n_words, n_syllables = divmod(sum(map(words.__getitem__, tokens)), _ONE_WORD)
    if not n_words or not n_syllables:
        return 0.0
    n_gaps = text.count(" ") + text.count("\n") - text.count("\n\n")
    is_plain = n_words == len(tokens) == n_gaps + 1  # each token a word; between two just one space or line break
    n_sentences = _count_sentences(text, words, is_plain)
    return 0.39 * (n_words / n_sentences) + 11.8 * (n_syllables / n_words) - 15.59


def _count_sentences(text: str, words: _Words, is_plain: bool) -> int:
    r"""Returns how many stretches between sentence ends hold more than two words, at least 1.

    textstat finds the stretches with the pattern \b[^.!?]+[.!?]*; between two ends there is one where there is a word.
    In a plain text six spaces part at least five tokens, of which only the first and the last can be less than words.
    """
    n_sentences = 0
    for stretch in text.replace("!", ".").replace("?", ".").split("."):
        if is_plain and stretch.count(" ") >= 6:
            n_sentences += 1
            continue
        tokens = stretch.split(None, 3)
        if len(tokens) < 3:
            continue
        if (words[tokens[0]] and words[tokens[1]] and words[tokens[2]]) or sum(
            1 for token in stretch.split() if words[token]
        ) > 2:
            n_sentences += 1
    return max(1, n_sentences)
