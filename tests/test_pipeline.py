"""The stages together, where a hostile reader looked: names, empty sources, stale results, work that must not grow."""

import ast
import json
import os
import shutil
import sys
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import yaml
from datatrove.data import Document
from hypothesis import given, settings
from hypothesis import strategies as st

from curation import score, versions
from curation.dedup import VERDICT_SCHEMA, _Rows, find_duplicates, remove_paragraphs
from curation.documents import REASON, make_document
from curation.outputs import DOCUMENT_SCHEMA, write_parquet
from curation.pull import SourceFile, pull_files
from curation.read import TASK_BYTES, make_read_tasks
from curation.score import KeptDocuments, ScoreTask
from curation.settings import DedupSettings, SourceSettings, profile_settings, read_curation_file
from curation.sketch import sketch_documents
from curation.sources import READERS
from curation.stages import ensure_evaluations
from shared.console import UserError
from shared.settings import PIPELINES_FILE
from tests.conftest import ROOT, Mix
from tests.planted import story

SOURCE = SourceSettings(reader="rows", about="", license="CC0-1.0", revision="1")

# What no hash need hold: settings are recorded by value, the others change no document.
NO_RESULT = {"settings", "pull", "versions", "read", "sources/__init__"}
LIBRARIES_OF_NO_RESULT = {"datatrove", "pydantic", "tqdm", "curation", "shared"}


def document(work: str, position: int, text: str) -> Document:
    return make_document("own/a", SOURCE, work, str(position), text)


# Stale results: all code that a result depends on is in its hash --------------------------------------------------------


def imports_of(module: str) -> tuple[set[str], set[str]]:
    """Returns the modules of curation that a module imports, and the libraries."""
    own, libraries = set[str](), set[str]()
    for node in ast.walk(ast.parse((ROOT / "curation" / f"{module}.py").read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        else:
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        places = {name.removeprefix("curation.").replace(".", "/") for name in names if name.startswith("curation.")}
        own |= {place for place in places if (ROOT / "curation" / f"{place}.py").is_file()}
        libraries |= {name.partition(".")[0] for name in names} - set(sys.stdlib_module_names)
    return own - NO_RESULT, libraries - LIBRARIES_OF_NO_RESULT


def all_imports_of(module: str) -> tuple[set[str], set[str]]:
    """Returns also what those import in turn, and the module itself."""
    done, libraries, todo = set[str](), set[str](), [module]
    while todo:
        if (name := todo.pop()) not in done:
            done.add(name)
            own, more = imports_of(name)
            libraries |= more
            todo += own
    return done, libraries


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes versions return what they would hash: modules of curation, and libraries."""

    def parts(files: tuple[str, ...], libraries: tuple[str, ...]) -> tuple[set[str], set[str]]:
        folder = ROOT / "curation"
        paths = [path for name in files for path in folder.glob(name)]
        assert len(paths) >= len(files)
        return {path.relative_to(folder).as_posix().removesuffix(".py") for path in paths}, set(libraries)

    monkeypatch.setattr(versions, "_version", parts)


def hashed_by(version: Any, *args: str) -> tuple[set[str], set[str]]:
    """Returns what a function of versions would hash."""
    parts: tuple[set[str], set[str]] = version.__wrapped__(*args)  # not what it returned before
    return parts


@pytest.mark.usefixtures("hashed")
@pytest.mark.parametrize("reader", READERS)
def test_the_hash_of_documents_holds_all_that_their_reader_imports(reader: str) -> None:
    modules, libraries = hashed_by(versions.reading_version, reader)
    for entry in (f"sources/{reader}", "clean", "pii", "sketch"):
        needed_modules, needed_libraries = all_imports_of(entry)
        assert needed_modules <= modules
        assert needed_libraries <= libraries


@pytest.mark.usefixtures("hashed")
def test_the_hashes_of_later_stages_hold_what_those_import() -> None:
    grading = hashed_by(versions.grading_version)[0]
    evaluations = hashed_by(versions.evaluations_version)[0]
    assert imports_of("evaluations")[0] <= evaluations
    assert all_imports_of("sources/gutenberg")[0] - {"outputs"} <= evaluations  # of the held-out readers
    for name in ("label_sets", "grading", "grade_classifier", "suitability"):
        assert all_imports_of(name)[0] <= grading
    assert imports_of("score")[0] <= grading | hashed_by(versions.scoring_version)[0]
    pool = grading | hashed_by(versions.scoring_version)[0] | hashed_by(versions.pool_version)[0]
    assert imports_of("pool")[0] | imports_of("dedup")[0] <= pool
    assert {"mix", "shards"} <= hashed_by(versions.mix_version)[0]


def test_another_length_of_documents_makes_another_index_of_evaluations(tmp_path: Path) -> None:
    """The held-out readers are cut as the corpus is: n-grams do not run over the ends of documents."""
    full = profile_settings(read_curation_file(PIPELINES_FILE), "full")
    files: dict[str, list[SourceFile]] = {name: [] for name in (*full.evaluations, *full.label_sources)}
    longer = full.model_copy(update={"cleaning": full.cleaning.model_copy(update={"target_words": 500})})
    names = [name for name in full.label_sources if full.labels[name].reader == "school_readers"]
    poems = {name: full.label_sources[name].model_copy(update={"genre": "verse"}) for name in names}
    others = full.model_copy(update={"label_sources": full.label_sources | poems})
    made = [ensure_evaluations(each, files, tmp_path) for each in (full, longer, others)]
    assert len(set(made)) == 3
    assert ensure_evaluations(full, files, tmp_path) == made[0]


def test_a_mix_of_other_code_is_made_again(starter_mix: Mix, tmp_path: Path) -> None:
    mix = Mix(tmp_path / "copy")
    shutil.copytree(starter_mix.folder, mix.folder)
    assert "stands already" in mix.run().stderr
    record = mix.data / "shards" / "mix70" / "run.json"
    facts = json.loads(record.read_bytes())
    record.write_text(json.dumps({**facts, "code": "0123456789abcdef"}), encoding="utf-8")
    done = mix.run()
    assert done.returncode == 0, done.stderr
    assert "stands already" not in done.stderr
    assert json.loads(record.read_bytes())["code"] == facts["code"]
    assert mix.manifest().read_bytes() == starter_mix.manifest().read_bytes()


# Names -----------------------------------------------------------------------------------------------------------------


def test_two_documents_of_one_name_are_an_error_and_never_lost(tmp_path: Path) -> None:
    """Verdicts go by names: of two files a/x.jsonl and b/x.jsonl, all documents were near-duplicates of each other."""
    paths = []
    for part in range(2):
        texts = ["\n\n".join(story(10 * part + i)) for i in range(3)]
        write_parquet(
            sketch_documents([document("x.jsonl", i, text) for i, text in enumerate(texts)]), tmp_path / f"{part}"
        )
        paths.append(tmp_path / f"{part}")
    assert find_duplicates({"own/a": paths[:1]}, DedupSettings(), tmp_path, 1).num_rows == 0
    with pytest.raises(UserError, match=r"own/a has two documents own/a/x\.jsonl#0") as error:
        find_duplicates({"own/a": paths}, DedupSettings(), tmp_path, 1)
    assert "own/a" in error.value.hint


def test_a_file_whose_name_cannot_be_written_down_is_an_error(tmp_path: Path) -> None:
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff.jsonl")).write_text("{}", encoding="utf-8")
    with pytest.raises(UserError, match=r"'\\udcff\.jsonl'"):
        pull_files("own/a", SourceSettings(**{**SOURCE.model_dump(), "mirror": "*.jsonl"}), tmp_path, tmp_path)


# Empty and single ------------------------------------------------------------------------------------------------------


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, 3 * TASK_BYTES), min_size=1, max_size=8))
def test_every_file_is_in_one_task_however_small_or_large(
    tmp_path_factory: pytest.TempPathFactory, sizes: list[int]
) -> None:
    folder = tmp_path_factory.mktemp("files")
    files = []
    for i, size in enumerate(sizes):
        path = folder / f"{i}.txt"
        path.touch()
        os.truncate(path, size)  # no byte of it is on disk
        files.append(SourceFile(path.name, path, ""))
    tasks = make_read_tasks("own/a", SOURCE, files, folder / "documents", folder / "rejected")
    assert [part.file for task in tasks for part in task.parts] == files
    for task in tasks:
        assert task.parts
        assert len(task.parts) == 1 or sum(part.file.path.stat().st_size for part in task.parts) <= TASK_BYTES


def own_profile(folder: Path, starter: Mix) -> Mix:
    """Returns a place for mixes of source own/a alone; its classifier is there already."""
    content = yaml.safe_load(PIPELINES_FILE.read_text(encoding="utf-8"))
    own = {"reader": "rows", "about": "", "license": "CC-BY-4.0", "revision": "1", "mirror": "*.jsonl"}
    content["sources"]["own/a"] = own
    content["profiles"] = {**content["profiles"], "own": {**content["profiles"]["starter"], "sources": ["own/a"]}}
    (folder / "mirror").mkdir(parents=True)
    (folder / "pipelines.yaml").write_text(yaml.safe_dump(content), encoding="utf-8")
    shutil.copytree(starter.data / "models", folder / "data" / "models")
    return Mix(folder)


@pytest.mark.parametrize("rows", [None, [], ["too short"], ["\n\n".join(story(1))]])
def test_hardly_any_text_is_told_in_two_lines(starter_mix: Mix, tmp_path: Path, rows: list[str] | None) -> None:
    mix = own_profile(tmp_path / "own", starter_mix)
    flags: list[object] = ["--profile", "own", "--pipelines", mix.folder / "pipelines.yaml", "--workers", 1]
    if rows is not None:
        lines = "".join(json.dumps({"text": text}) + "\n" for text in rows)
        (mix.folder / "mirror" / "a.jsonl").write_text(lines, encoding="utf-8")
        flags += ["--mirror", mix.folder / "mirror"]
    done = mix.run(*flags)
    assert done.returncode == 2, done.stderr
    assert done.stderr.splitlines()[-2].startswith("error: ")
    assert ("no source of profile own has any file" if rows is None else "a mix needs both parts") in done.stderr
    assert "Traceback" not in done.stderr


# Work that must not grow with the square of a source -------------------------------------------------------------------


def test_looking_up_a_document_does_not_copy_all_of_them() -> None:
    docs = np.repeat(np.arange(500_000, dtype=np.int32), 2)
    rows = _Rows(docs, (np.arange(len(docs)),))
    tracemalloc.start()
    try:
        found = [rows[doc][0].tolist() for doc in (0, 77, 499_999, 600_000)]
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert found == [[0, 1], [154, 155], [999_998, 999_999], []]
    assert peak < 100_000


def score_task(folder: Path, documents: list[Document], verdicts: list[dict[str, object]]) -> ScoreTask:
    rows = [{"doc_id": d.id, "text": d.text, **d.metadata} for d in documents]
    write_parquet(pa.Table.from_pylist(rows, schema=DOCUMENT_SCHEMA), folder / "documents.parquet")
    write_parquet(pa.Table.from_pylist(verdicts, schema=VERDICT_SCHEMA), folder / "verdicts.parquet")
    places = (folder / "documents.parquet", folder / "verdicts.parquet")
    return ScoreTask("own/a", *places, "key", folder / "scored", folder / "rejected")


@pytest.mark.parametrize("n_mine", [0, 1, 40])
def test_a_task_finds_its_own_verdicts_among_those_of_its_source(tmp_path: Path, n_mine: int) -> None:
    everything = [document(f"work {i % 7}", i, "\n\n".join(story(i))) for i in range(120)]
    reasons = [None, "duplicate", None]
    verdicts: list[dict[str, object]] = [
        {"doc_id": d.id, "source": "own/a", "reason": reasons[i % 3], "kept_doc_id": "other", "paragraphs": [i % 3]}
        for i, d in enumerate(everything)
        if i % 4
    ]
    verdicts.sort(key=lambda row: str(row["doc_id"]))
    mine = everything[30 : 30 + n_mine]
    found = list(KeptDocuments([score_task(tmp_path, mine, verdicts)], 20).run())
    assert [d.id for d in found] == [d.id for d in mine]
    said = {row["doc_id"]: row for row in verdicts}
    for before, after in zip(mine, found, strict=True):
        verdict = said.get(before.id)
        assert after.metadata.get(REASON) == (verdict["reason"] if verdict else None)
        assert after.text == (remove_paragraphs(before.text, verdict["paragraphs"]) if verdict else before.text)  # type: ignore[arg-type]


def test_verdicts_are_hashed_once_for_all_tasks_of_a_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[Path] = []

    def counted(path: Path) -> str:
        read.append(path)
        return path.read_bytes().hex()[:64] if path.suffix == ".parquet" else ""

    monkeypatch.setattr(score, "sha256_file", counted)
    task = score_task(tmp_path, [document("w", 0, "a text")], [])
    assert len({task.scored for _ in range(100)}) == 1
    assert read == [task.verdicts]
    before = task.scored
    row: dict[str, object] = {"doc_id": "own/a/w#0", "source": "own/a", "reason": "duplicate", "paragraphs": []}
    score_task(tmp_path, [document("w", 0, "a text")], [row])
    monkeypatch.setattr(score, "sha256_file", lambda path: "another")
    assert task.scored != before
