"""Rows become documents, a bad row loses only itself, and row groups read apart say what the file says."""

import gzip
import json
import tracemalloc
from collections import Counter
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datatrove.data import Document
from hypothesis import given
from hypothesis import strategies as st

from curation.documents import is_dropped
from curation.settings import CleaningSettings, SourceSettings
from curation.sources import rows
from curation.sources.rows import END_OF_TEXT, file_rows, read_rows

CLEANING = CleaningSettings()
SETTINGS = SourceSettings(reader="rows", about="rows", license="ODC-By-1.0", revision="1")
STORIES = SourceSettings(
    reader="rows", about="stories", license="MIT", revision="1", genre="story", subject="story", text_column="story"
)
WEB = SETTINGS.model_copy(update={"genre": "web"})


def read(path: Path, settings: SourceSettings = SETTINGS, **groups: Any) -> tuple[list[Document], list[Document]]:
    documents = list(read_rows(path, "stories/some", settings, CLEANING, **groups))
    assert len({d.id for d in documents}) == len(documents)
    return [d for d in documents if not is_dropped(d)], [d for d in documents if is_dropped(d)]


def reasons(dropped: list[Document]) -> list[str]:
    return [d.metadata["dropped"] for d in dropped]


def test_rows_carry_what_they_know(tmp_path: Path) -> None:
    table = [
        {"text": "One page.", "url": "https://www.example.org/a?b", "license": "CC-BY-4.0", "id": "u1", "more": 1},
        {"text": "Another page.", "url": "http://example.org/c", "title": "C", "id": "u2", "more": 2},
        {"text": "No address.", "url": "http://[broken", "id": "u3", "more": 3},
        {"text": "No name.", "more": 4},
    ]
    pq.write_table(pa.Table.from_pylist(table), tmp_path / "p.parquet")
    (tmp_path / "p.jsonl").write_text("".join(json.dumps(row) + "\n" for row in table))
    kept, dropped = read(tmp_path / "p.parquet", WEB)
    assert dropped == []
    assert [d.metadata["work"].removeprefix("stories/some/") for d in kept] == [
        "example.org",
        "example.org",
        "u3",
        "p.parquet#3",
    ]
    assert [d.id for d in kept][:2] == ["stories/some/p.parquet#0.0", "stories/some/p.parquet#1.0"]
    assert [d.metadata["license"] for d in kept] == ["CC-BY-4.0", *["ODC-By-1.0"] * 3]
    assert {d.metadata["work"] for d in read(tmp_path / "p.parquet")[0]} == {
        "stories/some/u1", "stories/some/u2", "stories/some/u3", "stories/some/p.parquet#3",
    }  # fmt: skip
    assert [d.text for d in read(tmp_path / "p.jsonl", WEB)[0]] == [d.text for d in kept]


def test_stories_are_looked_at_for_what_goes_wrong_with_them(tmp_path: Path) -> None:
    good = [
        'Tom had a cat. "Hello!" said Tom.',
        "They were happy.\n\nThe end",
        "Mia\u2019s dad smiled\u2026",
        'He said, "No."',
    ]
    bad = {
        "cut_off": "Once there was a boy who went to the",
        "markup": "Tom had a <b>cat</b>. It was **red**.",
        "broken_encoding": "Tom said, \u00e2\u20ac Hello! \u00e2\u20ac\u2122\u00c3\u00a2 It was \u00c3\u00b0\u00c5 good.",
    }
    path = tmp_path / "s.parquet"
    pq.write_table(pa.table({"story": [*good, *bad.values(), None, " \n", f"One.{END_OF_TEXT}Two."]}), path)
    kept, dropped = read(path, STORIES)
    assert [d.text for d in kept] == [*good, "One.", "Two."]
    assert reasons(dropped) == [*bad, "no_text", "no_text"]
    assert {(d.metadata["genre"], d.metadata["subject"], d.metadata["license"]) for d in kept} == {
        ("story", "story", "MIT")
    }
    assert len(kept) + len(dropped) == path_rows(path) + 1


def path_rows(path: Path) -> int:
    return int(pq.ParquetFile(path).metadata.num_rows)


@given(st.lists(st.integers(1, 7), min_size=1, max_size=6), st.integers(0, 6))
def test_row_groups_read_apart_are_the_file(
    tmp_path_factory: pytest.TempPathFactory, sizes: list[int], cut: int
) -> None:
    path = tmp_path_factory.getbasetemp() / "groups.parquet"
    n_rows = 0
    with pq.ParquetWriter(path, pa.schema([("text", pa.string())])) as writer:
        for size in sizes:
            writer.write_table(pa.table({"text": [f"Row {n_rows + i} is here." for i in range(size)]}))
            n_rows += size
    cut = min(cut, len(sizes))
    apart = [d for part in (range(cut), range(cut, len(sizes))) for d in read(path, groups=part)[0]]
    assert [(d.id, d.text) for d in apart] == [(d.id, d.text) for d in read(path)[0]]
    assert [d.text for d in apart] == [f"Row {i} is here." for i in range(n_rows)]


def test_a_string_that_is_no_utf8_loses_its_row(tmp_path: Path) -> None:
    texts = pa.array([b"One.", b"Tw\xff.", b"Three."], pa.binary()).view(pa.string())
    pq.write_table(pa.table({"text": texts}), tmp_path / "a.parquet")
    kept, dropped = read(tmp_path / "a.parquet")
    assert ([d.text for d in kept], reasons(dropped)) == (["One.", "Three."], ["bad_encoding"])


def test_broken_files_keep_the_rows_before(tmp_path: Path) -> None:
    whole = tmp_path / "whole.parquet"
    with pq.ParquetWriter(whole, pa.schema([("text", pa.string())]), compression="none") as writer:
        for i in range(4):
            writer.write_table(pa.table({"text": [f"Text {i}.{j} " + "word " * 50 for j in range(100)]}))
    content = bytearray(whole.read_bytes())
    third = pq.ParquetFile(whole).metadata.row_group(2).column(0).data_page_offset
    content[third : third + 200] = b"\xff" * 200
    (tmp_path / "damaged.parquet").write_bytes(content)
    kept, dropped = read(tmp_path / "damaged.parquet")
    assert [d.text.partition(" word")[0] for d in kept] == [f"Text {i}.{j}" for i in (0, 1, 3) for j in range(100)]
    assert (reasons(dropped), dropped[0].id) == (["unreadable_rows"], "stories/some/damaged.parquet#after-200")
    for name, content_, reason in (
        ("cut.parquet", whole.read_bytes()[:-100], "unreadable_file"),
        ("cut.jsonl.gz", gzip.compress(whole.read_bytes())[:50], "truncated_file"),
        ("no.jsonl.gz", b"not gzip", "truncated_file"),
        ("what.csv", b"a,b", "unknown_kind"),
    ):
        (tmp_path / name).write_bytes(content_)
        kept, dropped = read(tmp_path / name)
        assert (kept, reasons(dropped)) == ([], [reason]), name
    kept, dropped = read(whole, STORIES)
    assert (kept, reasons(dropped)) == ([], ["no_text_column"])


def test_texts_between_markers(tmp_path: Path) -> None:
    """TinyStories' .txt form: markers may stand anywhere, also across the edge of what is read at a time."""
    stories = [f"Story {i} is {'very ' * (i % 300)}short.\nIt ends." for i in range(3000)]
    path = tmp_path / "TinyStories-train.txt"
    path.write_bytes(f"\n{END_OF_TEXT}\n".join(stories).replace("\n", "\r\n").encode() + b"\n<|endoftext|>\n\xff\xfe")
    assert path.stat().st_size > 2 * rows._CHUNK_BYTES
    kept, dropped = read(path, STORIES)
    assert [d.text for d in kept] == stories
    assert reasons(dropped) == ["bad_encoding"]


def test_a_row_without_end_costs_no_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows, "MAX_ROW_BYTES", 2_000_000)
    path = tmp_path / "bomb.jsonl.gz"
    with gzip.open(path, "wb", compresslevel=1) as file:
        file.write(b'{"text": "Before."}\n')
        for _ in range(60):
            file.write(b"x" * 1_000_000)
        file.write(b'\n{"text": "After."}\n')
    tracemalloc.start()
    kept, dropped = read(path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert ([d.text for d in kept], reasons(dropped)) == (["Before.", "After."], ["too_big"])
    assert peak < 12_000_000


@given(
    st.lists(
        st.one_of(st.none(), st.integers(), st.text(max_size=20), st.lists(st.text(max_size=3), max_size=2)), max_size=8
    )
)
def test_every_row_is_kept_or_dropped(tmp_path_factory: pytest.TempPathFactory, texts: list[Any]) -> None:
    path = tmp_path_factory.getbasetemp() / "any.jsonl"
    lines = [json.dumps({"text": text, "id": text, "url": text}).encode() for text in texts]
    path.write_bytes(b"\n".join([*lines, b"", b"[1]", b"{"]))
    kept, dropped = read(path)
    parts = Counter(d.id.rpartition("#")[2].partition(".")[0] for d in kept + dropped)
    assert set(parts) == {str(number) for number in [*range(1, len(texts) + 1), len(texts) + 2, len(texts) + 3]}
    assert all(d.metadata["work"].isprintable() for d in kept)
    assert len(list(file_rows(path))) == len(texts) + 2
