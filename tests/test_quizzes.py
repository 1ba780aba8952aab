"""Quiz sets as prose: training items only, each said in one fixed way, none lost uncounted, stories never parted."""

import gzip
import io
import json
import re
import tarfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datatrove.data import Document
from hypothesis import given, settings
from hypothesis import strategies as st

from curation.documents import REASON, is_dropped
from curation.settings import CleaningSettings, read_curation_file
from curation.sources.quiz_items import ADVICE, EVALUATION, PROBLEM, QuizItem
from curation.sources.quiz_phrasings import phrased, phrasings
from curation.sources.quiz_sets import QUIZ_SETS
from curation.sources.quiz_tables import table_in_words
from curation.sources.quizzes import LEAST_WORDS, QUIZ_WORDS, TITLES, read_quizzes
from shared.settings import PIPELINES_FILE

SOURCES = {
    name: source for name, source in read_curation_file(PIPELINES_FILE).sources.items() if source.reader == "quizzes"
}
CLEANING = CleaningSettings()
SCAFFOLDING = re.compile(
    r"(?:^|\n)\s*(?:Question|Choices|Answer|Passage|Context|Options?|Story|Q|A)\s*:|[?.\n] \([A-D]\) |<<|####|\\newline|\\frac"
    r"|\bmultiple: |\bone: | \| |Read the passage\. Then|_{2,}|\(\s*\)"
)

STORY = "The kite was red. Tom had made it\\newlineon Monday.\\newline\\newlineThe wind took it over the hill."
TSV = (
    f"mc9.train.0\tAuthor: 1;Work Time(s): 5\t{STORY}\tone: What color was the kite?\tRed\tBlue\tGreen\tWhite"
    "\tmultiple: Where did the wind take the kite?\tHome\tOver the hill\tTo Tom\tTo town"
)
SECTIONS = 'section,text\n1,"Hans had a goose.\nIt was white."\n2,He gave it away and was glad.\n'
QUESTIONS = (
    "question_id,local-or-sum,cor_section,attribute1,attribute2,question,ex-or-im1,answer1\n"
    "1,local,1,action,,What did Hans have?,explicit,a goose\n"
    '2,summary,"1,2",action,,Why was Hans glad?,implicit,he had given it away\n'
)
ASDIV = """<Machine-Reading-Corpus-File><ProblemSet><Problem ID="n1" Grade="2" Source="s"><Body>Ann has 7 figs and eats 2.
</Body><Question>How many figs are left?</Question><Answer>5 (figs)</Answer><Formula>7-2=5</Formula></Problem>
</ProblemSet></Machine-Reading-Corpus-File>"""
LION = {"id": "L1", "question": "Which animal has a mane?", "answerKey": "B"}
LION_CHOICES = [("A", "a hen"), ("B", "a lion"), ("C", "a frog")]
SCIENCEQA = {
    "question": "Which tense does the sentence use?\nIt rained all day.", "choices": ["future tense", "past tense"],
    "answer": 1, "hint": "", "image": None, "grade": "grade3", "subject": "language science", "topic": "verbs",
    "skill": "s", "split": "train",
}  # fmt: skip
TABMWP = {
    "question": "How many boats did Ida see on Monday?", "choices": None, "answer": "4", "unit": "boats",
    "table_title": "Boats", "table": "Day | Boats\nMonday | 4\nTuesday | 6", "grade": 2, "split": "train",
    "table_for_pd": {"Day": ["Monday", "Tuesday"], "Boats": ["4", "6"]},
    "solution": "Look at the row.\n\nIda saw 4 boats on Monday.",
}  # fmt: skip


def parquet(path: Path, rows: Sequence[dict[str, Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(list(rows)), path)
    return path


def lines(path: Path, rows: Sequence[Any]) -> Path:
    data = "".join(f"{row if isinstance(row, str) else json.dumps(row)}\n" for row in rows).encode()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


def archive(path: Path, files: dict[str, str]) -> Path:
    """Returns a .tar.gz as a code host makes it: one folder named after the commit, around all."""
    with tarfile.open(path, "w:gz") as tar:
        for name, text in files.items():
            member = tarfile.TarInfo(f"repository-0123abc/{name}")
            member.size = len(text.encode())
            tar.addfile(member, io.BytesIO(text.encode()))
    return path


def read(set_name: str, *paths: Path) -> tuple[list[Document], Counter[str]]:
    """Returns the kept documents of a set's files, and how many were dropped by reason."""
    name = f"quizzes/{set_name}"
    documents = [d for path in paths for d in read_quizzes(path, name, SOURCES[name], CLEANING)]
    assert len({d.id for d in documents}) == len(documents)
    dropped = Counter(d.metadata[REASON] for d in documents if is_dropped(d))
    return [d for d in documents if not is_dropped(d)], dropped


def text_of(set_name: str, *paths: Path) -> str:
    kept, dropped = read(set_name, *paths)
    assert not dropped and kept
    return "\n\n".join(document.text for document in kept)


def hub_choices(choices: Sequence[tuple[str, str]]) -> dict[str, list[str]]:
    return {"label": [label for label, _ in choices], "text": [text for _, text in choices]}


def nested_choices(choices: Sequence[tuple[str, str]]) -> list[dict[str, str]]:
    return [{"label": label, "text": text} for label, text in choices]


def test_the_hub_form_and_the_repository_form_of_a_science_set_give_the_same_documents(tmp_path: Path) -> None:
    hub = parquet(tmp_path / "ARC-Easy-train-00000-of-00001.parquet", [{**LION, "choices": hub_choices(LION_CHOICES)}])
    row = {**LION, "question": {"stem": LION["question"], "choices": nested_choices(LION_CHOICES)}}
    repository = lines(tmp_path / "train.jsonl.gz", [row])
    assert text_of("arc", hub) == text_of("arc", repository)
    assert "a lion" in text_of("arc", hub).lower()


def test_every_set_reads_its_production_form_as_prose(tmp_path: Path) -> None:
    train = "train-00000-of-00001.parquet"
    stem = {"id": "1", "question_stem": "Lions eat", "choices": hub_choices(LION_CHOICES), "answerKey": "A"}
    fact = {**LION, "choices": hub_choices(LION_CHOICES), "fact1": "cats have manes", "fact2": "lions are cats"}
    sciq = {"question": "What do plants need?", "correct_answer": "light", "support": "Plants need light to grow."}
    gsm = {"question": "Tom has 4 pens and gets 3. How many?", "answer": "He has 4+3=<<4+3=7>>7 pens.\n#### 7"}
    boats = "Boats. The table says 4 for Monday and 6 for Tuesday."
    said = {
        "openbookqa": (parquet(tmp_path / "o" / train, [{**stem, "fact1": "lions hunt"}]), "Lions hunt."),
        "qasc": (parquet(tmp_path / "q" / train, [{**fact, "combinedfact": "lions have manes"}]), "Lions have manes."),
        "sciq": (
            parquet(tmp_path / "s" / train, [{**sciq, "distractor1": "salt", "distractor2": "ash", "distractor3": "tar"}]),
            "Plants need light to grow.",
        ),
        "piqa": (
            parquet(tmp_path / "piqa_train.parquet", [{"goal": "To dry a shirt,", "sol1": "Hang it up.", "sol2": "x", "label": 0}]),
            "To dry a shirt, hang it up.",
        ),
        "boolq": (
            parquet(tmp_path / "b" / train, [{"question": "can i fly", "passage": "Nobody flies alone.", "answer": False}]),
            "Nobody flies alone. Can I fly? ",
        ),
        "gsm8k": (lines(tmp_path / "train.jsonl", [gsm]), "He has 4+3=7 pens."),
        "asdiv": (lines(tmp_path / "ASDiv.xml", [ASDIV]), "How many figs are left?"),
        "scienceqa": (lines(tmp_path / "problems.json", [{"7": SCIENCEQA}]), "It rained all day. The answer is past tense."),
        "tabmwp": (lines(tmp_path / "problems_train.json", [{"8": TABMWP}]), f"{boats} How many boats did Ida see on Monday? Ida saw 4 boats on Monday."),
        "arc": (parquet(tmp_path / "a" / train, [{**LION, "choices": hub_choices(LION_CHOICES)}]), "mane"),
        "ai2": (
            archive(tmp_path / "aristo-mini.tar.gz", {"questions/AI2-8thGr-NDMC-Feb2016-Train.jsonl": json.dumps({**LION, "question": {"stem": "Which animal has a mane?", "choices": nested_choices(LION_CHOICES)}})}),
            "mane",
        ),
        "mctest": (archive(tmp_path / "mctest.tar.gz", {"data/MCTest/mc9.train.tsv": TSV, "data/MCTest/mc9.train.ans": "A\tB"}), "The kite was red. Tom had made it on Monday.\n\nThe wind took it over the hill."),
        "fairytaleqa": (
            archive(tmp_path / "FairytaleQAData.tar.gz", {
                "data-by-train-split/section-stories/train/the-goose-story.csv": SECTIONS,
                "data-by-train-split/questions/train/the-goose-questions.csv": QUESTIONS,
            }),
            "Hans had a goose.\n\nIt was white.\n\nHe gave it away and was glad.\n\n",
        ),
    }  # fmt: skip
    assert set(said) == set(QUIZ_SETS) == {name.partition("/")[2] for name in SOURCES} == set(TITLES)
    for set_name, (path, part) in said.items():
        text = text_of(set_name, path)
        assert part in text, (set_name, text)
        assert not SCAFFOLDING.search(text), (set_name, text)


def test_grade_topic_and_subject_are_kept(tmp_path: Path) -> None:
    for set_name, path, title, subject in (
        ("scienceqa", lines(tmp_path / "problems.json", [{"7": SCIENCEQA}]), "ScienceQA, grade 3, verbs", "language"),
        ("tabmwp", lines(tmp_path / "problems_train.json", [{"8": TABMWP}]), "TabMWP, grade 2", "maths"),
        ("asdiv", lines(tmp_path / "ASDiv.xml", [ASDIV]), "ASDiv, grade 2", "maths"),
    ):
        document = read(set_name, path)[0][0]
        assert (document.metadata["title"], document.metadata["subject"]) == (title, subject)


def test_only_training_items_enter_the_corpus(tmp_path: Path) -> None:
    row = {**LION, "choices": hub_choices(LION_CHOICES)}
    test = parquet(tmp_path / "ARC-Easy-test-00000-of-00001.parquet", [row])
    prompt = {"query": "Question: Which animal has a mane?", "choices": ["a hen", "a lion"], "gold": 1}
    prompts = lines(tmp_path / "arc_easy.jsonl", [prompt])
    mixed = lines(
        tmp_path / "problems.json",
        [{str(i): {**SCIENCEQA, "split": s} for i, s in enumerate(("train", "val", "test"))}],
    )
    stories = {"a": "train", "b": "val", "c": "test"}
    both = archive(tmp_path / "FairytaleQAData.tar.gz", {
        f"data-by-train-split/{kind}/{split}/{story}-{end}.csv": text
        for story, split in stories.items()
        for kind, end, text in (("section-stories", "story", SECTIONS), ("questions", "questions", QUESTIONS))
    })  # fmt: skip
    assert read("arc", test) == ([], {"evaluation_split": 1})
    assert read("arc", prompts) == ([], {"evaluation_split": 1})
    kept, dropped = read("scienceqa", mixed)
    assert (len(kept), dropped) == (1, {"evaluation_split": 2})
    kept, dropped = read("fairytaleqa", both)
    assert {d.metadata["work"] for d in kept} == {"quizzes/fairytaleqa/a"} and set(dropped) == {"evaluation_split"}


def test_a_broken_line_or_file_loses_only_itself(tmp_path: Path) -> None:
    good = [
        {"question": f"Tom has {i} pens and gets 3. How many has he?", "answer": f"{i}+3\n#### {i + 3}"}
        for i in range(9)
    ]
    whole, _ = read("gsm8k", lines(tmp_path / "train.jsonl", good))
    rows = [
        *good[:4],
        '{"question": "How',
        "[1, 2]",
        {"answer": "2 #### 2"},
        {"question": "Why?", "answer": "x"},
        good[2],
        *good[4:],
    ]
    broken, dropped = read("gsm8k", lines(tmp_path / "train.jsonl", rows))
    assert [d.text for d in broken] == [d.text for d in whole]
    assert dropped == {"bad_json": 2, "no_question": 1, "no_answer": 1, "repeated_item": 1}
    for file in ("train.jsonl.gz", "train.parquet", "train.json"):
        (tmp_path / file).write_bytes(gzip.compress(b"x" * 999)[:20])
        assert read("gsm8k", tmp_path / file) == ([], {"unreadable_file": 1}), file
    with pytest.raises(ValueError, match="quizzes/trivia is no quiz set"):
        next(read_quizzes(tmp_path / "train.jsonl", "quizzes/trivia", SOURCES["quizzes/arc"], CLEANING))


def test_what_needs_a_picture_is_left_out_and_what_does_not_is_kept(tmp_path: Path) -> None:
    hint = "Ida put a cup of ice on the stove. " * 5 + "Then she waited until the ice was gone and looked at it again."
    items = {
        "map": {**SCIENCEQA, "image": "image.png", "question": "Which of these states is farthest north?"},
        "told": {**SCIENCEQA, "image": "image.png", "hint": hint, "question": "What happened to the ice?"},
        "points": {
            **SCIENCEQA,
            "image": "image.png",
            "hint": hint,
            "question": "Which letter does the arrow point to?",
        },
    }
    kept, dropped = read("scienceqa", lines(tmp_path / "problems.json", [items]))
    assert [d.metadata["work"] for d in kept] == ["quizzes/scienceqa/told"]
    assert dropped == {"needs_picture": 2}


def test_names_and_spaces_that_a_set_lost_are_put_back_or_the_item_is_left_out(tmp_path: Path) -> None:
    hole = "Marsh wrens eat flies. The shape of the 's beak helps. The  digs, and so the are fed. They nest in the reeds by the lake, and they sing there all day long in spring.\n"
    facts = {**SCIENCEQA, "question": "What do they eat?", "choices": ["flies from 20meters away"], "answer": 0}
    items = {
        "named": {**facts, "hint": f"{hole}Figure: marsh wren."},
        "nameless": {**facts, "hint": hole},
        "pointing": {**facts, "hint": "", "question": "Select the time shown by this clock."},
    }
    kept, dropped = read("scienceqa", lines(tmp_path / "problems.json", [items]))
    assert dropped == {"needs_picture": 2}
    assert "the marsh wren's beak helps. The marsh wren digs, and so the marsh wren are fed." in kept[0].text
    assert "20 meters away" in kept[0].text


def test_several_answers_are_told_in_words(tmp_path: Path) -> None:
    several = ASDIV.replace("<Answer>", "<Answer>6 (kg); 12 (kg); ", 1)
    (item,) = QUIZ_SETS["asdiv"](lines(tmp_path / "ASDiv.xml", [several]))
    assert item.answer.startswith("6 kg, 12 kg and ") and "(" not in item.answer


def test_a_story_stands_before_its_questions_whatever_form_it_came_in(tmp_path: Path) -> None:
    (tmp_path / "mc9.train.tsv").write_text(TSV)
    (tmp_path / "mc9.train.ans").write_text("A\tB\n")
    packed = archive(tmp_path / "m.tar.gz", {"data/MCTest/mc9.train.tsv": TSV, "data/MCTest/mc9.train.ans": "A\tB"})
    kept, dropped = read("mctest", tmp_path / "mc9.train.tsv", tmp_path / "mc9.train.ans")
    assert [d.text for d in kept] == [d.text for d in read("mctest", packed)[0]] and not dropped
    (document,) = kept
    assert document.metadata["work"] == "quizzes/mctest/mc9.train.0" and document.metadata["genre"] == "story"
    story, hill = document.text.index("The wind took it"), document.text.index("Where did the wind take the kite?")
    assert story < document.text.index("What color was the kite?") < hill
    assert "over the hill" in document.text[hill:].lower() and "multiple" not in document.text

    for folder, name, text in (("section-stories", "story", SECTIONS), ("questions", "questions", QUESTIONS)):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / f"the-goose-{name}.csv").write_text(text)
    kept, dropped = read("fairytaleqa", *sorted(tmp_path.glob("*/*.csv")))
    (document,) = kept
    assert (
        document.text.index("glad.")
        < document.text.index("What did Hans have?")
        < document.text.index("Why was Hans glad?")
    )
    assert document.metadata["title"] == "FairytaleQA, The goose" and not dropped


def test_questions_about_one_passage_are_one_work(tmp_path: Path) -> None:
    passage = "The river rises in the hills and runs to the sea. " * 5
    rows = [{"question": f"is it {word}", "passage": passage, "answer": True} for word in ("long", "cold", "deep")]
    other = {"question": "is it dry", "passage": "The desert has no river. " * 20, "answer": True}
    kept, _ = read("boolq", parquet(tmp_path / "train.parquet", [rows[0], other, *rows[1:]]))
    (work,) = [d for d in kept if "Is it long?" in d.text]
    assert work.text.count("The river rises") == 5 and "Is it cold?" in work.text and "Is it deep?" in work.text


words = st.text("abcdefghij", min_size=1, max_size=8)
phrases = st.lists(words, min_size=1, max_size=8).map(" ".join)


@given(st.lists(st.tuples(phrases, phrases), min_size=1, max_size=60, unique_by=lambda pair: pair[0]))
@settings(max_examples=40, deadline=None)
def test_every_item_stands_in_one_document_and_documents_are_long_enough(
    tmp_path_factory: pytest.TempPathFactory, pairs: list[tuple[str, str]]
) -> None:
    path = tmp_path_factory.mktemp("quiz") / "train.jsonl"
    rows = [{"question": f"Who {q}?", "answer": f"So {a}.\n#### {len(a)}"} for q, a in pairs]
    kept, dropped = read("gsm8k", lines(path, rows))
    assert not dropped
    text = "\n\n".join(document.text for document in kept)
    items = list(QUIZ_SETS["gsm8k"](path))
    assert text == "\n\n".join(phrased(item) for item in items)
    lengths = [len(document.text.split()) for document in kept]
    assert all(length >= QUIZ_WORDS for length in lengths[:-1]) and (lengths[-1] >= LEAST_WORDS or len(kept) == 1)
    assert len({document.metadata["work"] for document in kept}) == len(kept)


@given(
    st.tuples(
        st.sampled_from(["What", "Which of these", "Why", "Where", "Lions", "Lions eat what and", "How", "To"]), phrases
    ).map(" ".join),
    st.sampled_from(["?", "", ".", ":", " what?"]),
    st.lists(
        st.one_of(phrases, phrases.map(str.capitalize), phrases.map("The {}.".format)),
        min_size=2,
        max_size=6,
        unique_by=str.lower,
    ),
    st.sampled_from(["", PROBLEM, ADVICE]),
    st.sampled_from(["", "A cat is a cat. Cats purr.", "1 + 1 = 2"]),
)
@settings(max_examples=300, deadline=None)
def test_every_phrasing_tells_the_answer_in_whole_sentences_and_never_changes(
    stem: str, end: str, choices: list[str], kind: str, reasons: str
) -> None:
    reasons = reasons if reasons[:1] == "A" or kind == PROBLEM else ""
    item = QuizItem(stem, stem + end, choices[-1], tuple(choices), kind=kind, explanation=reasons)
    said = phrasings(item)
    assert phrased(item) in said and phrased(replace(item, grade="grade 9", topic="x")) == phrased(item)
    for text in said:
        answer = re.escape(item.answer.rstrip(".").lower())
        works_it_out = kind == PROBLEM and reasons
        assert works_it_out or re.search(rf"(?<!\w){answer}(?!\w)", text.lower()), text
        assert (text[0].isupper() or text[0] in '"1') and text[-1] in '.?!"', text
        assert "  " not in text and ".." not in text.replace(" ...", ""), text


def test_phrasings_are_safe_where_grammar_is_not() -> None:
    def said(question: str, answer: str, *choices: str, story: str = "") -> str:
        return " / ".join(phrasings(QuizItem("1", question, answer, choices or (answer,), story=story)))

    assert "The answer is The" not in said("Why is it dark?", "The lamp is out.", "The lamp is out.", "It is noon.")
    assert said("All of these burn EXCEPT:", "stone") == "All of these burn except this: stone."
    assert all("bee" in s for s in said("Select the bird.", "robin", "robin", "bee").split(" / "))
    assert said("Polar bears live in what?", "snow") == "Polar bears live in snow."
    assert "of which" in said("It feeds on plants and animals of which of the following?", "the sea")
    assert "not water" not in said("All of these burn except", "stone", "stone", "water")
    assert "Bees is" not in said("What is the main pollinator of the garden?", "bees")
    assert "The sun is the main source of warmth." in said("What is the main source of warmth?", "the sun")
    assert "gifts was" not in said("What was the king pleased with?", "gifts", story="s")
    assert "The answer is trick" not in said("What will the fox do?", "trick the bear")
    assert said("Complete the sentence.\nThe wren is the () bird.", "smallest") == "The wren is the smallest bird."
    assert len({phrased(QuizItem(str(i), "Who has a mane?", "a lion", ("a lion", "a hen"))) for i in range(50)}) >= 3


def test_tables_become_sentences() -> None:
    assert table_in_words("", "x | y\n1 | 5\n2 | 7", ["x", "y"]) == "When x is 1, y is 5. When x is 2, y is 7."
    leaves = "Stem | Leaf \n1 | 0, 2\n2 | \n3 | 5"
    assert table_in_words("Weights (lbs)", leaves, ["Stem", "Leaf "]) == "Weights (lbs): 10, 12, 35."
    prices = table_in_words("", "pen | $2\nbook | $9", ["Column 1", "Column 2"])
    assert prices == "The list says $2 for pen and $9 for book."
    fares = table_in_words("Fares", "Ferry | Car | Bicycle\nOcracoke | $15 | $3", ["Ferry", "Car", "Bicycle"])
    assert fares == "Fares. Ocracoke: car $15 and bicycle $3."


@pytest.mark.parametrize(
    ("set_name", "n_documents", "n_dropped"),
    [
        ("ai2", 160, {"needs_picture": 5, "repeated_item": 2}),
        ("asdiv", 590, {}),
        ("fairytaleqa", 1300, {"repeated_item": 1}),
        ("gsm8k", 4800, {}),
        ("mctest", 370, {}),
        ("scienceqa", 150, {"evaluation_split": 577, "needs_picture": 380}),
    ],
)
def test_real_sets_are_read_whole(mirror: Path, set_name: str, n_documents: int, n_dropped: dict[str, int]) -> None:
    files = sorted(mirror.glob(SOURCES[f"quizzes/{set_name}"].mirror))
    kept, dropped = read(set_name, *files)
    assert len(kept) >= n_documents and dropped == n_dropped
    n_items = sum(
        1 for file in files for item in QUIZ_SETS[set_name](file) if item.split != EVALUATION and not item.fault
    )
    n_asked = sum(document.text.count("?") for document in kept)
    assert n_asked >= 0.6 * n_items  # a few are statements
    bad = [d.id for d in kept if SCAFFOLDING.search(d.text) or len(d.text.split()) > CLEANING.max_words]
    assert len(bad) <= 0.002 * len(kept), bad[:5]
    assert sum(len(d.text.split()) < LEAST_WORDS for d in kept) <= 0.05 * len(kept)
