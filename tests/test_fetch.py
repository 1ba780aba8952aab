"""Fetching: twelve things a server may do, each with its named outcome, in time and within memory and disk."""

import shutil
import socket
import ssl
import subprocess
import threading
import time
import tracemalloc
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import requests
from hypothesis import given
from hypothesis import strategies as st

from curation import connections, pull
from curation.fetch import Fetcher
from shared.console import Failure
from tests.local_server import BODY, Server, fast_limits, free_port, running

MEGABYTE = 1_000_000
HASTY = {"patience_seconds": 0.5}


@pytest.fixture
def server() -> Iterator[Server]:
    with running() as server:
        yield server


@dataclass(frozen=True)
class Files:
    addresses: list[str]
    mirror: str = ""


@dataclass(frozen=True)
class Case:
    """What a server does, and what must come of it: the file, its absence, or a Failure that says why."""

    outcome: str
    path: str
    says: str = ""  # in the failure
    repair: str = "--mirror"  # in its hint
    server: dict[str, Any] = field(default_factory=dict)
    limits: dict[str, Any] = field(default_factory=dict)
    seconds: float = 3.0


CASES = [
    Case("plain", "/file"),
    Case("plain", "/to-file"),
    Case("plain", "/to-long-body"),
    Case("resumed in mid-file", "/file", server={"cuts": [300_000, 200_000]}),
    Case("503 twice, then fine", "/file", server={"n_busy": 2}),
    Case("always 503", "/always-busy", "its server says 503", "run the same command again", limits=HASTY),
    Case("wrong hash", "/file", "its first download had", "remove it to download it again"),
    Case("redirect to another port of this machine", "/to-loopback", "/file: no https address", "trusted_hosts"),
    Case("redirect to another port of this machine", "/to-loopback-tls", "127.0.0.1 is no public", "trusted_hosts"),
    Case("redirect to another port of this machine", "/to-metadata", "169.254.169.254 is no public", "trusted_hosts"),
    Case("redirect in a circle", "/circle", "it leads in a circle"),
    Case("redirect in a circle", "/to-file", "it leads on more than 0 times", limits={"max_redirects": 0}),
    Case("no https", "/to-plain-http", "http://example.org/file: no https address", "trusted_hosts"),
    Case("no https", "/to-disk", "file:///etc/passwd: no https address", "trusted_hosts"),
    Case("no https", "http://example.org/file", "no https address", "trusted_hosts"),
    Case("endless drip", "/drip", "not whole within 0.5 s", "what came is kept", limits={"deadline_seconds": 0.5}),
    Case("endless drip", "/drip-without-length", "not whole within 0.5 s", limits={"deadline_seconds": 0.5}),
    Case("endless drip", "/drip-headers", "could not download", limits=HASTY),
    Case("endless drip", "/drip-chunk-size", "could not download", limits=HASTY),
    Case("1 GB bomb", "/bomb-declared", "it has 1,000,000,000 bytes", "fetching.max_bytes"),
    Case("1 GB bomb", "/bomb-without-length", "over 2,000,000 bytes came", "fetching.max_bytes"),
    Case("1 GB bomb", "/bomb-gzip", "sends it in 'gzip' encoding", limits={"max_bytes": 10_000 * MEGABYTE}),
    Case("missing", "/nothing-here"),
    Case("nobody answers", "http://127.0.0.1:{free}/file", "connection refused", limits=HASTY),
    Case("nobody answers", "https://no-such-host.invalid/file", "no such host, or no network", limits=HASTY),
]


def test_the_table_has_the_twelve_outcomes() -> None:
    assert len({case.outcome for case in CASES}) == 12


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.outcome}: {case.path}")
def test_each_outcome_is_named(case: Case, server: Server, tmp_path: Path) -> None:
    with running() as other:
        server.elsewhere = other.server_address[1]
        vars(server).update(case.server)
        free = free_port()
        url = case.path.format(free=free) if "://" in case.path else f"http://{server.host}{case.path}"
        settings = fast_limits(
            server, trusted_hosts=[server.host, f"127.0.0.1:{free}"], **{"max_bytes": 2 * MEGABYTE, **case.limits}
        )
        if case.outcome == "wrong hash":
            pull.pull_files("set", Files([url]), None, tmp_path, settings)
            (tmp_path / "set" / "file").unlink()
            server.files["/file"] = BODY[::-1]
        tracemalloc.start()
        started = time.monotonic()
        try:
            if case.says:
                with pytest.raises(Failure) as failure:
                    pull.pull_files("set", Files([url]), None, tmp_path, settings)
                assert url in failure.value.message or url in failure.value.hint
                assert case.says in failure.value.message
                assert case.repair in failure.value.hint
            else:
                pulled = pull.pull_files("set", Files([url]), None, tmp_path, settings)
                is_missing = case.outcome == "missing"
                assert pulled.missing == ([f"set: {url}"] if is_missing else [])
                assert [file.path.read_bytes() == BODY for file in pulled.files] == [True] * (not is_missing)
        finally:
            peak = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
        assert time.monotonic() - started < case.seconds
        assert other.asked == []
        assert peak < 8 * MEGABYTE
        assert sum(file.stat().st_size for file in tmp_path.rglob("*") if file.is_file()) < 2.1 * MEGABYTE


def test_a_resumed_download_asks_for_the_rest_only(server: Server, tmp_path: Path) -> None:
    server.cuts = [300_000, 200_000]
    with Fetcher(fast_limits(server)) as fetcher:
        assert fetcher.download(f"http://{server.host}/file", tmp_path / "file")
    starts = [int(asked.removeprefix("bytes=").rstrip("-")) if asked else 0 for _path, asked in server.asked]
    assert starts[0] == 0 < starts[1] <= 300_000 < starts[2] <= 500_000
    assert list(tmp_path.iterdir()) == [tmp_path / "file"]


@pytest.mark.parametrize("ignores_if_range", [False, True])
def test_a_later_run_goes_on_and_never_mixes_two_versions(
    ignores_if_range: bool, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.ignores_if_range = ignores_if_range
    url, path = f"http://{server.host}/file", tmp_path / "file"
    for etag, body in (('"first"', BODY), ('"second"', BODY[::-1])):
        server.cuts, server.etag, server.files["/file"] = [300_000], etag, body
        with monkeypatch.context() as patched, Fetcher(fast_limits(server)) as fetcher:
            patched.setattr("curation.fetch.time.sleep", _stop)  # while it waits for its second try
            with pytest.raises(KeyboardInterrupt):
                fetcher.download(url, path)
        assert not path.exists()
    with Fetcher(fast_limits(server)) as fetcher:
        assert fetcher.download(url, path)
    assert path.read_bytes() == BODY[::-1]
    if not ignores_if_range:
        assert [asked for _path, asked in server.asked][-1] is not None  # the last run asked for the rest only


def _stop(seconds: float) -> None:
    raise KeyboardInterrupt


def test_a_part_that_nobody_asked_for_is_no_file(server: Server, tmp_path: Path) -> None:
    (tmp_path / "file.part").write_bytes(b"something older")
    with (
        Fetcher(fast_limits(server)) as fetcher,
        pytest.raises(Failure, match="other bytes than those that were asked"),
    ):
        fetcher.download(f"http://{server.host}/unasked-part", tmp_path / "file")
    assert not (tmp_path / "file").exists()


def test_what_no_second_try_can_better_fails_at_once(server: Server, tmp_path: Path) -> None:
    with Fetcher(fast_limits(server)) as fetcher, pytest.raises(Failure, match="its server says 403"):
        fetcher.download(f"http://{server.host}/forbidden", tmp_path / "file")
    assert len(server.asked) == 1


PRIVATE = [
    "127.0.0.1", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254", "100.64.0.1", "0.0.0.0", "224.0.0.1",
    "240.0.0.1", "255.255.255.255", "::1", "::", "fe80::1", "fe80::1%eth0", "fc00::1", "fec0::1", "ff02::1",
    "::ffff:127.0.0.1", "::ffff:10.0.0.1", "64:ff9b::7f00:1", "2002:7f00:1::", "2001:db8::1", "2001:0:4136:e378::1", "64:ff9b:1::1",
]  # fmt: skip
PUBLIC = ["93.184.216.34", "1.1.1.1", "2606:4700:4700::1111", "::ffff:93.184.216.34", "64:ff9b::5db8:d822"]


@pytest.mark.parametrize("address", PRIVATE)
def test_addresses_inside_are_not_public(address: str) -> None:
    assert not connections.is_public(address)


@pytest.mark.parametrize("address", PUBLIC)
def test_addresses_of_the_open_internet_are_public(address: str) -> None:
    assert connections.is_public(address)


@given(st.ip_addresses(v=4))
def test_an_address_inside_another_is_judged_alike(address: Any) -> None:
    inner = int(address)
    expected = connections.is_public(str(address))
    for outer in (f"::ffff:{address}", f"64:ff9b::{inner >> 16:x}:{inner & 0xFFFF:x}"):
        assert connections.is_public(outer) == expected


def _resolve(monkeypatch: pytest.MonkeyPatch, *answers: list[str]) -> list[str]:
    """Makes names resolve to these addresses, one answer after another. Returns the names that are asked for."""
    asked: list[str] = []
    real = socket.getaddrinfo

    def resolve(host: str, port: Any, *args: Any, **options: Any) -> Any:
        if host[0].isdigit() or ":" in host:
            return real(host, port, *args, **options)
        asked.append(host)
        addresses = answers[min(len(asked), len(answers)) - 1]
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in addresses]

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    return asked


@pytest.mark.parametrize("answer", [["127.0.0.1"], ["93.184.216.34", "10.0.0.7"]])
def test_a_name_with_any_private_address_is_refused(
    answer: list[str], server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _resolve(monkeypatch, answer)
    url = f"https://innocent.example:{server.server_address[1]}/file"
    with Fetcher(fast_limits(server)) as fetcher, pytest.raises(Failure, match="is no public address"):
        fetcher.download(url, tmp_path / "file")
    assert server.asked == []


def test_a_name_cannot_change_its_address_between_check_and_use(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = _resolve(monkeypatch, ["93.184.216.34"], ["127.0.0.1"])
    reached: list[str] = []

    def connect(address: tuple[str, int], *args: Any, **options: Any) -> socket.socket:
        reached.append(address[0])
        return socket.create_connection(("127.0.0.1", server.server_address[1]))  # a network that leads elsewhere

    monkeypatch.setattr("urllib3.util.connection.create_connection", connect)
    url = f"https://innocent.example:{server.server_address[1]}/file"
    with Fetcher(fast_limits(server)) as fetcher, pytest.raises(Failure, match=r"127\.0\.0\.1 is no public address"):
        fetcher.download(url, tmp_path / "file")
    assert asked == ["innocent.example"]
    assert reached == ["93.184.216.34"]
    assert server.asked == []


def test_the_whole_way_over_tls_with_the_guard_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if not shutil.which("openssl"):
        pytest.skip("no openssl to make a certificate with")
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=hub.example"
    files = ["-addext", "subjectAltName=DNS:hub.example", "-keyout", str(key), "-out", str(certificate)]
    subprocess.run([*command.split(), *files], check=True, capture_output=True)
    with running() as server:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)
        server.socket = context.wrap_socket(server.socket, server_side=True)
        _resolve(monkeypatch, ["127.0.0.1"])
        url = f"https://hub.example:{server.server_address[1]}/file"
        with (
            Fetcher(fast_limits(server, trusted_hosts=[])) as fetcher,
            pytest.raises(Failure, match="no public address"),
        ):
            fetcher.download(url, tmp_path / "file")
        monkeypatch.setattr(connections, "is_public", lambda address: address == "127.0.0.1")
        with Fetcher(fast_limits(server, trusted_hosts=[])) as fetcher, pytest.raises(Failure, match="certificate"):
            fetcher.download(url, tmp_path / "file")
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(certificate))
        server.cuts = [300_000]
        with Fetcher(fast_limits(server, trusted_hosts=[])) as fetcher:
            assert fetcher.download(url, tmp_path / "file")
        assert (tmp_path / "file").read_bytes() == BODY


def test_a_proxy_of_the_environment_connects_but_is_not_asked_for_what_is_inside(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("https_proxy", f"http://{server.host}")
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with (
        Fetcher(fast_limits(server, trusted_hosts=[])) as fetcher,
        pytest.raises(Failure, match="is no public address"),
    ):
        fetcher.download("https://10.0.0.7/file", tmp_path / "file")
    assert server.asked == []


def test_no_credentials_are_sent(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("default login somebody password secret\n")
    monkeypatch.setenv("NETRC", str(netrc))
    sent: list[requests.PreparedRequest] = []
    real = connections._Adapter.send

    def send(self: Any, request: requests.PreparedRequest, *args: Any, **options: Any) -> requests.Response:
        sent.append(request)
        return real(self, request, *args, **options)

    monkeypatch.setattr(connections._Adapter, "send", send)
    with Fetcher(fast_limits(server)) as fetcher:
        assert fetcher.download(f"http://{server.host}/file", tmp_path / "file")
    assert [request.headers.get("Authorization") for request in sent] == [None]


def test_nothing_is_left_running_or_open(server: Server, tmp_path: Path) -> None:
    before = threading.active_count()
    with Fetcher(fast_limits(server)) as fetcher:
        for i in range(3):
            assert fetcher.download(f"http://{server.host}/file", tmp_path / str(i))
        opened = fetcher._sockets
    assert len(opened) == 1  # one connection for all files of a host
    assert opened[0].fileno() == -1
    assert threading.active_count() <= before + 1  # the server's own thread for the connection
