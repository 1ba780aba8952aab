"""Repairs a text, or says why it is no readable English prose or verse.

Reasons: too_short, not_prose, not_english, repetitive. The rules are a few of Gopher's (Rae et al. 2021, table A1);
the thresholds are settings.
"""

import html
import re
import unicodedata
from collections.abc import Iterable

from curation.settings import CleaningSettings

_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\x80-\x9f\u200b\ufeff\ufffd]")
_BREAKS = re.compile(r"[\x0b\x0c\x1c-\x1e\x85\u2028\u2029]")  # page and line breaks that are not \n
_ENTITY = re.compile(r"&(?:#\d+|#x[0-9a-f]+|[a-z]+);", re.IGNORECASE)
_ODD_LETTERS = re.compile(r"[\ufb00-\ufb4f\uff00-\uffef\ud800-\udfff]")  # ligatures, full-width forms, surrogates
_PLAIN_QUOTES = dict.fromkeys("\u2018\u2019\u201a\u201b\u02bc", "'") | dict.fromkeys("\u201c\u201d\u201e\u201f", '"')
_SPACES = re.compile(r"[^\S\n]{2,}|[^\S\n ]")
_SPACES_AT_LINE_END = re.compile(r" +$|^ +", re.MULTILINE)
_BLANK_LINES = re.compile(r"\n{3,}")
_WORD = re.compile(r"[^\W\d_]+(?:'[^\W\d_]+)?")
_CLEARLY_A_LIST = 0.05  # share of function words that no running English text falls below

_FUNCTION_WORDS = frozenset(
    """
    a about after again all also am an and any are as at be because been before but by can could did do does down each
    for from had has have he her here him his how i if in into is it its just like may me more most my no not now of
    off on one only or other our out over said see she should so some such than that the their them then there these
    they this those to too two up upon us very was we were what when where which while who will with would you your
    """.split()  # noqa: SIM905
)


def repair(text: str) -> str:
    """Returns the text with broken unicode mended, quotes straight, control characters gone and white space even."""
    if "\r" in text:
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    text = _BREAKS.sub("\n", text)
    if not text.isascii():
        text = _repair_unicode(text)
    elif "&" in text and _ENTITY.search(text):
        text = html.unescape(text)
    text = _CONTROL.sub("", text)
    text = _SPACES.sub(" ", text)
    if " \n" in text or "\n " in text:
        text = _SPACES_AT_LINE_END.sub("", text)
    return _BLANK_LINES.sub("\n\n", text).strip()


def _repair_unicode(text: str) -> str:
    """Returns text that is well encoded with plain quotes; ftfy mends it where it shows signs of damage (8x slower)."""
    import ftfy
    from ftfy.badness import is_bad

    if is_bad(text) or _ODD_LETTERS.search(text) or _ENTITY.search(text):
        return str(ftfy.fix_text(text, explain=False))
    for quote, plain in _PLAIN_QUOTES.items():
        text = text.replace(quote, plain)
    return unicodedata.normalize("NFC", text)


def why_rejected(text: str, settings: CleaningSettings) -> str:
    """Returns the reason why a repaired text is not kept, or ''."""
    n_tokens = len(text.split())
    if n_tokens < settings.min_words:
        return "too_short"
    words = _WORD.findall(text.lower())
    if not words or len(words) < settings.min_alphabetic_words * n_tokens:
        return "not_prose"
    if not settings.min_mean_word_length <= sum(map(len, words)) / len(words) <= settings.max_mean_word_length:
        return "not_prose"
    share = sum(map(_FUNCTION_WORDS.__contains__, words)) / len(words)
    if share < settings.min_function_words:
        if not is_english(text):
            return "not_english"
        if share < _CLEARLY_A_LIST:
            return "not_prose"
    return "repetitive" if _repeated_share(text.split("\n")) > settings.max_repeated_lines else ""


def _repeated_share(lines: Iterable[str]) -> float:
    """Returns the share of characters that stand in lines seen before."""
    seen: set[str] = set()
    repeated = total = 0
    for line in lines:
        total += len(line)
        repeated += len(line) if line in seen else 0
        seen.add(line)
    return repeated / total if total else 0.0


def is_english(text: str) -> bool:
    """Does py3langid, which ships its model, take the first 2,000 characters of a text for English?"""
    import py3langid

    return bool(py3langid.classify(text[:2000])[0] == "en")
