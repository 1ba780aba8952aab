"""Where files come from: a mirror's glob or addresses, named apart, held to their first hash."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from curation import pull
from curation.settings import SourceSettings, read_curation_file
from shared.console import Failure
from shared.settings import PIPELINES_FILE
from tests.conftest import run_module
from tests.local_server import BODY, Server, fast_limits, running


@pytest.fixture
def server() -> Iterator[Server]:
    with running() as server:
        yield server


def source(server: Server, *paths: str, **changes: Any) -> SourceSettings:
    """Returns a source of the local server's files."""
    addresses = [f"http://{server.host}{path}" for path in paths]
    stated = {"reader": "picture_books", "about": "stories", "license": "CC-BY-4.0", "revision": "unverified"}
    return SourceSettings(**{**stated, "addresses": addresses, **changes})


def test_a_download_is_held_to_its_first_hash(server: Server, tmp_path: Path) -> None:
    pratham = source(server, "/a/b/file")
    first = pull.pull_source("textbooks/pratham", pratham, None, tmp_path, fast_limits(server))
    assert [file.path.read_bytes() == BODY for file in first.files] == [True]
    assert pull.pull_source("textbooks/pratham", pratham, None, tmp_path, fast_limits(server)) == first
    assert len(server.asked) == 1  # downloaded once
    first.files[0].path.write_bytes(b"something else")
    with pytest.raises(Failure, match="its first download had"):
        pull.pull_source("textbooks/pratham", pratham, None, tmp_path, fast_limits(server))


def test_another_revision_is_downloaded_though_its_file_has_the_same_name(server: Server, tmp_path: Path) -> None:
    server.files |= {"/old/stories.txt": b"old", "/new/stories.txt": b"new"}
    for revision in ("old", "new"):
        pulled = pull.pull_files("set", source(server, f"/{revision}/stories.txt"), None, tmp_path, fast_limits(server))
        assert [(file.name, file.path.read_text()) for file in pulled.files] == [("stories.txt", revision)]


def test_what_one_address_lacks_is_missing_and_the_others_come(server: Server, tmp_path: Path) -> None:
    pulled = pull.pull_files("set", source(server, "/file", "/nothing"), None, tmp_path, fast_limits(server))
    assert [file.name for file in pulled.files] == ["file"]
    assert pulled.missing == [f"set: http://{server.host}/nothing"]


def test_what_has_no_place_in_a_mirror_is_missing_by_name(server: Server, tmp_path: Path) -> None:
    nowhere = source(server)
    assert pull.pull_files("set", nowhere, None, tmp_path) == pull.Pulled([], [])  # for files of one's own in a mirror
    assert pull.pull_files("set", nowhere, tmp_path, tmp_path).missing == ["set: it has no place in a mirror"]


HUB = "https://huggingface.co/datasets/allenai/ai2_arc/resolve/main"


def test_files_are_named_by_as_much_of_the_address_as_tells_them_apart() -> None:
    easy, hard = f"{HUB}/ARC-Easy/train-00000-of-00001.parquet", f"{HUB}/ARC-Challenge/train-00000-of-00001.parquet"
    assert pull.name_files([easy]) == {"train-00000-of-00001.parquet": easy}
    assert pull.name_files([easy, hard]) == {
        "ARC-Easy-train-00000-of-00001.parquet": easy,
        "ARC-Challenge-train-00000-of-00001.parquet": hard,
    }
    archives = [f"https://codeload.github.com/{path}" for path in ("a/b/tar.gz/refs/heads/master", "a/c/tar.gz/123")]
    assert list(pull.name_files(archives)) == ["b.tar.gz", "c.tar.gz"]
    same = [f"https://codeload.github.com/{owner}/b/tar.gz/123" for owner in ("a", "z")]
    assert list(pull.name_files(same)) == ["a-b.tar.gz", "z-b.tar.gz"]


PATHS = st.lists(st.sampled_from(["a", "b", "a-b", "..", "train.parquet", "test.parquet"]), min_size=1, max_size=4)


@given(st.sets(PATHS.map(lambda parts: "https://hub.example/" + "/".join(parts)), max_size=6))
def test_no_two_addresses_share_a_file_and_none_leaves_the_folder(addresses: set[str]) -> None:
    try:
        named = pull.name_files(sorted(addresses))
    except ValueError:
        plain = {"-".join(part for part in url.split("/") if part != "..") for url in addresses}
        assert len(plain) < len(addresses)
        return
    assert sorted(named.values()) == sorted(addresses)
    assert not any("/" in name or name in ("", ".", "..") for name in named)


def test_every_source_and_label_set_of_pipelines_yaml_can_be_named() -> None:
    content = read_curation_file(PIPELINES_FILE)
    places: list[pull.Located] = [*content.sources.values(), *content.label_sets.values()]
    for located in places:
        assert len(pull.name_files(located.addresses)) == len(located.addresses)


def test_how_many_documents_are_streamed_does_not_change_what_a_document_is(server: Server) -> None:
    assert source(server).recorded() == source(server, max_documents=10).recorded()


def test_a_mirror_that_lacks_a_file_is_warned_of_and_recorded(tmp_path: Path) -> None:
    folder = tmp_path / "mirror" / "labelled" / "pratham_stories" / "en"
    folder.mkdir(parents=True)
    for i in range(40):
        hard = "Notwithstanding considerable parliamentary opposition, the constitutional commission deliberated interminably. "
        text = "The cow ran up the hill. She saw a red bird there. " if i % 2 else hard
        (folder / f"{i:04}.md").write_text(f"# Story {i}\n\n##\n{text * (4 + i)}\n\n##\n* License: [CC-BY]\n")
    done = run_module(
        "curation.run", "--profile", "full", "--mirror", tmp_path / "mirror", "--data-dir", tmp_path / "data",
        "--manifest-dir", tmp_path / "data_manifests",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "missing textbooks/readers: labelled/graded_readers" in done.stderr
    manifest = (tmp_path / "data_manifests" / "mix70.json").read_text()
    assert '"general/gutenberg: general/gutenberg_adult"' in manifest
