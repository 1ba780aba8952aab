"""Which evaluations a text quotes: everything of 13 words, nothing by accident, the same in every process."""

import random
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curation.decontaminate import MAX_TEXTS, MIN_DIFFERENT_WORDS, MIN_WORDS, NGRAM_WORDS, NgramIndex
from shared.console import UserError
from tests.conftest import ROOT

STORY = "Once there was a small grey donkey who carried salt to the market in the next town each day of the week."
WORDS = st.sampled_from(sorted(set(STORY.lower().strip(".").split())))
TEXTS = st.lists(WORDS, min_size=1, max_size=40).map(" ".join)


def slow_find(evaluations: dict[str, list[str]], text: str) -> set[str]:
    """Returns what NgramIndex.find does, by looking for every n-gram in turn."""
    inside = f" {text} "
    found = set()
    for name, items in evaluations.items():
        ngrams: dict[str, set[str]] = {}
        for item in items:
            words = item.split()
            n = NGRAM_WORDS if len(words) >= NGRAM_WORDS else len(words)
            for i in range(len(words) - n + 1 if n >= MIN_WORDS else 0):
                if len(set(words[i : i + n])) >= MIN_DIFFERENT_WORDS:
                    ngrams.setdefault(" ".join(words[i : i + n]), set()).add(item)
        if any(f" {ngram} " in inside for ngram, owners in ngrams.items() if len(owners) <= MAX_TEXTS):
            found.add(name)
    return found


@settings(max_examples=60, deadline=None)
@given(st.dictionaries(st.sampled_from("abc"), st.lists(TEXTS, max_size=8)), st.lists(TEXTS, max_size=5), st.data())
def test_finds_what_a_slow_search_finds(
    evaluations: dict[str, list[str]], texts: list[str], data: st.DataObject
) -> None:
    items = [item for items in evaluations.values() for item in items]
    if items:
        quoted = data.draw(st.lists(st.sampled_from(items), max_size=4))
        texts = texts + [f"week {item} week {item} market" for item in quoted]
    index = NgramIndex.build(evaluations)
    assert [set(found) for found in index.find_all(texts)] == [slow_find(evaluations, text) for text in texts]
    assert [index.find(text) for text in texts] == index.find_all(texts)


def test_what_it_looks_like_does_not_hide_a_quotation() -> None:
    index = NgramIndex.build(
        {"tales": [STORY], "short": ["Which of them sold salt in the city?"], "tiny": ["Who sat here?"]}
    )
    looks = STORY.upper().replace(" ", "\n"), f"\u201c{STORY}\u201d", STORY.replace("grey donkey", "gr\u00e9y don-key,")
    for text in looks:
        assert index.find(f"Before it. {text} After it.") == ["tales"]
    assert index.find("I asked them which of them sold salt in the City") == ["short"]
    assert index.find("I asked them which of them sold salt in the town. Who sat here?") == []
    assert index.find(" ".join(STORY.split()[: NGRAM_WORDS - 1])) == []
    assert index.count([STORY, "", STORY])[::2] == [{"tales": len(STORY.split()) - NGRAM_WORDS + 1}] * 2
    assert index.report["tiny"].n_too_short == 1


def test_templates_and_counting_are_nobodys() -> None:
    frame = "Which of the following words is the best one to put in the empty space of the sentence about {}?"
    questions = [frame.format(f"animal{i} and its{i} food{i} in the winter of this year") for i in range(MAX_TEXTS + 1)]
    index = NgramIndex.build({"quiz": questions, "song": ["one two three four " * 8]})
    assert index.find(frame.format("something that is quite another matter for you and me")) == []
    assert index.find("one two three four " * 8) == []
    assert index.find(questions[3]) == ["quiz"]
    assert index.report["quiz"].n_template_ngrams and index.report["song"].n_poor_ngrams
    again = NgramIndex.build({"quiz": [questions[0]] * 50})  # one passage with many questions is no template
    assert again.find(questions[0]) == ["quiz"] and again.report["quiz"].n_texts == 1


def test_a_saved_index_is_the_same_bytes_and_finds_the_same(tmp_path: Path) -> None:
    dice = random.Random(1)
    texts = [" ".join(dice.choice(STORY.split()) + str(dice.randrange(50)) for _ in range(60)) for _ in range(30)]
    evaluations = {"b": texts[:10], "a": texts[5:20], "empty": []}
    index = NgramIndex.build(evaluations)
    index.save(tmp_path / "one.npz")
    code = (
        "import json, sys; from pathlib import Path; from curation.decontaminate import NgramIndex;"
        "NgramIndex.build(json.loads(sys.argv[1])).save(Path(sys.argv[2]))"
    )
    shuffled = {name: dice.sample(evaluations[name], len(evaluations[name])) for name in ("empty", "a", "b")}
    arguments = [sys.executable, "-c", code, str(shuffled).replace("'", '"'), str(tmp_path / "two.npz")]
    subprocess.run(arguments, check=True, cwd=ROOT, env={"PYTHONPATH": str(ROOT), "PYTHONHASHSEED": "7"})
    assert (tmp_path / "one.npz").read_bytes() == (tmp_path / "two.npz").read_bytes()
    loaded = NgramIndex.load(tmp_path / "two.npz")
    assert loaded.report == index.report and list(loaded.report) == ["a", "b", "empty"]
    assert loaded.count(texts) == index.count(texts)
    assert [len(found) for found in loaded.find_all(texts)] == [1] * 5 + [2] * 5 + [1] * 10 + [0] * 10


def test_an_index_of_nothing_finds_nothing(tmp_path: Path) -> None:
    index = NgramIndex.build({})
    index.save(tmp_path / "empty.npz")
    assert NgramIndex.load(tmp_path / "empty.npz").find_all([STORY, ""]) == [[], []]
    assert index.find_all([]) == []


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 and no more", b"text"])
def test_what_is_no_index_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "index.npz").write_bytes(content)
    with pytest.raises(UserError, match=r"index\.npz is no index of evaluations"):
        NgramIndex.load(tmp_path / "index.npz")
