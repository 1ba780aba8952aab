"""Duplicates: what is dropped, what is kept instead, and that nothing but the documents decides."""

import random
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from datatrove.data import Document
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from curation.clean import repair
from curation.dedup import VERDICT_SCHEMA, find_duplicates, remove_paragraphs
from curation.documents import is_dropped, make_document
from curation.ngrams import batches, mixed, read_words
from curation.settings import CleaningSettings, DedupSettings, SourceSettings
from curation.sketch import FINGERPRINT_WORDS, SKETCH_SCHEMA, WINDOW, sketch_documents
from curation.sources.gutenberg import read_gutenberg
from tests.conftest import ROOT

WORDS = [f"{a}{b}{c}" for a in "bdfglmnprst" for b in "aeiou" for c in ("", "n", "r", "st", "ck")]
SETTINGS = DedupSettings()


def prose(seed: int, n_words: int) -> str:
    """Returns words at random in sentences and paragraphs; another seed says something else altogether."""
    dice = random.Random(seed)
    words = [dice.choice(WORDS) for _ in range(n_words)]
    sentences = [" ".join(words[i : i + 10]).capitalize() + "." for i in range(0, n_words, 10)]
    return "\n\n".join(" ".join(sentences[i : i + 5]) for i in range(0, len(sentences), 5))


def document(source: str, work: str, position: int, text: str, license: str = "CC-BY-4.0") -> Document:
    kind = SourceSettings(reader="starter", about="", license=license, revision="1")
    return make_document(source, kind, work, str(position), text)


def verdicts(
    folder: Path, *sources: Sequence[Document], threads: int = 1, n_files: int = 1, with_lines: bool = False
) -> dict[str, tuple[str | None, str | None, list[int]]]:
    """Returns (reason, kept_doc_id, paragraphs) by doc_id; the sources are in order of preference."""
    files: dict[str, list[Path]] = {}
    for documents in sources:
        source = documents[0].metadata["source"]
        for i in range(n_files):
            path = folder / f"{source.replace('/', '-')}-{i}.parquet"
            pq.write_table(sketch_documents(documents[i::n_files], with_lines), path)
            files.setdefault(source, []).append(path)
    found = find_duplicates(files, SETTINGS, folder / "scratch", threads)
    assert found.schema == VERDICT_SCHEMA
    rows = found.to_pylist()
    assert [row["doc_id"] for row in rows] == sorted({row["doc_id"] for row in rows})
    assert all(row["doc_id"].startswith(row["source"]) for row in rows)
    return {row["doc_id"]: (row["reason"], row["kept_doc_id"], row["paragraphs"]) for row in rows}


def test_the_same_words_are_one_text_whatever_they_look_like(tmp_path: Path) -> None:
    text = "\"Don't go to-day,\" said Zo\u00eb -- she'd a well-worn caf\u00e9 chair.\n\n" + prose(1, 60)
    looks = [
        text.upper(),
        text.replace('"', "\u201c").replace("'", "\u2019"),
        text.replace(" ", "\n"),
        text.replace("to-day", "to-\nday").replace(" -- ", "\u2014").replace("\u00e9", "e").replace("\u00eb", "e"),
    ]
    documents = [document("a/b", "w", i, look) for i, look in enumerate([text, *looks])]
    assert verdicts(tmp_path, documents) == {d.id: ("duplicate", documents[0].id, []) for d in documents[1:]}
    other = [document("a/b", "w", 0, text), document("a/b", "w", 1, text.replace("chair", "table"))]
    assert verdicts(tmp_path, other)[other[1].id][0] == "near_duplicate"


def test_freer_licence_then_cleaner_then_the_order_of_sources(tmp_path: Path) -> None:
    clean = """The old man walked slowly down to the river and looked for his small brown boat. It was gone. Somebody had
    taken it in the night, and all that he found was the end of a rope. He sat on a stone and thought about it for a long
    time. Then he saw the marks of two bare feet in the mud, and he began to smile. Only one boy in the village would go
    out without his shoes when there was ice on the water."""
    noisy = clean.replace("river", "rivxqer").replace("rope", "roqxpe").replace("village", "villxqage")
    first, second = document("a/x", "w", 0, clean, "unknown"), document("b/y", "w", 0, clean, "CC-BY-SA-4.0")
    assert verdicts(tmp_path, [first], [second])[first.id][1] == second.id  # the freer
    first, second = document("a/x", "w", 0, noisy), document("b/y", "w", 0, clean)
    assert verdicts(tmp_path, [first], [second]) == {first.id: ("near_duplicate", second.id, [])}  # the cleaner
    second = document("b/y", "w", 0, noisy)
    assert verdicts(tmp_path, [first], [second])[second.id][1] == first.id  # the earlier source


def test_of_two_editions_cut_at_other_places_one_stays_whole(tmp_path: Path) -> None:
    words = prose(2, 4000).split()
    whole = [document("a/b", "first", i, " ".join(words[i * 400 : (i + 1) * 400])) for i in range(10)]
    other = [document("a/b", "second", i, " ".join(words[max(0, i * 350 - 170) : i * 350 + 180])) for i in range(11)]
    found = verdicts(tmp_path, whole + other)
    assert set(found) == {d.id for d in other}
    assert {reason for reason, *_ in found.values()} <= {"near_duplicate", "repeated_passages"}


def test_a_paragraph_seen_before_is_cut_out_and_a_quotation_is_not(tmp_path: Path) -> None:
    book = document("a/b", "book", 0, prose(3, 400))
    quoted = " ".join(book.text.split()[100:112])
    paragraphs = prose(4, 300).split("\n\n")
    with_quotation = document("a/b", "essay", 0, "\n\n".join([*paragraphs[:2], f"He read: {quoted}.", *paragraphs[2:]]))
    assert verdicts(tmp_path, [book, with_quotation]) == {}
    stolen = book.text.split("\n\n")[2:4]
    thief = document("a/b", "thief", 0, "\n\n".join([*paragraphs[:3], *stolen, *paragraphs[3:]]))
    assert verdicts(tmp_path, [book, thief]) == {thief.id: (None, book.id, [3, 4])}
    assert remove_paragraphs(thief.text, [3, 4]) == "\n\n".join(paragraphs)


def test_talk_heard_before_is_cut_out_with_what_stands_between(tmp_path: Path) -> None:
    """No line of talk is long enough to go alone, but twelve in a row are no accident."""
    talk = [f"{line}." for line in prose(50, 240).replace("\n\n", " ").split(".")[:12]]
    lines = [f"{a.strip()} {b.strip()}" for a, b in zip(talk[::2], talk[1::2], strict=True)]
    lines.insert(3, "Oh no!")
    own = prose(51, 300).split("\n\n")
    book = document("a/b", "book", 0, "\n\n".join([prose(52, 300), *lines]), "CC0-1.0")
    other = document("a/b", "other", 0, "\n\n".join([*own[:2], *lines, *own[2:]]))
    (reason, kept, cut) = verdicts(tmp_path, [book, other])[other.id]
    assert (reason, kept) == (None, book.id)
    assert set(range(3, 8)) <= set(cut) <= set(range(2, 9))  # at its edges a run shares windows with its neighbours
    once = document("a/b", "other", 0, "\n\n".join([*own[:2], lines[0], *own[2:]]))
    assert verdicts(tmp_path, [book, once]) == {}


def test_a_refrain_is_no_duplicate_of_itself(tmp_path: Path) -> None:
    refrain = prose(5, 40)
    text = "\n\n".join(f"{prose(seed, 60)}\n\n{refrain}" for seed in range(10, 16))
    assert verdicts(tmp_path, [document("a/b", "song", 0, text)]) == {}


def test_a_document_goes_only_because_of_one_that_stays(tmp_path: Path) -> None:
    """Each is near the one before it and far from the first: no chain may empty the corpus."""
    words = prose(6, 400).split()
    chain = []
    for i in range(12):
        words[30 * i : 30 * i + 30] = prose(100 + i, 30).split()
        chain.append(document("a/b", f"w{i:02}", 0, " ".join(words)))
    found = verdicts(tmp_path, chain)
    gone = {doc_id for doc_id, (reason, *_) in found.items() if reason}
    assert gone and len(gone) < len(chain) - 1
    assert all(kept not in gone for _, kept, _ in found.values())


def test_navigation_is_what_stands_on_many_pages(tmp_path: Path) -> None:
    menu = ["Home", "About us and our stories"]
    pages = [
        document("web/site", "host", i, "\n\n".join([menu[0], prose(20 + i, 80), f"Page {i}", menu[1]]))
        for i in range(6)
    ]
    found = verdicts(tmp_path, pages, with_lines=True)
    n_paragraphs = len(pages[0].text.split("\n\n"))
    assert found == {page.id: (None, None, [0, n_paragraphs - 1]) for page in pages}
    assert verdicts(tmp_path, pages[:4], with_lines=True) == {}
    assert verdicts(tmp_path, pages) == {}
    others = [document("web/site", "host", 10 + i, prose(40 + i, 40)) for i in range(60)]
    assert verdicts(tmp_path, pages + others, with_lines=True) == {}  # six of 66 pages: people say so


@settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, 10**6), st.integers(1, 3), st.integers(1, 2))
def test_no_order_of_documents_files_or_threads_changes_a_verdict(
    tmp_path: Path, seed: int, n_files: int, threads: int
) -> None:
    dice = random.Random(7)
    texts = [prose(dice.randrange(12), dice.choice([60, 200, 300])) for _ in range(30)]
    texts += ["\n\n".join([prose(200 + i, 100), dice.choice(texts).split("\n\n")[0]]) for i in range(10)]
    documents = [document("a/b", f"w{i % 7}", i, text, ["CC-BY-4.0", "unknown"][i % 2]) for i, text in enumerate(texts)]
    expected = verdicts(tmp_path, documents[:20], [document("c/d", "w", i, t) for i, t in enumerate(texts[20:])])
    assert {reason for reason, *_ in expected.values()} == {"duplicate", "near_duplicate", "repeated_passages", None}
    shuffled = random.Random(seed).sample(documents[:20], 20)
    others = random.Random(seed).sample([document("c/d", "w", i, t) for i, t in enumerate(texts[20:])], 20)
    assert verdicts(tmp_path, shuffled, others, n_files=n_files, threads=threads) == expected


@given(st.lists(st.text(max_size=300), max_size=6), st.integers(1, 9))
def test_hashes_of_words_and_ngrams_are_those_of_a_slow_reading(texts: list[str], n: int) -> None:
    together = [read_words(batch) for batch in batches(texts)]
    alone = [read_words([text]) for text in texts]
    words = [hash_ for batch in together for hash_ in batch.hashes.tolist()]
    assert words == [hash_ for one in alone for hash_ in one.hashes.tolist()]
    places = [number for batch in together for number in batch.paragraphs.tolist()]
    assert places == [number for one in alone for number in one.paragraphs.tolist()]
    for text, one in zip(texts, alone, strict=True):
        by_paragraph = [len(read_words([paragraph]).hashes) for paragraph in text.split("\n\n")]
        assert np.bincount(one.paragraphs, minlength=len(by_paragraph)).tolist() == by_paragraph
    for batch in together:
        ngrams = batch.ngrams(n)[batch.inside(n)].tolist()
        own = [one for one in alone if len(one.hashes)]
        assert len(ngrams) == sum(max(0, c - n + 1) for c in batch.counts)
        assert ngrams == [gram for one in own for gram in one.ngrams(n)[one.inside(n)].tolist()]


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.integers(0, 60), st.integers(0, 60))
def test_a_shared_run_of_words_leaves_a_shared_fingerprint(seed: int, before: int, after: int) -> None:
    run = prose(seed, FINGERPRINT_WORDS + WINDOW - 1).replace("\n\n", " ")
    texts = [run, " ".join([prose(seed + 1, before + 1), run, prose(seed + 2, after + 1)]).replace("\n\n", " ")]
    table = sketch_documents([document("a/b", "w", i, text) for i, text in enumerate(texts)])
    alone, within = (set(prints) for prints in table["fingerprints"].to_pylist())
    assert alone & within


@given(st.lists(st.integers(0, 400), max_size=5))
@settings(max_examples=20, deadline=None)
def test_fingerprints_are_the_smallest_of_each_window(lengths: list[int]) -> None:
    documents = [document("a/b", "w", i, prose(60 + i, n)) for i, n in enumerate(lengths)]
    for d, row in zip(documents, sketch_documents(documents).to_pylist(), strict=True):
        ngrams = mixed(read_words([d.text]).ngrams(FINGERPRINT_WORDS)).tolist()
        windows = [ngrams[i : i + WINDOW] for i in range(max(1, len(ngrams) - WINDOW + 1))]
        assert set(row["fingerprints"]) == {min(window) for window in windows if window}


def test_a_sketch_is_the_documents_own(tmp_path: Path) -> None:
    texts = ["", "...", "One", "One two three four five six seven", prose(8, 30), prose(9, 900)]
    documents = [document("a/b", "w", i, text) for i, text in enumerate(texts)]
    together = sketch_documents(documents, with_lines=True)
    assert together.schema == SKETCH_SCHEMA
    assert together.to_pylist() == [
        row for d in documents for row in sketch_documents([d], with_lines=True).to_pylist()
    ]
    code = (
        "from tests.test_dedup import *; print(sketch_documents([document('a/b','w',0,prose(9, 900))]).to_pylist()[0])"
    )
    env = {"PYTHONHASHSEED": "1", "PYTHONPATH": str(ROOT), "RAYON_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env, cwd=ROOT)
    assert done.stdout.strip() == str(sketch_documents([document("a/b", "w", 0, prose(9, 900))]).to_pylist()[0])


def test_no_documents_no_verdicts(tmp_path: Path) -> None:
    assert find_duplicates({}, SETTINGS, tmp_path, 1).num_rows == 0
    empty = [document("a/b", "w", i, "...") for i in range(3)]
    assert verdicts(tmp_path, empty) == {}


@pytest.mark.mirror
def test_two_editions_of_real_books_are_found(mirror: Path, tmp_path: Path) -> None:
    """Treasure Island lies in two folders of the mirror, as it came from two collections."""
    kind = SourceSettings(reader="gutenberg", about="", license="CC-PDM-1.0", revision="1")
    copies = []
    for source, file in (
        ("textbooks/story_books", "books/120-0"),
        ("again/novels", "novels/Stevenson-Treasure-Island"),
    ):
        path = tmp_path / source / "120-0.txt.gz"
        path.parent.mkdir(parents=True)
        path.symlink_to(mirror / "children" / f"{file}.txt.gz")
        read = read_gutenberg(path, "textbooks/story_books", kind, CleaningSettings())
        copies.append([d for d in read if not is_dropped(d)])
        for d in copies[-1]:
            d.text = repair(d.text)
            d.id = d.id.replace("textbooks/story_books", source)
            d.metadata |= {"source": source, "work": f"{source}/120"}
    found = verdicts(tmp_path, *copies)
    assert [d.id for d in copies[0] if d.id in found] == []
    assert sum(found.get(d.id, (None,))[0] is not None for d in copies[1]) >= 0.99 * len(copies[1])
