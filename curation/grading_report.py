"""The held-out report of the grade scorer: graded texts with labels in; a JSON-able report, a text and a page out.

make_report measures; as_text and as_html, of grading_page, show. A figure that the texts do not decide is None, and
`unmeasured` beside it says why.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from math import ceil, isfinite
from typing import Any, TypeVar

import numpy as np

from curation.grading_page import as_html, as_text
from curation.settings import GradingSettings
from shared.metrics import (
    Bools,
    Floats,
    Unmeasurable,
    auroc,
    ece,
    precision_at_recall,
    precision_recall_f1,
    reliability,
    rmse,
    spearman,
)

__all__ = ["GradedText", "as_html", "as_text", "make_report"]

SPLITS = ("test", "out of fold", "measured")
CLEAR, ONESTOP, MCTEST = "labels/clear", "labels/onestop", "labels/mctest"
READERS, SWITCHBOARD, TALK = "textbooks/readers", "labels/switchboard", "starter/talk"
LEVEL_ORDER = {level: i for order in ("Ele Int Adv", "A1 A2 B1 B2 C1 C2") for i, level in enumerate(order.split())}

EASY_LABEL, HARD_LABEL = 3, 5  # a text of grade 4 is no clear mistake either way
ADULT_TALK_LABEL = 9
WINDOWS_FOR_GRADE, WINDOWS_FOR_CONTRAST = 5, 20  # of one book
PROMISED_RECALL = 0.88
MIN_GENRE_TEXTS = 200  # fewer texts decide no calibration error
LENGTHS = (("under 60", 0), ("60 to 119", 60), ("120 to 249", 120), ("250 and more", 250))  # words from
HIGHEST_LABEL = 12
N_MISTAKES, N_OPENING_WORDS = 20, 60

T = TypeVar("T")
Row = dict[str, Any]


@dataclass(frozen=True)
class GradedText:
    """A labelled text and its grades. Texts of one book stand in the order of the book."""

    source: str  # the label set
    key: str  # author, book, article, story
    level: str  # the set's own label
    label: float | None  # US grade; None where only an order is known
    ease: float | None  # CLEAR's BT_easiness: teachers' judgements, higher is easier
    split: str  # "test": no model saw it; "out of fold": calibration did; "measured": its set is never trained on
    genre: str
    title: str
    text: str
    n_words: int
    fk_grade: float
    classifier_grade: float
    grade: float
    p_grade3: float


@dataclass(frozen=True)
class _Grader:
    """One way to grade: in grades, as a score that rises with ease, and as a decision."""

    name: str
    grade: Callable[[GradedText], float]
    ease: Callable[[GradedText], float]
    suits: Callable[[GradedText], bool]


def _graders(settings: GradingSettings) -> tuple[_Grader, _Grader, _Grader]:
    def alone(name: str, grade: Callable[[GradedText], float]) -> _Grader:
        return _Grader(name, grade, lambda t: -grade(t), lambda t: grade(t) <= settings.grade_limit)

    return (
        alone("FK alone", lambda t: min(t.fk_grade, settings.max_fk_grade)),
        alone("classifier", lambda t: t.classifier_grade),
        _Grader("both", lambda t: t.grade, lambda t: t.p_grade3, lambda t: t.p_grade3 >= settings.min_probability),
    )


def make_report(graded: Sequence[GradedText], settings: GradingSettings) -> dict[str, Any]:
    """Returns every figure of the report. Raises ValueError for a grade that is none, or a split nobody knows."""
    for text in graded:
        _check(text)
    labelled_test = [t for t in graded if t.split == "test" and t.label is not None]
    genres = _grouped(labelled_test, lambda t: t.genre)
    large_genres = {genre: texts for genre, texts in genres.items() if len(texts) >= MIN_GENRE_TEXTS}
    lengths = {name: [t for t in labelled_test if _length(t) == name] for name, _ in LENGTHS}
    return {
        "grade_limit": settings.grade_limit,
        "min_probability": settings.min_probability,
        "n_texts": len(graded),
        "n_labelled_test_texts": len(labelled_test),
        "targets": _targets(graded, labelled_test, large_genres, settings),
        "easy_or_hard": _easy_or_hard(graded, settings),
        "sets": _sets(graded, settings),
        "genres": [{"genre": genre, **_group_figures(texts, settings)} for genre, texts in genres.items()],
        "lengths": [{"n_words": name, **_group_figures(texts, settings)} for name, texts in lengths.items()],
        "confusion": _confusion(labelled_test),
        "spread": _spread(labelled_test, settings),
        "reliability": [
            {"genre": genre, "n": len(texts), "bins": _bins(texts, settings)}
            for genre, texts in ({None: labelled_test} | large_genres).items()
            if texts
        ],
        "mistakes": _mistakes(graded, settings),
    }


def _check(text: GradedText) -> None:
    figures = (text.label or 0, text.ease or 0, text.fk_grade, text.classifier_grade, text.grade, text.p_grade3)
    if text.split not in SPLITS or not all(map(isfinite, figures)) or not 0 <= text.p_grade3 <= 1:
        raise ValueError(f"{text.source}/{text.key}: split {text.split!r}, figures {figures}")


def _targets(
    graded: Sequence[GradedText],
    labelled_test: Sequence[GradedText],
    large_genres: dict[str, list[GradedText]],
    settings: GradingSettings,
) -> list[Row]:
    """Returns the promises, each with what was measured and whether it is kept."""
    fk, _, both = _graders(settings)
    clear = [t for t in graded if t.source == CLEAR and t.split == "test" and t.ease is not None]
    readers = [t for t in graded if t.source == READERS and t.split != "measured" and t.label is not None]
    prose = [t for t in readers if t.genre != "verse"]
    unread = [t for t in readers if t.split == "test"]
    books = list(_grouped(readers, _book).values())
    contrast = _contrast(graded)
    pairs = _onestop_pairs(graded)

    def promise(name: str, at_least: float, n: int, measure: Callable[[_Grader], float]) -> Row:
        row: Row = {"name": name, "n": n, "bound": "at least", "target": at_least, "unmeasured": {}}
        _measure(row, "value", measure, both)
        _measure(row, "fk_alone", measure, fk)
        row["met"] = None if row["value"] is None else row["value"] >= at_least
        return row

    def calibrated(name: str, at_most: float, texts: Sequence[GradedText]) -> Row:
        row: Row = {"name": name, "n": len(texts), "bound": "at most", "target": at_most, "unmeasured": {}}
        _measure(row, "value", _ece, texts, settings)
        row["fk_alone"], row["unmeasured"]["fk_alone"] = None, "Flesch-Kincaid gives no probability"
        row["met"] = None if row["value"] is None else row["value"] <= at_most
        return row

    return [
        promise("CLEAR test texts: Spearman with the teachers' order", 0.74, len(clear), lambda g: _order(clear, g)),
        promise("reader windows: AUC", 0.95, len(readers), lambda g: _auc(readers, g, settings)),
        promise("reader windows, prose: AUC", 0.95, len(prose), lambda g: _auc(prose, g, settings)),
        promise("reader windows, test books: AUC", 0.95, len(unread), lambda g: _auc(unread, g, settings)),
        promise("readers, mean of five windows: AUC of books", 0.985, len(books), lambda g: _books(books, g, settings)),
        promise("easy against hard: AUC", 0.98, len(contrast.texts), lambda g: auroc(*contrast.scores(g))),
        promise(
            f"easy against hard: precision at recall {PROMISED_RECALL}",
            0.93,
            len(contrast.texts),
            lambda g: precision_at_recall(*contrast.scores(g), PROMISED_RECALL),
        ),
        calibrated("test texts: calibration error", 0.05, labelled_test),
        *(calibrated(f"test texts, {genre}: calibration error", 0.08, t) for genre, t in large_genres.items()),
        promise(
            "OneStop pairs: elementary graded below advanced", 0.95, len(pairs), lambda g: _pairs_in_order(pairs, g)
        ),
    ]


def _measure(row: Row, name: str, compute: Callable[..., float], *values: Any) -> None:
    """Sets row[name] to compute(*values), or to None and its reason."""
    try:
        row[name] = _rounded(compute(*values))
    except Unmeasurable as reason:
        row[name], row["unmeasured"][name] = None, str(reason)


def _rounded(value: float) -> float:
    return round(float(value), 6)  # what another build of numpy may sum otherwise lies behind this


def _labels(texts: Iterable[GradedText]) -> Floats:
    return np.array([t.label for t in texts], dtype=np.float64)


def _is_easy(texts: Iterable[GradedText], settings: GradingSettings) -> Bools:
    is_easy: Bools = _labels(texts) <= settings.grade_limit
    return is_easy


def _auc(texts: Sequence[GradedText], grader: _Grader, settings: GradingSettings) -> float:
    is_easy = _is_easy(texts, settings)
    _check_both_kinds(is_easy, settings)
    return auroc([grader.ease(t) for t in texts], is_easy)


def _check_both_kinds(is_easy: Bools, settings: GradingSettings) -> None:
    if not len(is_easy):
        raise Unmeasurable("no texts")
    if is_easy.all() or not is_easy.any():
        raise Unmeasurable(f"every label is {'at most' if is_easy.all() else 'above'} {settings.grade_limit}")


def _ece(texts: Sequence[GradedText], settings: GradingSettings) -> float:
    return ece([t.p_grade3 for t in texts], _is_easy(texts, settings))


def _order(texts: Sequence[GradedText], grader: _Grader) -> float:
    """Returns the rank correlation of grades with what orders the set: its ease, its labels or its levels."""
    ordered = [(t, -t.ease) for t in texts if t.ease is not None]
    ordered = ordered or [(t, t.label) for t in texts if t.label is not None]
    ordered = ordered or [(t, LEVEL_ORDER[t.level]) for t in texts if t.level in LEVEL_ORDER]
    if not ordered:
        raise Unmeasurable("neither ease, labels nor known levels")
    return spearman([grader.grade(t) for t, _ in ordered], [order for _, order in ordered])


def _grouped(texts: Iterable[GradedText], name: Callable[[GradedText], str]) -> dict[str, list[GradedText]]:
    """Returns the texts by name, names in order."""
    groups: dict[str, list[GradedText]] = {}
    for text in texts:
        groups.setdefault(name(text), []).append(text)
    return dict(sorted(groups.items()))


def _book(text: GradedText) -> str:
    return f"{text.source}/{text.key}/{text.level}"  # an author or a series may be the key of several books


def evenly_spread(values: Sequence[T], most: int) -> list[T]:
    """Returns at most `most` of the values: the middles of as many equal stretches."""
    if len(values) <= most:
        return list(values)
    return [values[(2 * i + 1) * len(values) // (2 * most)] for i in range(most)]


def _books(books: Sequence[list[GradedText]], grader: _Grader, settings: GradingSettings) -> float:
    """Returns the AUC over books by the mean grade of a few windows of each."""
    is_easy = _is_easy((book[0] for book in books), settings)
    _check_both_kinds(is_easy, settings)
    windows = [evenly_spread(book, WINDOWS_FOR_GRADE) for book in books]
    return auroc([-np.mean([grader.grade(t) for t in book]) for book in windows], is_easy)


@dataclass(frozen=True)
class _Contrast:
    """Texts that are clearly easy or clearly hard, and which they are."""

    texts: list[GradedText]
    is_easy: list[bool]

    def scores(self, grader: _Grader) -> tuple[list[float], list[bool]]:
        return [grader.ease(t) for t in self.texts], self.is_easy


def _contrast(graded: Sequence[GradedText]) -> _Contrast:
    """Returns easy readers and MCTest stories against hard readers, the harder half of CLEAR and adults' talk."""
    readers = [t for t in graded if t.source == READERS and t.split != "measured"]
    windows = [t for book in _grouped(readers, _book).values() for t in evenly_spread(book, WINDOWS_FOR_CONTRAST)]
    easy = [t for t in windows if t.label is not None and t.label <= EASY_LABEL]
    easy += [t for t in graded if t.source == MCTEST]
    hard = [t for t in windows if t.label is not None and t.label >= HARD_LABEL]
    clear = [(t.ease, t) for t in graded if t.source == CLEAR and t.split == "test" and t.ease is not None]
    hard += [t for _, t in sorted(clear, key=lambda pair: pair[0])[: len(clear) // 2]]
    hard += [t for t in graded if t.source == SWITCHBOARD and t.split == "test"]
    hard += [t for t in graded if t.source == TALK and t.label is not None and t.label >= ADULT_TALK_LABEL]
    return _Contrast(easy + hard, [True] * len(easy) + [False] * len(hard))


def _easy_or_hard(graded: Sequence[GradedText], settings: GradingSettings) -> Row:
    """Returns what each grader makes of clearly easy and clearly hard texts."""
    contrast = _contrast(graded)
    rows = []
    for grader in _graders(settings):
        row: Row = {"grader": grader.name, "unmeasured": {}}
        scores = contrast.scores(grader)
        _measure(row, "auc", auroc, *scores)
        _measure(row, "precision_at_recall", precision_at_recall, *scores, PROMISED_RECALL)
        _decide(row, contrast.texts, np.array(contrast.is_easy, dtype=bool), grader)
        rows.append(row)
    n_easy = sum(contrast.is_easy)
    return {"n_easy": n_easy, "n_hard": len(contrast.is_easy) - n_easy, "recall": PROMISED_RECALL, "graders": rows}


def _decide(row: Row, texts: Sequence[GradedText], is_easy: Bools, grader: _Grader) -> None:
    """Sets the figures of the decision. Of one kind of texts alone precision says nothing: it is 1 or 0 for anybody."""
    suits = np.array([grader.suits(t) for t in texts], dtype=bool)
    figures = precision_recall_f1(suits, is_easy)._asdict()
    if not is_easy.any():
        row["unmeasured"] |= dict.fromkeys(figures, "no easy text")
    elif is_easy.all():
        row["unmeasured"] |= {"precision": "no hard text", "f1": "no hard text"}
    elif not suits.any():
        row["unmeasured"]["precision"] = "no text was called easy"
    row |= {name: None if name in row["unmeasured"] else _rounded(value) for name, value in figures.items()}


def _onestop_pairs(graded: Iterable[GradedText]) -> list[tuple[GradedText, GradedText]]:
    """Returns the elementary and the advanced version of each article."""
    articles = _grouped((t for t in graded if t.source == ONESTOP), lambda t: t.key).values()
    return [(a, b) for texts in articles for a in texts for b in texts if (a.level, b.level) == ("Ele", "Adv")]


def _pairs_in_order(pairs: Sequence[tuple[GradedText, GradedText]], grader: _Grader) -> float:
    if not pairs:
        raise Unmeasurable("no pairs")
    return sum(grader.grade(easy) < grader.grade(hard) for easy, hard in pairs) / len(pairs)


def _sets(graded: Sequence[GradedText], settings: GradingSettings) -> list[Row]:
    """Returns the figures of each set, split and grader."""
    return [
        {"source": source, "split": split, "grader": grader.name, **_set_figures(texts, grader, settings)}
        for source, of_source in _grouped(graded, lambda t: t.source).items()
        for split in SPLITS
        if (texts := [t for t in of_source if t.split == split])
        for grader in _graders(settings)
    ]


def _set_figures(texts: Sequence[GradedText], grader: _Grader, settings: GradingSettings) -> Row:
    labelled = [t for t in texts if t.label is not None]
    row: Row = {"n": len(texts), "n_labelled": len(labelled), "unmeasured": {}}
    row["called_easy"] = _rounded(float(np.mean([grader.suits(t) for t in texts])))
    _measure(row, "spearman", _order, texts, grader)
    _measure(row, "rmse_grades", lambda: rmse([grader.grade(t) for t in labelled], _labels(labelled)))
    _measure(row, "auc", _auc, labelled, grader, settings)
    _decide(row, labelled, _is_easy(labelled, settings), grader)
    if grader.name == "both":
        _measure(row, "ece", _ece, labelled, settings)
    else:
        row["ece"], row["unmeasured"]["ece"] = None, "this grader gives no probability"
    return row


def _group_figures(texts: Sequence[GradedText], settings: GradingSettings) -> Row:
    """Returns the figures of labelled texts that do not come from one set."""
    both = _graders(settings)[-1]
    row: Row = {"n": len(texts), "unmeasured": {}}
    _measure(row, "auc", _auc, texts, both, settings)
    _measure(row, "ece", _ece, texts, settings)
    _decide(row, texts, _is_easy(texts, settings), both)
    return row


def _length(text: GradedText) -> str:
    return [name for name, least in LENGTHS if text.n_words >= least][-1]


def _whole_grade(grade: float) -> int:
    return min(max(ceil(grade - 0.5), 0), HIGHEST_LABEL)  # 3.5 still is third grade, as in the decision


def _confusion(texts: Sequence[GradedText]) -> Row:
    """Returns texts by label (outer) and grade (inner), both as whole grades."""
    counts = np.zeros((HIGHEST_LABEL + 1, HIGHEST_LABEL + 1), dtype=int)
    for text in texts:
        counts[_whole_grade(text.label or 0), _whole_grade(text.grade)] += 1
    names = [*map(str, range(HIGHEST_LABEL)), f"{HIGHEST_LABEL}+"]
    return {"grades": names, "counts": counts.tolist()}


def _spread(texts: Sequence[GradedText], settings: GradingSettings) -> list[Row]:
    """Returns the 10th, 25th, 50th, 75th and 90th percentile of the grades of each whole label."""
    fk, _, both = _graders(settings)
    rows = []
    for label in range(HIGHEST_LABEL + 1):
        if of_label := [t for t in texts if _whole_grade(t.label or 0) == label]:
            grades = {"fk_alone": map(fk.grade, of_label), "both": map(both.grade, of_label)}
            shares = {n: np.percentile(list(g), [10, 25, 50, 75, 90]).tolist() for n, g in grades.items()}
            rows.append({"label": label, "n": len(of_label)} | {n: [*map(_rounded, s)] for n, s in shares.items()})
    return rows


def _bins(texts: Sequence[GradedText], settings: GradingSettings) -> list[Row]:
    bins = reliability([t.p_grade3 for t in texts], _is_easy(texts, settings))
    return [{name: _rounded(value) for name, value in b._asdict().items()} | {"n": b.n} for b in bins]


def _mistakes(graded: Sequence[GradedText], settings: GradingSettings) -> list[Row]:
    """Returns the surest wrong decisions, worst first: hard texts called easy, then easy texts called hard."""
    seen = [(t.label, t) for t in graded if t.split != "out of fold" and t.label is not None]
    suits = _graders(settings)[-1].suits
    too_easy = sorted((t for label, t in seen if label >= HARD_LABEL and suits(t)), key=lambda t: -t.p_grade3)
    too_hard = sorted((t for label, t in seen if label <= EASY_LABEL and not suits(t)), key=lambda t: t.p_grade3)
    n_too_easy = min(len(too_easy), max(N_MISTAKES // 2, N_MISTAKES - len(too_hard)))
    worst = too_easy[:n_too_easy] + too_hard[: N_MISTAKES - n_too_easy]
    return [
        {
            "source": t.source,
            "title": _printable(t.title.split()),
            "level": t.level,
            "label": t.label,
            "grade": _rounded(t.grade),
            "p_grade3": _rounded(t.p_grade3),
            "fk_grade": _rounded(t.fk_grade),
            "classifier_grade": _rounded(t.classifier_grade),
            "opening": _printable(t.text.split()[:N_OPENING_WORDS]),
        }
        for t in worst
    ]


def _printable(words: Iterable[str]) -> str:
    return "".join(c for c in " ".join(words) if c.isprintable())  # a text may hold what moves a terminal's cursor
