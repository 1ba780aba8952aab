"""Streams: the first rows of large parquet files, through a server that cuts, changes and damages them."""

import io
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from random import Random
from typing import Any
from unittest.mock import patch

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from curation import pull
from curation.fetch import Fetcher
from curation.hub import RemoteParquet
from curation.settings import FetchSettings, SourceSettings
from shared.console import Failure
from tests.local_server import Server, fast_limits, free_port, running

SAMPLE = ("/sample/000.parquet", "/sample/001.parquet")


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """Yields a server with two parquet files, of 250 and 70 rows in row groups of 40, and parts of 100 rows."""
    monkeypatch.setattr(pull, "PART_ROWS", 100)
    with running() as server:
        for path, first, n_rows in zip(SAMPLE, (0, 250), (250, 70), strict=True):
            rows = range(first, first + n_rows)
            texts = [f"Story {i}. " + "".join(f"{(i * j) % 997} " for j in range(2000)) for i in rows]
            table = pa.table({"text": texts, "id": [f"urn:{i}" for i in rows], "score": [i / 7 for i in rows]})
            written = io.BytesIO()
            pq.write_table(table, written, row_group_size=40)
            server.files[path] = written.getvalue()
        yield server


def source(hub: Server, max_documents: int, *paths: str, host: str = "") -> SourceSettings:
    return SourceSettings(
        reader="rows",
        about="a sample of the web",
        license="ODC-By-1.0",
        revision="unverified",
        addresses=[f"http://{host or hub.host}{path}" for path in paths or SAMPLE],
        max_documents=max_documents,
    )


def stream(hub: Server, raw: Path, max_documents: int, **changes: Any) -> pull.Pulled:
    return pull.pull_source("web/sample", source(hub, max_documents), None, raw, fast_limits(hub, **changes))


def ids(pulled: pull.Pulled) -> list[str]:
    return [name for file in pulled.files for name in pq.read_table(file.path).column("id").to_pylist()]


@pytest.mark.parametrize("n_documents", [1, 100, 130, 250, 300, 320])
def test_the_first_documents_of_a_large_file_come_as_parts(hub: Server, tmp_path: Path, n_documents: int) -> None:
    pulled = stream(hub, tmp_path, n_documents)
    assert ids(pulled) == [f"urn:{i}" for i in range(n_documents)]
    assert pq.read_schema(pulled.files[0].path).names == ["text", "id", "score"]
    assert all(pq.read_metadata(file.path).num_rows <= 100 for file in pulled.files)


def test_more_than_there_is_is_all_there_is(hub: Server, tmp_path: Path) -> None:
    assert ids(stream(hub, tmp_path, 1000)) == [f"urn:{i}" for i in range(320)]


def test_only_the_row_groups_that_are_wanted_are_fetched(hub: Server, tmp_path: Path) -> None:
    stream(hub, tmp_path, 40)
    ranges = [asked.removeprefix("bytes=").split("-") for _path, asked in hub.asked if asked]
    n_bytes = sum(int(last) + 1 - int(first) for first, last in ranges)
    assert len(ranges) == len(hub.asked)
    assert n_bytes < len(hub.files["/sample/000.parquet"]) / 2


def test_a_stream_goes_on_after_an_interruption_with_the_same_bytes(hub: Server, tmp_path: Path) -> None:
    whole = stream(hub, tmp_path / "whole", 320)
    hub.asked.clear()
    stream(hub, tmp_path / "raw", 200)
    n_before = len(hub.asked)
    good, hub.files["/sample/001.parquet"] = hub.files["/sample/001.parquet"], b"PAR1 no parquet PAR1"
    with pytest.raises(Failure, match=r"could not read .*001.parquet as parquet"):
        stream(hub, tmp_path / "raw", 320)
    hub.files["/sample/001.parquet"] = good
    again = stream(hub, tmp_path / "raw", 320)
    assert [(file.name, file.sha256) for file in again.files] == [(file.name, file.sha256) for file in whole.files]
    assert len(hub.asked) > n_before
    hub.asked.clear()
    assert stream(hub, tmp_path / "raw", 320) == again
    assert hub.asked == []  # nothing is asked when all is there
    left = {path.name for path in (tmp_path / "raw" / "web" / "sample").iterdir()}
    assert left == {pull.HASHES, *(file.name for file in again.files)}


def test_a_stream_survives_cut_and_busy_answers(hub: Server, tmp_path: Path) -> None:
    hub.cuts, hub.n_busy = [1, 10, 1000, 20_000, 30_000], 2
    assert ids(stream(hub, tmp_path, 320)) == [f"urn:{i}" for i in range(320)]


def test_a_file_that_changes_under_the_stream_is_noticed(
    hub: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def changed(self: Any, *args: Any) -> pull.SourceFile:
        hub.etag = '"second"'
        return real(self, *args)

    real = pull._Held.checked
    monkeypatch.setattr(pull._Held, "checked", changed)
    with pytest.raises(Failure, match="it changed while it was read"):
        stream(hub, tmp_path, 200)


def test_a_stream_reads_no_more_than_it_may(hub: Server, tmp_path: Path) -> None:
    with pytest.raises(Failure, match=r"fetching\.max_bytes|bytes of it were read"):
        stream(hub, tmp_path, 320, max_bytes=150_000)
    assert not list(tmp_path.rglob("*.parquet"))


def test_a_stream_from_nowhere_is_given_up_in_time(hub: Server, tmp_path: Path) -> None:
    nowhere = f"127.0.0.1:{free_port()}"
    started = time.monotonic()
    with pytest.raises(Failure, match="connection refused"):
        limits = fast_limits(hub, trusted_hosts=[nowhere])
        pull.pull_source("web/sample", source(hub, 10, host=nowhere), None, tmp_path, limits)
    assert time.monotonic() - started < 3
    pulled = pull.pull_source("web/sample", source(hub, 10, "/nothing"), None, tmp_path, fast_limits(hub))
    assert pulled == pull.Pulled([], [f"web/sample: http://{hub.host}/nothing"])


def test_a_stream_may_not_be_led_inside(hub: Server, tmp_path: Path) -> None:
    with running() as other:
        hub.elsewhere = other.server_address[1]
        for path in ("/to-loopback", "/to-loopback-tls"):
            with pytest.raises(Failure, match=r"no https address|no public address"):
                pull.pull_source("web/sample", source(hub, 10, path), None, tmp_path, fast_limits(hub))
        assert other.asked == []


def test_a_server_that_sends_no_parts_is_named(hub: Server, tmp_path: Path) -> None:
    with pytest.raises(Failure, match="does not send parts"):
        pull.pull_source("web/sample", source(hub, 10, "/without-parts"), None, tmp_path, fast_limits(hub))


@given(seed=st.integers(0, 2**32), n_bytes=st.sampled_from([1, 4, 20]))
def test_a_damaged_file_is_a_failure_or_rows_and_nothing_else(seed: int, n_bytes: int) -> None:
    random = Random(seed)
    table = pa.table({"text": [f"Story {i}. " * 20 for i in range(120)], "score": [i / 7 for i in range(120)]})
    written = io.BytesIO()
    pq.write_table(table, written, row_group_size=40)
    damaged = bytearray(written.getvalue())
    for _ in range(n_bytes):
        damaged[-random.randrange(1, random.choice([len(damaged), 1000]))] = random.randrange(256)
    with tempfile.TemporaryDirectory() as folder, Fetcher(FetchSettings()) as fetcher:
        path = Path(folder) / "part.parquet"
        with (
            patch.object(fetcher, "measure", lambda url: (len(damaged), "")),
            patch.object(fetcher, "read", lambda url, start, n, etag: bytes(damaged[start : start + n])),
            suppress(Failure),
        ):
            assert RemoteParquet(fetcher, "https://hub.example/file").write_rows(path, 30, 90)
        assert [file.name for file in Path(folder).iterdir()] in ([], ["part.parquet"])
