"""Why documents are dropped: the stage that each reason is of, and sums by stage. Reasons in, words and counts out.

Reasons of the first stage are named by readers (curation/sources) and the gate (clean.py); those below by the others.
"""

from collections.abc import Mapping

STAGES = ("reading", "repeats", "quotes", "licence")  # in their order
REPEATS = {  # of dedup.py; what stands behind each names another document
    "duplicate": "its words are those of {detail}",
    "near_duplicate": "most of its wording is that of {detail}",
    "repeated_passages": "most of its passages stand in other documents, most of them in {detail}",
    "repeated_paragraphs": "without the paragraphs that stand in others, as in {detail}, too little is left",
}
QUOTES_VAL, NOT_OPEN = "contaminated:val", "license"
LATER = {
    **REPEATS,
    QUOTES_VAL: "it shares 13 words in a row, or a whole shorter text, with a held-out work",
    NOT_OPEN: "{detail} is no open licence, and the mix was asked for with --licenses open",
}
QUOTES = "contaminated:"  # and the evaluation it quotes most


def stage_of(reason: str) -> str:
    """Returns which of STAGES drops documents for a reason."""
    if reason.startswith(QUOTES):
        return "quotes"
    return "licence" if reason == NOT_OPEN else "repeats" if reason in REPEATS else "reading"


def by_stage(reasons: Mapping[str, int]) -> dict[str, int]:
    """Returns the documents dropped by each stage, from those dropped for each reason."""
    counts = dict.fromkeys(STAGES, 0)
    for reason, n in reasons.items():
        counts[stage_of(reason)] += n
    return counts
