"""Downloads: resumed, retried, held to their first hash, and given up in time with the address named."""

import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from curation import pull
from curation.settings import read_curation_file
from shared.console import Failure
from shared.settings import PIPELINES_FILE
from tests.conftest import run_module

BODY = bytes(range(256)) * 4000


class Server(ThreadingHTTPServer):
    """Serves BODY, cutting off the first answers after so many bytes each."""

    cuts: list[int]
    ranges: list[str | None]


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        if self.path == "/missing":
            self.send_error(404)
            return
        asked = self.headers.get("Range")
        self.server.ranges.append(asked)
        start = int(asked.split("=")[1].rstrip("-")) if asked else 0
        self.send_response(206 if asked else 200)
        if asked:
            self.send_header("Content-Range", f"bytes {start}-{len(BODY) - 1}/{len(BODY)}")
        self.send_header("ETag", '"first"')
        self.send_header("Content-Length", str(len(BODY) - start))
        self.end_headers()
        end = start + self.server.cuts.pop(0) if self.server.cuts else len(BODY)
        self.wfile.write(BODY[start:end])

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    with Server(("127.0.0.1", 0), Handler) as running:
        running.cuts, running.ranges = [], []
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield running
        running.shutdown()


def address(server: Server, path: str = "/file") -> str:
    return f"http://127.0.0.1:{server.server_address[1]}{path}"


def test_a_broken_download_goes_on_where_it_stopped(server: Server, tmp_path: Path) -> None:
    server.cuts = [300_000, 200_000]
    assert pull.download(address(server), tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == BODY
    starts = [int(asked.removeprefix("bytes=").rstrip("-")) if asked else 0 for asked in server.ranges]
    assert starts[0] == 0 < starts[1] <= 300_000 < starts[2] <= 500_000
    assert list(tmp_path.iterdir()) == [tmp_path / "file"]


def test_what_a_server_lacks_is_missing_not_an_error(server: Server, tmp_path: Path) -> None:
    assert not pull.download(address(server, "/missing"), tmp_path / "file")


def test_an_unreachable_server_is_named_in_time(tmp_path: Path) -> None:
    started = time.monotonic()
    with pytest.raises(Failure) as failure:
        pull.download("http://127.0.0.1:9/books/1.txt", tmp_path / "file", patience=2)
    assert time.monotonic() - started < 5
    assert "http://127.0.0.1:9/books/1.txt" in failure.value.message
    assert "--mirror" in failure.value.hint
    assert pull.PATIENCE_SECONDS < 40


def test_a_download_is_held_to_its_first_hash(server: Server, tmp_path: Path) -> None:
    source = read_curation_file(PIPELINES_FILE).sources["textbooks/pratham"]
    source = source.model_copy(update={"addresses": [address(server, "/a/b/pb-source")]})
    first = pull.pull_source("textbooks/pratham", source, None, tmp_path)
    assert [file.path.read_bytes() == BODY for file in first.files] == [True]
    assert pull.pull_source("textbooks/pratham", source, None, tmp_path) == first
    assert len(server.ranges) == 1  # downloaded once
    first.files[0].path.write_bytes(b"something else")
    with pytest.raises(Failure, match="its first download had"):
        pull.pull_source("textbooks/pratham", source, None, tmp_path)


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
