"""Returns texts as a reader takes them: with the ends of sentences that talk and verse leave out, and cut in windows.

Pure functions of the text alone; they go before anything that counts words for each sentence. Neighbours: clean.py,
which says whether a text is one at all, and grading.py, which grades it.
"""

import re
from functools import lru_cache
from itertools import pairwise

_STRAIGHT = str.maketrans(
    dict.fromkeys("\u2018\u2019\u201a\u201b\u02bc", "'")
    | dict.fromkeys("\u201c\u201d\u201e\u201f\u00ab\u00bb", '"')
    | {"\u2013": "-", "\u2014": "--", "\u2015": "--", "\u2026": "...", "\u2012": "-", "\u2010": "-", "\u2011": "-"}
)
_REPEATED = ("..", ". .", "!!", "??", "?!", "!?", "!.", "?.", "! !", "? ?")
_MARKS = re.compile(r" ?[.!?](?: ?[.!?])+(?P<pause>(?=[\"')]?,? [a-z]))?")

# A speaker at the start of a line, with or without the time: "MOM: ", "[9:02] ", "10:15 dee: ", "CECILY (aside). "
_TIME = r"\[?\d{1,2}:\d\d(?::\d\d)?(?: ?[apAP]\.?[mM]\.?)?\]?[ -]{0,3}"
_NAME = r"[A-Za-z][\w.'-]{0,20}(?: [A-Z0-9][\w.'-]{0,20}){0,2}"
_CAPITALS = r"(?!SECTION|CHAPTER|LESSON|ARTICLE|PART|NOTE|FIG|VOL)[A-Z][A-Z'-]+(?: [A-Z][A-Z'-]*){0,2}"
_ASIDE = r"(?: ?[\[(][^\])\n]{1,80}[\])])?"
_LABEL = re.compile(
    rf"^(?:(?:(?:{_TIME})?(?P<name>{_NAME}){_ASIDE}:(?=\s|$)|{_TIME}(?=\S)"
    rf"|(?P<capitals>{_CAPITALS})(?:\.{_ASIDE}|{_ASIDE}\.)(?=\s|$))[ \t]*)+",
    re.MULTILINE,
)
_IN_CAPITALS = re.compile(rf"^{_CAPITALS}", re.MULTILINE)
_MIN_TURNS = 3
_LINE_CHARS = 90  # characters a line on average, above which line breaks part paragraphs
_WORDS_PER_END = 20  # words for each sentence end, above which line breaks that follow a letter are taken for ends
_NARROW = 30  # characters: nobody sets prose in narrower columns
_VERSE_MARGIN = 52  # characters: lines of verse are as even as narrow columns, seldom as wide ones
_TRUSTED_WORDS_PER_END = 60  # above which a text is not punctuated; old prose has up to 40


def sentence_text(text: str) -> str:
    """Returns the text punctuated for counting sentences, without speakers' names; itself if it needs nothing."""
    if not text.isascii():
        text = _same_if_equal(text, text.translate(_STRAIGHT))
    if any(map(text.__contains__, _REPEATED)):
        text = _MARKS.sub(_one_mark, text)
    if "\n" not in text:
        return text
    if _has_speakers(text):
        return _with_line_ends(_LABEL.sub("", text).split("\n"))
    lines = text.split("\n")
    if len(lines) < 4 or len(text) > _LINE_CHARS * len(lines):
        return text
    full = [line for line in lines if line.strip()]
    if sum(line[-1].isalnum() for line in full) < 0.4 * len(full):
        return text
    if len(text.split()) < _WORDS_PER_END * sum(map(text.count, ".!?")) and not _is_chat(full):
        return text
    if _is_wrapped(lines):
        return text
    return _with_line_ends(lines)


def is_punctuated(text: str) -> bool:
    """Can the length of the sentences be trusted? Of what sentence_text returns."""
    n_ends = sum(map(text.count, ".!?"))
    return n_ends > 0 and len(text.split()) <= _TRUSTED_WORDS_PER_END * n_ends


def _same_if_equal(text: str, changed: str) -> str:
    return text if changed == text else changed


def _one_mark(match: "re.Match[str]") -> str:
    if match["pause"] is not None and "?" not in match[0] and "!" not in match[0]:
        return ","  # dots before a small letter are a pause
    return "?" if "?" in match[0] else "!" if "!" in match[0] else "."


def _with_line_ends(lines: list[str]) -> str:
    return "\n".join(line + "." if line[-1:].isalnum() else line for line in lines)


def _has_speakers(text: str) -> bool:
    """Do half the lines or more, and three at least, begin with one of a few names?"""
    if ":" not in text and _IN_CAPITALS.search(text) is None:
        return False
    labels = [match["name"] or match["capitals"] or "" for match in _LABEL.finditer(text)]
    if len(labels) < _MIN_TURNS or len(labels) < 1.5 * len(set(labels)):
        return False  # a glossary has a new word on each line
    return 2 * len(labels) >= sum(1 for line in text.split("\n") if line)


def _is_chat(lines: list[str]) -> bool:
    """Are most lines short, and do they begin with a small letter?"""
    n_small = sum(line[0].islower() for line in lines)
    return n_small >= 0.6 * len(lines) and sum(map(len, lines)) <= 45 * len(lines)


def _is_wrapped(lines: list[str]) -> bool:
    """Is a text prose cut at a margin: would the next line's first word not have fitted into most of its lines?"""
    pairs = [(line, after) for line, after in pairwise(lines) if line and after]
    margin = sorted(map(len, lines))[int(0.9 * len(lines))] - 3
    if not pairs or margin < _NARROW:
        return False
    n_full = sum(len(line) + 1 + len(after.split(" ", 1)[0]) > margin for line, after in pairs)
    n_small = sum(after[0].islower() for _, after in pairs)
    return n_full >= (0.7 if margin > _VERSE_MARGIN else 0.9) * len(pairs) and 2 * n_small >= len(pairs)


_FILLERS = re.compile(r"\b(?:uh|um|huh|hm|mm|mhm|uh-huh|um-hum|yeah|okay|gonna|wanna)\b", re.IGNORECASE)
_QUIZ = re.compile(r"^(?:Questions?|Q|Answer):", re.MULTILINE)
_OPTION = re.compile(r"\(?[A-Ea-e1-9][.)] ")


def genre_of(text: str) -> str | None:
    """Returns "verse" or "transcript" where the layout says so, else None."""
    if "\n" not in text:
        return None
    if ":" in text and _QUIZ.search(text):
        return None
    if _has_speakers(text):
        return "transcript"
    lines = [line.strip() for line in text.split("\n")]
    full = [line for line in lines if line]
    if len(full) < 4 or sum(map(len, full)) > _LINE_CHARS * len(full) or _is_wrapped(lines):
        return None
    if len(full) >= 8:
        if _is_chat(full) and 2 * sum(line[-1].isalnum() for line in full) >= len(full):
            return "transcript"
        if len(_FILLERS.findall(text)) >= max(4, 0.015 * len(text.split())):
            return "transcript"
    return "verse" if _is_verse(lines, full) else None


_VERSE_CHARS = 66  # of a line of verse at most
_RHYME = 2  # letters; crude, but chance alone gives half as many as a rhymed poem


def _is_verse(lines: list[str], full: list[str]) -> bool:
    """Do most words stand in short lines, with several lines in a sentence, or in stanzas of even lines that rhyme?"""
    short = [line for line in full if len(line) <= _VERSE_CHARS]
    n_chars = sum(map(len, short))
    if len(short) < 4 or n_chars < 0.5 * sum(map(len, full)):
        return False
    words = [word for line in short for word in line.split()[1:]]
    n_small = sum(not word.lstrip("\"'(")[:1].isupper() for word in words)
    n_numbered = sum(line[-1].isdigit() or _OPTION.match(line) is not None for line in short)
    if n_small < 0.6 * len(words) or n_numbered > 0.3 * len(short) or len(words) < 2 * len(short):
        return False  # titles, a table of contents, answers to choose from, a list of words
    n_capital = sum(line.lstrip(" \"'([0123456789.-")[:1].isupper() for line in short)
    n_ends = sum(line.rstrip("\"')]")[-1:] in (".", "!", "?") for line in short)
    if n_capital >= 0.75 * len(short) and n_ends <= 0.6 * len(short):
        return True
    n_stanzas = 1 + sum(not line for line in lines)
    spread = sum(abs(len(line) - n_chars / len(short)) for line in short) / n_chars
    if len(short) < 2.5 * n_stanzas or spread > 0.3:
        return False
    return n_ends <= (0.8 if n_stanzas >= 3 else 0.6) * len(short) or _rhymes(short)


def _rhymes(lines: list[str]) -> bool:
    """Do two lines of five end like another word that ends one of the three lines before or after?"""
    last = [re.sub(r"\W", "", line.rsplit(" ", 1)[-1].lower()) for line in lines]
    n_rhymes = 0
    for i, word in enumerate(last):
        others = last[max(0, i - 3) : i] + last[i + 1 : i + 4]
        n_rhymes += any(other != word and other[-_RHYME:] == word[-_RHYME:] for other in others)
    return n_rhymes >= 0.4 * len(lines)


_END = re.compile(r"[.!?][\"')\]]{0,3}\s+|\n\s*")


def windows(text: str, n_words: int, most: int) -> list[str]:
    """Returns consecutive windows of about n_words, cut at ends of sentences or lines where one is near.

    A text under 1.5 * n_words is one window. Of more windows than `most`, that many are returned, evenly spread, with
    the first and the last among them.
    """
    n_all = len(text.split())
    if n_all < 1.5 * n_words:
        return [text] if n_all else []
    n_windows = round(n_all / n_words)
    cuts = _word_starts(text, n_all, n_windows)
    n_chosen = min(n_windows, most)
    chosen = [round(j * (n_windows - 1) / max(1, n_chosen - 1)) for j in range(n_chosen)]
    return [text[_near(text, cuts, i) : _near(text, cuts, i + 1)].strip() for i in chosen]


def _word_starts(text: str, n_all: int, n_windows: int) -> list[int]:
    """Returns where the windows begin if they all have as many words, and where the text ends."""
    starts = [len(text) - len(text.lstrip())]
    for i in range(1, n_windows):
        n = i * n_all // n_windows - (i - 1) * n_all // n_windows
        match = _words(n).match(text, starts[-1])
        assert match is not None, (n_all, n_windows, i)
        starts.append(match.end())
    return [*starts, len(text)]


@lru_cache(maxsize=64)
def _words(n: int) -> "re.Pattern[str]":
    return re.compile(rf"(?:\S++\s++){{{n}}}")


def _near(text: str, cuts: list[int], i: int) -> int:
    """Returns the end of a sentence or line nearest to a cut, within a quarter of a window; else the cut."""
    if i == 0 or i == len(cuts) - 1:
        return cuts[i]
    cut = cuts[i]
    low, high = cut - (cut - cuts[i - 1]) // 4, cut + (cuts[i + 1] - cut) // 4
    ends = [match.end() for match in _END.finditer(text, low, high)]
    return min(ends, key=lambda end: abs(end - cut), default=cut)
