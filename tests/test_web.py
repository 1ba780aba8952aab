"""The web reader: pages become their text, archives their pages; what is broken, hostile or foreign loses only itself."""

import gzip
import io
import tarfile
import zlib
from collections.abc import Callable
from pathlib import Path

import lz4.frame
import pytest
from datatrove.data import Document
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from warcio.statusandheaders import StatusAndHeaders
from warcio.warcwriter import WARCWriter

from curation.clean import repair, why_rejected
from curation.documents import is_dropped
from curation.settings import CleaningSettings, read_curation_file
from curation.sources.web import page_paragraphs, read_web, spdx_license
from shared.settings import PIPELINES_FILE

SOURCES = read_curation_file(PIPELINES_FILE).sources
CLEANING = CleaningSettings()
PROSE = "The little boat lay upside down on the sand, and under it the two children sat out the rain. "
MENU = "".join(f'<li><a href="/{name}">{name}</a></li>' for name in ("Home", "About us", "Contact", "Shop"))


def page(name: str, lang: str = "en", license: str = "", text: str = PROSE) -> bytes:
    """Returns a page with everything around its text that a page has."""
    stated = f'<p>This work is licensed under <a rel="license" href="{license}">a licence</a>.</p>' if license else ""
    return f"""<!DOCTYPE html><html lang="{lang}"><head><meta charset="utf-8"><title>{name}</title>
<script>if (1 < 2) {{ document.write("<p>Not seen.</p>") }}</script></head><body><nav><ul>{MENU}</ul></nav>
<div>We use cookies to improve this site. Accept all cookies</div><article><h1>{name}</h1>
<p>One of {name}. {text * 3}</p><p>Two of {name}. {text * 3}</p><p>Two of {name}. {text * 3}</p>
<p>Hapo zamani za kale, watu hawakujua chochote na hawakujua kupanda mimea wala kushona nguo.</p>{stated}
<p>Read more »</p></article><footer>All rights reserved. © 2020</footer></body></html>""".encode()


def read(path: Path, source: str = "web/archives") -> tuple[list[Document], list[Document]]:
    """Returns (kept, dropped) documents of a file; no two of them have one doc_id."""
    documents = list(read_web(path, source, SOURCES[source], CLEANING))
    assert len({d.id for d in documents}) == len(documents)
    return [d for d in documents if not is_dropped(d)], [d for d in documents if is_dropped(d)]


def reasons(dropped: list[Document]) -> dict[str, str]:
    return {d.id.partition("#")[2]: d.metadata["dropped"] for d in dropped}


class Archive:
    """A web archive in memory, record by record."""

    def __init__(self, packed: bool = False) -> None:
        self.raw = io.BytesIO()
        self._writer = WARCWriter(self.raw, gzip=packed)

    def add(self, url: str, body: bytes, status: str = "200 OK", kind: str = "response", **headers: str) -> None:
        named = {"content_type": "text/html; charset=utf-8", **headers}
        http = StatusAndHeaders(status, [(k.replace("_", "-"), v) for k, v in named.items()], protocol="HTTP/1.0")
        record = self._writer.create_warc_record(
            url, kind, payload=io.BytesIO(body), http_headers=http if kind == "response" else None,
            warc_headers_dict={"WARC-Date": "2020-01-01T00:00:00Z", "WARC-Record-ID": f"<urn:{self.raw.tell()}>"},
        )  # fmt: skip
        self._writer.write_record(record)

    def save(self, path: Path) -> Path:
        path.write_bytes(self.raw.getvalue())
        return path


def test_a_heap_of_lines_is_its_sentences() -> None:
    story = ["The hen is on the bed.", "Is it under the bed?", "Here it is!"]
    heap = "\n".join(
        ["More languages...", "en", "sw", "Ann Author", story[0], "sw", story[1], "Booklet PDF", story[2], "Hair"]
    )
    kept, left_out = page_paragraphs([heap])
    assert kept == ["More languages...", *story]
    assert left_out["boilerplate"] == ["en", "sw", "Ann Author", "sw", "Booklet PDF", "Hair"]
    assert page_paragraphs(["The wind", "is up.", "The wind is", "down."])[0] == ["is up.", "The wind is", "down."]


def test_a_page_is_its_text_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "site").mkdir()
    path = tmp_path / "site" / "boat.html"
    path.write_bytes(page("The Boat", license="https://creativecommons.org/licenses/by-nc/3.0/us/"))
    (kept,), dropped = read(path, "web/storybooks")
    assert kept.text == f"One of The Boat. {PROSE * 3}\n\nTwo of The Boat. {PROSE * 3}".replace(" \n", "\n").strip()
    assert kept.metadata["title"] == "The Boat"
    assert kept.metadata["license"] == "CC-BY-NC-3.0"
    assert kept.id == "web/storybooks/site#site/boat.000"
    left_out = {d.metadata["dropped"]: d.text for d in dropped}
    assert left_out["foreign"].startswith("Hapo zamani")


def bomb(n_megabytes: int) -> bytes:
    """Returns a gzip stream of so many megabytes of zeros, in milliseconds: one flushed block, again and again."""
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    start = packer.compress(bytes(1_000_000)) + packer.flush(zlib.Z_FULL_FLUSH)
    block = packer.compress(bytes(1_000_000)) + packer.flush(zlib.Z_FULL_FLUSH)
    return start + block * (n_megabytes - 1) + packer.flush()


@pytest.mark.parametrize("pack", [bytes, gzip.compress, lz4.frame.compress], ids=["warc", "gz", "lz4"])
def test_an_archive_keeps_every_good_page_among_hostile_ones(tmp_path: Path, pack: Callable[[bytes], bytes]) -> None:
    archive = Archive()
    hostile = {
        1: ("page_too_large", b"<p>" + bytes(50_000_000), {}),
        2: ("page_too_large", bomb(1000), {"content_encoding": "gzip"}),
        3: ("page_too_large", b"<p>" + b"a" * 10_000_000, {}),
        4: ("too_many_attributes", b"<div " + b"a= " * 100_000 + b">", {}),
        5: ("too_many_tags", b"<div>" * 100_000, {}),
        6: ("unknown_compression", page("Six"), {"content_encoding": "br"}),
        7: (
            "not_english",
            page("Sieben", "de", text="Das kleine Boot lag umgekehrt im Sand, und darunter war Platz. " * 5),
            {},
        ),
        8: ("no_sentences", b"<html><body><ul>" + MENU.encode() + b"</ul></body></html>", {}),
        9: ("no_sentences", b"", {}),
        10: ("no_sentences", b"not gzip at all", {"content_encoding": "gzip"}),
    }
    for number, (_, body, headers) in hostile.items():
        archive.add(f"http://good{number}.org/", page(f"Page {number}"))
        archive.add(f"http://bad{number}.org/", body, **headers)
    archive.add("http://moved.org/", page("Moved"), status="301 Moved")
    archive.add("http://image.org/", page("Image"), content_type="image/png")
    archive.add("http://asked.org/", b"GET / HTTP/1.0\r\n\r\n", kind="request")
    archive.add("http://good.org/", page("Last").decode().encode("utf-16"), content_type="text/html; charset=latin-1")
    suffix = {bytes: "", gzip.compress: ".gz", lz4.frame.compress: ".lz4"}[pack]
    path = tmp_path / f"a.warc{suffix}"
    path.write_bytes(pack(archive.raw.getvalue()))
    kept, dropped = read(path)
    assert [d.metadata["work"] for d in kept] == [f"web/archives/good{n}.org" for n in hostile] + [
        "web/archives/good.org"
    ]
    assert [d.metadata["url"] for d in kept][:1] == ["http://good1.org/"]
    bad = {d.metadata["url"]: d.metadata["dropped"] for d in dropped if "bad" in str(d.metadata["url"])}
    assert bad == {f"http://bad{n}.org/": reason for n, (reason, _, _) in hostile.items()}
    assert not any(site in str(d.metadata["url"]) for d in kept + dropped for site in ("moved", "image", "asked"))


def small_archive() -> bytes:
    archive = Archive()
    for number in range(4):
        archive.add(f"http://site{number}.org/", page(f"Page {number}"))
    return archive.raw.getvalue()


SMALL = small_archive()
WHOLE = [f"web/archives/site{n}.org" for n in range(4)]


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.floats(0, 1), st.sampled_from([bytes, gzip.compress, lz4.frame.compress]))
def test_a_clipped_archive_keeps_what_came_before(tmp_path: Path, where: float, pack: Callable[[bytes], bytes]) -> None:
    whole = pack(SMALL)
    cut_at = int(where * len(whole))
    suffix = {bytes: "", gzip.compress: ".gz", lz4.frame.compress: ".lz4"}[pack]
    path = tmp_path / f"a.warc{suffix}"
    path.write_bytes(whole[:cut_at])
    kept, dropped = read(path)
    works = [d.metadata["work"] for d in kept]
    assert works == WHOLE[: len(works)]
    ends = [d for d in dropped if d.metadata["dropped"] in ("truncated_archive", "bad_archive")]
    assert len(ends) <= 1
    if pack is bytes:
        assert len(works) >= int(where * 4 - 0.1)
    elif 30 < cut_at < len(whole) - 30:
        assert len(ends) == 1


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.tuples(st.integers(0, len(SMALL) - 1), st.binary(min_size=1, max_size=8)), max_size=6), st.booleans()
)
def test_a_damaged_archive_is_read_as_far_as_it_goes(
    tmp_path: Path, damage: list[tuple[int, bytes]], is_packed: bool
) -> None:
    raw = bytearray(gzip.compress(SMALL, mtime=0) if is_packed else SMALL)
    for at, new in damage:
        raw[at % len(raw) : at % len(raw) + len(new)] = new
    path = tmp_path / ("a.warc.gz" if is_packed else "a.warc")
    path.write_bytes(bytes(raw))
    read(path)


def test_texts_of_a_wet_archive_are_cleaned_too(tmp_path: Path) -> None:
    archive = Archive()
    text = f"Home\nAbout us\nThe Boat\n{PROSE}\n{PROSE * 2}\nRead more\n"
    archive.add("http://a.org/boat", text.encode(), kind="conversion")
    archive.add("http://b.org/", b"Home\nAbout us\n", kind="conversion")
    kept, dropped = read(archive.save(tmp_path / "a.warc.wet"))
    assert [d.text for d in kept] == [f"{PROSE.strip()}\n\n{(PROSE * 2).strip()}"]
    assert kept[0].metadata["url"] == "http://a.org/boat"
    assert reasons(dropped)["a.warc.wet:2.page"] == "no_sentences"


def test_an_archive_of_html_files_is_read_in_its_order(tmp_path: Path) -> None:
    path = tmp_path / "site.tar.gz"
    with tarfile.open(path, "w:gz") as tar:
        for name, body in (("site/b/index.html", page("Bee")), ("site/a.css", b"p {}"), ("site/a.html", page("Ay"))):
            member = tarfile.TarInfo(name)
            member.size = len(body)
            tar.addfile(member, io.BytesIO(body))
    kept, _ = read(path)
    assert [d.metadata["title"] for d in kept] == ["Bee", "Ay"]
    assert {d.metadata["work"] for d in kept} == {"web/archives/site"}
    path.write_bytes(path.read_bytes()[:-30])
    kept, dropped = read(path)
    assert "truncated_archive" in reasons(dropped).values()


@given(st.lists(st.text(st.characters(exclude_characters="\n"), max_size=80), max_size=12))
def test_no_paragraph_is_lost_or_made_up(paragraphs: list[str]) -> None:
    kept, left_out = page_paragraphs(paragraphs)
    assert len(kept) + sum(map(len, left_out.values())) == len(paragraphs)
    again, more = page_paragraphs(kept)
    assert again == kept or more  # what is left may be cut again, but never grows
    assert len(again) <= len(kept)


@pytest.mark.parametrize(
    ("addresses", "license"),
    [
        (["https://creativecommons.org/licenses/by-sa/4.0/deed.de"], "CC-BY-SA-4.0"),
        (
            ["http://creativecommons.org/licenses/by/2.5/", "//creativecommons.org/licenses/by/2.5/legalcode"],
            "CC-BY-2.5",
        ),
        (["https://creativecommons.org/publicdomain/zero/1.0/"], "CC0-1.0"),
        (["https://creativecommons.org/publicdomain/mark/1.0/"], "CC-PDM-1.0"),
        (["https://creativecommons.org/licenses/by/4.0", "https://creativecommons.org/licenses/by-nc/4.0"], None),
        (["https://example.com/terms"], None),
        ([], None),
    ],
)
def test_a_licence_has_its_spdx_name(addresses: list[str], license: str | None) -> None:
    assert spdx_license(addresses) == license


def test_story_pages_lose_their_navigation_and_keep_their_licence(mirror: Path) -> None:
    paths = sorted(mirror.glob(SOURCES["web/storybooks"].mirror))[::3]
    kept = [d for path in paths for d in read(path, "web/storybooks")[0]]
    text = "\n".join(d.text for d in kept)
    for left_out in (
        "Back to stories",
        "Written by",
        "Illustrated by",
        "Creative Commons",
        "Download PDF",
        "Level 3",
        "Read more",
    ):
        assert left_out not in text, left_out
    assert {d.metadata["license"] for d in kept} <= {"CC-BY-3.0", "CC-BY-4.0", "CC-BY-NC-3.0", "CC-BY-NC-4.0"}
    good = [d for d in kept if not why_rejected(repair(d.text), CLEANING)]
    assert len({d.id.partition("#")[2].rpartition(".")[0] for d in good}) > 0.9 * len(paths)


def test_html_books_lose_their_header_and_licence(mirror: Path) -> None:
    path = mirror / "web" / "gutenberg_html" / "43558-h.html"
    kept, _ = read(path, "web/gutenberg_html")
    text = "\n".join(d.text for d in kept)
    assert "Gutenberg" not in text
    assert "sat dozing before a fire-place" in text
    assert {d.metadata["work"] for d in kept} == {"web/gutenberg_html/43558"}
    assert 24_000 < len(text.split()) < 26_000


def test_every_archive_of_the_mirror_is_read(mirror: Path) -> None:
    found = {path.name: read(path) for path in sorted(mirror.glob(SOURCES["web/archives"].mirror))}
    assert "truncated_archive" in reasons(found["chatnoir-resiliparse__clipped.warc.gz"][1]).values()
    assert not reasons(found["warcio__example-bad-non-chunked.warc.gz"][1])  # one gzip member, which is no damage
    same = [found[f"chatnoir-resiliparse__warcfile.warc{suffix}"][0] for suffix in ("", ".gz", ".lz4")]
    assert [d.text for d in same[0]] == [d.text for d in same[1]] == [d.text for d in same[2]]
    assert any("Example Domain" in str(d.metadata["title"]) for d in found["warcio__example.arc.gz"][0])
    assert len(found["pywb__iana.warc.gz"][0]) > 10
