"""OpenStax modules become readable text, and a bad module costs only itself."""

import gzip
import io
import json
import re
import tarfile
import time
from collections import Counter
from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path

import pytest
from datatrove.data import Document
from hypothesis import given
from hypothesis import strategies as st
from lxml import etree

from curation.documents import is_dropped
from curation.settings import CleaningSettings, SourceSettings
from curation.sources.cnxml import MAX_MODULE_BYTES, BadModule, read_module
from curation.sources.mathml import formula
from curation.sources.openstax import read_openstax

CLEANING = CleaningSettings()
SETTINGS = SourceSettings(
    reader="openstax", about="textbooks", license="CC-BY-NC-SA-4.0", revision="1", genre="textbook"
)
NAMESPACES = 'xmlns="http://cnx.rice.edu/cnxml" xmlns:m="http://www.w3.org/1998/Math/MathML"'
COLLECTION = """<col:collection xmlns:col="http://cnx.rice.edu/collxml" xmlns:md="http://cnx.rice.edu/mdml">
<col:metadata><md:title>Small Physics</md:title><md:slug>small-physics</md:slug>
<md:license url="http://creativecommons.org/licenses/by/4.0/">CC BY</md:license></col:metadata>
<col:content><col:subcollection><md:title>Motion</md:title><col:content>
<col:module document="m2"/><col:module document="m1"/></col:content></col:subcollection></col:content></col:collection>"""


def module(content: str, title: str = "On Carts", after: str = "", attributes: str = "") -> bytes:
    return f"<document {NAMESPACES}{attributes}><title>{title}</title><content>{content}</content>{after}</document>".encode()


def paragraphs(content: str, after: str = "") -> list[str]:
    return read_module(module(content, title="", after=after)).paragraphs


def math(content: str) -> str:
    return formula(etree.fromstring(f'<math xmlns="http://www.w3.org/1998/Math/MathML">{content}</math>'))


def read(paths: Iterable[Path]) -> tuple[list[Document], list[Document]]:
    documents = [d for path in paths for d in read_openstax(path, "general/openstax", SETTINGS, CLEANING)]
    assert len({d.id for d in documents}) == len(documents)
    return [d for d in documents if not is_dropped(d)], [d for d in documents if is_dropped(d)]


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ("<mi>F</mi><mo>=</mo><mi>m</mi><mi>a</mi>", "F = ma"),
        ("<mi>E</mi><mo>=</mo><mi>m</mi><msup><mi>c</mi><mn>2</mn></msup>", "E = mc^2"),
        ("<mfrac><mrow><mi>a</mi><mo>+</mo><mn>1</mn></mrow><mi>b</mi></mfrac>", "(a + 1)/b"),
        ("<mn>3.0</mn><mo>\u00d7</mo><msup><mn>10</mn><mrow><mo>\u2212</mo><mn>8</mn></mrow></msup><mtext>m/s</mtext>", "3.0 \u00d7 10^-8 m/s"),
        ("<msup><mrow><mo>(</mo><mfrac><mn>1</mn><mn>2</mn></mfrac><mo>)</mo></mrow><mi>n</mi></msup>", "(1/2)^n"),
        ("<msub><mi>v</mi><mtext>avg</mtext></msub><mo>=</mo><mo>\u2212</mo><mn>5</mn><mtext>m</mtext>", "v_avg = -5 m"),
        ("<msqrt><mn>2</mn><mi>g</mi><mi>h</mi></msqrt><mo>,</mo><mroot><mi>x</mi><mn>3</mn></mroot>", "\u221a(2gh), x^(1/3)"),
        ("<msup><mn>90</mn><mo>\u2218</mo></msup><mo>&lt;</mo><mover><mi>x</mi><mo>\u00af</mo></mover>", "90\u00b0 < x-bar"),
        ("<mmultiscripts><mi>U</mi><mprescripts/><mn>92</mn><mn>235</mn></mmultiscripts>", "U-235"),
        ("<mtable><mtr><mtd><mi>x</mi></mtd><mtd><mo>=</mo><mn>1</mn></mtd></mtr><mtr><mtd/><mtd><mo>=</mo><mi>y</mi></mtd></mtr></mtable>", "x = 1 = y"),
        ("<msup><mn>18</mn><mtext>th</mtext></msup>", "18th"),
        ("<mi>m</mi><mi>g</mi><mi>sin</mi><mi>\u03b8</mi>", "mg sin \u03b8"),
        ("<mfrac><mi>a</mi><mrow><mn>4</mn><mi>\u03c0</mi><msup><mi>r</mi><mn>2</mn></msup></mrow></mfrac>", "a/(4\u03c0r^2)"),
        ("<mfrac><mn>1</mn></mfrac>", "1"),  # half a fraction
    ],
)  # fmt: skip
def test_a_formula_is_written_in_a_line(content: str, text: str) -> None:
    assert math(content) == text


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ('<para>Look (see <link target-id="f1"/>). <link target-id="f1"/> shows <link target-id="t1"/>.</para>'
         '<figure id="f1"><media/><caption>A cart. (credit: \u201cx\u201d by A (B))</caption></figure><table id="t1"/>',
         ["Look. The figure shows the table.", "A cart."]),
        ("<para>One<footnote>It was two.</footnote> <emphasis>cart</emphasis> at 3 m/s<sup>2</sup>, the 2<sup>nd</sup>,"
         ' saw <link url="http://x.org">a dog</link>.</para>', ["One cart at 3 m/s^2, the 2nd, saw a dog.", "Note: It was two."]),
        ('<section><title>Empty</title><section class="learning-objectives"><title>Goals</title><para>Learn.</para></section></section>'
         "<section><title>Wheels</title><para>They turn.</para></section>", ["Wheels\n\nThey turn."]),
        ('<list list-type="enumerated" number-style="lower-alpha"><item>one<list><item>half</item></list></item><item>two</item></list>',
         ["a. one\n- half\nb. two"]),
        ("<para>Before<equation><m:math><m:mi>x</m:mi><m:mo>=</m:mo><m:mn>1</m:mn></m:math></equation>after.</para>",
         ["Before", "x = 1", "after."]),
        ("<quote><para>Rose<newline/>is red.</para></quote>", ["Rose\nis red."]),
        ('<exercise><problem><para>Which is round?</para><list list-type="enumerated" number-style="upper-alpha">'
         "<item>a box</item><item>a wheel</item></list></problem><solution><para>B</para></solution></exercise>",
         ["Which is round?\nA. a box\nB. a wheel", "Answer: B. a wheel"]),
        ("<exercise><problem><para>Why?</para></problem><solution><para>Because.</para></solution></exercise>", ["Why?", "Answer: Because."]),
        ("<table><tgroup><thead><row><entry>Animal</entry><entry>Home</entry><entry>Food</entry></row></thead><tbody>"
         "<row><entry>owl</entry><entry>tree</entry><entry>mice</entry></row><row><entry>cow</entry><entry>barn</entry><entry>grass</entry></row>"
         "</tbody></tgroup></table>", ["Animal: owl; Home: tree; Food: mice\nAnimal: cow; Home: barn; Food: grass"]),
        ("<para>an end\x85 and a&#x97;dash</para>", ["an end\u2026 and a\u2014dash"]),
    ],
)  # fmt: skip
def test_markup_becomes_prose(content: str, expected: list[str]) -> None:
    assert paragraphs(content) == expected


def test_what_is_not_for_readers_is_left_out_and_told() -> None:
    text = read_module(
        module(
            '<para>Carts roll<cite><note class="reference">Doe 1999</note></cite>.</para><note class="os-teacher"><para>Ask them.</para></note>'
            '<exercise><problem><para><link class="os-embed" url="#exercise/7"/></para></problem></exercise>'
            "<table><tgroup><tbody><row><entry>1</entry><entry>2</entry></row><row><entry>3</entry><entry>4</entry></row></tbody></tgroup></table>",
            after="<glossary><definition><term>cart</term><meaning>a thing that rolls</meaning></definition></glossary>",
        )
    )
    assert text.paragraphs == ["On Carts\n\nCarts roll.", "Key Terms\n\ncart: a thing that rolls"]
    assert text.left_out == {
        "references": ["Doe 1999"], "teacher_matter": ["Ask them."], "exercise_elsewhere": ["#exercise/7"], "table": ["1234"],
    }  # fmt: skip


LAUGHS = "".join(f'<!ENTITY {name} "{f"&{inner};" * 9}">' for inner, name in pairwise("abcdefghij"))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"<document><para>", "bad_xml"),
        (b"", "bad_xml"),
        (module("<section>" * 120 + "</section>" * 120), "too_deep"),
        (module("<section>" * 100_000 + "</section>" * 100_000), "bad_xml"),
        (module("x" * MAX_MODULE_BYTES), "too_big"),
        (f'<!DOCTYPE d [<!ENTITY a "ha">{LAUGHS}]><d><content><para>a &j; b</para></content></d>'.encode(), "bad_xml"),
        (b'<!DOCTYPE d [<!ENTITY x SYSTEM "file:///etc/hostname">]><d><content><para>a &x; b</para></content></d>', ""),
        (b'<!DOCTYPE d SYSTEM "http://127.0.0.1:1/d.dtd"><d><content><para>a b</para></content></d>', ""),
    ],
)
def test_a_hostile_module_is_refused_or_harmless(content: bytes, reason: str) -> None:
    started = time.process_time()
    if reason:
        with pytest.raises(BadModule, match=f"^{reason}$"):
            read_module(content)
    else:
        assert " ".join(read_module(content).paragraphs) == "a b"
    assert time.process_time() - started < 1


LEAVES = st.sampled_from(["para", "title", "item", "entry", "caption", "m:mi", "m:mo"])
TAGS = """
    section list table tgroup tbody row exercise problem solution note figure para equation
    m:math m:mfrac m:msup m:msubsup m:mmultiscripts m:mtable m:mover
"""
BLOCKS = st.recursive(
    st.builds(lambda tag, words: f"<{tag}>{words}</{tag}>", LEAVES, st.text("ab (.x", max_size=9)),
    lambda inner: st.builds(
        lambda tag, parts: f"<{tag}>{''.join(parts)}</{tag}>",
        st.sampled_from(TAGS.split()),
        st.lists(inner, max_size=4),
    ),
    max_leaves=12,
)


@given(BLOCKS)
def test_no_nesting_of_tags_breaks_the_reader(content: str) -> None:
    """Whatever stands in whatever: text comes out without tags, and no paragraph is empty or padded."""
    for text in paragraphs(content):
        assert text and text == text.strip()
        assert not re.search(r"[<>\x00\x01]| {2}", text)


def test_a_folder_an_archive_and_rows_say_the_same(tmp_path: Path) -> None:
    carts = module(f"<para>Carts roll. {'They roll on and on. ' * 20}</para>")
    hills = module("<para>Hills are steep.</para>", title="On Hills")
    for path, content in {
        "book/collections/small.collection.xml": COLLECTION.encode(),
        "book/modules/m1/index.cnxml": carts,
        "book/modules/m2/index.cnxml": hills,
        "book/modules/m9/index.cnxml": hills,
        "book/media/picture.jpg": b"\xff" * 1000,
    }.items():
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_bytes(content)
    with tarfile.open(tmp_path / "osbooks-small.tar.gz", "w:gz") as archive:
        archive.add(tmp_path / "book", "osbooks-small-1234")
    rows = [
        {"id": name, "book": "small-physics", "license": "CC BY 4.0", "path": "osbooks-small/x", "cnxml": content.decode()}
        for name, content in (("m2", hills), ("m1", carts))
    ]  # fmt: skip
    with gzip.open(tmp_path / "small.jsonl.gz", "wb") as file:
        file.write(b"\n".join(json.dumps(row).encode() for row in rows) + b'\n{"id": "m3"}\nnonsense\n')

    folder, stray = read(sorted(tmp_path.glob("book/**/*.*ml")))
    archived, stray_too = read([tmp_path / "osbooks-small.tar.gz"])
    in_rows, bad = read([tmp_path / "small.jsonl.gz"])
    assert {d.id: d.text for d in folder} == {d.id: d.text for d in archived} == {d.id: d.text for d in in_rows}
    assert [d.id for d in archived] == ["general/openstax/small-physics/m2#0", "general/openstax/small-physics/m1#0"]
    assert archived[0].metadata == folder[1].metadata
    assert archived[0].metadata["title"] == "Small Physics: Motion: On Hills"
    assert archived[0].metadata["url"] == "https://openstax.org/details/books/small-physics"
    assert {(d.metadata["license"], d.metadata["subject"]) for d in archived + in_rows} == {("CC-BY-4.0", "science")}
    assert in_rows[0].metadata["url"] == "https://github.com/openstax/osbooks-small"
    assert [d.metadata["dropped"] for d in [*stray, *stray_too, *bad]] == [
        "in_no_book",
        "in_no_book",
        "no_text",
        "bad_json",
    ]


def test_an_archive_that_breaks_off_keeps_what_came(tmp_path: Path) -> None:
    whole = io.BytesIO()
    with tarfile.open(fileobj=whole, mode="w:gz") as archive:
        for name, content in [("r/collections/s.collection.xml", COLLECTION.encode())] + [
            (f"r/modules/m{i}/index.cnxml", module(f"<para>{Counter(range(i * 2000))}</para>")) for i in range(1, 5)
        ]:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    (tmp_path / "osbooks-small.tar.gz").write_bytes(whole.getvalue()[: len(whole.getvalue()) // 2])
    kept, dropped = read([tmp_path / "osbooks-small.tar.gz"])
    assert "general/openstax/small-physics/m1" in {d.metadata["work"] for d in kept}
    assert dropped[-1].metadata["dropped"] == "truncated_file"


@pytest.mark.mirror
def test_the_books_of_the_mirror_read_well(mirror: Path) -> None:
    """Physics has the formulas, psychology the questions: little is left out, and no markup or pointer stays."""
    folder = mirror / "general" / "openstax"
    kept, dropped = read([*sorted(folder.glob("physics/modules/*/index.cnxml")), folder / "psychology.jsonl.gz"])
    assert sum(len(d.text.split()) for d in kept) > 500_000
    assert {d.metadata["license"] for d in kept} == {"CC-BY-4.0", "CC-BY-NC-SA-4.0"}
    reasons = Counter(d.metadata["dropped"] for d in dropped)
    assert not {"bad_xml", "in_no_book", "too_big", "too_deep"} & set(reasons)
    text = "\n".join(d.text for d in kept)
    for leftover in (
        r"</?\w+>",
        r"\(\s*\)",
        r"\[[BOA]L\]",
        r" [,;.](?:\s|$)",
        r"\b(?:see|in) [.;,)]",
        r"credit:",
        "[\x00-\x08\x80-\x9f]",
    ):
        assert len(re.findall(leftover, text)) <= 2, leftover
    assert "K = 1/2 mv^2" in text or "KE = 1/2 mv^2" in text
    assert max(len(d.text.split()) for d in kept) <= CLEANING.max_words
