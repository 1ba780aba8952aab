"""Settings, files and manifests: one flow, whole files, and paths that stay inside."""

import json
from pathlib import Path

import pytest
from pydantic import Field

from shared.console import UserError, human, table
from shared.files import remove_temporary_files, short_hash, sole_writer, write_text, written_whole
from shared.manifest import GradeRatio, Manifest, ShardEntry, read_manifest, shard_paths, write_manifest
from shared.settings import Settings, parse_command


class Flags(Settings):
    """A command line under test."""

    ratio: float = Field(0.5, ge=0.1, le=0.9, description="a ratio")
    words: int | None = Field(None, gt=0, description="a budget")
    as_json: bool = Field(False, description="JSON", json_schema_extra={"flag": "json"})


def parse(*args: str) -> Flags:
    return parse_command(Flags, "About.", "example", {"ratio": 0.7}, list(args))


def test_flags_go_before_defaults_and_those_before_the_class() -> None:
    assert parse() == Flags(ratio=0.7)
    assert parse("--ratio", "0.3", "--words", "5", "--json") == Flags(ratio=0.3, words=5, as_json=True)


@pytest.mark.parametrize(
    ("args", "error", "hint"),
    [
        (["--ratio", "2"], "--ratio 2.0", "at most 0.9"),
        (["--ratio", "x"], "--ratio x: it takes a number", "at most 0.9"),
        (["--words", "20k"], "--words 20k: it takes a whole number", "more than 0"),
        (["--ratoi", "2"], "--ratoi is not a flag", "did you mean --ratio?"),
        (["--jsn"], "--jsn is not a flag", "did you mean --json?"),
        (["--words"], "--words", ""),
        (["word"], "word is not an argument", ""),
    ],
)
def test_wrong_flags(args: list[str], error: str, hint: str) -> None:
    with pytest.raises(UserError) as wrong:
        parse(*args)
    assert error in wrong.value.message
    assert hint in wrong.value.hint
    assert "\n" not in wrong.value.message


def test_a_file_is_whole_or_absent(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "file.txt"
    with pytest.raises(RuntimeError), written_whole(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert list(path.parent.iterdir()) == []
    write_text(path, "whole")
    assert path.read_text() == "whole"
    (path.parent / ".half-written-123-left").write_text("")
    assert remove_temporary_files(tmp_path) == 1


def test_the_second_writer_is_told_who_the_first_is(tmp_path: Path) -> None:
    with sole_writer(tmp_path), pytest.raises(UserError, match="process"), sole_writer(tmp_path):
        pass
    with sole_writer(tmp_path):
        pass


def test_a_hash_does_not_depend_on_the_order_of_keys() -> None:
    assert short_hash({"a": 1, "b": [2]}) == short_hash({"b": [2], "a": 1}) != short_hash({"a": 1, "b": [3]})


def manifest_naming(path: str) -> Manifest:
    shard = ShardEntry(path=path, sha256="0", bytes=0, n_docs=0, n_words=0, n_words_grade3=0)
    return Manifest(
        name="m", profile="p", settings={}, settings_hash="0", pool_hash="0", scorer={}, sources=[], inputs={}, documents_in={},
        dropped={}, missing=[], grade_ratio=GradeRatio(target=0.7, actual=0.7), splits={"train": [shard], "val": []},
    )  # fmt: skip


def test_a_manifest_comes_back_as_it_was_written(tmp_path: Path) -> None:
    path = tmp_path / "data_manifests" / "m.json"
    write_manifest(manifest_naming("data/x.parquet"), path)
    assert read_manifest(path) == manifest_naming("data/x.parquet")


def test_shards_stay_inside(tmp_path: Path) -> None:
    path = tmp_path / "home" / "data_manifests" / "m.json"
    inside, outside = tmp_path / "home" / "data" / "x.parquet", tmp_path / "elsewhere" / "x.parquet"
    for shard in (inside, outside):
        shard.parent.mkdir(parents=True)
        shard.write_text("")
    assert shard_paths(path, manifest_naming("data/x.parquet"))["train"] == [inside]
    for bad in ("../elsewhere/x.parquet", str(outside), "data/../../elsewhere/x.parquet"):
        with pytest.raises(UserError, match="outside"):
            shard_paths(path, manifest_naming(bad))
    record = {"data_dir": str(outside.parent), "manifest": "../home/data_manifests/m.json"}
    (outside.parent / "run.json").write_text(json.dumps(record | {"manifest": "other.json"}))
    with pytest.raises(UserError, match="outside"):
        shard_paths(path, manifest_naming("../elsewhere/x.parquet"))
    (outside.parent / "run.json").write_text(json.dumps(record))
    assert shard_paths(path, manifest_naming("../elsewhere/x.parquet"))["train"] == [outside]
    (tmp_path / "home" / "data" / "link.parquet").symlink_to("/etc/hostname")
    with pytest.raises(UserError, match="outside"):
        shard_paths(path, manifest_naming("data/link.parquet"))
    with pytest.raises(UserError, match="not there"):
        shard_paths(path, manifest_naming("data/y.parquet"))


@pytest.mark.parametrize(
    ("content", "told"),
    [(None, "not found"), ("{", "is not a manifest"), ("{}", "is not a manifest"), ("[]", "is not a manifest")],
)
def test_what_is_no_manifest(tmp_path: Path, content: str | None, told: str) -> None:
    path = tmp_path / "mix75.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(UserError, match=told) as wrong:
        read_manifest(path)
    assert "curation.run --grade-ratio" in wrong.value.hint
    if content is None:
        assert wrong.value.hint.endswith("0.75")


def test_people_read_counts() -> None:
    counts = {0: "0", 999: "999", 9940: "9,940", 41_200: "41.2k", 999_960: "1.0M", 58_900_000: "58.9M", 1.25e9: "1.2B"}
    assert [human(n) for n in counts] == list(counts.values())
    assert (
        table([["a", 1], ["bc", 22.5]], ["name", "n"]) == "name        n\n----  -------\na           1\nbc    22.5000"
    )


class PromptFlags(Settings):
    prompt: str = Field("", description="any text")
    steps: int = Field(1, description="a number")


@pytest.mark.parametrize("prompt", ["", "1 + 1 =", "--", "a=b="])
def test_a_text_may_be_empty_or_end_as_it_likes(prompt: str) -> None:
    assert parse_command(PromptFlags, "about", "example", args=[f"--prompt={prompt}"]).prompt == prompt


def test_a_number_may_not_be_empty() -> None:
    for args in (["--steps", ""], ["--steps="]):
        with pytest.raises(UserError, match="--steps has an empty value"):
            parse_command(PromptFlags, "about", "example", args=args)
