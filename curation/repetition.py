"""Says how much a text repeats itself, as shares of its words: the rules of Gopher (Rae et al. 2021, table A1).

Words in, shares out; clean.py holds them to its settings. Primers and tales that grow by a line a verse repeat far more
than the web pages those rules were made for, so our limits are wider than Gopher's.
"""

from collections import Counter
from collections.abc import Iterable, Sequence

from curation.settings import CleaningSettings

TOP_NGRAMS = (2, 3, 4)  # words; the lengths whose most frequent n-gram is looked at
REPEATED_NGRAMS = (5, 6, 7, 8, 9, 10)


def is_repetitive(text: str, words: Sequence[str], counts: Counter[str], settings: CleaningSettings) -> bool:
    """Does a text say the same lines, phrases or few words again and again? `counts` are those of `words`."""
    n_words = len(words)
    if len(counts) < settings.min_root_ttr * n_words**0.5:  # Guiraud 1954; a primer of 100 words has 2 and more
        return True
    if repeated_share(text.split("\n")) > settings.max_repeated_lines:
        return True
    return (n_words >= settings.min_words_of_top and _has_top_ngram(words, counts, settings)) or (
        n_words >= settings.min_words_of_repeated and _has_repeated_ngrams(words, counts, settings)
    )


def _has_top_ngram(words: Sequence[str], counts: Counter[str], settings: CleaningSettings) -> bool:
    most = max(counts.values())  # of a word, and so of an n-gram
    limits = _steps(settings.max_top_2gram, settings.max_top_4gram, len(TOP_NGRAMS))
    return any(
        n * most > limit * len(words) and top_ngram_share(words, n) > limit
        for n, limit in zip(TOP_NGRAMS, limits, strict=True)
    )


def _has_repeated_ngrams(words: Sequence[str], counts: Counter[str], settings: CleaningSettings) -> bool:
    limits = _steps(settings.max_repeated_5grams, settings.max_repeated_10grams, len(REPEATED_NGRAMS))
    if len(counts) >= (1 - min(limits)) * len(words):
        return False  # all words of a repeated n-gram stood before: so many different ones leave no room for it
    return any(repeated_ngram_share(words, n) > limit for n, limit in zip(REPEATED_NGRAMS, limits, strict=True))


def _steps(first: float, last: float, n_steps: int) -> list[float]:
    """Returns evenly spaced limits, as Gopher's are."""
    return [first + (last - first) * i / (n_steps - 1) for i in range(n_steps)]


def repeated_share(lines: Iterable[str]) -> float:
    """Returns the share of characters that stand in lines seen before."""
    seen: set[str] = set()
    repeated = total = 0
    for line in lines:
        total += len(line)
        repeated += len(line) if line in seen else 0
        seen.add(line)
    return repeated / total if total else 0.0


def top_ngram_share(words: Sequence[str], n: int) -> float:
    """Returns the share of words in the most frequent n-gram; 0 where each stands once."""
    ngrams = Counter(zip(*(words[i:] for i in range(n)), strict=False))
    most = max(ngrams.values(), default=0)
    return min(1.0, n * most / len(words)) if most > 1 else 0.0  # "ha ha ha" overlaps itself


def repeated_ngram_share(words: Sequence[str], n: int) -> float:
    """Returns the share of words in n-grams seen before, each word counted once."""
    seen: set[tuple[str, ...]] = set()
    n_repeated = end = 0  # words before `end` are counted
    for start, ngram in enumerate(zip(*(words[i:] for i in range(n)), strict=False)):
        if ngram in seen:
            n_repeated += start + n - max(start, end)
            end = start + n
        else:
            seen.add(ngram)
    return n_repeated / len(words) if words else 0.0
