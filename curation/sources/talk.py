"""Transcribed speech made readable: one turn a line, without speakers' names or the marks of the transcribers.

The rules, each in the function that follows it: unheard words (xxx, yyy, www), actions in brackets, codes of CHAT and
of Switchboard, fillers (uh, um), cut-off words (th-), words said twice in a row, acknowledgements that only interrupt
(uh-huh) go; compounds (peanut+butter, thank_you) are written as usual; every turn begins with a capital and ends.
"""

import re
from collections.abc import Iterable
from functools import cache

from curation.readability import read_syllables

_BRACKETS = re.compile(r"\[[^\]]*\]|\([^)]*\)|<[^>]*>")
_UNHEARD = frozenset(["xxx", "yyy", "www", "xx", "yy", "ww", "0", "lastname", "firstname"])
_SPEAKER_CODES = {"Chi": "baby", "Mot": "Mommy"}  # where a transcript has the code in place of a name
_NO_SPACE = re.compile(r"\s+([.,?!;:])")
_DOUBLE_MARKS = re.compile(r",+(?=[.?!])|(?<=[,.?!]),+|^[\s,.;:?!-]+")
_SPACES = re.compile(r"\s{2,}")
_ENDS = (".", "?", "!", ":", '."', '?"', '!"')


def tidy(text: str) -> str:
    """Returns a text with single spaces and no stray punctuation."""
    return _SPACES.sub(" ", _DOUBLE_MARKS.sub("", _NO_SPACE.sub(r"\1", text))).strip()


def childes_words(text: str) -> str:
    """Returns an utterance of a CHILDES transcript without its codes: unheard words, sounds (&-uh), @ and 0 marks."""
    text = _BRACKETS.sub(" ", text)
    words = []
    for token in text.replace("_", " ").split():
        if token.strip(".,?!").lower() in _UNHEARD or token[0] in "&0+":
            continue
        word = token.partition("@")[0]
        words.append(_SPEAKER_CODES.get(word, _compound(word) if "+" in word else word))
    return tidy(" ".join(words))


def _compound(word: str) -> str:
    """Returns bed+room as bedroom and peanut+butter as peanut butter: whichever the pronouncing dictionary knows."""
    solid = word.replace("+", "")
    return solid if solid.lower() in _dictionary() else word.replace("+", " ").strip()


@cache
def _dictionary() -> frozenset[str]:
    return frozenset(read_syllables())


_COMMENT = re.compile(r"\*.*")  # of the annotators: "birth. *humor", "tieing up *typo tying"
_CODES = re.compile(r"\{[A-Z] ([^{}]*)\}|[\[\]+#/{}]")
_CUT_OFF = re.compile(r"\b[A-Za-z']+-(?=[\s,.?!]|$),?")
_HESITATION = r"(?<![\w-])(?:uh|um|er|erm|eh|ah)\b(?![-'])"
_FILLERS = (
    (re.compile(rf",\s*{_HESITATION}(?:,\s*(?:{_HESITATION},\s*)*|\s+)(?=\w)", re.IGNORECASE), " "),  # "a, uh, dog"
    (re.compile(rf"{_HESITATION}(?:,(?=\s))?\s*", re.IGNORECASE), ""),
)
_FUNCTION_WORDS = (
    "i|you|he|she|it|we|they|the|a|an|my|your|his|her|its|our|their|this|and|but|or|so|if|because|when|that|in|on|at|of"
    "|to|for|from|with|about|by|as|is|are|was|were|do|does|did|have|has|had|can|could|will|would|there|what|who|how|which"
    "|i'm|i've|i'd|i'll|you're|he's|she's|it's|we're|we've|they're|they've|that's|there's|what's|don't|didn't"
)
_REPEATED = re.compile(rf"(?<![\w'])((?:{_FUNCTION_WORDS})(?: [\w']+){{0,3}}), \1(?![\w'])", re.IGNORECASE)
_STUTTERED = re.compile(  # not "you you", "that that", "had had", which may be right
    r"(?<![\w'])((?:i|he|she|we|they|an?|the|my|your|and|but|or|if|at|to|for|from|with|about|(?:of|in|to|on) the) )\1+",
    re.IGNORECASE,
)


def switchboard_words(text: str) -> str:
    """Returns an utterance of Switchboard without comments (*typo), codes ({F uh}), fillers, and words said twice."""
    text = _CODES.sub(lambda match: match[1] or "", _COMMENT.sub("", text))
    text = _CUT_OFF.sub("", text)
    for pattern, plain in _FILLERS:
        text = pattern.sub(plain, text)
    text = _SPACES.sub(" ", text)
    before = ""
    while before != text:
        before = text
        text = _STUTTERED.sub(r"\1", _REPEATED.sub(r"\1", text))
    return tidy(text)


_ACKNOWLEDGEMENT = frozenset(
    "uh-huh um-hum uh-hum mm-hm mhm huh hm mm yeah yes yep right okay ok oh sure really wow".split()  # noqa: SIM905
)
_WORD = re.compile(r"[A-Za-z'-]+")


def _only_acknowledges(text: str) -> bool:
    words = _WORD.findall(text.lower())
    return len(words) <= 3 and all(word in _ACKNOWLEDGEMENT for word in words)


def turns(utterances: Iterable[tuple[str, str]], skip_acknowledgements: bool = False) -> list[str]:
    """Returns the turns of (speaker, utterance) pairs: what one speaker says until another one speaks.

    With skip_acknowledgements, an "Uh-huh." that answers no question does not part what the other one is saying.
    """
    said: list[tuple[str, str]] = []
    for speaker, text in utterances:
        if not any(map(str.isalpha, text)):
            continue
        last, so_far = said[-1] if said else ("", "")
        if said and speaker == last:
            said[-1] = (speaker, _continued(so_far, text))
        elif not (skip_acknowledgements and _only_acknowledges(text) and not so_far.endswith("?")):
            said.append((speaker, text))
    return [_whole(text) for _speaker, text in said]


def _continued(so_far: str, text: str) -> str:
    """Returns one speaker's words with more: a new sentence after an end, or where a capital says that it is one."""
    if so_far.endswith(_ENDS):
        return f"{so_far} {_capital(text)}"
    if text[0].isupper() and not re.match(r"I\b", text):
        return f"{so_far.rstrip(',;- ')}. {text}"
    return f"{so_far} {text}"


def _whole(text: str) -> str:
    text = _capital(text.rstrip(",;- "))
    return text if text.endswith(_ENDS) else text + "."


def _capital(text: str) -> str:
    """Returns a text whose first letter is a capital, whatever quote stands before it."""
    i = next(i for i, sign in enumerate(text) if sign.isalnum())
    return text[:i] + text[i].upper() + text[i + 1 :]


_SPEAKER = re.compile(r"^(?:-\s*|[A-Z][A-Z .'#0-9-]{1,25}:\s+)+")
_SOUND = re.compile(r"[\u266a\u266b#~]+|</?[a-z][^<>]{0,40}>|\{[^{}]*\}")
_CREDIT = re.compile(r"subtitle|opensubtitle|captioned|https?:|www\.|\bsync(?:ed)? (?:and|by)\b|transcript by", re.I)


def caption_lines(lines: Iterable[str]) -> list[str]:
    """Returns the sentences of subtitles or of the BNC, one a line; a sentence over two lines is joined.

    Sounds in brackets, song marks, names and dashes before speech, and credits go; lines in capitals only are lowered.
    """
    sentences: list[str] = []
    for line in lines:
        text = _SPEAKER.sub("", _BRACKETS.sub(" ", _SOUND.sub(" ", line)).strip())
        text = tidy(text.replace("_", " "))
        if not any(map(str.isalpha, text)) or _CREDIT.search(text):
            continue
        if text.isupper() and " " in text:
            text = re.sub(r"\bi\b", "I", text.lower())
        if sentences and text[0].islower() and not sentences[-1].endswith(_ENDS):
            sentences[-1] = f"{sentences[-1]} {text}"
        else:
            sentences.append(_capital(text))
    return [_whole(sentence) for sentence in sentences]
