"""Evaluations: what is measured with is all there, and nothing of it is what the corpus is made of."""

import gzip
import io
import json
import tarfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from curation.evaluations import EVALUATION_READERS, EvaluationItem, read_evaluation, read_held_out_readers
from curation.labels import is_held_out, read_labels
from curation.pull import SourceFile
from curation.settings import CurationSettings, profile_settings, read_curation_file
from curation.sources.quiz_sets import QUIZ_SETS
from curation.sources.quizzes import read_quizzes
from shared.console import UserError
from shared.settings import PIPELINES_FILE

CONTENT = read_curation_file(PIPELINES_FILE)
EVALUATIONS = CONTENT.evaluations

# Items and texts of the mirror's files; in production, test and validation splits of each set.
MIRRORED = {
    "blimp": (50_250, 100_500),
    "arc_easy": (1_886, 1_886),
    "arc_challenge": (582, 582),
    "openbookqa": (415, 415),
    "piqa": (1_454, 1_454),
    "boolq": (2_610, 5_220),
    "qasc": (926, 926),
    "sciq": (1_000, 1_881),
    "mctest": (200, 400),
    "scienceqa": (575, 780),
    "tabmwp": (1_000, 1_000),
    "clear": (3_773, 3_773),
    "onestop": (444, 444),
    "cefr": (1_164, 1_164),
}


def read(name: str, *paths: Path) -> list[EvaluationItem]:
    return [item for path in paths for item in read_evaluation(path, name, EVALUATIONS[name])]


def test_every_evaluation_can_be_had_and_read() -> None:
    assert {evaluation.reader for evaluation in EVALUATIONS.values()} == set(EVALUATION_READERS)
    for name, evaluation in EVALUATIONS.items():
        assert evaluation.mirror and evaluation.addresses, name
        assert all(url.startswith("https://") and evaluation.revision in url for url in evaluation.addresses), name


def test_no_address_of_a_quiz_source_is_one_of_an_evaluation_unless_its_items_tell_their_split() -> None:
    trained_on = {url for name, source in CONTENT.sources.items() for url in source.addresses if name[:8] == "quizzes/"}
    shared = {name for name, evaluation in EVALUATIONS.items() if trained_on & set(evaluation.addresses)}
    assert shared == {"mctest", "fairytaleqa", "scienceqa"}


def test_both_sentences_of_a_minimal_pair_are_texts(tmp_path: Path) -> None:
    pair = {"sentence_good": "The cats sleep.", "sentence_bad": "The cats sleeps.", "UID": "agreement", "pairID": "0"}
    plain = tmp_path / "agreement.jsonl.gz"
    plain.write_bytes(gzip.compress(json.dumps(pair).encode()))
    packed = tmp_path / "blimp.tar.gz"
    with tarfile.open(packed, "w:gz") as tar:
        for name in ("data/agreement.jsonl", "raw_results/summary/models_summary.jsonl"):
            member = tarfile.TarInfo(f"blimp-0123abc/{name}")
            member.size = len(json.dumps(pair))
            tar.addfile(member, io.BytesIO(json.dumps(pair).encode()))
    expected = [EvaluationItem("agreement#0", ("The cats sleep.", "The cats sleeps."))]
    assert read("blimp", plain) == read("blimp", packed) == expected
    plain.write_bytes(gzip.compress(b'{"sentence_good": "The cats sleep."}'))
    with pytest.raises(UserError, match=r"agreement\.jsonl.*line 1: no minimal pair"):
        read("blimp", plain)


def test_texts_are_what_an_item_shows_even_where_the_corpus_could_not_use_it(tmp_path: Path) -> None:
    choices = {"label": ["A", "B"], "text": ["to eat", "to sleep"]}
    rows = [
        {
            "id": "1",
            "question_stem": "Which plants are shown in the picture below?",
            "choices": choices,
            "answerKey": "A",
        },
        {"id": "2", "question_stem": "A bear in winter wants", "choices": choices, "answerKey": "B"},
        {"id": "3", "question_stem": "What does a bear want?", "choices": choices, "answerKey": ""},
    ]
    path = tmp_path / "main-test-00000-of-00001.parquet"
    pq.write_table(pa.Table.from_pylist(rows), path)
    assert [item.texts for item in read("openbookqa", path)] == [
        ("Which plants are shown in the picture below?",),
        ("A bear in winter wants to sleep",),
        ("What does a bear want?",),
    ]


def test_training_items_are_no_evaluation_and_a_file_without_others_is_refused(tmp_path: Path) -> None:
    problem = {
        "question": "Is it so?",
        "choices": ["yes", "no"],
        "answer": 0,
        "hint": "A long hint.",
        "grade": "grade3",
    }
    path = tmp_path / "problems.json"
    path.write_text(json.dumps({split: {**problem, "split": split} for split in ("train", "val", "test")}))
    assert [item.id for item in read("scienceqa", path)] == ["val", "test"]
    assert read("scienceqa", path)[0].texts == ("A long hint.", "Is it so?")
    path.write_text(json.dumps({"train": {**problem, "split": "train"}}))
    with pytest.raises(UserError, match=r"problems\.json holds no item of evaluation scienceqa"):
        read("scienceqa", path)


@pytest.mark.parametrize("name", ["blimp", "arc_easy", "boolq", "tabmwp", "gsm8k", "clear", "onestop"])
def test_a_broken_file_is_named(tmp_path: Path, name: str) -> None:
    for file, data in (
        ("test.jsonl", b'{"question": "What'),
        ("test.jsonl.gz", gzip.compress(b"x" * 9_999)[:30]),
        ("test.parquet", b"PAR1 cut short"),
        ("test.tar.gz", b"no archive"),
        ("test-ele.txt", b""),
    ):
        (tmp_path / file).write_bytes(data)
        with pytest.raises(UserError, match=file.replace(".", r"\.")):
            read(name, tmp_path / file)


@pytest.mark.parametrize("name", sorted(MIRRORED))
def test_real_evaluations_are_read_whole(mirror: Path, name: str) -> None:
    items = read(name, *sorted(mirror.glob(EVALUATIONS[name].mirror)))
    assert (len(items), sum(len(item.texts) for item in items)) == MIRRORED[name]
    assert all(text == text.strip() and text for item in items for text in item.texts) or name in ("clear", "cefr")
    assert not any(text.startswith(("Question:", "Passage:")) for item in items for text in item.texts)


def test_no_item_is_both_in_the_corpus_and_an_evaluation(mirror: Path) -> None:
    for name, source in CONTENT.sources.items():
        set_name = name.removeprefix("quizzes/")
        if source.reader != "quizzes" or set_name not in EVALUATIONS:
            continue
        there = [path for e in EVALUATIONS.values() if e.reader == set_name for path in mirror.glob(e.mirror)]
        paths = {*mirror.glob(source.mirror), *there}
        measured = {item.id for path in there for item in read(set_name, path)}
        trained = {i.id for p in paths for i in QUIZ_SETS[set_name](p) if i.split == "train" and not i.fault}
        assert not measured & trained, name
        documents = [d for p in sorted(there) for d in read_quizzes(p, name, source, CONTENT.cleaning)]
        works = {d.metadata["work"].removeprefix(f"{name}/") for d in documents if "dropped" not in d.metadata}
        assert not works & measured, name


def held_out_settings() -> CurationSettings:
    settings = profile_settings(CONTENT, "full")
    name = "textbooks/readers"
    return settings.model_copy(
        update={"sources": {name: settings.sources[name]}, "labels": {name: settings.labels[name]}}
    )


def test_held_out_readers_are_those_the_classifier_is_tested_with(mirror: Path) -> None:
    name, settings = "textbooks/readers", held_out_settings()
    paths = sorted((mirror / settings.sources[name].mirror).glob("*.txt"), key=lambda path: path.stat().st_size)[:6]
    labels = read_labels(settings, {name: [SourceFile(path.name, path, "") for path in paths]})
    tested = {text.work for text in labels.texts if is_held_out(text, settings)}
    known = {text.work for text in labels.texts}  # a book of which the gate leaves nothing is not among them
    assert tested and known - tested
    items = [item for path in paths for item in read_held_out_readers(path, name, settings)]
    assert {item.id.partition("#")[0] for item in items} & known == tested
    assert len({item.id for item in items}) == len(items)
