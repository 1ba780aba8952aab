"""The held-out report says what a reader would count by hand, and its figures are those of slow references."""

import json
import random
import subprocess
import sys
from dataclasses import replace
from html.parser import HTMLParser
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from curation.grading_report import GradedText, as_html, as_text, evenly_spread, make_report
from curation.settings import GradingSettings
from shared.metrics import (
    DecisionFigures,
    Unmeasurable,
    auroc,
    ece,
    precision_at_recall,
    precision_recall_f1,
    reliability,
    rmse,
    spearman,
)

SETTINGS = GradingSettings()
FEW_VALUES = st.sampled_from([-1.5, 0.0, 0.1, 0.25, 0.3, 0.5, 0.9, 1.0])  # ties and bin edges are common
PROBABILITIES = st.one_of(st.floats(0, 1), st.sampled_from([i / 10 for i in range(11)]))
SCORED = st.lists(st.tuples(FEW_VALUES, st.booleans()), min_size=1, max_size=40)


def graded(source: str = "labels/clear", label: float | None = 2.0, grade: float = 2.0, **given: Any) -> GradedText:
    """Returns a text of this grade; what is not given follows from it or is made up."""
    text = "The small owl sat on the old gate and looked at the moon."
    fields: dict[str, Any] = {
        "source": source, "key": "a key", "level": "a level", "label": label, "ease": None, "split": "test",
        "genre": "story", "title": "The Owl", "text": text, "n_words": 12, "fk_grade": grade, "classifier_grade": grade,
        "grade": grade, "p_grade3": 0.9 if grade <= 3.5 else 0.1,
    }  # fmt: skip
    return GradedText(**fields | given)


def invented_texts(n_books: int = 12, seed: int = 7) -> list[GradedText]:
    """Returns texts of every set with noisy grades: what a report of real ones looks like."""
    rng = random.Random(seed)

    def noisy(source: str, label: float, number: int, **fields: Any) -> GradedText:
        grade, fk = label + rng.gauss(0, 1.1), label + rng.gauss(1, 2.6)
        p_grade3 = 1 / (1 + np.exp(1.6 * (grade - 3.5)))
        words = ["owl", "gate", "moon", "river", "because", "the", "ran"] * rng.randrange(3, 60)
        made = {"key": f"{source} {number}", "level": f"grade {label}", "classifier_grade": grade + rng.gauss(0, 0.5)}
        made |= {"fk_grade": fk, "p_grade3": float(p_grade3), "text": " ".join(words), "n_words": len(words)}
        made |= {"title": f"Tale {number}", "genre": rng.choice(["story", "story", "information", "verse"])}
        return graded(source, label, grade, **made | fields)

    texts = []
    for book in range(n_books):
        split = "test" if book % 3 == 0 else "out of fold"
        texts += [noisy("textbooks/readers", 1 + book % 6, book, split=split) for _ in range(40)]
    for i in range(60 * n_books):
        ease = rng.gauss(0, 1)
        label = min(max(3.3 - 2.5 * ease, 0), 13)
        texts.append(noisy("labels/clear", label, i, ease=ease, split="test" if i % 2 else "out of fold"))
    texts += [noisy("labels/mctest", 2.0, i, split="measured", genre="story") for i in range(4 * n_books)]
    texts += [noisy("labels/switchboard", 10.0, i, genre="transcript") for i in range(4 * n_books)]
    texts += [noisy("starter/talk", 1 + i % 12, i, genre="chat") for i in range(2 * n_books)]
    for i in range(3 * n_books):
        versions = [noisy("labels/onestop", 5 + 2 * n, i, level=level) for n, level in enumerate(("Ele", "Int", "Adv"))]
        texts += [replace(version, label=None, split="measured", genre="news") for version in versions]
    levels = ("A1", "A2", "B1", "B2", "C1", "C2")
    learners = [noisy("labels/cefr", 1 + 2 * (i % 6), i, level=levels[i % 6]) for i in range(2 * n_books)]
    return texts + [replace(text, label=None, split="measured", genre="learners") for text in learners]


def promise(report: dict[str, Any], name: str) -> dict[str, Any]:
    found: list[dict[str, Any]] = [target for target in report["targets"] if target["name"].startswith(name)]
    assert len(found) == 1
    return found[0]


# Figures against slow references -------------------------------------------------------------------------------------


@given(SCORED)
def test_auroc_is_the_share_of_pairs_in_order(scored: list[tuple[float, bool]]) -> None:
    scores, positive = zip(*scored, strict=True)
    pairs = [(a, b) for a, is_a in scored if is_a for b, is_b in scored if not is_b]
    if not pairs:
        with pytest.raises(Unmeasurable, match="every one is"):
            auroc(scores, positive)
    else:
        assert auroc(scores, positive) == pytest.approx(sum((a > b) + (a == b) / 2 for a, b in pairs) / len(pairs))


@given(st.lists(st.tuples(FEW_VALUES, FEW_VALUES), min_size=1, max_size=30))
def test_spearman_is_pearson_of_the_mean_ranks(pairs: list[tuple[float, float]]) -> None:
    first, second = zip(*pairs, strict=True)
    if len(set(first)) == 1 or len(set(second)) == 1:
        with pytest.raises(Unmeasurable, match="never changes"):
            spearman(first, second)
        return
    a, b = ([sum((w < v) + (w == v) / 2 for w in values) for v in values] for values in (first, second))
    mean_a, mean_b = sum(a) / len(a), sum(b) / len(b)
    covariance = sum((x - mean_a) * (y - mean_b) for x, y in zip(a, b, strict=True))
    spread = (sum((x - mean_a) ** 2 for x in a) * sum((y - mean_b) ** 2 for y in b)) ** 0.5
    assert spearman(first, second) == pytest.approx(covariance / spread)


@given(SCORED, st.sampled_from([0.1, 0.5, 0.88, 1.0]))
def test_precision_at_recall_is_that_of_the_highest_threshold(scored: list[tuple[float, bool]], recall: float) -> None:
    scores, positive = zip(*scored, strict=True)
    if not any(positive):
        with pytest.raises(Unmeasurable, match="no recall"):
            precision_at_recall(scores, positive, recall)
        return
    for threshold in sorted(set(scores), reverse=True):
        figures = precision_recall_f1([score >= threshold for score in scores], positive)
        assert figures.recall is not None
        if figures.recall >= recall:
            assert precision_at_recall(scores, positive, recall) == figures.precision
            return


@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1))
def test_precision_recall_f1_by_counting(pairs: list[tuple[bool, bool]]) -> None:
    right = sum(a and b for a, b in pairs)
    decided, positive = (sum(column) for column in zip(*pairs, strict=True))
    figures = precision_recall_f1(*zip(*pairs, strict=True))
    assert figures.precision == (right / decided if decided else None)
    assert figures.recall == (right / positive if positive else None)
    if figures.precision and figures.recall:
        harmonic = 2 / (1 / figures.precision + 1 / figures.recall)
        assert figures.f1 == pytest.approx(harmonic)


@given(st.lists(st.tuples(PROBABILITIES, st.booleans()), min_size=1))
def test_reliability_and_calibration_error_bin_by_bin(pairs: list[tuple[float, bool]]) -> None:
    probabilities, true = zip(*pairs, strict=True)
    bins, error = reliability(probabilities, true), 0.0
    assert sum(b.n for b in bins) == len(pairs)
    for i in range(10):
        held = [(p, t) for p, t in pairs if i < p * 10 <= i + 1 or (i == 0 and p == 0)]
        found = [b for b in bins if b.low == i / 10]
        assert len(found) == bool(held)
        if held:
            mean, share = sum(p for p, _ in held) / len(held), sum(t for _, t in held) / len(held)
            assert found[0] == pytest.approx((i / 10, (i + 1) / 10, len(held), mean, share))
            error += abs(mean - share) * len(held) / len(pairs)
    assert ece(probabilities, true) == pytest.approx(error, abs=1e-12)


def test_rmse_and_what_has_no_figure() -> None:
    assert rmse([1.0, 5.0], [4.0, 1.0]) == pytest.approx(12.5**0.5)
    assert precision_recall_f1([], []) == DecisionFigures(None, None, None)
    for measure in (lambda: rmse([], []), lambda: auroc([], []), lambda: reliability([], [])):
        with pytest.raises(Unmeasurable, match="there are none"):
            measure()
    with pytest.raises(ValueError, match="not finite"):
        auroc([1.0, float("nan")], [True, False])
    assert reliability([1.1], [True]) == reliability([1.0], [True])


@given(st.integers(0, 200), st.integers(1, 20))
def test_evenly_spread_values_are_distinct_in_order_and_symmetric(n: int, most: int) -> None:
    values = evenly_spread(range(n), most)
    assert len(values) == min(n, most)
    assert values == sorted(set(values))
    if n > most:
        assert max(abs((v + 0.5) / n - (i + 0.5) / most) for i, v in enumerate(values)) <= 1 / n


# Promises by hand ----------------------------------------------------------------------------------------------------


def test_clear_is_compared_with_the_teachers_order_of_its_test_texts() -> None:
    eases_and_grades = [(1.0, 1.0), (0.5, 3.0), (0.0, 2.0), (-1.0, 9.0)]  # one neighbouring pair swapped
    texts = [graded(label=2, grade=grade, ease=ease, fk_grade=5.0) for ease, grade in eases_and_grades]
    texts.append(graded(label=2, grade=12, ease=3.0, split="out of fold"))
    found = promise(make_report(texts, SETTINGS), "CLEAR")
    assert (found["n"], found["value"], found["met"]) == (4, 0.8, True)  # 1 - 6 * 2 / (4 * 15)
    assert found["fk_alone"] is None
    assert "never changes" in found["unmeasured"]["fk_alone"]


def test_reader_windows_and_books() -> None:
    def book(number: int, label: float, grades: list[float], **fields: Any) -> list[GradedText]:
        return [graded("textbooks/readers", label, g, key=f"book {number}", **fields) for g in grades]

    texts = book(1, 2, [1.0, 2.0]) + book(2, 3, [3.0, 9.0], split="out of fold") + book(3, 5, [5.0, 8.0])
    texts += book(4, 6, [1.5], genre="verse", split="out of fold") + book(5, 1, [20.0], split="measured")
    report = make_report(texts, SETTINGS)
    # p is 0.9 up to grade 3.5, else 0.1. Easy windows: .9 .9 .9 .1; hard ones: .1 .1 .9
    assert promise(report, "reader windows: AUC")["value"] == pytest.approx((3 * 2 + 3 * 0.5 + 2 * 0.5) / 12, abs=1e-6)
    assert promise(report, "reader windows, prose: AUC")["value"] == pytest.approx((3 * 2 + 2 * 0.5) / 8, abs=1e-6)
    assert promise(report, "reader windows, test books: AUC")["value"] == 1.0
    # mean grades of the books: easy 1.5, 6; hard 6.5, 1.5
    books = promise(report, "readers, mean of five windows")
    assert (books["n"], books["value"], books["fk_alone"], books["met"]) == (4, 0.625, 0.625, False)


def test_a_book_counts_five_windows_evenly_spread() -> None:
    grades = [99.0 if i % 5 != 2 else 2.0 for i in range(25)]  # the middles of five fifths are easy
    long_book = [graded("textbooks/readers", 2, g, key="long") for g in grades]
    report = make_report([*long_book, graded("textbooks/readers", 5, 3.0, key="short")], SETTINGS)
    assert promise(report, "readers, mean of five windows")["value"] == 1.0


def test_easy_against_hard_takes_the_texts_it_names() -> None:
    texts = [graded("textbooks/readers", 2, 2, key="easy") for _ in range(50)]  # thinned to 20
    texts += [graded("textbooks/readers", 4, 9, key="neither")]
    texts += [graded("textbooks/readers", 5, 9, key="hard", split="out of fold") for _ in range(3)]
    texts += [graded("labels/mctest", 2, 9, split="measured") for _ in range(5)]
    texts += [graded(label=None, grade=9, ease=ease) for ease in (2.0, 1.0, -1.0, -2.0)]  # two are the harder half
    texts += [graded(label=None, grade=9, ease=-3.0, split="out of fold")]
    texts += [graded("labels/switchboard", 10, 2), graded("labels/switchboard", 10, 2, split="out of fold")]
    texts += [graded("starter/talk", 9, 9), graded("starter/talk", 8, 9)]
    report = make_report(texts, SETTINGS)
    contrast = report["easy_or_hard"]
    assert (contrast["n_easy"], contrast["n_hard"]) == (25, 7)
    both = contrast["graders"][-1]
    assert both["auc"] == pytest.approx((20 * (6 + 0.5) + 5 * (6 * 0.5)) / (25 * 7), abs=1e-6)
    assert both["precision_at_recall"] == pytest.approx(25 / 32, abs=1e-6)  # recall 0.8 until all are called easy
    assert (both["precision"], both["recall"]) == pytest.approx((20 / 21, 0.8), abs=1e-6)
    assert both["f1"] == pytest.approx(40 / 46, abs=1e-6)
    assert promise(report, "easy against hard: AUC")["value"] == both["auc"]
    assert promise(report, "easy against hard: precision")["value"] == both["precision_at_recall"]


def test_calibration_is_promised_overall_and_for_large_genres() -> None:
    def texts(genre: str, n_easy: int, n_hard: int) -> list[GradedText]:
        easy = [graded(label=2, grade=2, genre=genre, p_grade3=0.75) for _ in range(n_easy)]
        return easy + [graded(label=6, grade=6, genre=genre, p_grade3=0.75) for _ in range(n_hard)]

    report = make_report(texts("story", 150, 50) + texts("verse", 100, 100) + texts("news", 199, 0), SETTINGS)
    assert promise(report, "test texts: ")["value"] == pytest.approx(abs(0.75 - 449 / 599), abs=1e-6)
    assert promise(report, "test texts, story")["met"] is True
    assert promise(report, "test texts, verse")["value"] == 0.25
    assert promise(report, "test texts, verse")["met"] is False
    assert not any("news" in target["name"] for target in report["targets"])
    assert [group["genre"] for group in report["reliability"]] == [None, "story", "verse"]


def test_onestop_pairs_are_of_one_article() -> None:
    def article(key: str, elementary: float, advanced: float) -> list[GradedText]:
        grades = {"Ele": elementary, "Int": 0.0, "Adv": advanced}
        return [
            graded("labels/onestop", None, g, key=key, level=v, split="measured", fk_grade=4) for v, g in grades.items()
        ]

    texts = article("a", 5, 8) + article("b", 6, 6) + article("c", 9, 10)
    texts.append(graded("labels/onestop", None, 1, key="alone", level="Ele", split="measured"))
    found = promise(make_report(texts, SETTINGS), "OneStop")
    assert (found["n"], found["value"], found["fk_alone"], found["met"]) == (
        3,
        pytest.approx(2 / 3, abs=1e-6),
        0.0,
        False,
    )


# The rest of the report ----------------------------------------------------------------------------------------------


def test_one_set_by_each_grader() -> None:
    settings = GradingSettings(max_fk_grade=10.0)
    texts = [
        graded(label=2, grade=3, fk_grade=4, classifier_grade=1),
        graded(label=8, grade=7, fk_grade=50, classifier_grade=8),
    ]
    fk, classifier, both = make_report(texts, settings)["sets"]
    assert (fk["grader"], classifier["grader"], both["grader"]) == ("FK alone", "classifier", "both")
    assert fk["rmse_grades"] == 2.0  # 50 is clipped to 10
    assert (fk["recall"], fk["f1"], fk["precision"], fk["called_easy"]) == (0, 0, None, 0)
    assert (both["recall"], both["precision"], both["auc"], both["ece"]) == (1, 1, 1, pytest.approx(0.1))
    assert fk["ece"] is None and "no probability" in fk["unmeasured"]["ece"]


def test_what_cannot_be_measured_is_none_with_its_reason() -> None:
    texts = [graded("labels/mctest", 2, grade, split="measured") for grade in (1, 2, 9)]
    both = make_report(texts, SETTINGS)["sets"][-1]
    assert both["recall"] == pytest.approx(2 / 3, abs=1e-6)
    for name, reason in (
        ("auc", "at most 3.5"),
        ("precision", "no hard text"),
        ("f1", "no hard text"),
        ("spearman", "never"),
    ):
        assert both[name] is None and reason in both["unmeasured"][name]


def test_no_texts_make_a_report_that_promises_nothing() -> None:
    report = make_report([], SETTINGS)
    assert all(
        target["value"] is None and target["met"] is None and target["unmeasured"]["value"]
        for target in report["targets"]
    )
    assert "not measured" in as_text(report)
    assert "not measured" in as_html(report)
    assert "None" not in as_text(report) + as_html(report).replace("<p>None.</p>", "")


def test_levels_order_what_has_no_label() -> None:
    texts = [graded("labels/cefr", None, g, level=v, split="measured") for v, g in (("A1", 1), ("C2", 9), ("B1", 5))]
    report = make_report(texts, SETTINGS)
    assert report["sets"][-1]["spearman"] == 1.0
    assert report["sets"][-1]["n_labelled"] == 0


def test_lengths_genres_and_confusion_count_every_labelled_test_text() -> None:
    texts = [graded(n_words=n) for n in (1, 59, 60, 119, 120, 249, 250, 9999)]
    texts += [graded(label=3.5, grade=3.6), graded(label=13, grade=-1), graded(split="out of fold"), graded(label=None)]
    report = make_report(texts, SETTINGS)
    assert [row["n"] for row in report["lengths"]] == [4, 2, 2, 2]
    assert [(row["genre"], row["n"]) for row in report["genres"]] == [("story", 10)]
    counts = np.array(report["confusion"]["counts"])
    assert counts.sum() == 10
    assert (counts[2, 2], counts[3, 4], counts[12, 0]) == (8, 1, 1)  # 3.5 still is third grade


def test_mistakes_are_the_surest_wrong_decisions() -> None:
    hard = [graded(label=5, grade=3, p_grade3=0.5 + i / 100, title=f"hard {i}") for i in range(30)]
    easy = [graded(label=3, grade=4, p_grade3=0.4 - i / 100, title=f"easy {i}", split="measured") for i in range(4)]
    fine = [graded(label=4, grade=3, p_grade3=1.0), graded(label=9, grade=3, p_grade3=1.0, split="out of fold")]
    fine += [graded(label=9, grade=9, p_grade3=0.49), graded(label=1, grade=1, p_grade3=0.5)]
    mistakes = [m["title"] for m in make_report(hard + easy + fine, SETTINGS)["mistakes"]]
    assert mistakes == [f"hard {i}" for i in range(29, 13, -1)] + ["easy 3", "easy 2", "easy 1", "easy 0"]
    long = graded(label=9, grade=2, text="\x1b[2Jword " * 100)
    assert make_report([long], SETTINGS)["mistakes"][0]["opening"] == " ".join(["[2Jword"] * 60)


def test_corrupt_grades_are_refused() -> None:
    for broken in (
        graded(split="train"),
        graded(p_grade3=float("nan")),
        graded(p_grade3=1.5),
        graded(grade=float("inf")),
    ):
        with pytest.raises(ValueError, match="labels/clear/a key"):
            make_report([broken], SETTINGS)


# How it is shown -----------------------------------------------------------------------------------------------------


class Balance(HTMLParser):
    """Keeps the open elements, all ids and all addresses of a page."""

    VOID = ("meta",)

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.ids: list[str] = []
        self.addresses: list[str] = []
        self.tags: set[str] = set()

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.note(tag, attributes)
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.note(tag, attributes)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def note(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.ids += [value or "" for name, value in attributes if name == "id"]
        self.addresses += [value or "" for name, value in attributes if name in ("href", "src", "xlink:href")]


def test_the_page_is_one_whole_document() -> None:
    page = as_html(make_report(invented_texts(), SETTINGS))
    parser = Balance()
    parser.feed(page)
    parser.close()
    assert not parser.open
    assert len(parser.ids) == len(set(parser.ids))
    assert parser.addresses
    assert all(address.startswith("#") and address[1:] in parser.ids for address in parser.addresses)
    assert "http" not in page and "None" not in page
    assert "script" not in parser.tags and "link" not in parser.tags
    assert '<html lang="en">' in page and "<title>" in page and page.count("<svg") == 2
    assert page.startswith("<!DOCTYPE html>") and page.count("<style") == 1


def test_importing_the_report_loads_nothing_slow() -> None:
    code = "import sys, curation.grading_report; print(*{'matplotlib', 'jinja2', 'fasttext', 'datatrove'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not done.stdout.strip()


def test_texts_cannot_write_into_the_page() -> None:
    bad = '"><script>alert(1)</script>'
    texts = [graded(label=9, grade=2, title=bad, text=bad, level=bad, source=bad, genre=bad) for _ in range(200)]
    page = as_html(make_report(texts, SETTINGS))
    assert "<script" not in page
    assert "&lt;script&gt;" in page
    assert "$\\frac$" in as_html(make_report([graded(genre="$\\frac$")] * 200, SETTINGS))  # no formula to matplotlib


def test_the_same_texts_give_the_same_bytes() -> None:
    first, second = (make_report(invented_texts(6), SETTINGS) for _ in range(2))
    assert json.dumps(first, allow_nan=False) == json.dumps(second, allow_nan=False)
    assert as_html(first) == as_html(second) == as_html(json.loads(json.dumps(first)))
    assert as_text(first) == as_text(json.loads(json.dumps(first)))


def test_the_terminal_text_is_narrow_and_promises_come_first() -> None:
    texts = [
        *invented_texts(),
        graded("labels/with_a_very_long_name", 9, 2, title="t" * 200, genre="g" * 50, level="v" * 99),
    ]
    lines = as_text(make_report(texts, SETTINGS)).splitlines()
    assert max(map(len, lines)) <= 120
    assert "promise" in lines[1]
    assert any(line.endswith(" met") for line in lines[:20])
    assert any(line.endswith("not met") for line in lines[:20])
