"""Extraction of untrusted pages: hostile ones end in time and take nobody with them, on an idle and a loaded machine."""

import gzip
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from curation.extraction import Extracted, Extractor, decode_page, why_too_large
from curation.settings import ExtractionSettings

LIMITS = ExtractionSettings()
ROOT = Path(__file__).resolve().parent.parent
PROSE = "The little boat lay upside down on the sand, and under it the two children sat out the rain. "


def page(inside: str = "", head: str = "") -> str:
    """Returns an article of four paragraphs with something between the second and the third."""
    first, last = (
        "".join(f"<p>{n}. {PROSE * 3}</p>" for n in numbers) for numbers in (("One", "Two"), ("Three", "Four"))
    )
    return f"<html lang=en><head><title>The Boat</title>{head}</head><body><article>{first}{inside}{last}</article></body></html>"


GOOD = page()
ENTITIES = "".join(f'<!ENTITY e{n} "{f"&e{n - 1};" * 10}">' for n in range(1, 10))
LAUGHS = f'<?xml version="1.0"?><!DOCTYPE html [<!ENTITY e0 "ha">{ENTITIES}]>'
SLOW = page("<p>" + "<i>word</i> " * 20_000 + "</p>")  # the parser's tree is walked once for each of them
HOSTILE = {
    "100,000 attributes": (
        page("<div " + " ".join(f"a{n}=1" for n in range(100_000)) + ">x</div>"),
        "too_many_attributes",
    ),
    "100,000 divs in one another": (page("<div>" * 100_000), "too_many_tags"),
    "30,000 divs in one another": (page("<div>" * 30_000), "too_deep"),
    "200 divs in one another": (page("<div>" * 200 + "</div>" * 200), ""),
    "billion laughs in XHTML": (LAUGHS + page("<p>&e9;</p>"), ""),
    "billion laughs in SVG": (page(f"<svg>{LAUGHS}<text>&e9;</text></svg>"), ""),
    "a line of 4 MB": (page("<p>" + "a" * 4_000_000 + "</p>"), ""),
    "null bytes": (GOOD.replace("e", "\0e"), ""),
    "a comment without an end": (page("<!-- " + "<p>not seen " * 1000), ""),
    "a tag without an end": (page("<div class='" + "a" * 100_000), ""),
    "half a surrogate": (page("<p>\ud800</p>"), ""),
    "no page": ("", "no_text"),
    "only markup": ("<html><body><img src=x></body></html>", "no_text"),
}


@pytest.fixture(scope="module")
def extractor() -> Iterator[Extractor]:
    with Extractor(LIMITS) as one:
        yield one


def test_a_page_is_its_paragraphs_and_what_it_says_of_itself(extractor: Extractor) -> None:
    head = '<link rel="canonical" href="https://example.org/boat">'
    inside = (
        "<p>A line<br>and a line\nthat goes on.</p><table><tr><td>one<td>two</table>"
        '<p>This page is <a rel="license" href="https://creativecommons.org/licenses/by/4.0/">free</a> to copy, all of it.</p>'
    )
    found = extractor.extract(page(inside, head))
    assert (found.title, found.url, found.language) == ("The Boat", "https://example.org/boat", "en")
    assert found.licenses == ["https://creativecommons.org/licenses/by/4.0/"]
    assert "A line\nand a line that goes on." in found.paragraphs
    assert found.paragraphs[0] == f"One. {PROSE * 3}".strip()


def test_a_licence_of_something_on_the_page_is_not_the_page_s(extractor: Extractor) -> None:
    link = '<p>Photograph by A. Body, <a href="https://creativecommons.org/licenses/by/2.0/">some rights</a></p>'
    assert extractor.extract(page(link)).licenses == []


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_page_ends_in_time_and_its_neighbours_are_kept(extractor: Extractor, name: str) -> None:
    html, reason = HOSTILE[name]
    before = extractor.extract(GOOD)
    started = time.monotonic()
    assert extractor.extract(html).reason == reason
    assert time.monotonic() - started < LIMITS.cpu_seconds + 5
    assert extractor.extract(GOOD) == before
    assert len(before.paragraphs) == 4


def peak_bytes(extractor: Extractor) -> int:
    status = Path(f"/proc/{extractor.pid}/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_the_child_stays_small(extractor: Extractor) -> None:
    assert extractor.extract(page("<p>" + PROSE * 20_000 + "</p>" + "<p>word</p>" * 20_000)).reason == ""
    assert peak_bytes(extractor) < 2_000_000_000


def test_a_loaded_machine_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("curation.extraction.TRIES", 1)  # for time's sake
    limits = LIMITS.model_copy(update={"cpu_seconds": 1})
    with Extractor(limits) as idle:
        expected = [idle.extract(GOOD), Extracted("too_slow"), idle.extract(page("<h2>Two</h2>"))]
    loops = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(2)]
    try:
        with Extractor(limits) as loaded:
            assert [loaded.extract(html) for html in (GOOD, SLOW, page("<h2>Two</h2>"))] == expected
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()


def test_a_page_that_needs_too_much_memory_is_dropped_alone() -> None:
    with Extractor(LIMITS.model_copy(update={"memory_bytes": 300_000_000})) as small:
        assert small.extract(GOOD).reason == ""
        assert small.extract(page("<p>" + "c" * 40_000_000)).reason == "out_of_memory"
        assert small.extract(GOOD).reason == ""


def test_a_killed_child_loses_no_page(extractor: Extractor) -> None:
    expected = extractor.extract(GOOD)
    assert extractor.pid is not None
    os.kill(extractor.pid, signal.SIGKILL)
    assert extractor.extract(GOOD) == expected


def test_the_child_ends_with_its_parent() -> None:
    script = (
        "from curation.extraction import shared_extractor; from curation.settings import ExtractionSettings; import os\n"
        "one = shared_extractor(ExtractionSettings()); one.extract('<p>a</p>'); print(one.pid, flush=True)\n"
        "os.kill(os.getpid(), 9)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, env={**os.environ, "PYTHONPATH": f"{ROOT}:{os.environ.get('PYTHONPATH', '')}"},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    pid, deadline = int(done.stdout), time.monotonic() + 5
    while time.monotonic() < deadline and is_running(pid):
        time.sleep(0.02)
    assert not is_running(pid)


def is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (ProcessLookupError, FileNotFoundError):
        return False


def test_the_order_of_pages_changes_nothing(mirror: Path) -> None:
    paths = sorted((mirror / "web" / "readability_pages").glob("*/source.html.gz"))[::8]
    pages = [decode_page(gzip.decompress(path.read_bytes())) for path in paths]
    with Extractor(LIMITS) as forward, Extractor(LIMITS) as backward:
        found = [forward.extract(html) for html in pages]
        assert found == [backward.extract(html) for html in reversed(pages)][::-1]
    assert sum(bool(one.paragraphs) for one in found) > 8


@given(st.text(alphabet="<>/ abdiv='\"\n!-=", max_size=300))
def test_any_text_is_looked_at(html: str) -> None:
    assert why_too_large(html, LIMITS) == ""


@settings(max_examples=20)
@given(st.integers(0, 400), st.sampled_from(["div", "b", "DIV"]))
def test_depth_is_counted_to_the_tag(n: int, name: str) -> None:
    limits = LIMITS.model_copy(update={"max_depth": 100, "max_tags": 10_000})
    html = "<p>a<br>" * 200 + f"<{name}>" * n + f"</{name}>" * n
    assert why_too_large(html, limits) == ("too_deep" if n > 100 else "")


@pytest.mark.parametrize(
    ("raw", "declared", "text"),
    [
        ("caf\u00e9".encode(), "iso-8859-1", "caf\u00e9"),  # a wrong header
        ("caf\u00e9".encode("latin-1"), "utf-8", "caf\u00e9"),  # another
        ("\u201ccaf\u00e9\u201d".encode("cp1252"), "iso-8859-1", "\u201ccaf\u00e9\u201d"),  # as browsers read it
        ('<meta charset="koi8-r">\u0434\u0430'.encode("koi8-r"), "", '<meta charset="koi8-r">\u0434\u0430'),
        ("\ufeffcaf\u00e9".encode("utf-16-le"), "ascii", "caf\u00e9"),
        (b"plain", "punycode", "plain"),
        (b"caf\xe9", "zip", "caf\u00e9"),
        (b"\xff\xff\x00", "", "\u00ff\u00ff\x00"),
    ],
)
def test_bytes_are_believed_before_declarations(raw: bytes, declared: str, text: str) -> None:
    assert decode_page(raw, declared) == text


@given(st.text(), st.sampled_from(["", "latin-1", "utf-8", "big5", "hex", "\0"]))
def test_utf8_is_never_misread(text: str, declared: str) -> None:
    raw = text.encode("utf-8", "replace")
    if not raw.startswith((b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff")):
        assert decode_page(raw, declared) == raw.decode()
