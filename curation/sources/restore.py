"""Lower-cased, tokenised text with sentences run together, as D-Wikipedia has it, made readable again.

Rules: `` and '' are quotes; marks and clitics join their word; a full stop between two words parts two sentences; a
sentence, "I", months and days begin with a capital. Names stay lower-cased: nothing in the file says what is a name.
"""

import re

_REMAINS = re.compile(
    r"<\s[^<>]{0,200}(?:>|$)|\([\s,;]*\)|(?<=\()[\s,;]+|\u200e"
)  # a tag, a parenthesis whose content was cut
_QUOTED = re.compile(r"(?:``|'')\s*([^`]*?)\s*''")
_JOINED = (
    (re.compile(r"\s{2,}"), " "),
    (re.compile(r" ((?:n't|'(?:s|re|ve|ll|m|d))\b)"), r"\1"),
    (re.compile(r"s ' (?=[a-z])"), "s' "),
    (re.compile(r" ([,.;:?!%)\]}]+)"), r"\1"),
    (re.compile(r"([(\[{$#]) "), r"\1"),
    (re.compile(r" ?\.\.+ ?"), ". "),
)
# "germany.during", "(bat).both" and "2017.rush", but not u.s.a, w.t, 3.5, amazon.com.
_GLUED = re.compile(
    r"(?<=[^\W\d_]{2}|[\d%)\"]{2}|[^\W\d_][)\"])\.(?=[\"(]?(?!(?:com|org|net|edu|gov|co|uk|tv|js|exe|html?)\b)[^\W\d_]+)"
    r"|(?<=\.[^\W\d_])\.\.(?=[^\W\d_])"
)
_LETTERS = re.compile(r"\b(?:[^\W\d_]\.)+[^\W\d_]?$|\b(?:[^\W\d_]\.)*[^\W\d_]$")  # before a stop: initials
_ABBREVIATIONS = frozenset(
    """
    st dr mr mrs ms jr sr prof gen col lt maj capt sgt rev hon gov sen rep inc ltd co corp bros vs etc no vol ca approx
    est dept fig jan feb mar apr jun jul aug sep sept oct nov dec ft mt ph.d e.g i.e al
    """.split()  # noqa: SIM905
)
_STOP = re.compile(r"([.?!][\"')\]]*) ([\"'(\[]*)([^\W\d_])")
_SENTENCE_END = re.compile(r"[.?!][\"')\]]*(?=\s|$)")
_CALENDAR = re.compile(
    r"\b(?:january|february|april|june|july|august|september|october|november|december"
    r"|monday|tuesday|wednesday|thursday|friday|saturday|sunday"
    r"|(?:march|may)(?= \d)|(?<=\d )(?:march|may)|i(?='(?:m|ve|ll|d)\b)|i(?= [a-z]))\b"
)


def restored(line: str) -> str:
    """Returns a line of tokenised lower-case text as prose; "" if no whole sentence is in it."""
    text = _QUOTED.sub(r'"\1"', _REMAINS.sub("", line).strip())
    text = text.replace("``", '"').replace("''", '"')
    for pattern, joined in _JOINED:
        text = pattern.sub(joined, text)
    text = _GLUED.sub(". ", text).replace(" .", ".")
    text = _CALENDAR.sub(lambda match: match[0].capitalize(), text)
    text = _STOP.sub(_started, text)
    text = text[: _end(text)].strip()
    return text[:1].upper() + text[1:]


def _started(match: "re.Match[str]") -> str:
    """Returns the start of a sentence with its capital, unless the stop before it belongs to an abbreviation."""
    if match[1] == "." and _is_abbreviated(match.string[: match.start()]):
        return match[0]
    return f"{match[1]} {match[2]}{match[3].upper()}"


def _is_abbreviated(before: str) -> bool:
    """Does a text that a full stop follows end with an abbreviation or an initial?"""
    tail = before[-20:]
    return _LETTERS.search(tail) is not None or tail.rpartition(" ")[2].strip("(\"'").lower() in _ABBREVIATIONS


def _end(text: str) -> int:
    """Returns where the last whole sentence ends; some lines were cut off at a length."""
    if _SENTENCE_END.search(text, max(0, len(text) - 3)):
        return len(text)
    ends = (match for match in _SENTENCE_END.finditer(text) if not _is_abbreviated(text[: match.start()]))
    return max((match.end() for match in ends), default=0)
