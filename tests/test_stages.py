"""From files to a mix: what was planted is found, every document is accounted for, and nothing else changes a byte."""

import csv
import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import duckdb
import pyarrow.parquet as pq
import pytest
from datatrove.data import Document
from hypothesis import given, settings
from hypothesis import strategies as st

from curation.documents import drop, make_document
from curation.licenses import is_open
from curation.read import MASKED, ReadTask, WriteDocuments
from curation.reasons import by_stage, stage_of
from curation.settings import SourceSettings
from shared.console import UserError
from shared.manifest import read_manifest, shard_paths, verified_shards
from tests.planted import BLIMP, Planted, ngrams, planted_mix, planted_rows, rejected, story  # noqa: F401
from tests.slurm_cluster import slurm_cluster, why_not


@pytest.fixture
def copy(planted: Planted, tmp_path: Path) -> Planted:
    """Returns a mix in a copy of the folder, to be changed."""
    shutil.copytree(planted.folder, tmp_path / "copy")
    return Planted(tmp_path / "copy", planted.upstream)


def test_every_document_is_accounted_for(planted: Planted) -> None:
    manifest = read_manifest(planted.manifest())
    rows, expected = planted_rows()
    dropped = dict(manifest.dropped["own/texts"])
    assert dropped.pop("contaminated:val") > 0
    assert dropped == expected
    assert manifest.documents_in == {"starter/passages": 417, "own/texts": len(rows)}
    pool = pq.read_table(planted.data / "pools" / manifest.pool_hash / "documents.parquet")
    for source, n_in in manifest.documents_in.items():
        n_quoting = manifest.dropped[source].get("contaminated:val", 0)
        n_indexed = Counter(pool["source"].to_pylist())[source]
        assert n_in == n_indexed - n_quoting + sum(manifest.dropped[source].values())
    assert manifest.edited["own/texts"] == {"masked email": 2, "masked phone": 1, "repeated_paragraph": 2}


def test_what_was_dropped_can_be_read(planted: Planted) -> None:
    manifest = read_manifest(planted.manifest())
    found = rejected(planted)
    assert len({row["doc_id"] for row in found}) == len(found)
    for source, reasons in manifest.dropped.items():
        assert Counter(row["reason"] for row in found if row["source"] == source) == reasons
    works = {row["reason"]: set[str]() for row in found}
    for row in found:
        works[row["reason"]].add(row["work"].removeprefix("own/texts/"))
        assert row["text"] or row["reason"] == "no_text"
        if row["reason"] in ("duplicate", "near_duplicate"):
            pair = {row["work"], row["detail"]}
            assert len(pair) == 2
    assert works["contaminated:blimp"] == {"test-0", "test-1", "test-2"}
    assert all(row["detail"] == "blimp" for row in found if row["reason"] == "contaminated:blimp")
    assert {"unknown-0"} == {work for work in works["duplicate"] if "unknown" in work}
    numbers = [int(work.rpartition("-")[2]) for work in works["near_duplicate"]]
    assert sorted(numbers) == [5, 6, 7, 8]


def test_masked_unsuitable_and_cut_documents_stay(planted: Planted) -> None:
    everything = {row["work"].removeprefix("own/texts/"): row for s in ("train", "val") for row in planted.rows(s)}
    pool = duckdb.read_parquet(str(planted.data / "scored" / "own" / "texts" / "*" / "*.parquet"))
    texts = dict(pool.project("work, text").fetchall())
    assert "name@example.com" in texts["own/texts/mail"]
    assert "555-0100" in texts["own/texts/mail"]
    assert not any("ana.silva" in row["text"] for row in everything.values())
    assert pool.filter("work = 'own/texts/unsuitable'").project("part, p_grade3 >= 0.5").fetchall() == [
        ("all_ages", True)
    ]
    cut = [texts[f"own/texts/{kind}-{i}"] for i in (10, 11) for kind in ("part", "story")]
    assert sum(text.count("\n\n") for text in cut) == 2 * (2 + 2) - 2  # a paragraph of either copy


def test_train_quotes_no_held_out_work_and_no_evaluation(planted: Planted) -> None:
    train, val = planted.rows("train"), planted.rows("val")
    held = set().union(*(ngrams(row["text"]) for row in val))
    assert held
    assert not any(ngrams(row["text"]) & held for row in train)
    tested = set().union(*(ngrams(item) for item in BLIMP))
    assert not any(ngrams(row["text"]) & tested for row in train + val)
    assert not {row["work"] for row in train} & {row["work"] for row in val}
    quoting = rejected(planted, "reason = 'contaminated:val'")
    assert all(ngrams(row["text"]) & held for row in quoting)


def test_licences_are_counted_and_credited(planted: Planted) -> None:
    manifest, train, val = read_manifest(planted.manifest()), planted.rows("train"), planted.rows("val")
    words: Counter[str] = Counter()
    for row in train:
        words[row["license"]] += row["n_words"]
    assert manifest.licenses == words
    folder = planted.data / "shards" / "mix70"
    with (folder / "attribution.csv").open(newline="", encoding="utf-8") as file:
        credited = {row["work"]: (row["title"], row["license"]) for row in csv.DictReader(file)}
    asking = {row["work"]: (row["title"], row["license"]) for row in train + val if row["license"] != "CC0-1.0"}
    assert credited == asking
    card = (folder / "README.md").read_text(encoding="utf-8")
    for license, n in words.items():
        assert f"| {license} | {n:,} |" in card
    for source, n_in in manifest.documents_in.items():
        reasons = manifest.dropped[source]
        stages = " | ".join(f"{n:,}" for n in by_stage(reasons).values())
        assert f"| {source} | {n_in:,} | {stages} | {n_in - sum(reasons.values()):,} |" in card


def test_open_means_open_in_both_splits_and_in_the_account(copy: Planted, planted: Planted) -> None:
    manifest = copy.make("--licenses", "open")
    assert all(is_open(row["license"]) for split in ("train", "val") for row in copy.rows(split))
    before = read_manifest(planted.manifest())
    assert manifest.pool_hash == before.pool_hash
    assert manifest.dropped["own/texts"] == {**before.dropped["own/texts"], "license": 6}
    found = rejected(copy, "reason = 'license'")
    assert sorted(row["work"] for row in found) == [
        *(f"own/texts/closed-{i}" for i in range(4)), "own/texts/unknown-1", "own/texts/unknown-2"
    ]  # fmt: skip
    assert {row["detail"] for row in found} == {"CC-BY-NC-4.0", "unknown"}


def test_the_command_that_mends_an_open_mix_makes_an_open_one(copy: Planted) -> None:
    manifest = copy.make("--licenses", "open")
    damaged = shard_paths(copy.manifest(), manifest)["train"][0]
    damaged.write_bytes(damaged.read_bytes()[:-1])
    with pytest.raises(UserError) as error:
        verified_shards(copy.manifest(), manifest)
    assert "--licenses open" in error.value.hint


def test_workers_change_no_byte(planted: Planted, tmp_path: Path) -> None:
    other = Planted(tmp_path, planted.upstream)
    shutil.copytree(planted.data / "models", other.data / "models")
    other.make("--workers", 3)
    assert other.bytes() == planted.bytes()


@pytest.mark.ray
def test_ray_changes_no_byte(planted: Planted, tmp_path: Path) -> None:
    pytest.importorskip("ray")
    other = Planted(tmp_path, planted.upstream)
    other.make("--executor", "ray")
    assert other.bytes() == planted.bytes()


@pytest.mark.slurm
def test_slurm_changes_no_byte(planted: Planted, tmp_path: Path) -> None:
    if reason := why_not():
        pytest.skip(f"no Slurm: {reason}")
    other = Planted(tmp_path, planted.upstream)
    with slurm_cluster():
        other.make("--executor", "slurm")
    assert other.bytes() == planted.bytes()


LOSSES = {
    "all documents": "documents",
    "a receipt of grading": "scored/own/texts/*/00000.json",
    "the verdicts": "duplicates",
}


@pytest.mark.parametrize("loss", LOSSES)
def test_what_is_lost_is_made_again_the_same(copy: Planted, planted: Planted, loss: str) -> None:
    for path in list(copy.data.glob(LOSSES[loss])):
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    copy.manifest().unlink()
    copy.make()
    assert copy.bytes() == planted.bytes()


def test_another_source_grades_no_unaffected_one_again(copy: Planted, tmp_path: Path) -> None:
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "mine.txt").write_text("\n\n".join(story(900, 4)), encoding="utf-8")
    scored = {path: path.stat().st_mtime_ns for path in (copy.data / "scored").rglob("*") if path.is_file()}
    manifest = copy.make("--local-files", tmp_path / "more", "--replace")
    assert manifest.documents_in["local/files"] == 1
    assert {path: path.stat().st_mtime_ns for path in scored} == scored


# The account of one task, whatever readers yield -----------------------------------------------------------------------

REASONS = st.sampled_from(["", "", "", "too_short", "bad_json", "table", "no_text", "list"])


@settings(max_examples=25, deadline=None)
@given(st.lists(REASONS, max_size=40))
def test_a_task_keeps_or_rejects_every_document_and_counts_it(
    tmp_path_factory: pytest.TempPathFactory, reasons: list[str]
) -> None:
    folder = tmp_path_factory.mktemp("task")
    source = SourceSettings(reader="rows", about="", license="CC0-1.0", revision="1")

    def documents() -> Iterator[Document]:
        for i, reason in enumerate(reasons):
            document = make_document("a/b", source, f"w{i % 3}", str(i), " ".join(story(i, 1)))
            document.metadata[MASKED] = {"email": i % 2}
            yield drop(document, reason, f"detail {i}") if reason else document

    task = ReadTask("a/b", source, (), folder / "documents" / "0.parquet", folder / "rejected" / "0.parquet")
    assert list(WriteDocuments([task]).run(documents())) == []
    assert task.is_done()
    counts = task.outputs.counts()
    dropped = Counter(reason for reason in reasons if reason)
    assert counts["dropped"] == dropped
    assert counts["documents"]["kept"] + dropped.total() == len(reasons)
    kept = pq.read_table(task.documents)["doc_id"].to_pylist()
    assert kept == [f"a/b/w{i % 3}#{i}" for i, reason in enumerate(reasons) if not reason]
    assert pq.read_table(task.sketches)["doc_id"].to_pylist() == kept
    rows = pq.read_table(task.rejected).to_pylist()
    assert [(row["reason"], row["detail"]) for row in rows] == [(r, f"detail {i}") for i, r in enumerate(reasons) if r]
    assert sum(by_stage(dropped).values()) == dropped.total()
    assert {stage_of(reason) for reason in dropped} <= {"reading"}
