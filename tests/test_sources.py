"""Readers: what a Gutenberg book, a picture book and a folder of one's own become."""

import gzip
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datatrove.data import Document
from hypothesis import given
from hypothesis import strategies as st

from curation.documents import cut, is_dropped
from curation.settings import CleaningSettings, SourceSettings, read_curation_file
from curation.sources import READERS
from curation.sources.gutenberg import gutenberg_books
from shared.settings import PIPELINES_FILE

SOURCES = read_curation_file(PIPELINES_FILE).sources
CLEANING = CleaningSettings()

PROSE = (
    "The little boat lay upside down on the sand, and under it the two children sat out the\n"
    'rain. "It will stop," said Ann. "It always stops." But the rain went on, and the tide came\n'
    "up the beach, and at last they had to run for the house on the hill.\n\n"
)
BOOK = f"""The Project Gutenberg EBook of A Test, by Nobody

This eBook is for the use of anyone anywhere at no cost.

***START OF THE PROJECT GUTENBERG EBOOK A TEST***

Produced by A. Volunteer

A TEST

CONTENTS

The Boat            3
The Hill            9

PREFACE

This book has been prepared for the teacher who wishes to lead the young pupil by easy steps to the art of reading.

CHAPTER I

THE BOAT

[Illustration: Two children
under a boat]

{PROSE * 4}CHAPTER II

THE HILL

The _hill_ was [=a] long way off.[1]

{PROSE * 4}
    The wind blew up, the wind blew down,
      It blew the hats off all the town,
    And where they went there's none to say,
      For hats can see the world that way.

*** END OF THE PROJECT GUTENBERG EBOOK A TEST ***

Section 1. General Terms of Use: license, license, license.
"""


def read(source: str, path: Path, settings: SourceSettings | None = None) -> tuple[list[Document], list[Document]]:
    """Returns (kept, dropped) documents of a file."""
    chosen = settings or SOURCES[source]
    documents = list(READERS[chosen.reader](path, source, chosen, CLEANING))
    return [d for d in documents if not is_dropped(d)], [d for d in documents if is_dropped(d)]


def book(folder: Path, text: str | bytes, source: str = "textbooks/readers") -> Path:
    file = next(b for b in gutenberg_books() if b.source == source).file
    path = folder / file
    raw = text.encode() if isinstance(text, str) else text
    path.write_bytes(gzip.compress(raw) if file.endswith(".gz") else raw)
    return path


def words(documents: list[Document]) -> str:
    return " ".join(" ".join(d.text.split()) for d in documents)


def test_a_book_is_its_text_and_nothing_else(tmp_path: Path) -> None:
    kept, dropped = read("textbooks/readers", book(tmp_path, BOOK))
    text = words(kept)
    assert text.count("The little boat lay upside down") == 8
    for left_out in (
        "Gutenberg",
        "Volunteer",
        "license",
        "Illustration",
        "under a boat]",
        "The Boat",
        "teacher",
        "_",
        "[1]",
    ):
        assert left_out not in text, left_out
    assert "The hill was a long way off." in text
    reasons = {d.metadata["dropped"]: d.text for d in dropped}
    assert "prepared for the teacher" in reasons["teacher_matter"]
    assert "Volunteer" in reasons["boilerplate"]
    assert "CHAPTER I THE BOAT" in str(kept[0].metadata["title"])


def test_lines_are_unwrapped_in_prose_and_kept_in_verse(tmp_path: Path) -> None:
    kept, _ = read("textbooks/readers", book(tmp_path, BOOK))
    text = "\n\n".join(d.text for d in kept)
    assert 'sat out the rain. "It will stop," said Ann.' in text
    assert "all the town,\nAnd where they went" in text


@pytest.mark.parametrize("encode", ["ascii", "utf-8-sig", "cp1252", "crlf"])
def test_encodings_and_line_ends_make_no_difference(tmp_path: Path, encode: str) -> None:
    plain, _ = read("textbooks/readers", book(tmp_path, BOOK))
    raw = BOOK.replace("\n", "\r\n").encode() if encode == "crlf" else BOOK.encode(encode)
    other, _ = read("textbooks/readers", book(tmp_path, raw))
    assert [d.text for d in other] == [d.text for d in plain]


def test_a_declared_encoding_is_not_believed(tmp_path: Path) -> None:
    kept, _ = read(
        "textbooks/readers",
        book(tmp_path, BOOK.replace("Ann", "Zoe\u0308".replace("e\u0308", "\u00eb")).encode("cp1252")),
    )
    assert "said Zo\u00eb." in words(kept)


def test_a_missing_end_marker_loses_nothing(tmp_path: Path) -> None:
    cut_off = BOOK[: BOOK.index("*** END")]
    whole, _ = read("textbooks/readers", book(tmp_path, BOOK))
    kept, _ = read("textbooks/readers", book(tmp_path, cut_off))
    assert [d.text for d in kept] == [d.text for d in whole]


def test_the_oldest_header_ends_with_the_small_print(tmp_path: Path) -> None:
    body = BOOK[BOOK.index("CHAPTER I\n") : BOOK.index("*** END")]
    header = "The Project Gutenberg Etext of A Test\n\n***START**THE SMALL PRINT!**START***\nLawyers say so.\n*END*THE SMALL PRINT! FOR PUBLIC DOMAIN ETEXTS*Ver.04.29.93*END*\n\n"
    kept, _ = read(
        "textbooks/readers", book(tmp_path, header + body + "End of The Project Gutenberg Etext of A Test\n")
    )
    assert "Lawyers" not in words(kept)
    assert words(kept).startswith("The little boat")


def test_a_copyrighted_book_is_refused_whole(tmp_path: Path) -> None:
    text = BOOK.replace("This eBook is", "This is a COPYRIGHTED Project Gutenberg eBook.\nThis eBook is")
    kept, dropped = read("textbooks/readers", book(tmp_path, text))
    assert kept == []
    assert [d.metadata["dropped"] for d in dropped] == ["copyrighted"]


def test_a_damaged_book_is_dropped_and_told(tmp_path: Path) -> None:
    path = book(tmp_path, BOOK, "textbooks/novels")
    path.write_bytes(path.read_bytes()[:200])
    kept, dropped = read("textbooks/novels", path)
    assert (kept, [d.metadata["dropped"] for d in dropped]) == ([], ["unreadable_file"])


def test_syllables_printed_apart_are_joined_only_in_primers(tmp_path: Path) -> None:
    primer = BOOK.replace("children", "chil-dren").replace("upside down", "up-side-down in the gov-ern-or's gar-den")
    kept, _ = read("textbooks/readers", book(tmp_path, primer))
    assert "the two children sat" in words(kept)
    assert "garden" in words(kept)
    kept, _ = read("textbooks/readers", book(tmp_path, BOOK.replace("little boat", "sea-shore boat")))
    assert "sea-shore boat" in words(kept)


def test_the_furniture_of_a_school_book_is_left_out(tmp_path: Path) -> None:
    pages = "".join(
        f"The bear went home and\n\n\t{n} \tBEAR SERIES.\nslept all winter long in hole {n}.\n\n\tFIRST READER. \t{n + 1}\n"
        for n in range(20, 44, 2)
    )
    words_to_learn = (
        "dis as'trous, causing great loss.\n\nkeels, timbers of a boat.\n\nThe boy's boat, and mine, were old.\n\n"
    )
    items = "1. The first bell rang at\nnine.\n2. The second bell rang.\n\nCrown 8vo. Cloth. Price 60 cents.\n\n"
    lesson = f"{words_to_learn}{PROSE}{pages}{items}DEFINITIONS.--Bell, a thing that rings.\n\n"
    notes = "Transcriber\u2019s Note\n\nObvious errors on page 36 were repaired.\n\n*** END"
    text = BOOK.replace("THE HILL\n", f"THE HILL\n\n{lesson}").replace("*** END", notes)
    kept, dropped = read("textbooks/readers", book(tmp_path, text))
    said = "\n\n".join(d.text for d in kept)
    for left_out in ("SERIES", "READER", "disastrous", "dis as", "keels", "8vo", "DEFINITIONS", "Obvious errors"):
        assert left_out not in said, left_out
    assert "went home and slept all winter long in hole 20.\n\nThe bear" in said
    assert "The first bell rang at nine.\n\nThe second bell rang." in said
    assert "The boy's boat, and mine, were old." in said
    assert {"advertisement", "word_list"} <= {d.metadata["dropped"] for d in dropped}


def test_who_is_interrupted_in_curly_quotes_is_heard(tmp_path: Path) -> None:
    said = "\u201cBut I thought\u2014\u201d\n\n\u201cSo did\u2014\u2014\u201d\n\n\u201cTHE BOAT GOES DOWN\u201d\n\n"
    song = "\u2018\u201cThe wind is up,\n\u201cThe wind is down,\n\u201cIt blows about the town,\n\u201cAnd all its hats.\u201d\u2019\n\n"
    kept, _ = read(
        "textbooks/novels", book(tmp_path, BOOK.replace("THE HILL\n", f"THE HILL\n\n{said}{song}"), "textbooks/novels")
    )
    text = "\n\n".join(d.text for d in kept)
    assert '"But I thought\u2014"\n\n"So did\u2014\u2014"' in text and "GOES DOWN" not in text
    assert 'down,\n"It blows about the town,\n' in text


def test_first_words_in_capitals_are_set_as_the_book_sets_them(tmp_path: Path) -> None:
    body = "GRAY MOUSE AND THE BIRD met where Gray Mouse lives. I saw the bird there. THE END of it was good."
    text = BOOK.replace("THE HILL\n", f"THE HILL\n\n{body}\n\n").replace(
        "The little boat lay", "[Illustration: T]HE little boat lay", 1
    )
    kept, _ = read("textbooks/novels", book(tmp_path, text, "textbooks/novels"))
    assert "Gray Mouse and the bird met where Gray Mouse lives. I saw the bird there. THE END of it" in words(kept)
    assert words(kept).startswith("The little boat lay")


def test_a_signature_ends_a_piece_and_heads_none(tmp_path: Path) -> None:
    text = BOOK.replace("CHAPTER II", "--ANN AUTHOR.\n\nA New Piece\n\n" + PROSE * 4 + "CHAPTER II")
    kept, _ = read("textbooks/readers", book(tmp_path, text))
    assert kept[0].text.endswith("--ANN AUTHOR.")
    assert not any("AUTHOR" in str(d.metadata["title"]) for d in kept)


def test_every_book_has_a_source_and_a_number_of_its_own() -> None:
    books = gutenberg_books()
    assert {b.source for b in books} == {n for n, s in SOURCES.items() if s.reader == "gutenberg"}
    assert len({b.gutenberg_id for b in books}) == len(books)
    assert all(b.grade is not None for b in books if b.source == "textbooks/readers")


def test_a_picture_book_is_one_document_with_its_own_licence(tmp_path: Path) -> None:
    path = tmp_path / "0001_test.md"
    path.write_text(
        '# The Cow\n\n##\nThe cow says,\n"Moo."\n\n##\nThe goat is here.\n\n##\n* License: [CC-BY-NC]\n* Text: A. Writer\n* Language: en\n'
    )
    kept, dropped = read("textbooks/african_storybook", path)
    assert [d.text for d in kept] == ['The cow says, "Moo."\n\nThe goat is here.']
    assert kept[0].metadata["license"] == "CC-BY-NC-4.0"
    assert kept[0].metadata["title"] == "The Cow, by A. Writer"
    assert kept[0].metadata["url"].endswith("/asp-source/blob/master/en/0001_test.md")
    assert dropped == []


@given(
    st.lists(st.lists(st.integers(1, 60), min_size=1, max_size=30), max_size=30),
    st.integers(50, 400),
)
def test_cutting_loses_no_word_and_keeps_the_limit(works: list[list[int]], target: int) -> None:
    settings = CleaningSettings(target_words=target, max_words=2 * target)
    paragraphs = [" ".join("w " * n + "end." for n in sentences) for sentences in works]
    documents = list(cut(paragraphs, settings))
    assert " ".join(p for d in documents for p in d).split() == " ".join(paragraphs).split()
    assert all(sum(len(p.split()) for p in d) <= settings.max_words for d in documents)


# A folder of one's own --------------------------------------------------------------------------------------------


def own(folder: Path) -> SourceSettings:
    return SOURCES["local/files"].model_copy(update={"folder": folder})


def test_a_bad_line_loses_one_document(tmp_path: Path) -> None:
    path = tmp_path / "lines.jsonl"
    good = [
        json.dumps({"text": f"Text number {i} is here.", "title": f"T{i}", "license": "CC-BY-4.0"}).encode()
        for i in range(4)
    ]
    path.write_bytes(
        b"\n".join([good[0], b'{"text": "bad \xff byte"}', good[1], b'{"text": null}', b"{", good[2], b"[1]", good[3]])
    )
    kept, dropped = read("local/files", path, own(tmp_path))
    assert [d.metadata["title"] for d in kept] == ["T0", "T1", "T2", "T3"]
    assert {d.metadata["license"] for d in kept} == {"CC-BY-4.0"}
    assert [d.metadata["dropped"] for d in dropped] == ["bad_json", "no_text", "bad_json", "no_text"]


def test_a_truncated_gz_keeps_the_lines_before(tmp_path: Path) -> None:
    lines = b"".join(json.dumps({"text": f"Line {i} {'word ' * (i % 50)}"}).encode() + b"\n" for i in range(5000))
    whole = gzip.compress(lines)
    path = tmp_path / "cut.jsonl.gz"
    path.write_bytes(whole[: len(whole) // 2])
    kept, dropped = read("local/files", path, own(tmp_path))
    assert 1000 < len(kept) < 4000
    assert [d.metadata["dropped"] for d in dropped] in (["truncated_file"], ["bad_json", "truncated_file"])
    assert all(d.text.startswith(f"Line {i} ") or d.text == f"Line {i}" for i, d in enumerate(kept))


def test_other_kinds_of_files(tmp_path: Path) -> None:
    pq.write_table(pa.table({"text": ["One text.", None], "genre": ["essay", None]}), tmp_path / "a.parquet")
    (tmp_path / "b.parquet").write_bytes(b"PAR1 nonsense")
    (tmp_path / "c.txt").write_bytes(b"\xff\xfe not utf-8")
    (tmp_path / "d.txt").write_text("")
    (tmp_path / "e.md").write_text("# Title\n\nA paragraph.\n")
    results = {
        name: read("local/files", tmp_path / name, own(tmp_path))
        for name in ("a.parquet", "b.parquet", "c.txt", "d.txt", "e.md")
    }
    assert [d.metadata["genre"] for d in results["a.parquet"][0]] == ["essay"]
    reasons = {name: [d.metadata["dropped"] for d in dropped] for name, (_, dropped) in results.items()}
    assert reasons == {
        "a.parquet": ["no_text"], "b.parquet": ["unreadable_file"], "c.txt": ["bad_encoding"], "d.txt": ["no_text"], "e.md": [],
    }  # fmt: skip


def test_a_huge_line_is_cut_into_documents(tmp_path: Path) -> None:
    path = tmp_path / "huge.txt"
    path.write_text("One more sentence of eight words is here. " * 20_000 + "x" * 100_000)
    kept, _ = read("local/files", path, own(tmp_path))
    assert max(len(d.text.split()) for d in kept) <= CLEANING.max_words
    assert sum(len(d.text.split()) for d in kept) == 160_001
