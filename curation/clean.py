"""Repairs a text, or says why it is no readable English prose or verse: the one gate of the pool and of a grade.

Reasons, in the order they are looked for: too_short, not_prose, code, table, not_english, no_sentences, repetitive,
list, unknown_words. Some rules are Gopher's (Rae et al. 2021, table A1), C4's (Raffel et al. 2020, section 2.2) and
FineWeb's (Penedo et al. 2024, section 3.5); the thresholds are settings. A text is cut into words once for all rules.
"""

import html
import re
import unicodedata
from collections import Counter
from functools import cache

from curation.normalise import genre_of
from curation.repetition import is_repetitive
from curation.settings import CleaningSettings

_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\u200b\ufeff\ufffd]")
_MAX_PASSES = 4  # what one damage hid may be another
_DAMAGE = re.compile(r"[\x80-\x9f\ufeff\ufffd]")  # what ftfy may mend, and what it could not
_BREAKS = re.compile(r"[\x0b\x0c\x1c-\x1e\x85\u2028\u2029]")  # page and line breaks that are not \n
_ENTITY = re.compile(r"&(?:#\d+|#x[0-9a-f]+|[a-z]+);", re.IGNORECASE)
_ODD_LETTERS = re.compile(r"[\ufb00-\ufb4f\uff00-\uffef\ud800-\udfff]")  # ligatures, full-width forms, surrogates
_PLAIN_QUOTES = dict.fromkeys("\u2018\u2019\u201a\u201b\u02bc", "'") | dict.fromkeys("\u201c\u201d\u201e\u201f", '"')
_SPACES = re.compile(r"[^\S\n]{2,}|[^\S\n ]")
_SPACES_AT_LINE_END = re.compile(r" +$|^ +", re.MULTILINE)
_BLANK_LINES = re.compile(r"\n{3,}")
_WORD = re.compile(r"[^\W\d_]+(?:'[^\W\d_]+)*")
_LETTERS = bytes(c if chr(c).isalpha() or c == ord("'") else ord(" ") for c in range(128)).ljust(256)
_QUOTE = re.compile(r"'(?![a-z])|(?<![a-z])'")
_CLEARLY_A_LIST = 0.05  # share of function words that no running English text falls below
_CLEARLY_ENGLISH = (0.9, 0.35)  # shares of known and of function words; 1 to 5 of 100 of the mirror's books have less
_MAYBE_FOREIGN = 0.8  # share of known words of a sentence: wordfreq's English list knows many a German one
_FEW_FUNCTION_WORDS = 0.1  # of a sentence; a German one may have "in", "so" and "was"
_WORDS_TO_TELL = 8  # a language by

_FUNCTION_WORDS = frozenset(
    """
    a about after again all also am an and any are as at be because been before but by can could did do does down each
    for from had has have he her here him his how i if in into is it its just like may me more most my no not now of
    off on one only or other our out over said see she should so some such than that the their them then there these
    they this those to too two up upon us very was we were what when where which while who will with would you your
    """.split()  # noqa: SIM905
)


def repair(text: str) -> str:
    """Returns the text with broken unicode mended, quotes straight and white space even.

    Control characters and lines that only speak of a web site's scripts, cookies and terms go.
    """
    for _ in range(_MAX_PASSES):
        before = text
        text = _repair_once(text)
        if text == before or text.isascii():
            break
    return text


def _repair_once(text: str) -> str:
    if "\r" in text:
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    text = _BREAKS.sub("\n", text)
    if "&" in text and _ENTITY.search(text):
        text = html.unescape(text)
    text = _CONTROL.sub("", text)
    if not text.isascii():
        text = _repair_unicode(text)
        text = _DAMAGE.sub("", text)
    text = _SPACES.sub(" ", text)
    if " \n" in text or "\n " in text:
        text = _SPACES_AT_LINE_END.sub("", text)
    if any(map(text.__contains__, _NOTICE_SIGNS)):
        text = "\n".join(line for line in text.split("\n") if len(line) > _MAX_NOTICE or not _NOTICE.search(line))
    return _BLANK_LINES.sub("\n\n", text).strip()


# What C4 drops lines for; but a page of a child's book may say "Grandma uses cookies", and a lesson "JavaScript", so a
# notice also has to speak of the site, or to be the name of a policy.
_NOTICE_SIGNS = ("avascript", "avaScript", "AVASCRIPT", "ookie", "OOKIE", "olicy", "OLICY", "erms ", "ERMS ")
_MAX_NOTICE = 300  # characters of a line; a longer one is a paragraph with other things in it
_SITE = r"(?:web ?sites?|sites?|web ?page|pages?|browsers?|services?|experience|settings|preferences)"
_NOTICE = re.compile(
    rf"""
    \bjavascript\ (?:\w+\ ){{0,4}}(?:enabled|disabled|required|turned\ on|switched\ on|turned\ off)\b
    | \b(?:enable|turn\ on|switch\ on|activate|requires|allow)\ (?:\w+\ )?javascript\b
    | \b(?:we|partners)\ (?:may\ )?use\ (?:our\ |own\ |and\ |third[- ]party\ ){{0,4}}cookies\b.{{0,80}}\b{_SITE}\b
    | \b{_SITE}\ (?:may\ )?(?:uses?|makes\ use\ of|set)\ cookies\b | \b(?:our|the)\ use\ of\ cookies\b
    | \b(?:accept|reject|manage|allow)\ (?:all\ )?cookies\b | \bcookies?\ (?:policy|settings|preferences|consent)\b
    | \b(?:privacy|cookie)\ (?:policy|notice|statement)\b | \bterms\ of\ (?:use|service)\b
    """,
    re.VERBOSE | re.IGNORECASE,
)


def _repair_unicode(text: str) -> str:
    """Returns text that is well encoded with plain quotes; ftfy mends it where it shows signs of damage (8x slower)."""
    import ftfy
    from ftfy.badness import is_bad

    if is_bad(text) or _ODD_LETTERS.search(text):
        return str(ftfy.fix_text(text, explain=False))
    for quote, plain in _PLAIN_QUOTES.items():
        text = text.replace(quote, plain)
    return unicodedata.normalize("NFC", text)


# Pronouns, auxiliaries and conjunctions: what contents lists, indexes and advertisements do without, and talk, verse
# and stories never do for long.
_CLAUSE_WORDS = frozenset(
    """
    i you he she it we they me him us them who is are was were be been am has have had do does did will would shall
    should can could may might must not don't didn't isn't wasn't can't won't it's that's i'm you're he's she's
    there's what's let's i'll what when if my your his her our their this that there then so but because as while how
    why thou thee thy ye no
    """.split()  # noqa: SIM905
)
_MAX_TOKEN_CHARS = 1000  # of anything between two spaces: no word or address is longer
_HEAD = 20_000  # characters in which code, tables and lists are looked for


def why_rejected(text: str, settings: CleaningSettings) -> str:
    """Returns the reason why a repaired text is not kept, or ''."""
    tokens = text.split()
    n_tokens = len(tokens)
    if n_tokens < settings.min_words:
        return "too_short"
    if len(max(tokens, key=len)) > _MAX_TOKEN_CHARS or text.count("#") > settings.max_hash_signs * n_tokens:
        return "not_prose"
    words = words_of(text)
    n_words = len(words)
    if not words or n_words < settings.min_alphabetic_words * n_tokens:
        return "code" if _is_code(text[:_HEAD], settings) else "not_prose"
    if not settings.min_mean_word_length <= len("".join(words)) / n_words <= settings.max_mean_word_length:
        return "not_prose"
    counts = Counter(words)
    head = text[:_HEAD]
    return (
        ("code" if _is_code(head, settings) else "")
        or ("table" if _is_table(head, n_words / n_tokens, settings) else "")
        or ("not_prose" if "lorem" in counts and "ipsum" in counts else "")
        or _why_no_english(head, counts, n_words, settings)
        or ("no_sentences" if _has_long_run(text, settings.max_sentence_words) else "")
        or ("repetitive" if is_repetitive(text, words, counts, settings) else "")
        or ("list" if _is_list(head, counts, n_words, settings) or _is_menu(text, settings) else "")
        or _why_foreign(head, counts, n_words, settings)
    )


def words_of(text: str) -> list[str]:
    """Returns the words of a text in lower case, with the apostrophes inside them."""
    text = text.lower()
    if not text.isascii():
        return _WORD.findall(text)
    letters = text.encode().translate(_LETTERS).decode()  # the same words as those of the pattern, four times faster
    if " '" in letters or "' " in letters or "''" in letters or letters[:1] == "'" or letters[-1:] == "'":
        letters = _QUOTE.sub(" ", letters)
    return letters.split()


def _why_no_english(head: str, counts: Counter[str], n_words: int, settings: CleaningSettings) -> str:
    """Returns the reason why a text with few English function words is dropped, or ''."""
    share = _n_of(_FUNCTION_WORDS, counts) / n_words
    if share >= settings.min_function_words:
        return ""
    language = language_of(head)
    if language != "en":
        return "unknown_words" if language == _NO_LANGUAGE else "not_english"
    if share >= _CLEARLY_A_LIST:
        return ""
    return "unknown_words" if _known_share(counts, n_words) < settings.min_known_words else "not_prose"


def _why_foreign(head: str, counts: Counter[str], n_words: int, settings: CleaningSettings) -> str:
    """Returns the reason why a text with many words that no English list knows is dropped, or ''.

    A page in two languages has function words enough: its sentences without them are looked at, all together.
    """
    known = _known_share(counts, n_words)
    if known < settings.min_known_words:
        return "unknown_words"
    if known >= _CLEARLY_ENGLISH[0] and _n_of(_FUNCTION_WORDS, counts) >= _CLEARLY_ENGLISH[1] * n_words:
        return ""
    strange = [piece for piece in _PIECE_END.split(head) if _is_strange(piece)]
    if sum(len(piece.split()) for piece in strange) <= settings.max_foreign_words * len(head.split()):
        return ""
    return "not_english" if language_of("\n".join(strange)) not in ("en", _NO_LANGUAGE) else ""


def _is_strange(piece: str) -> bool:
    """Has a sentence or line hardly any English function word, and other words than English ones?"""
    words = words_of(piece)
    counts, n_words = Counter(words), len(words)
    if not words or _n_of(_FUNCTION_WORDS, counts) > _FEW_FUNCTION_WORDS * n_words:
        return False
    if _known_share(counts, n_words) < _MAYBE_FOREIGN:
        return True
    return n_words >= _WORDS_TO_TELL and language_of(piece) not in ("en", _NO_LANGUAGE)


def _n_of(words: frozenset[str], counts: Counter[str]) -> int:
    return sum(filter(None, map(counts.get, words)))


_CODE_SIGNS = b"{}<>=()[]\\;|$_/"
_MANY_SIGNS = 0.02  # of the characters: fewer are not worth the search
_CODE = re.compile(
    r"""
    </?[a-zA-Z!?][\w-]{0,30}(?:\s[^<>\n]{0,200})?/?>  # a tag
    | "[\w -]{1,40}":  # a key of JSON
    | [{}]$ | \);$ | ^[{}]
    | [A-Za-z_]\w{0,40}\((?!s\))[\w"'.,:= ]{0,60}[),\[]  # a call, but not "friend(s)"
    | (?<![=!<>+-])[=!<>+-]=(?!=) | \s&&\s | \s\|\|\s | -> | =>
    | [A-Za-z]\w{0,40}\ =\ (?:["'\[{(]|[a-z])
    | ^(?:def|class|import|from|return|public|private|const|let|var|function|elif|else:|\#include|sudo|cd|git|pip)\b
    | \b[a-z]{2,20}\.[a-z]{2,20}\.[A-Za-z]{2} | \bat\ [\w.$]{1,80}\( | ,\ line\ \d+  # names of modules, stack traces
    | ^\$\ \w | /\w{1,40}/\w | --?[a-z]+= | \\[a-z]+\{  # a shell's prompt, paths, flags; LaTeX
    """,
    re.VERBOSE | re.MULTILINE,
)
_MARKUP_START = re.compile(
    r'<(?:!doctype|html|\?xml|div|svg)\b|[\[{]\s*(?:[\[{]\s*)?"[^"\n]{1,80}"\s*[:,\]}]', re.IGNORECASE
)


def _is_code(head: str, settings: CleaningSettings) -> bool:
    """Is a text source code, data or markup, by the signs for each word?"""
    if head[0] in "<{[" and _MARKUP_START.match(head):
        return True
    encoded = head.encode("utf-8", "replace")
    if len(encoded) - len(encoded.translate(None, _CODE_SIGNS)) < _MANY_SIGNS * len(head):
        return False
    n_signs = sum(1 for _ in _CODE.finditer(head))
    return n_signs > max(2, settings.max_code_signs * len(head.split()))


_CSV_COMMA = re.compile(r"[^\s\d],[^\s]|,[^\s\d]")
_QUOTED_CELL = re.compile(r',"[^"\n]{1,2000}"(?:,\S|$)')
_NUMBER = re.compile(r"\W{0,3}\d[\d.,:/%-]*\W{0,2}")


def _is_table(head: str, alphabetic: float, settings: CleaningSettings) -> bool:
    """Are most lines rows: cells with pipes, tabs or commas between them, or numbers for the most part?"""
    n_breaks = head.count("\n")
    if n_breaks < 3:
        return False
    if alphabetic > 0.8:
        n_tight_commas = head.count(",") - head.count(", ") - head.count(",\n")
        if head.count("|") + head.count("\t") + n_tight_commas < n_breaks:
            return False
    lines = [line for line in head.split("\n") if line]
    return sum(map(_is_row, lines)) >= max(4, settings.min_table_rows * len(lines))


def _is_row(line: str) -> bool:
    if line.count("|") >= 2 or line.count("\t") >= 2:
        return True
    tokens = line.split()
    if sum(1 for _ in _CSV_COMMA.finditer(line)) >= max(2, 0.2 * len(tokens)) or _QUOTED_CELL.search(line):
        return True
    n_numbers = sum(_NUMBER.fullmatch(token) is not None for token in tokens)
    return n_numbers >= 2 and n_numbers >= 0.3 * len(tokens) and line[-1] not in ".!?\"'"


_PIECE_END = re.compile(r"(?<=[.!?])[\"')\]]*\s+|\n+")
_WRAPPED = re.compile(r"(?<=[^\n]{40})\n(?=[a-z])")  # a line break within a sentence
_FEW_WORDS = 30  # too few to tell a list from a quiz item or a short poem


def _is_list(head: str, counts: Counter[str], n_words: int, settings: CleaningSettings) -> bool:
    """Is a text a contents list, an index, a glossary, an advertisement of books: names without sentences?"""
    if n_words < _FEW_WORDS or _n_of(_CLAUSE_WORDS, counts) >= settings.min_clause_words * n_words:
        return False
    return _running_share(_WRAPPED.sub(" ", head)) < settings.min_running_words


def _running_share(head: str) -> float:
    """Returns the share of words that stand in sentences or in lines of verse."""
    n_running = n_words = 0
    for piece in _PIECE_END.split(head):
        words = piece.split()
        n_words += len(words)
        n_running += len(words) if _is_running(piece, words) else 0
    return n_running / n_words if n_words else 0.0


def _is_running(piece: str, words: list[str]) -> bool:
    """Is a piece a sentence or a line of verse? A title has capitals, an index page numbers, a glossary neither."""
    start, end = piece.lstrip("\"'([0123456789.-* "), piece.rstrip("\"')]* ")
    if len(words) < 2 or not start[:1].isupper():
        return False
    n_lower = sum(word[0].islower() for word in words)
    if end[-1:] in (".", "!", "?"):
        return 2 * n_lower >= len(words) or any(word.lower() in _CLAUSE_WORDS for word in words)
    return len(words) >= 4 and n_lower >= 0.6 * len(words) and not end[-1:].isdigit()


_BULLETS = ("- ", "* ", "+ ", "o ", "\u2022", "\u2023", "\u25aa", "\u25b6", "\u25cf", "\u25e6")
_FEW_LINES = 5  # of a text with fewer, the lines say nothing
_LONG_LINE = 90  # characters; a line that long is a paragraph
_LINE_ENDS = (".", "!", "?", ":", ";", ",")  # talk and verse have all of them


def _is_menu(text: str, settings: CleaningSettings) -> bool:
    """Are the lines of a text menu items, teasers or bullets, more than sentences, verse or talk?"""
    lines = [line for line in text.split("\n") if line]
    if len(lines) < _FEW_LINES:
        return False
    ends = [line.rstrip("\"')]* ") for line in lines]
    if sum(line.startswith(_BULLETS) for line in lines) > settings.max_bullet_lines * len(lines):
        return True
    if sum(end.endswith(("...", "\u2026")) for end in ends) > settings.max_ellipsis_lines * len(lines):
        return True
    n_ended = sum(end.endswith(_LINE_ENDS) or len(end) > _LONG_LINE for end in ends)
    return n_ended < settings.min_ended_lines * len(lines) and genre_of(text) is None


@cache
def _known_words() -> frozenset[str]:
    """Returns the words of wordfreq's large English list; short ones only if they are common, as OCR makes many."""
    from wordfreq import get_frequency_dict

    frequencies = get_frequency_dict("en", "large")
    return frozenset(
        word
        for word, share in frequencies.items()
        if (len(word) > 3 or share >= 2e-6) and (len(word) > 1 or word in "aio")
    )


def _known_share(counts: Counter[str], n_words: int) -> float:
    """Returns the share of words in the word list; "Okafor's" is known if Okafor is."""
    known = _known_words()
    strangers = set(counts).difference(known)
    n_unknown = sum(counts[word] for word in strangers if "'" not in word or word.partition("'")[0] not in known)
    return 1 - n_unknown / n_words


def _has_long_run(text: str, max_words: int) -> bool:
    """Is there a run of more than max_words words without the end of a sentence, a clause or a line?"""
    for mark in "!?;:\n":
        text = text.replace(mark, ".")
    return any(len(run) > 2 * max_words and len(run.split()) > max_words for run in text.split("."))


_NO_LANGUAGE = "zxx"  # ISO 639-2: no linguistic content


def language_of(text: str) -> str:
    """Returns what py3langid, which ships its model, takes the first 2,000 characters of a text for: en, de, zxx..."""
    import py3langid

    return str(py3langid.classify(text[:2000])[0])
