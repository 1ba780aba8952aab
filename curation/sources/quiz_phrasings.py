"""How a quiz item reads as prose: question and answer, a statement, talk in class. In: a QuizItem; out: a paragraph.

An item has several phrasings; which one is taken depends on its id alone, so that it never changes. A phrasing is
offered only where its grammar is safe: an answer that is a sentence is never put after "The answer is".
"""

import hashlib
import re
from dataclasses import replace

from curation.sources.quiz_items import ADVICE, PROBLEM, QuizItem, sentence

_PREPOSITIONS = "of|in|to|by|for|on|at|from|with|into|before|after|during|than|as|through|between|over"
_ASKING = re.compile(
    rf"(?:(?:{_PREPOSITIONS}|under|about) )?(?:what|which|who|whom|whose|where|when|why|how)\b"
    r"|(?:is|are|was|were|am|do|does|did|can|could|will|would|should|has|have|had|may|might|must)\b",
    re.IGNORECASE,
)
_CLAUSE = re.compile(
    r"(?:when|where|after|before|by|with|in|on|from|as|for) (?!is\b|are\b|do|did\b|can\b|wh)", re.IGNORECASE
)
_TELLING_TO = re.compile(r"(?:Select|Identify|Choose|Complete|Find|Compare|Answer|Pick|Name|Determine|Decide|Based)\b")
_BLANK = re.compile(r"\(\s*\)|_{2,}")
_WHAT_AS_BLANK = re.compile(rf"\bwhat(?=$| (?:{_PREPOSITIONS}|and|that)\b)|\bwhat(?=-ing\b)")
_HOW = re.compile(r"^(?:.{0,80}, )?(?:how|why)\b(?! (?:many|much|long|old|far|tall|big|fast|often))", re.IGNORECASE)
_SUBJECT_ASKED = re.compile(
    r"^(?:What|Who|Which of (?:these|the following)(?: \w+)?) (?P<rest>(?P<verb>is|are|was|were)"
    r" (?:the|most likely|needed|responsible|used|made of|made from|an example|a type of|a part of|examples|caused by"
    r"|known as)\b[^?,;]{5,90})\?$"
)
_NO_STATEMENT = re.compile(
    r"\b(?:called|named|doing|name|for short|mean|stand for|like|term|word|difference|do|does|did|you)\b"
    rf"|\bthe \w+ \w+(?:ing|ed)\b|\b(?:{_PREPOSITIONS})$"
)
_ASKS_FOR_DEED = re.compile(
    r"\b(?:do|doing|happen\w*|promise|say|tell|want|decide|try|plan|offer|ask|agree|order|beg|advise|learn)\b"
)
_NAMED = re.compile(r"(?:an?|the|his|her|their|my|its)\b|[A-Z\d]")
_PROPER = re.compile(r"(?:\w+(?:ian|ish|ese|ean|can)|Greek|French|Dutch|Roman|German|Earth|Mount)\b")
_NAMES = ("Ann", "Ben", "Carla", "Dan", "Ella", "Finn", "Grace", "Hugo", "Ida", "Jack", "Kim", "Leo", "Mia", "Noah")
_SMALL_START = re.compile(
    r"(?:A|An|The|It|Its|They|Their|He|She|His|Her|To|By|In|On|At|From|With|Because|When|If|For|All|Some|Both|Only|Not"
    r"|More|Less|No|Two|Three|Four|Five|One|There|Of|Into|Under|Over|Behind|Inside|Outside)\b"
)


def phrased(item: QuizItem) -> str:
    """Returns an item as a paragraph, without its passage."""
    choices = phrasings(item)
    return choices[number_of(item.id) % len(choices)]


def number_of(text: str) -> int:
    """Returns a number that depends on a text alone."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")


def phrasings(item: QuizItem) -> list[str]:
    """Returns the ways to say an item; the plainest may stand there twice, so that it is taken more often."""
    question, given = _question_and_material(item.question)
    answer = _answer_phrase(item)
    if item.kind == PROBLEM:
        return _solved(question, answer, item)
    if item.kind == ADVICE:
        return _advised(" ".join(item.question.split()), " ".join(item.answer.split()))
    if _BLANK.search(item.question):
        return [sentence(_BLANK.sub(lambda _: answer, _without_order(item.question)))]
    if item.answer.lower() in ("yes", "no"):
        return _yes_or_no(f"{question} {sentence(given)}" if given else question, item.answer.lower())
    if not given and (filled := _filled(question, answer)):
        said = [filled]
    elif not question.endswith(("?", "!", ".")) and not _TELLING_TO.match(question):
        said = _continued(question, answer, item)
    elif given:
        said = [_told_after(question, given, answer, item)]
    elif _is_sentence(item.answer) or _HOW.match(question):
        said = [f"{question} {sentence(item.answer)}"] * 2 + _in_class(question, sentence(item.answer), item.id)
    else:
        said = _answered(question, answer, item)
    return _with_reasons(said, item.explanation)


def _question_and_material(text: str) -> tuple[str, str]:
    """Returns the question, and the lines under it that it is about ('' where it has none)."""
    first, _, rest = _one_spaced(text).partition("\n")
    first = re.sub(r"\bi\b(?!\.)", "I", first)
    if not rest and not first.endswith(("?", ".", "!", ":")) and _ASKING.match(first) and not _CLAUSE.match(first):
        first += "?"
    return first[:1].upper() + first[1:], rest.strip()


def _one_spaced(text: str) -> str:
    return "\n".join(" ".join(line.split()) for line in text.strip().splitlines() if line.strip())


def _without_order(text: str) -> str:
    """Returns the sentence to fill in, without the line that tells to fill it in."""
    lines = _one_spaced(text).split("\n")
    return " ".join(line for line in lines if _BLANK.search(line) or not _TELLING_TO.match(line))


def _is_sentence(text: str) -> bool:
    return text[:1].isupper() and text[-1:] in (".", "!", "?") and text.count(" ") >= 2


def _answer_phrase(item: QuizItem) -> str:
    """Returns the answer as it stands within a sentence: no full stop, no capital that only begins it."""
    answer = " ".join(item.answer.split())
    if not re.search(r"\b[A-Z]\.$|\b[ap]\.m\.$|\betc\.$", answer):
        answer = answer.rstrip(" .")
    if not answer[:1].isupper() or answer[1:2].isupper() or answer.startswith(("I ", "I'")):
        return answer
    if re.search(rf"\b{re.escape(answer.lower())}\b", item.passage):
        return answer.lower()
    first = answer.split(" ")[0].lower()
    if _SMALL_START.match(answer) or first in re.findall(r"[a-z]+", item.passage) or _begin_sentences(item.choices):
        return answer[:1].lower() + answer[1:]
    return answer


def _begin_sentences(choices: tuple[str, ...]) -> bool:
    """Do all choices begin with a capital, but no other word of them, as if a sentence began there?"""
    others = [word for choice in choices for word in choice.split()[1:]]
    are_capital = all(choice[:1].isupper() and not _PROPER.match(choice) for choice in choices)
    return bool(others) and are_capital and all(word[:1].islower() for word in others)


def _filled(question: str, answer: str) -> str:
    """Returns the statement that a question makes when its "what" is the answer, '' where that is not safe."""
    body = question.rstrip(" ?")
    if not question.endswith("?") or _ASKING.match(body) or len(_WHAT_AS_BLANK.findall(body)) != 1:
        return ""
    if re.search(r"[.!?,:;] ?\w", body):
        return ""
    filled = _WHAT_AS_BLANK.sub(lambda _: answer.removesuffix("ing") if "what-ing" in body else answer, body)
    return sentence(filled.replace("-ing", "ing"))


def _continued(stem: str, answer: str, item: QuizItem) -> list[str]:
    """Returns phrasings of a sentence whose end is the answer."""
    stem = re.sub(r"[ :.]*(?:(?:which )?one of (?:these|the following))?[ :.]*$", "", stem)
    said = [sentence(f"{stem} {answer}")] * 2
    if excepted := re.search(r"\bexcept(?=[ :.\u2014-]*$)", stem, re.IGNORECASE):
        return [f"{stem[: excepted.start()]}except this: {_ended(answer)}"]
    others = [choice.rstrip(" .") for choice in item.choices if choice != item.answer]
    if _can_be_contrasted(item.choices) and others and not re.search(r"\b(?:except|not)\b", stem, re.IGNORECASE):
        said.append(sentence(f"{stem} {answer}, not {others[number_of(item.id) // 7 % len(others)]}"))
    if len(stem.split()) <= 16 and '"' not in stem:
        said.append(f'How does this sentence go on? "{stem} ..." It goes on like this: "{_ended(answer)}"')
    return said


def _told_after(question: str, given: str, answer: str, item: QuizItem) -> str:
    """Returns the question, what it is about, and the answer, on lines of their own where that has several."""
    told = sentence(item.answer) if _is_sentence(item.answer) else f"The answer is {_ended(answer)}"
    return "\n".join((question, given, told)) if "\n" in given else f"{question} {sentence(given)} {told}"


def _answered(question: str, answer: str, item: QuizItem) -> list[str]:
    """Returns phrasings of a question whose answer is a phrase."""
    said = []
    if _are_short(item.choices, 5):
        choices = [_answer_phrase(replace(item, answer=choice)) for choice in item.choices]
        said.append(f"{question} The choices are {_listed(choices, 'and')}. The right one is {_ended(answer)}")
        if re.match(r"(?:What|Which|Who)\b.*\b(?:is|was)\b", question) and all(map(_NAMED.match, choices)):
            said.append(f"{question} Is it {_listed(choices, 'or')}? It is {_ended(answer)}")
    asked = None if item.story else _SUBJECT_ASKED.match(question)
    if asked and _agrees(answer, asked["verb"]):
        said += [] if _NO_STATEMENT.search(asked["rest"]) else [sentence(f"{answer} {asked['rest']}")]
    if not said or not re.search(r"^Select\b|\b(?:these|following|choices|listed)\b", question):
        said.append(f"{question} {sentence(answer)}")
        if len(answer.split()) <= 4 and not _ASKS_FOR_DEED.search(question):
            said.append(f"{question} The answer is {_ended(answer)}")
        said += _in_class(question, sentence(answer), item.id)
    return said


def _agrees(answer: str, verb: str) -> bool:
    """Is an answer short, and does it end like a plural before "are" and "were", like a singular before others?"""
    is_plural = re.search(r"[^s]s$| and ", answer) is not None
    return len(answer.split()) <= 6 and is_plural == (verb in ("are", "were"))


def _are_short(choices: tuple[str, ...], most: int) -> bool:
    """Are there at most so many choices, all of them phrases of a few words?"""
    return 2 <= len(choices) <= most and all(
        choice and len(choice.split()) <= 6 and not _is_sentence(choice) and not re.search(r",| and | or ", choice)
        for choice in choices
    )


def _can_be_contrasted(choices: tuple[str, ...]) -> bool:
    """Are the choices things, so that "this, not that" reads well: one or two words, or words after an article?"""
    return _are_short(choices, 4) and all(re.match(r"(?:(?:an?|the) )?\S+(?: \S+)?$", choice) for choice in choices)


def _ended(phrase: str) -> str:
    return phrase if phrase.endswith((".", "!", "?")) else f"{phrase}."


def _listed(parts: list[str], word: str) -> str:
    return f"{', '.join(parts[:-1])} {word} {parts[-1]}"


def _in_class(question: str, answer: str, key: str) -> list[str]:
    """Returns the item as talk between a teacher and a child; nothing where it is too long to be said."""
    too_long = len(question.split()) > 18 or len(answer.split()) > 25
    if too_long or re.search(r'["\n]|[.!?] ', question + answer) or not question.endswith("?"):
        return []
    name = _NAMES[number_of(key) // 5 % len(_NAMES)]
    spoken = f"{answer[:-1]}," if answer.endswith(".") else answer
    return [f'"{question}" asked the teacher. "{spoken}" said {name}.']


def _yes_or_no(asked: str, answer: str) -> list[str]:
    if answer == "yes":
        return [f"{asked} Yes.", f"{asked} The answer is yes.", f"{asked} Yes, that is right."]
    return [f"{asked} No.", f"{asked} The answer is no.", f"{asked} No, that is not so."]


def _solved(question: str, answer: str, item: QuizItem) -> list[str]:
    """Returns phrasings of a problem: with its steps, its sum, or the sentence that concludes it."""
    steps = item.explanation
    if item.answer.lower() in ("yes", "no"):
        return _yes_or_no(question, item.answer.lower())
    if not steps:
        said = [f"{question} The answer is {_ended(answer)}", f"{question} {sentence(answer)}"]
        if _are_short(item.choices, 4):
            said.append(
                f"{question} The choices are {_listed(list(item.choices), 'and')}. The right one is {_ended(answer)}"
            )
        return said
    if re.fullmatch(r"[-+*/=().\d\s]+", steps):
        return [
            f"{question} {steps}, so the answer is {_ended(answer)}",
            f"{question} The answer is {answer}, because {steps}.",
            f"{question} The answer is {_ended(answer)}",
        ]
    if item.choices or ". " not in steps:
        return [f"{question} {steps}"]
    return [
        f"{question}\n\n{steps} The answer is {_ended(answer)}",
        f"{question}\n\nLet us work it out step by step. {steps}",
        f"{question}\n\n{steps} So the answer is {_ended(answer)}",
        f"{question} The answer is {_ended(answer)} Here is why. {steps}",
    ]


def _advised(goal: str, way: str) -> list[str]:
    """Returns a goal and the way to it, which may be a sentence of its own or go on with that of the goal."""
    if goal.endswith("?") or _ASKING.match(goal):
        question = sentence(goal.rstrip(" .?:,") + "?")
        said = f"{question} {sentence(way)}"
        if question.startswith("How to "):
            return [said, f"Here is {question[0].lower()}{question[1:-1]}. {sentence(way)}"]
        return [said, said, *_in_class(question, sentence(way), goal)]
    bare, way = goal.rstrip(" .?:,"), re.sub(r"\.\.$", ".", way)
    joined = way[:1].lower() + way[1:] if not way[1:2].isupper() and not way.startswith(("I ", "I'")) else way
    if re.match(r"(?:To|When|If|In order|While|After|Before)\b", goal, re.IGNORECASE):
        goes_on = re.search(r"\b(?:can|should|must|could|will|to|by)$", bare)
        return [sentence(f"{bare} {joined}" if goes_on else f"{bare}, {joined}")]
    if goal.endswith((".", "!")) or way[:1].isupper():
        return [f"{sentence(bare)} {sentence(way)}"]
    if len(bare.split()) == 1 or re.match(r"(?:can|is|are|will|has|have|helps?|could|may|does|[a-z]+s)\b", way):
        return [sentence(f"{bare} {way}")]
    return [sentence(f"{bare}: {way}")]


def _with_reasons(said: list[str], reasons: str) -> list[str]:
    """Returns each phrasing before and after the facts that lead to the answer, where there are some."""
    if not reasons:
        return said
    told = [text for one in said for text in (f"{one} {reasons}", f"{reasons} {one}") if one not in reasons]
    return told or [reasons]
