"""Bytes from addresses nobody vouches for: public https only, in bounds of bytes and seconds, resumed and retried.

In: an address and FetchSettings. Out: a whole file, or a range of one; whatever else happens is a Failure that names
the address, the reason and the repair. Each hop of a redirect is checked as the first is (connections.py). pull.py
says what is fetched.
"""

import os
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TypeVar
from urllib.parse import urljoin, urlsplit

import requests
from urllib3.exceptions import HTTPError

from curation.connections import Refusal, open_session
from curation.settings import FetchSettings
from shared.console import Failure
from shared.files import write_text

CHUNK_BYTES = 1 << 16
MISSING = (404, 410)
TRANSIENT = (408, 425, 429, 500, 502, 503, 504)  # RFC 9110 section 15, RFC 6585, RFC 8470: try again later

KEPT = "what came is kept: run the same command again; or read a local copy with --mirror DIR (GRADED_MIRROR)"
COPY = "give another address in pipelines.yaml, or read a local copy with --mirror DIR (GRADED_MIRROR)"

Result = TypeVar("Result")


class _Again(Exception):
    """An answer that another try may better."""

    def __init__(self, why: str, pause_seconds: float = 0.0) -> None:
        super().__init__(why)
        self.pause_seconds = pause_seconds


class Fetcher:
    """Fetches the files of one source, all of them within `deadline_seconds` of its making. Use it with `with`."""

    def __init__(self, limits: FetchSettings) -> None:
        self.limits = limits
        self._deadline = time.monotonic() + limits.deadline_seconds
        self._last_byte = time.monotonic()
        self._is_cut = False
        self._sockets: list[socket.socket] = []
        self._session = open_session(limits.trusted_hosts, self._sockets)

    def __enter__(self) -> "Fetcher":
        return self

    def __exit__(self, *error: object) -> None:
        self._session.close()
        for opened in self._sockets:
            opened.close()

    def download(self, url: str, path: Path) -> bool:
        """Downloads a file, going on where an earlier try stopped. Returns whether the server has it.

        Raises Failure when it may not be had, is too large, or did not come in time.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        part, etag_file = path.with_name(path.name + ".part"), path.with_name(path.name + ".etag")
        if not self._persist(url, partial(self._continue, url, part, etag_file)):
            return False
        part.replace(path)
        etag_file.unlink(missing_ok=True)
        return True

    def _continue(self, url: str, part: Path, etag_file: Path) -> bool:
        """Adds to `part` what a file has more, until it is whole. Returns whether the server has it."""
        etag = etag_file.read_text(encoding="utf-8") if etag_file.exists() else ""
        have = part.stat().st_size if etag and part.exists() else 0
        with self._get(url, {"Range": f"bytes={have}-", "If-Range": etag} if have else {}) as answer:
            if answer.status_code in MISSING:
                return False
            is_rest = answer.status_code == 206
            if answer.status_code == 416 or (is_rest and not (have and _continues(answer, have, etag))):
                part.unlink(missing_ok=True)
                raise _Again("its server sends other bytes than those that were asked for")
            total = _total_bytes(answer)
            if total is not None and total > self.limits.max_bytes:
                raise self.too_large(url, f"it has {total:,} bytes")
            if not is_rest:
                have = 0
                part.unlink(missing_ok=True)  # never bytes of one answer beside the name of another
                write_text(etag_file, _etag(answer))
            with part.open("ab") as file:
                for chunk in self._chunks(answer):
                    have += len(chunk)
                    if have > self.limits.max_bytes:
                        part.unlink()
                        raise self.too_large(url, f"over {self.limits.max_bytes:,} bytes came")
                    file.write(chunk)
                file.flush()
                os.fsync(file.fileno())
        if total is not None and have != total:
            raise _Again(f"{have:,} of {total:,} bytes came")
        return True

    def measure(self, url: str) -> tuple[int, str] | None:
        """Returns how many bytes a file has and its ETag, or None where the server lacks it.

        Raises Failure where the server does not send parts of files.
        """

        def attempt() -> tuple[int, str] | None:
            with self._get(url, {"Range": "bytes=0-0"}) as answer:
                if answer.status_code in MISSING:
                    return None
                total = _total_bytes(answer)
                if answer.status_code != 206 or total is None:
                    raise _failure(url, "its server does not send parts of files", COPY)
                return total, _etag(answer)

        return self._persist(url, attempt)

    def read(self, url: str, start: int, n_bytes: int, etag: str = "") -> bytes:
        """Returns so many bytes of a file, from `start` on. Raises Failure, also where its ETag is no longer `etag`."""
        came = bytearray()

        def attempt() -> bytes:
            with self._get(url, {"Range": f"bytes={start + len(came)}-{start + n_bytes - 1}"}) as answer:
                if answer.status_code != 206 or not _continues(answer, start + len(came), etag):
                    raise _failure(url, "it changed while it was read", "run the same command again")
                for chunk in self._chunks(answer):
                    came.extend(chunk[: n_bytes - len(came)])
            if len(came) < n_bytes:
                raise _Again(f"{len(came):,} of {n_bytes:,} bytes came")
            return bytes(came)

        return self._persist(url, attempt)

    def _persist(self, url: str, attempt: Callable[[], Result]) -> Result:
        """Returns what an attempt returns, tried again while bytes come, patience lasts and the deadline is ahead."""
        self._last_byte = time.monotonic()
        pause, why = self.limits.first_pause_seconds, ""
        while self._left() > 0:
            before = self._last_byte
            waits = 0.0
            try:
                with self._watched():
                    return attempt()
            except (Refusal, ValueError) as error:  # ValueError: what requests and urllib say of no address at all
                hint = "a server of your own is named as host:port in fetching.trusted_hosts of pipelines.yaml; else "
                raise _failure(url, _shown(str(error)), hint + COPY) from None
            except _Again as error:
                why, waits = str(error), error.pause_seconds
            except (requests.RequestException, HTTPError) as error:
                why = _plainly(error)
            if self._last_byte > before:
                pause = self.limits.first_pause_seconds
            time.sleep(max(0.0, min(max(pause, waits), self._left())))
            pause *= 2
        if time.monotonic() >= self._deadline:
            why = f"not whole within {self.limits.deadline_seconds:g} s" + (f" ({why})" if why else "")
        raise _failure(url, why or "no byte came", KEPT)

    def _left(self) -> float:
        """Returns the seconds until patience or the deadline ends, whichever is first."""
        return min(self._last_byte + self.limits.patience_seconds, self._deadline) - time.monotonic()

    @contextmanager
    def _watched(self) -> Iterator[None]:
        """Cuts the connections when time is up: a server may drip even its headers, below every other time limit."""
        done = threading.Event()
        self._is_cut = False

        def watch() -> None:
            while not done.wait(max(0.0, self._left())):
                if self._left() <= 0:
                    self._is_cut = True
                    for opened in list(self._sockets):
                        with suppress(OSError):
                            opened.shutdown(socket.SHUT_RDWR)
                    done.wait(0.1)  # a connection made just now is cut in the next round

        thread = threading.Thread(target=watch, daemon=True)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join()

    def _get(self, url: str, headers: Mapping[str, str]) -> requests.Response:
        """Returns the answer at the end of all redirects: 200 or 206 not encoded, 416, or one of MISSING."""
        hops = [url]
        while len(hops) <= self.limits.max_redirects + 1:
            hop = hops[-1]
            leads = f"it leads to {_shown(hop)}: " if hop != url else ""
            if urlsplit(hop).scheme != "https" and urlsplit(hop).netloc not in self.limits.trusted_hosts:
                raise Refusal(f"{leads}no https address")
            timeout = max(0.01, min(self.limits.answer_seconds, self._left()))
            try:
                answer = self._session.get(hop, headers=headers, stream=True, allow_redirects=False, timeout=timeout)
            except Refusal as refusal:
                raise Refusal(f"{leads}{refusal}") from None
            if not answer.is_redirect:
                return _accepted(url, answer)
            answer.close()
            hops.append(urljoin(hop, answer.headers["Location"]))
            if hops[-1] in hops[:-1]:
                raise _failure(url, f"it leads in a circle, to {_shown(hops[-1])} again", COPY)
        raise _failure(url, f"it leads on more than {self.limits.max_redirects} times", COPY)

    def _chunks(self, answer: requests.Response) -> Iterator[bytes]:
        """Yields the bytes of an answer as they come, not decoded."""
        while chunk := answer.raw.read1(CHUNK_BYTES, decode_content=False):
            self._last_byte = time.monotonic()
            yield chunk
            if self._left() <= 0:
                break
        if self._is_cut or self._left() <= 0:  # an answer of no stated length only looks whole
            raise _Again("it was cut off")

    def too_large(self, url: str, why: str) -> Failure:
        hint = f"fetching.max_bytes in pipelines.yaml allows {self.limits.max_bytes:,}: raise it if this is meant"
        return _failure(url, why, hint)


def _accepted(url: str, answer: requests.Response) -> requests.Response:
    """Returns an answer that can be used. Raises _Again or Failure for any other."""
    status, encoding = answer.status_code, answer.headers.get("Content-Encoding", "identity")
    if status in (416, *MISSING) or (status in (200, 206) and encoding == "identity"):
        return answer
    answer.close()
    if status in TRANSIENT:
        waits = answer.headers.get("Retry-After", "")
        raise _Again(f"its server says {status}", float(waits) if waits.isdecimal() and len(waits) < 6 else 0.0)
    if status in (200, 206):
        why = f"its server sends it in {encoding[:40]!a} encoding, though asked to send it as it is"
        raise _failure(url, why, COPY)
    raise _failure(url, f"its server says {status}", COPY)


def _continues(answer: requests.Response, start: int, etag: str) -> bool:
    """Is a partial answer the part that was asked for, of the file that was asked for?"""
    is_same = not etag or _etag(answer) == etag
    return is_same and answer.headers.get("Content-Range", "").startswith(f"bytes {start}-")


def _etag(answer: requests.Response) -> str:
    """Returns what names this version of a file for If-Range, which takes no weak ETag; '' where nothing does."""
    etag = answer.headers.get("ETag", "")
    return answer.headers.get("Last-Modified", "") if not etag or etag.startswith("W/") else etag


def _total_bytes(answer: requests.Response) -> int | None:
    """Returns how many bytes the whole file has, where the server says."""
    if answer.status_code == 206:
        total = answer.headers.get("Content-Range", "").rpartition("/")[2]
    else:
        total = answer.headers.get("Content-Length", "")
    return int(total) if total.isdecimal() and len(total) < 20 else None


def _shown(text: str) -> str:
    """Returns what a stranger's server said, as it may stand in a message: of one line, short, and no control signs."""
    return ascii(text)[1:-1][:200]


def _failure(url: str, why: str, hint: str) -> Failure:
    return Failure(f"could not download {url}: {why}", hint)


def _plainly(error: Exception) -> str:
    """Returns the innermost message of a chain of network errors."""
    text = str(error)
    for sign, plain in (
        ("NameResolution", "no such host, or no network"),
        ("Connection refused", "connection refused"),
        ("timed out", "no answer in time"),
        ("Network is unreachable", "network unreachable"),
    ):
        if sign in text:
            return plain
    return _shown(text)
