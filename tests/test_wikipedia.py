"""Wikipedia: what stands in an article's paragraphs is kept, what surrounds them is not, and nothing is lost untold."""

import gzip
import re
from pathlib import Path

import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datatrove.data import Document
from hypothesis import given
from hypothesis import strategies as st

from curation.documents import REASON, is_dropped
from curation.settings import CleaningSettings, SourceSettings
from curation.sources.restore import restored
from curation.sources.wikipedia import article_paragraphs, read_wikipedia

SETTINGS = SourceSettings(reader="wikipedia", about="", license="CC-BY-SA-4.0", revision="1", genre="article")
BODY = (
    "The hill is known for its old beech trees. People from the town walk there on Sundays, and they take bread along."
)


def _read(path: Path) -> list[Document]:
    documents = list(read_wikipedia(path, "general/wikipedia", SETTINGS, CleaningSettings()))
    assert len({document.id for document in documents}) == len(documents)
    return documents


def _doc(number: int, title: str, body: str) -> str:
    return f'<doc id="{number}" url="?curid={number}" title="{title}">\n{title}\n\n{body}\n\n</doc>\n'


def test_an_extracted_article_keeps_its_paragraphs_title_and_address(tmp_path: Path) -> None:
    body = f"{BODY}\nHistory.\nThe hill covers . A king gave it to the town in 1402.\nTrees.\nThe trees are:\nReferences.\nA. Smith, Hills."
    path = tmp_path / "wiki_00.gz"
    path.write_bytes(gzip.compress((_doc(7, "Beech Hill &amp; Dale", body) + _doc(8, "Stub", "")).encode()))
    hill, stub = _read(path)
    assert hill.text == f"{BODY}\n\nA king gave it to the town in 1402."
    assert (hill.metadata["title"], hill.metadata["url"]) == (
        "Beech Hill & Dale",
        "https://en.wikipedia.org/wiki?curid=7",
    )
    assert hill.metadata["work"] == "general/wikipedia/7"
    assert stub.metadata[REASON] == "stub"


def test_two_sentences_are_a_stub_of_the_standard_wikipedia_only(tmp_path: Path) -> None:
    body = "Lymantria is a moth of the family of tussock moths. It lives on a few hills in the far south of the island."
    doc = _doc(7, "Lymantria", body)
    simple = doc.replace('url="?curid=7"', 'url="https://simple.wikipedia.org/wiki/Lymantria"')
    (tmp_path / "wiki_00").write_text(doc)
    (tmp_path / "wiki_01").write_text(simple)
    assert [d.metadata[REASON] for d in _read(tmp_path / "wiki_00")] == ["stub"]
    assert [d.text for d in _read(tmp_path / "wiki_01")] == [body]


@pytest.mark.parametrize(
    ("line", "kept"),
    [
        ("Shanghai () is a city of China, and it lies at the sea.", "Shanghai is a city of China, and it lies at the sea."),
        ("Karl Baer (; born 1792) was a man of science.", "Karl Baer (born 1792) was a man of science."),
        ("He was born.&lt;ref name=\"a\"&gt;&lt;/ref&gt; He died.", "He was born. He died."),
        ("They like the [[Dog|dogs]] of the ''town''.", "They like the dogs of the town."),
        ("The park covers . It is green. It has an area of , which is large.", "It is green."),
        ("It has three parts that are very different. These parts are:", "It has three parts that are very different."),
        ("The species is red.", "The species is red."),
        ('! colspan="13" | Forwards', ""),
        ("| 12 || Smith", ""),
        ("Cross-country skiing results.", ""),
        ("Early life ", ""),
        ("Anna Smith, painter", ""),
        ("[[Category:Hills]]", ""),
        ("so that formula_3 holds for all of them.", ""),
    ],
)  # fmt: skip
def test_what_an_extractor_left_over_goes(line: str, kept: str) -> None:
    assert article_paragraphs([line + "\n"]) == ([kept] if kept else [])


def test_sections_without_text_are_left_out_and_the_next_one_is_not() -> None:
    lines = ["See also.", BODY, "Weather.", BODY, "External links", BODY]
    assert article_paragraphs(lines) == [BODY]


def test_tables_and_pairs_are_read_like_extracts(tmp_path: Path) -> None:
    table = tmp_path / "train-0.parquet"
    rows: list[dict[str, str | None]] = [
        {
            "id": "1",
            "url": "https://simple.wikipedia.org/wiki/Hill",
            "title": "Hill",
            "text": f"{BODY}\n\nReferences \n\nX",
        },
        {"id": "2", "url": None, "title": "None", "text": None},
    ]
    pq.write_table(pa.Table.from_pylist(rows), table)
    hill, bad = _read(table)
    assert (hill.text, hill.metadata["url"], bad.metadata[REASON]) == (BODY, rows[0]["url"], "bad_row")
    pairs = tmp_path / "swipe.json"
    pair = {"r_page": "Hill", "r_revid": 5, "r_content": BODY, "s_page": "Hill", "s_content": "A hill."}
    pairs.write_bytes(orjson.dumps([pair, 3, {"r_page": "Half"}]))
    first, *others = _read(pairs)
    assert (first.text, first.metadata["url"]) == (BODY, "https://en.wikipedia.org/w/index.php?oldid=5")
    assert [d.metadata[REASON] for d in others] == ["bad_row", "bad_row"]


def test_a_damaged_file_keeps_what_came_before(tmp_path: Path) -> None:
    data = gzip.compress("".join(_doc(i, f"Hill {i}", f"{BODY} {i} {i * 7919}.") for i in range(2000)).encode())
    path = tmp_path / "wiki_00.gz"
    path.write_bytes(data[: len(data) // 2])
    *articles, last = _read(path)
    assert last.metadata[REASON] == "damaged_file"
    assert len(articles) > 500
    for name in ("broken.json", "broken.parquet"):
        (tmp_path / name).write_bytes(b'[{"r_page": ')
        assert all(map(is_dropped, _read(tmp_path / name)))


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ("she came from spain , germany.during the war she left .\n", "She came from spain, germany. During the war she left."),
        ("the film `` jaws '' ( 1975 ) .it was the city 's best .", 'The film "jaws" (1975). It was the city\'s best.'),
        ("he lived in the u.s. and wrote for amazon.com .", "He lived in the u.s. and wrote for amazon.com."),
        ("on 3 may 1990 i think that it may rain . dr. who did n't go", "On 3 May 1990 I think that it may rain."),
        ("bata ( ) costs $ 30 , or 5 % , on monday .", "Bata costs $30, or 5%, on Monday."),
        ("cut off in the", ""),
    ],
)  # fmt: skip
def test_tokenised_text_is_restored(line: str, text: str) -> None:
    assert restored(line) == text


@given(st.lists(st.lists(st.sampled_from(["cat", "dog", "runs", "home", "sleeps", "night"]), min_size=3), min_size=1))
def test_restoring_loses_no_word_of_glued_sentences(sentences: list[list[str]]) -> None:
    text = restored(".".join(" ".join(words) for words in sentences) + " .")
    assert text == " ".join(" ".join(words).capitalize() + "." for words in sentences)


def test_real_articles(mirror: Path) -> None:
    documents = _read(next(iter(sorted((mirror / "general" / "wikipedia").glob("topic_AA_wiki_00.gz")))))
    kept = [document for document in documents if not is_dropped(document)]
    assert sum(len(document.text.split()) for document in kept) > 100_000
    assert {document.metadata[REASON] for document in documents if is_dropped(document)} <= {"stub"}
    assert max(len(document.text.split()) for document in kept) <= CleaningSettings().max_words
    markup = re.compile(
        r"</?(?:doc|ref|br)\b|&[a-z]+;|\[\[|\]\]|\(\s*\)| ,|formula_\d|^(?:See also|References)\.?$", re.M
    )
    assert not [match[0] for document in kept for match in markup.finditer(document.text)]
    assert all(document.metadata["title"] and document.metadata["url"].startswith("https://") for document in kept)
