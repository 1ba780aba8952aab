"""The verdict on a text: its grade, the rules that spoke, and why: what the grade would be without each part of it.

Nothing of the scorer is opened: the text without a sentence is graded like any other, and the difference is told. Of a
long text the window with the highest grade is explained.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain, pairwise
from typing import Any, Literal

from curation.clean import repair, why_rejected
from curation.grade_classifier import zipf
from curation.grading import UNGRADED, Grading, Scorer
from curation.normalise import genre_of, is_punctuated, sentence_text, windows
from curation.settings import CleaningSettings
from curation.suitability import CATEGORIES, why_unsuitable

MAX_SENTENCES, MAX_WORDS = 40, 120  # of a text that are tried
MIN_CHANGE = 0.05  # grades; less is not worth telling
_SENTENCE_END = re.compile(r"(?<=[.!?])[\"')\]]*\s+(?=[\"'(\[]*[A-Z0-9])|\n+")
_WORD = re.compile(r"[^\W\d_]+(?:'[^\W\d_]+)*")
_MAX_ZIPF = 5.8  # of a word that is tried: "the" and "said" explain nothing, whatever they weigh

RULES = {  # what kept a text from being graded, or was taken into account; in words, with the settings of cleaning
    "too_short": "it has fewer than {min_words} words",
    "not_prose": "it is no running text: too few words of letters, or too short or too long ones",
    "not_english": "it is not in English",
    "repetitive": "more than {max_repeated_lines:.0%} of it stands in lines that stood before",
    "code": "it is program code or markup",
    "table": "it is a table",
    "list": "it is a list: names or words without sentences",
    "no_sentences": "it has a run of over {max_sentence_words} words without the end of a sentence or a line",
    "unknown_words": "under {min_known_words:.0%} of its words are English ones",
    "verse": "it is verse: its lines say nothing of the length of sentences, so Flesch-Kincaid was left aside",
    "transcript": "it is talk: its sentences are short whatever they say, so Flesch-Kincaid was left aside",
    "unpunctuated": "its sentences cannot be told apart, so Flesch-Kincaid was left aside",
    **{f"unsuitable: {name}": f"it is not for children: {told}" for name, told in CATEGORIES.items()},
}


@dataclass(frozen=True)
class Push:
    """A sentence or word, and how much higher (+) or lower (-) the grade is because of it."""

    kind: Literal["sentence", "word"]
    text: str
    change: float


@dataclass(frozen=True)
class Verdict:
    """What `curation.grade` says of a text."""

    grading: Grading
    reasons: tuple[str, ...]  # the rule that kept it from being graded, or what the scorer took into account
    why: tuple[Push, ...]

    def as_json(self) -> dict[str, Any]:
        """Returns the verdict as plain values, grades to four digits."""
        columns = ("grade", "fk_grade", "classifier_grade", "p_grade3")
        grades = {name: getattr(self.grading, name) for name in columns}
        return {
            **{name: None if value is None else round(value, 4) for name, value in grades.items()},
            "part": self.grading.part,
            "windows": [round(grade, 2) for grade in self.grading.window_grades],
            "reasons": list(self.reasons),
            "why": [vars(push) for push in self.why],
        }


def judge(texts: Sequence[str], scorer: Scorer, cleaning: CleaningSettings, with_why: bool = True) -> list[Verdict]:
    """Returns the verdict on each text. What the gate stops has no grade, is all_ages, and its reason is the rule."""
    repaired = [repair(text) for text in texts]
    stopped = [why_rejected(text, cleaning) for text in repaired]
    passed = [text for text, rule in zip(repaired, stopped, strict=True) if not rule]
    works = [""] * len(passed)
    gradings = scorer.grade_texts(passed, works)
    pushes_of = explain(passed, works, gradings, scorer) if with_why else [[] for _ in passed]
    graded = iter(zip(passed, gradings, pushes_of, strict=True))
    verdicts = []
    for rule in stopped:
        if rule:
            verdicts.append(Verdict(UNGRADED, (rule,), ()))
            continue
        text, grading, pushes = next(graded)
        verdicts.append(Verdict(grading, tuple(_taken_into_account(text, grading)), tuple(pushes)))
    return verdicts


def _taken_into_account(text: str, grading: Grading) -> list[str]:
    if grading.grade is None:
        return ["unknown_words"]
    genre, unsuitable = genre_of(text), why_unsuitable(text)
    told = [f"unsuitable: {unsuitable}"] if unsuitable else []
    if genre:
        return [*told, genre]
    return told if is_punctuated(sentence_text(text)) else [*told, "unpunctuated"]


def explain(
    texts: Sequence[str], works: Sequence[str], gradings: Sequence[Grading], scorer: Scorer, most: int = 3
) -> list[list[Push]]:
    """Returns, for each text, the sentences and words that move its grade most: at most so many of a kind and way."""
    subjects = [_hardest_window(t, g, scorer) for t, g in zip(texts, gradings, strict=True)]
    tried = [
        list(_removals(subject)) if g.grade is not None else [] for subject, g in zip(subjects, gradings, strict=True)
    ]
    variants = [[subject, *(without for _, _, without in mine)] for subject, mine in zip(subjects, tried, strict=True)]
    repeated = [work for work, mine in zip(works, variants, strict=True) for _ in mine]
    graded = iter(scorer.grade_texts(list(chain.from_iterable(variants)), repeated))
    explained = []
    for mine in tried:
        whole = next(graded).grade
        pushes = []
        for kind, part, _ in mine:
            without = next(graded).grade
            if whole is not None and without is not None and abs(whole - without) >= MIN_CHANGE:
                pushes.append(Push(kind, part, round(whole - without, 2)))
        explained.append(_strongest(pushes, most))
    return explained


def _hardest_window(text: str, grading: Grading, scorer: Scorer) -> str:
    if len(grading.window_grades) < 2:
        return text
    parts = windows(text, scorer.settings.window_words, scorer.settings.max_windows)
    if len(parts) != len(grading.window_grades):
        return text  # a window without a known word has no grade
    return parts[grading.window_grades.index(max(grading.window_grades))]


def _removals(text: str) -> list[tuple[Literal["sentence", "word"], str, str]]:
    """Returns what is tried on a text: kind, the sentence or word, and the text without it."""
    ends = [match.end() for match in _SENTENCE_END.finditer(text)]
    spans = [(start, end) for start, end in pairwise([0, *ends, len(text)]) if _WORD.search(text, start, end)]
    removals: list[tuple[Literal["sentence", "word"], str, str]] = []
    if len(spans) > 1:
        by_text = {text[start:end].strip(): (start, end) for start, end in reversed(spans[:MAX_SENTENCES])}
        removals += [("sentence", said, text[:start] + text[end:]) for said, (start, end) in by_text.items()]
    words = dict.fromkeys(word for word in map(str.lower, _WORD.findall(text)) if zipf(word) < _MAX_ZIPF)
    for word in list(words)[:MAX_WORDS]:
        removals.append(("word", word, re.sub(rf"\b{word}\b ?", "", text, flags=re.IGNORECASE)))
    return removals


def _strongest(pushes: list[Push], most: int) -> list[Push]:
    """Returns the strongest pushes up and down of each kind, strongest first."""
    kept: list[Push] = []
    for kind in ("sentence", "word"):
        ordered = sorted((p for p in pushes if p.kind == kind), key=lambda p: (-p.change, p.text))
        kept += [p for p in ordered[:most] if p.change > 0] + [p for p in ordered[-most:] if p.change < 0]
    return sorted(kept, key=lambda p: (-abs(p.change), p.text))
