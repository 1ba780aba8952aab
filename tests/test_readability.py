"""Flesch-Kincaid grades are textstat's, to the last bit."""

import gzip
import random
from pathlib import Path

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from curation.readability import flesch_kincaid_grade, read_syllables
from curation.sources.starter import FOLDER

# By textstat 0.7.13 with NLTK's cmudict: texts on which a shortcut would show.
GOLDEN = {
    "": 0.0,
    "?!": 0.0,
    "The cat sat on the mat. It purred.": -0.6699999999999982,
    "Dogs' bones aren't 'tis 'twas o'clock. Rock 'n' roll -- it's re-done!": 0.5004545454545486,
    "U.S.A. and U.K. ships sailed at 3.15 p.m. No one came.": 1.5731818181818191,
    "Hyphenologically speaking, Zbigniew's antidisestablishmentarianism floccinaucinihilipilificates.": 57.16000000000001,
    "Caf\u00e9 na\u00efve \u00e5ngstr\u00f6m \u2014 \u201cquoted\u201d words, one two three four.": 1.0311111111111124,
    "no punctuation here at all just words that go on and on without any end to be seen anywhere": 7.967368421052633,
}


@pytest.fixture(scope="module")
def textstat_grade():  # type: ignore[no-untyped-def]
    """textstat's function, its dictionary replaced by ours: what remains of it is all its own."""
    import textstat
    from textstat.backend.counts import _count_syllables

    phones = {word: [["X1"] * count] for word, count in read_syllables().items()}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_count_syllables, "get_cmudict", lambda lang: phones)
        yield textstat.flesch_kincaid_grade


@pytest.mark.parametrize("text", GOLDEN)
def test_golden_figures(text: str) -> None:
    assert flesch_kincaid_grade(text) == GOLDEN[text]


def test_every_starter_passage_has_textstats_grade(textstat_grade) -> None:  # type: ignore[no-untyped-def]
    texts = [orjson.loads(line)["text"] for path in sorted(FOLDER.glob("*.jsonl")) for line in path.open("rb")]
    assert [flesch_kincaid_grade(t) for t in texts] == [textstat_grade(t) for t in texts]


@given(
    st.lists(
        st.sampled_from(
            ["don't", "'em", "well-known", "1,000", "a.b", "--", '"Oh!"', "x'", "_", "e.g.", "\n", "caf\u00e9", "word"]
        )
    )
)
def test_any_run_of_odd_tokens_has_textstats_grade(textstat_grade, tokens: list[str]) -> None:  # type: ignore[no-untyped-def]
    text = " ".join(tokens)
    assert flesch_kincaid_grade(text) == textstat_grade(text)


@given(st.text(max_size=200))
def test_any_text_has_textstats_grade(textstat_grade, text: str) -> None:  # type: ignore[no-untyped-def]
    assert flesch_kincaid_grade(text) == textstat_grade(text)


@pytest.mark.mirror
def test_the_table_is_the_cmu_dictionary(mirror: Path) -> None:
    from curation.build_syllables import count_syllables

    assert read_syllables() == count_syllables(mirror / "reference" / "nltk_data")


@pytest.mark.mirror
@pytest.mark.parametrize("folder", ["labelled/graded_readers", "children/novels", "general/gutenberg_adult"])
def test_real_texts_have_textstats_grade(textstat_grade, mirror: Path, folder: str) -> None:  # type: ignore[no-untyped-def]
    files = sorted((mirror / folder).glob("*.txt*"))
    raw = random.Random(0).choice(files).read_bytes()
    lines = (gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else raw).decode("latin-1").splitlines()
    texts = ["\n".join(lines[i : i + 40]) for i in range(0, min(len(lines), 20_000), 40)]
    assert [flesch_kincaid_grade(t) for t in texts] == [textstat_grade(t) for t in texts]
