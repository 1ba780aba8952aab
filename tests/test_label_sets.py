"""Readers of labelled texts: both forms of each set give the same texts, and quiz texts never cross a split."""

import csv
import gzip
import hashlib
import io
import json
import tarfile
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import openpyxl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from curation.label_sets import (
    LABEL_READERS,
    LEAST_QUIZ_WORDS,
    LabelledText,
    grade_of_ease,
    read_scienceqa,
    read_tabmwp,
    split_bucket,
)
from curation.settings import LabelSettings
from shared.console import UserError

KNOTS = {"1.0": 1.0, "0.3": 2.5, "0": 3.3, "-0.35": 4.2, "-0.75": 5.2, "-1.5": 7.5, "-2.2": 10.0}
GRADES = {
    "clear": KNOTS,
    "mctest": {"story": 2.0},
    "switchboard": {"adult talk": 8.0},
    "childes": {"speech to children": 0.0},
}


def settings_of(reader: str, **grades: float) -> LabelSettings:
    return LabelSettings.model_validate(
        {
            "reader": reader,
            "about": "",
            "mapping": "",
            "mirror": "*",
            "addresses": ["https://example.org/file"],
            "grades": {**GRADES.get(reader, {}), **grades},
        }
    )


def read(reader: str, path: Path, window_words: int = 200) -> list[LabelledText]:
    return list(LABEL_READERS[reader](path, f"labels/{reader}", settings_of(reader), window_words))


def csv_bytes(rows: Sequence[Sequence[object]]) -> bytes:
    buffer = io.StringIO(newline="")
    csv.writer(buffer).writerows(rows)
    return buffer.getvalue().encode()


def archive(path: Path, members: dict[str, bytes]) -> Path:
    """Returns a .tar.gz as a code host makes it: one folder named after the commit, around all."""
    with tarfile.open(path, "w:gz") as tar:
        for name, data in members.items():
            member = tarfile.TarInfo(f"repository-0123abc/{name}")
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return path


def write(path: Path, data: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


CLEAR: list[list[Any]] = [
    ["ID", "Author", "Title", "Categ", "Excerpt", "Google WC", "BT_easiness"],
    [1, " Ada Moss ", "The Pond", "Lit", "A frog sat on a leaf.\nIt sang.", "=LEN(E2)", 0.31],
    [2, "Ada Moss", 1984, "Info", "Frogs lay eggs in water.", "=LEN(E3)", -1.5],
    [3, "B. Fern", "Nothing", "Lit", " ", "=LEN(E4)", 0.5],
    [4, "B. Fern", "No label", "Lit", "This one nobody judged.", "=LEN(E5)", None],
]


def test_clear_reads_the_workbook_and_the_table_alike(tmp_path: Path) -> None:
    workbook = openpyxl.Workbook()
    assert workbook.active
    for row in [*CLEAR, [None] * 7]:
        workbook.active.append(row)
    workbook.save(tmp_path / "clear.xlsx")
    plain = write(tmp_path / "clear.csv.gz", csv_bytes(CLEAR))
    texts = read("clear", tmp_path / "clear.xlsx")
    assert texts == read("clear", plain)
    assert [(t.key, t.level, t.genre, t.title) for t in texts] == [
        ("ada moss", "BT 0.31", "literature", "The Pond"),
        ("ada moss", "BT -1.50", "information", "1984"),
    ]
    assert texts[0].text == CLEAR[1][4]
    assert texts[0].work == "labels/clear/ada moss"
    assert texts[1].grade == pytest.approx(7.5)


def test_the_map_of_easiness_goes_through_its_knots_and_on() -> None:
    knots = sorted((float(ease), grade) for ease, grade in KNOTS.items())
    for ease, grade in knots:
        assert grade_of_ease(ease, knots) == pytest.approx(grade)
    assert grade_of_ease(0.15, knots) == pytest.approx(2.9)
    assert grade_of_ease(-2.41, knots) == pytest.approx(10.75)  # 2.5 grades in 0.7, as in the outermost segment
    assert grade_of_ease(1.14, knots) == pytest.approx(0.7)
    assert grade_of_ease(-9, knots) == 13
    assert grade_of_ease(9, knots) == 0


@given(st.lists(st.floats(-5, 5), min_size=2, max_size=20))
def test_what_is_easier_has_no_higher_grade(eases: list[float]) -> None:
    knots = sorted((float(ease), grade) for ease, grade in KNOTS.items())
    grades = [grade_of_ease(ease, knots) for ease in sorted(eases)]
    assert all(low >= high - 1e-9 for low, high in pairwise(grades))


def test_a_map_needs_two_knots(tmp_path: Path) -> None:
    path = write(tmp_path / "clear.csv.gz", csv_bytes(CLEAR))
    settings = settings_of("clear").model_copy(update={"grades": {"0": 3}})
    with pytest.raises(UserError, match="1 knots"):
        list(LABEL_READERS["clear"](path, "labels/clear", settings, 200))


ONESTOP = {
    "Ele-Txt/A new bridge-ele.txt": "\ufeffElementary \nThe town has a new bridge.\nPeople like it.".encode(),
    "Int-Txt/A new bridge-int.txt": "Intermediate\r\nThe town\x92s new bridge opened.".encode("latin-1"),
    "Adv-Txt/A new bridge-adv.txt": b"The long-awaited bridge was inaugurated.",
}


def test_versions_of_an_article_share_a_key(tmp_path: Path) -> None:
    plain = [text for name, data in ONESTOP.items() for text in read("onestop", write(tmp_path / name, data))]
    tar = archive(
        tmp_path / "onestop.tar.gz",
        {f"Texts-SeparatedByReadingLevel/{name}": data for name, data in ONESTOP.items()}
        | {"Texts-SeparatedByReadingLevel/Int-Txt/Int-Txt/A new bridge-int.txt": b"Once more."}
        | {"Sentence-Aligned/ADV-ELE.txt": b"not a text", "README.md": b"no"},
    )
    assert read("onestop", tar) == plain
    assert [(t.key, t.level, t.grade, t.genre) for t in plain] == [
        ("A new bridge", level, None, "news") for level in ("Ele", "Int", "Adv")
    ]
    assert plain[0].text == "The town has a new bridge.\nPeople like it."
    assert plain[1].text == "The town\u2019s new bridge opened."
    assert plain[2].text == "The long-awaited bridge was inaugurated."


def test_cefr_reads_folders_and_the_table_alike(tmp_path: Path) -> None:
    rows = [["text", "label", "source_file"], ["I have a cat.", "A1", "cat"], ["Cats, notoriously.", "C2", "cat_2"]]
    plain = read("cefr", write(tmp_path / "cefr.csv.gz", csv_bytes([*rows, ["", "B1", "empty"], ["Dogs.", "", "x"]])))
    members = {f"data/{level}/{title}.txt": text.encode() for text, level, title in rows[1:]}
    for name in ("cefr.tar.gz", "0123abc"):  # the second is how a code host calls it
        assert read("cefr", archive(tmp_path / name, members | {"data/readme.txt": b"no"})) == plain
    assert read("cefr", write(tmp_path / "A1" / "cat.txt", b"I have a cat.")) == plain[:1]
    assert [(t.key, t.level, t.grade, t.genre) for t in plain] == [
        ("cat", "A1", None, "learners"),
        ("cat_2", "C2", None, "learners"),
    ]


def test_mctest_gives_the_story_only(tmp_path: Path) -> None:
    line = 'mc9.dev.0\tAuthor: 7\tTom had a "kite".\\newlineIt flew.\\tabHigh.\tone: What flew?\tkite\tdog\tcat\tcow'
    data = f"{line}\nmc9.dev.1\tAuthor: 8\t\tone: What?\n\n".encode()
    plain = read("mctest", write(tmp_path / "mc9.dev.tsv", data))
    tar = archive(tmp_path / "mctest.tar.gz", {"data/MCTest/mc9.dev.tsv": data, "data/MCTest/mc9.dev.txt": b"***"})
    assert read("mctest", tar) == plain
    assert plain == [
        LabelledText("labels/mctest", "mc9.dev.0", 2.0, 'Tom had a "kite".\nIt flew.\tHigh.', "story", "story")
    ]


def science(skill: str, grade: str = "grade3", topic: str = "plants", question: str = "") -> dict[str, Any]:
    return {
        "question": question or f"Which of these belongs to {skill}?",
        "choices": ["a root that drinks water from the soil", "a stone"],
        "answer": 0,
        "hint": "Plants are living things. They need light.",
        "grade": grade,
        "topic": topic,
        "skill": skill,
    }


def test_scienceqa_reads_lines_and_the_object_alike(tmp_path: Path) -> None:
    problems = [science("leaves"), science("leaves"), {**science("leaves"), "question": None}]
    lines = b"\n".join(json.dumps({"id": str(i), **problem}).encode() for i, problem in enumerate(problems))
    plain = read("scienceqa", write(tmp_path / "part.jsonl.gz", lines))
    whole = json.dumps({str(i): problem for i, problem in enumerate(problems)}).encode()
    assert read("scienceqa", write(tmp_path / "problems.json", whole)) == plain
    shown = (
        "Plants are living things. They need light.\nWhich of these belongs to leaves?\n"
        "(A) a root that drinks water from the soil\n(B) a stone\nAnswer: a root that drinks water from the soil"
    )
    assert plain == [
        LabelledText("labels/scienceqa", "leaves", 3.0, f"{shown}\n\n{shown}", "quiz", "grade3"),
    ]


def test_grades_of_the_settings_go_before_the_sets_own(tmp_path: Path) -> None:
    path = write(tmp_path / "part.jsonl.gz", json.dumps(science("leaves")).encode())
    texts = list(read_scienceqa(path, "labels/scienceqa", settings_of("scienceqa", grade3=3.4), 200))
    assert [t.grade for t in texts] == [3.4]


def test_tabmwp_shows_the_table_in_plain_lines(tmp_path: Path) -> None:
    problem = {
        "question": "Look at the table of apples that the four friends picked on one day. How much did Ann pay for hers?",
        "choices": ["$3", "$4"],
        "answer": "3",
        "unit": "$",
        "table_title": "Apples",
        "table": "Name | Price \nAnn | $3",
        "grade": 2,
    }
    empty = {**problem, "question": ""}
    path = write(tmp_path / "problems_dev1k.json.gz", json.dumps({"17": problem, "18": empty}).encode())
    assert read("tabmwp", path) == [
        LabelledText(
            "labels/tabmwp",
            "17",
            2.0,
            f"Apples\nName Price\nAnn $3\n{problem['question']}\n(A) $3\n(B) $4\nAnswer: $3",
            "quiz",
            "2",
        )
    ]


ASDIV = b"""<?xml version="1.0" encoding="UTF-8" ?><Machine-Reading-Corpus-File><ProblemSet>
<Problem ID="x-1" Grade="4" Source="nowhere"><Body>Dan has 5 pears in a bag, 3 in a bowl and none on the tree.
He eats 2 &amp; smiles. If he has no more,</Body><Question>how many are left?</Question><Answer>6 (pears)</Answer></Problem>
<Problem ID="x-2" Source="nowhere"><Body>No grade.</Body><Question>None?</Question><Answer>0</Answer></Problem>
</ProblemSet></Machine-Reading-Corpus-File>"""


def test_asdiv_joins_body_and_question(tmp_path: Path) -> None:
    plain = read("asdiv", write(tmp_path / "ASDiv.xml", ASDIV))
    assert read("asdiv", archive(tmp_path / "asdiv.tar.gz", {"dataset/ASDiv.xml": ASDIV})) == plain
    text = (
        "Dan has 5 pears in a bag, 3 in a bowl and none on the tree. He eats 2 & smiles. If he has no more, "
        "how many are left?\nAnswer: 6 (pears)"
    )
    assert plain == [LabelledText("labels/asdiv", "x-1", 4.0, text, "quiz", "4")]


skills = st.sampled_from([f"Skill {i}" for i in range(40)])


@given(st.lists(st.tuples(skills, st.sampled_from(["grade2", "grade5"]), st.sampled_from("ab")), min_size=30))
def test_a_quiz_text_never_mixes_splits_grades_or_topics(
    tmp_path_factory: pytest.TempPathFactory, items: list[tuple[str, str, str]]
) -> None:
    marked = [science(skill, grade, topic, f"[{skill}/{grade}/{topic}]") for skill, grade, topic in items]
    path = write(tmp_path_factory.mktemp("quiz") / "part.jsonl", b"\n".join(json.dumps(m).encode() for m in marked))
    n_read = 0
    for text in read("scienceqa", path):
        marks = [line[1:-1].split("/") for line in text.text.splitlines() if line.startswith("[")]
        assert text.key == marks[0][0]
        assert {split_bucket(skill) for skill, _, _ in marks} == {split_bucket(text.key)}
        assert {grade for _, grade, _ in marks} == {text.level}
        assert len({topic for _, _, topic in marks}) == 1
        assert len(text.text.split()) >= LEAST_QUIZ_WORDS
        n_read += len(marks)
    assert n_read == len(items)


def test_a_bucket_is_the_hash_of_the_key_without_case_and_space() -> None:
    for key in ("Map reading", " map READING "):
        assert split_bucket(key) == int(hashlib.sha1(b"map reading").hexdigest(), 16) % 10
    assert len({split_bucket(str(i)) for i in range(200)}) == 10


CONVERSATION = "\n".join(
    f'A|Well, uh, that was number {i} and no more.|fo_o_fw_"_by_bc\nB|Uh-huh.|b' for i in range(40)
)


def test_switchboard_gives_at_most_three_windows_of_whole_utterances(tmp_path: Path) -> None:
    lines = json.dumps({"id": "swda-2005", "text": CONVERSATION}).encode()
    plain = read("switchboard", write(tmp_path / "swda.jsonl.gz", lines), window_words=50)
    tar = archive(
        tmp_path / "switchboard.tar.gz",
        {
            "swda_data/dev/2005.txt": CONVERSATION.encode(),
            "swda_data/train/2005.txt": CONVERSATION.encode(),
            "swda_data/train/2005_text.txt": b"only words",
            "swda_data/all_val_text.txt": b"only words",
        },
    )
    assert read("switchboard", tar, window_words=50) == plain
    assert {(t.key, t.grade, t.genre, t.level) for t in plain} == {("2005", 8.0, "transcript", "adult talk")}
    assert len(plain) == 3
    spoken = [line.split("|")[1] for line in CONVERSATION.splitlines()]
    starts = []
    for text in plain:
        window = text.text.split("\n")
        starts.append(next(i for i in range(len(spoken)) if spoken[i : i + len(window)] == window))
        assert 40 <= len(text.text.split()) <= 60
    gaps = [b - a for a, b in pairwise(starts)]
    assert min(gaps) >= 20


def test_childes_leaves_out_what_was_not_heard(tmp_path: Path) -> None:
    rows: list[list[object]] = [["id", "gloss", "transcript_id", "language"]]
    rows += [[i, f"look at xxx ball number {i}", 7, "eng"] for i in range(60)]
    rows += [[99, "yyy", 7, "eng"], [100, "kijk eens", 7, "eng nld"], [101, "peekaboo", 8, "eng"]]
    plain = read("childes", write(tmp_path / "Brook.csv.gz", csv_bytes(rows)), window_words=30)
    members = {"aochildes/original_transcripts/Brook.csv": csv_bytes(rows), "analysis/words.csv": b"a,b\n1,2\n"}
    assert read("childes", archive(tmp_path / "childes.tar.gz", members), window_words=30) == plain
    assert [(t.key, t.grade, t.genre) for t in plain] == [
        ("Brook 7", 0.0, "transcript"),
        ("Brook 7", 0.0, "transcript"),
        ("Brook 8", 0.0, "transcript"),
    ]
    assert plain[0].text.split("\n")[0].startswith("look at ball number")
    assert len(plain[0].text.split()) == 30
    assert "kijk" not in "".join(t.text for t in plain)


@pytest.mark.parametrize("reader", sorted(LABEL_READERS))
@pytest.mark.parametrize(
    "name", ["page.tar.gz", "page.csv.gz", "page.json", "page.xlsx", "page.jsonl", "A1/page-ele.tsv"]
)
@pytest.mark.parametrize("data", [b"", b"\x00\xff\x81" * 50, b"<html><p>not found"])
def test_a_file_of_another_format_is_named(reader: str, name: str, data: bytes, tmp_path: Path) -> None:
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(data)
    if reader == "onestop" and name.endswith(".tsv") and data.startswith(b"<"):
        pytest.skip("any text is a text there")
    with pytest.raises(UserError, match=r"page") as raised:
        read(reader, path)
    assert "remove it" in raised.value.hint


def test_a_cut_off_archive_is_named(tmp_path: Path) -> None:
    path = archive(tmp_path / "cut.tar.gz", {"data/A1/cat.txt": bytes(range(32, 127)) * 3000})
    path.write_bytes(path.read_bytes()[:400])
    with pytest.raises(UserError, match=r"cut\.tar\.gz"):
        read("cefr", path)


def test_an_item_without_choices_or_answer_is_still_one(tmp_path: Path) -> None:
    problem = {"question": "word " * LEAST_QUIZ_WORDS, "choices": None, "answer": None, "grade": 1}
    path = write(tmp_path / "problems.json", json.dumps({"1": problem}).encode())
    texts = list(read_tabmwp(path, "labels/tabmwp", settings_of("tabmwp"), 200))
    assert [t.text for t in texts] == [problem["question"].strip()]  # type: ignore[union-attr]


@pytest.mark.mirror
@pytest.mark.parametrize(
    ("reader", "files", "n_texts", "n_keys"),
    [
        ("clear", "labelled/clear/*.csv.gz", 3700, 1900),
        ("onestop", "labelled/onestop/*/*.txt", 440, 148),
        ("cefr", "labelled/cefr_texts/*.csv.gz", 1160, 1150),
        ("mctest", "quiz/mctest/*.tsv", 420, 420),
        ("scienceqa", "quiz/scienceqa/*.jsonl.gz", 600, 150),
        ("tabmwp", "quiz/tabmwp*.json.gz", 400, 400),
        ("asdiv", "quiz/asdiv/*.xml", 550, 550),
        ("switchboard", "babylm_like/switchboard/*.jsonl.gz", 3000, 1000),
        ("childes", "babylm_like/aochildes/*.csv.gz", 1100, 600),
    ],
)
def test_the_real_sets_are_read_whole(mirror: Path, reader: str, files: str, n_texts: int, n_keys: int) -> None:
    texts = [text for path in sorted(mirror.glob(files)) for text in read(reader, path)]
    assert len(texts) >= n_texts
    assert len({text.key for text in texts}) >= n_keys
    assert all(text.text.strip() and text.key.strip() and text.level for text in texts)
    if reader == "onestop":
        assert set(Counter(text.key for text in texts).values()) == {3}
    elif reader == "cefr":
        assert {text.level for text in texts} == {"A1", "A2", "B1", "B2", "C1", "C2"}
    else:
        assert all(text.grade is not None and 0 <= text.grade <= 13 for text in texts)
