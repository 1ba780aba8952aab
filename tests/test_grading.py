"""Grades, probabilities and splits: what nobody read at training stays unread, and a verdict says why."""

import json
import shutil
import subprocess
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from curation import grade_classifier
from curation.explain import RULES, Verdict, judge
from curation.grade_classifier import GradeClassifier, TrainingText, classifier_line, read_record, train_models
from curation.grading import Measured, Scorer, falling_isotonic, fit_scorer
from curation.label_sets import LabelledText
from curation.labels import ensure_classifier, grade_held_out, read_labels, split_of, training_texts
from curation.settings import CurationSettings, profile_settings, read_curation_file
from curation.stages import pull_sources
from shared.settings import PIPELINES_FILE
from tests.conftest import run_module

EASY = (
    "Sam has a red hat. He put the hat on his dog. The dog ran to the park with the hat on. All the kids laughed at "
    "the dog in the red hat. Then the dog sat down by the pond and went to sleep. Sam had to carry him home."
)
HARD = (
    "The committee's deliberations concerning fiscal consolidation exposed irreconcilable assumptions about monetary "
    "sovereignty, and several delegations conceded that the proposed stabilisation mechanism presupposed institutional "
    "guarantees which no existing treaty could plausibly furnish without further parliamentary ratification."
)


@pytest.fixture(scope="session")
def settings() -> CurationSettings:
    return profile_settings(read_curation_file(PIPELINES_FILE), "starter")


@pytest.fixture(scope="session")
def trained(settings: CurationSettings, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns the folder of a classifier trained on the starter labels."""
    data = tmp_path_factory.mktemp("grading")
    files, _ = pull_sources(settings.only_labels(), None, data / "raw")
    return ensure_classifier(settings, files, data / "models", workers=2)


@pytest.fixture(scope="session")
def scorer(settings: CurationSettings, trained: Path) -> Scorer:
    return Scorer(trained, settings.grading)


def verdict_of(text: str, scorer: Scorer, settings: CurationSettings) -> Verdict:
    return judge([text], scorer, settings.cleaning)[0]


# --- calibration ---

points = st.lists(st.tuples(st.integers(0, 6), st.booleans(), st.integers(1, 3)), min_size=1, max_size=12)


@given(points)
def test_isotonic_regression_is_the_min_max_of_means(points: list[tuple[int, bool, int]]) -> None:
    x, y, weight = (np.array(column, dtype=float) for column in zip(*points, strict=True))
    levels = np.unique(x)

    def mean(low: float, high: float) -> float:
        chosen = (x >= low) & (x <= high)
        return float(np.average(y[chosen], weights=weight[chosen]))

    expected = [min(max(mean(a, b) for b in levels if b >= v) for a in levels if a <= v) for v in levels]
    knots, probabilities = falling_isotonic(x, y, weight)
    assert probabilities == sorted(probabilities, reverse=True)
    assert knots == sorted(knots)
    step_of = [sum(1 for p in probabilities if p > e + 1e-9) for e in expected]
    assert [round(probabilities[min(i, len(probabilities) - 1)], 9) for i in step_of] == [round(e, 9) for e in expected]
    assert np.average(y, weights=weight) == pytest.approx(
        sum(weight[x == v].sum() * e for v, e in zip(levels, expected, strict=True)) / weight.sum()
    )


def test_p_grade3_never_rises_with_the_grade(scorer: Scorer) -> None:
    probabilities = [scorer.fit.p_grade3(grade) for grade in np.linspace(-2, 15, 200)]
    assert probabilities == sorted(probabilities, reverse=True)
    assert probabilities[0] > 0.9 and probabilities[-1] < 0.1


# --- splits ---


def test_the_split_of_an_author_is_the_published_rule() -> None:
    assert split_of("Lewis Carroll", 4) == split_of("  lewis carroll ", 4)
    keys = [f"author {i}" for i in range(2000)]
    folds = [split_of(key, 4) for key in keys]
    assert 0.17 < folds.count(None) / len(keys) < 0.23
    assert {fold for fold in folds if fold is not None} == {0, 1, 2, 3}


def test_a_text_that_shares_a_passage_with_a_held_out_one_is_not_trained_on(settings: CurationSettings) -> None:
    keys = [f"story {i}" for i in range(100)]
    held_out = next(key for key in keys if split_of(key, 4) is None and split_of(f"{key}.", 4) is not None)
    trained, copied, quoting = [key for key in keys if split_of(key, 4) is not None][:3]
    words = [f"word{i}" for i in range(60)]

    def text(key: str, words: list[str]) -> LabelledText:
        return LabelledText("starter/talk", key, 3.0, " ".join(words), "chat")

    texts = [
        text(held_out, words),
        text(trained, [f"other{i}" for i in range(60)]),
        text(copied, ["Indeed,", *words[10:24], "so."]),  # five 10-grams of it
        text(quoting, [*words[10:23], "and so on"]),  # four
        text(f"{held_out}.", [f"more{i}" for i in range(60)]),  # the same author, spelt otherwise
    ]
    chosen, n_shared = training_texts(texts, settings)
    assert [t.key for t in chosen] == [trained, quoting]
    assert n_shared == {"starter/talk": 2}


def test_no_text_is_graded_by_a_model_that_read_it(settings: CurationSettings, trained: Path) -> None:
    record = read_record(trained)
    folds = settings.classifier.n_folds
    for work, fold in record["trained_works"].items():
        assert split_of(work.split("/", 2)[2], folds) == fold
    labels = read_labels(settings, pull_sources(settings.only_labels(), None, trained)[0])
    held_out = [t for t in labels.texts if split_of(t.key, folds) is None]
    assert len(held_out) > 80
    assert not {t.work for t in held_out} & record["trained_works"].keys()


def test_a_model_is_given_every_text_but_those_of_its_fold(
    settings: CurationSettings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given_to: dict[str, list[str]] = {}

    def only_note(lines: list[str], _settings: object, path: Path) -> None:
        given_to[path.stem] = [line.rsplit(" ", 1)[1].strip() for line in lines]
        path.parent.mkdir(exist_ok=True)
        path.write_text(path.stem)

    monkeypatch.setattr(grade_classifier, "_fit", only_note)
    texts = [TrainingText(f"the {'!' * (i + 1)}", i % 5, fold=i % 4, repeat=1 + (i == 3)) for i in range(20)]
    assert train_models(texts, settings.classifier, tmp_path, workers=1).keys() == {
        "all.bin", "0.bin", "1.bin", "2.bin", "3.bin",
    }  # fmt: skip
    marks = ["!" * (i + 1) for i in range(20)]
    assert sorted(given_to["all"]) == sorted([*marks, marks[3]])
    for fold in range(4):
        expected = [mark for i, mark in enumerate(marks) if i % 4 != fold] + [marks[3]] * (fold != 3)
        assert sorted(given_to[str(fold)]) == sorted(expected)


def test_held_out_texts_are_in_no_training_set(settings: CurationSettings) -> None:
    labels = read_labels(settings, pull_sources(settings.only_labels(), None, Path("unused"))[0])
    chosen, _ = training_texts(labels.texts, settings)
    held_out = {t.work for t in labels.texts if split_of(t.key, 4) is None}
    assert held_out and not held_out & {t.work for t in chosen}
    few = settings.model_copy(
        update={"labels": {k: v.model_copy(update={"max_texts": 7}) for k, v in settings.labels.items()}}
    )
    assert Counter(t.source for t in training_texts(labels.texts, few)[0]) == dict.fromkeys(settings.labels, 7)


def test_a_work_that_was_trained_on_is_graded_by_the_model_without_it(trained: Path) -> None:
    record = read_record(trained)
    classifier = GradeClassifier(trained, record)
    work, fold = next(iter(record["trained_works"].items()))
    without = GradeClassifier(trained, {**record, "trained_works": {}, "models": record["models"]})
    assert classifier.predict([EASY], [work]) != without.predict([EASY], [work])
    swapped = GradeClassifier(trained, {**record, "trained_works": {"another": fold}})
    assert classifier.predict([EASY], [work]) == swapped.predict([EASY], ["another"])


def test_the_same_labels_give_the_same_bytes(settings: CurationSettings, trained: Path, tmp_path: Path) -> None:
    few = settings.model_copy(update={"classifier": settings.classifier.model_copy(update={"epoch": 3})})
    files, _ = pull_sources(few.only_labels(), None, tmp_path / "raw")
    first, second = (ensure_classifier(few, files, tmp_path / str(n), workers=n) for n in (1, 2))
    assert first.name == second.name != trained.name
    assert {p.name: p.read_bytes() for p in first.iterdir()} == {p.name: p.read_bytes() for p in second.iterdir()}


# --- grades ---


def test_rare_words_are_read_as_their_band() -> None:
    line = classifier_line("The dog's photosynthesis, 1995; qzxv's dog!", 3.5).split()
    assert line[:2] == ["the", "dog's"]
    assert line[2].startswith("ZIPF") and line[4] == "0000" and line[6] == "ZIPF0" and line[-1] == "!"


def test_the_starter_scorer_tells_easy_from_hard(settings: CurationSettings, scorer: Scorer) -> None:
    easy, hard = (verdict_of(text, scorer, settings).grading for text in (EASY, HARD))
    assert easy.part == "grade3" and hard.part == "all_ages"
    assert easy.grade is not None and hard.grade is not None and easy.grade < 3.5 < hard.grade


def test_held_out_starter_texts_are_ranked_as_their_writers_meant(settings: CurationSettings, scorer: Scorer) -> None:
    labels = read_labels(settings, pull_sources(settings.only_labels(), None, Path("unused"))[0])
    held_out = [g for g in grade_held_out(labels, scorer, settings) if g.split == "test"]
    grades, meant = (np.array([getattr(g, name) for g in held_out]) for name in ("grade", "label"))
    assert np.corrcoef(grades, meant)[0, 1] >= 0.75
    talk = [g for g in held_out if g.source == "starter/talk" and g.label == 9]
    assert talk and np.mean([g.p_grade3 >= 0.5 for g in talk]) <= 0.4


def test_a_long_text_is_graded_by_windows_over_all_of_it(settings: CurationSettings, scorer: Scorer) -> None:
    long = " ".join([EASY] * 60 + [HARD] * 60)
    (grading,) = scorer.grade_texts([long], [""])  # the gate would call it repetitive
    assert len(grading.window_grades) == settings.grading.max_windows
    assert grading.window_grades[0] < grading.window_grades[-1]
    assert len(verdict_of(EASY, scorer, settings).grading.window_grades) == 1


def test_a_hard_word_and_a_hard_sentence_are_named(settings: CurationSettings, scorer: Scorer) -> None:
    text = (
        EASY
        + " Photosynthesis presupposes institutional deliberations. "
        + EASY.replace("Sam", "Tom").replace("dog", "cat")
    )
    verdict = verdict_of(text, scorer, settings)
    harder = [push for push in verdict.why if push.change > 0]
    assert any(push.kind == "sentence" and "institutional" in push.text for push in harder)
    assert all(abs(push.change) >= 0.05 for push in verdict.why)


@pytest.mark.slow
@pytest.mark.mirror
def test_the_full_scorer_agrees_with_human_labels(mirror: Path, tmp_path: Path) -> None:
    done = run_module("curation.train_grade_classifier", "--mirror", mirror, "--data-dir", tmp_path, "--json")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    by_name = {target["name"]: target for target in report["targets"]}
    kept = [name for name, target in by_name.items() if target["met"]]
    for promise in ("CLEAR test", "five windows", "easy against hard: AUC", "precision at recall", "OneStop pairs"):
        assert any(promise in name for name in kept), promise
    assert by_name["test texts: calibration error"]["value"] <= 0.05
    assert Path(report["folder"], "report.html").is_file() and Path(report["folder"], "report.txt").is_file()


# --- what is not to be graded ---

BAD = {
    "empty": "",
    "white space": " \n\t \n",
    "few words": "The dog ran home.",
    "German": "Der Hund lief schnell nach Hause, weil es draussen regnete und niemand mehr auf der Strasse war. " * 4,
    "Chinese": "\u4eca\u5929\u5929\u6c14\u5f88\u597d\u6211\u4eec\u53bb\u516c\u56ed\u73a9 " * 40,
    "gibberish": "lkj qwpo zmx vbnq wrtz plkm nbvc xzas dfgh jklp oiuy trew qasz " * 6,
    "CSV": "name,age,city\n" + "\n".join(f"Bob{i},{i + 20},Paris" for i in range(40)),
    "code": "def run(x):\n    for i in range(x):\n        print(i * x)\n    return {'a': [x, i]}\n" * 8,
    "OCR noise": "Tlie qnick brovvn f0x jurnps ovcr tbe 1azy d0g aud tlien rnns horne vv1th h1s fr1cnd tbe b1rd. " * 6,
    "emoji": "\U0001f600 \U0001f602 \U0001f923 " * 60,
    "NULs": "\x00" * 5000,
    "sentence of 10,000 words": "the cat and the dog and " * 1667,
    "word of 100,000 characters": "a" * 100_000,
    "a megabyte of digits": EASY + " " + "1" * 1_000_000,
    "the same words": "the cat sat on the mat " * 10,
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_not_graded_and_says_why(name: str, settings: CurationSettings, scorer: Scorer) -> None:
    started = time.process_time()
    verdict = verdict_of(BAD[name], scorer, settings)
    assert verdict.grading.part == "all_ages" and verdict.grading.grade is None
    assert len(verdict.reasons) == 1 and verdict.reasons[0] in RULES
    assert time.process_time() - started < 2


def test_odd_texts_are_graded_sensibly(settings: CurationSettings, scorer: Scorer) -> None:
    shouted, quiet = (verdict_of(text, scorer, settings).grading for text in (EASY.upper(), EASY))
    assert shouted.part == quiet.part == "grade3" and shouted.grade == pytest.approx(quiet.grade, abs=0.5)
    nuls = verdict_of(EASY.replace(" ", " \x00"), scorer, settings).grading
    assert nuls.grade == quiet.grade
    call = "yeah so my lawyer says the settlement is uh it's contingent on the deposition you know and the mortgage is still in "
    talk = verdict_of(call * 5, scorer, settings)
    assert talk.grading.part == "all_ages"


def test_every_rule_is_told_in_words(settings: CurationSettings) -> None:
    for text in RULES.values():
        assert text.format(**settings.cleaning.model_dump())


# --- the command ---


def grade(trained: Path, *args: object) -> "subprocess.CompletedProcess[str]":
    return run_module("curation.grade", "--data-dir", trained.parent.parent, *args)


def test_a_person_reads_the_verdict(trained: Path) -> None:
    done = grade(trained, "--text", EASY)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("third grade: grade ")
    assert "not graded: " in grade(trained, "--text", "Too short.").stdout


def test_jsonl_comes_back_in_order_with_ids(trained: Path, tmp_path: Path) -> None:
    texts = [EASY, HARD, "Too short.", EASY] * 40
    rows = [{"id": f"t{i}", "text": text, "other": i} for i, text in enumerate(texts)]
    (tmp_path / "in.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n\n")
    for workers in (1, 2):
        done = grade(
            trained, "--jsonl", tmp_path / "in.jsonl", "--output", tmp_path / f"{workers}.jsonl", "--workers", workers
        )
        assert done.returncode == 0, done.stderr
    assert (tmp_path / "1.jsonl").read_bytes() == (tmp_path / "2.jsonl").read_bytes()
    answers = [json.loads(line) for line in (tmp_path / "1.jsonl").open()]
    assert [a["id"] for a in answers] == [r["id"] for r in rows]
    assert {"grade", "fk_grade", "classifier_grade", "p_grade3", "part", "windows", "reasons", "why"} < answers[
        0
    ].keys()
    assert answers[2]["grade"] is None and answers[2]["reasons"] == ["too_short"] and answers[2]["part"] == "all_ages"
    assert answers[0]["part"] == "grade3" and answers[0]["why"]


def test_files_are_graded_one_by_one(trained: Path, tmp_path: Path) -> None:
    (tmp_path / "easy.txt").write_text(EASY)
    (tmp_path / "hard.txt").write_text(HARD)
    done = grade(trained, tmp_path / "easy.txt", tmp_path / "hard.txt")
    assert done.returncode == 0, done.stderr
    assert [json.loads(line)["part"] for line in done.stdout.splitlines()] == ["grade3", "all_ages"]


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("not json", "line 2"),
        ('{"id": 1}', "line 2 has no text"),
        ('{"text": null}', "line 2 has no text"),
        ("[1]", "line 2"),
    ],
)
def test_a_bad_line_is_named_and_nothing_is_written(trained: Path, tmp_path: Path, line: str, told: str) -> None:
    (tmp_path / "in.jsonl").write_text(json.dumps({"text": EASY}) + "\n" + line + "\n")
    done = grade(trained, "--jsonl", tmp_path / "in.jsonl", "--output", tmp_path / "out.jsonl")
    assert done.returncode == 2 and told in done.stderr and "in.jsonl" in done.stderr
    assert list(tmp_path.iterdir()) == [tmp_path / "in.jsonl"]


def test_ids_come_back_whatever_they_are(trained: Path, tmp_path: Path) -> None:
    ids = ["\ud800", {"book": [1, None]}, 3.5, "\u72d7"]
    (tmp_path / "in.jsonl").write_text("\n".join(json.dumps({"id": i, "text": EASY}) for i in ids))
    done = grade(trained, "--jsonl", tmp_path / "in.jsonl", "--no-why")
    assert done.returncode == 0, done.stderr
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert [a["id"] for a in answers] == ids and all(a["why"] == [] for a in answers)


def test_an_output_that_is_no_file_is_left_alone(trained: Path, tmp_path: Path) -> None:
    done = grade(trained, "--text", EASY, "--output", tmp_path)
    assert done.returncode == 2 and f"--output {tmp_path} is no file" in done.stderr
    (tmp_path / "link.jsonl").symlink_to(tmp_path / "file.jsonl")
    assert grade(trained, "--text", EASY, "--output", tmp_path / "link.jsonl").returncode == 0
    assert (tmp_path / "link.jsonl").is_symlink() and json.loads((tmp_path / "file.jsonl").read_text())[
        "part"
    ] == "grade3"


@pytest.mark.parametrize(
    ("args", "told"),
    [
        ((), "name one thing to grade"),
        (("--text", "a", "--jsonl", "b.jsonl"), "name one thing to grade"),
        (("--jsonl", "nowhere.jsonl"), "nowhere.jsonl not found"),
        (("nowhere.txt",), "nowhere.txt not found"),
        (("--text", "a", "--profile", "fall"), "unknown profile fall"),
    ],
)
def test_wrong_use_is_one_error(trained: Path, args: tuple[str, ...], told: str) -> None:
    done = grade(trained, *args)
    assert done.returncode == 2 and told in done.stderr and "Traceback" not in done.stderr


def test_a_damaged_model_is_not_used(settings: CurationSettings, trained: Path, tmp_path: Path) -> None:
    copy = tmp_path / trained.name
    shutil.copytree(trained, copy)
    (copy / "all.bin").write_bytes((copy / "all.bin").read_bytes()[:-100])
    with pytest.raises(Exception, match="not the model that was trained"):
        Scorer(copy, settings.grading).grade_texts([EASY], [""])


def test_where_sentences_say_nothing_the_classifier_stands_in() -> None:
    assert Measured(9.0, None, (3.0, 5.0)).trusted_fk_grade == 4.0
    assert Measured(9.0, 6.0, (3.0, 5.0)).trusted_fk_grade == 6.0


def test_the_fit_spreads_grades_as_labels_are_spread(settings: CurationSettings) -> None:
    random = np.random.default_rng(0)
    labels = random.uniform(0, 10, 500)
    noise = random.normal(0, 2, (2, 500))
    measured = [
        Measured(float(f), float(f), (float(c),))
        for f, c in zip(labels + noise[0], 3 + 0.3 * labels + noise[1], strict=True)
    ]
    fit = fit_scorer(measured, labels.tolist(), ["one"] * 500, settings.grading)
    grades = [
        fit.intercept + fit.fk_weight * m.trusted_fk_grade + fit.classifier_weight * m.classifier_grade
        for m in measured
    ]
    assert np.mean(grades) == pytest.approx(labels.mean(), abs=1e-4)
    assert np.std(grades) == pytest.approx(labels.std(), abs=1e-4)


def test_a_label_set_weighs_as_the_root_of_its_size(settings: CurationSettings) -> None:
    # one set of 100 texts whose label is the classifier's grade, one of 4 where it is a grade more
    grades = np.linspace(2, 8, 104)
    sets = ["small" if i % 26 == 13 else "large" for i in range(104)]
    labels = [float(g) + (name == "small") for g, name in zip(grades, sets, strict=True)]
    measured = [Measured(float(g), None, (float(g),)) for g in grades]
    fit = fit_scorer(measured, labels, sets, settings.grading)
    mean = np.average(labels, weights=[0.1 if name == "large" else 0.5 for name in sets])
    at_mean = np.average(grades, weights=[0.1 if name == "large" else 0.5 for name in sets])
    assert fit.grade(float(at_mean), float(at_mean)) == pytest.approx(mean, abs=1e-3)
    assert fit.error == pytest.approx(np.sqrt(1 / 6 * 5 / 6), abs=0.02)  # two of twelve weights lie a grade higher
