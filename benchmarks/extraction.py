"""How well and how fast text is taken out of web pages: ours beside trafilatura's own, on pages that others labelled.

python benchmarks/extraction.py --mirror DIR

1. Article Extraction Benchmark: 4-grams of words against the articles' bodies. Each page counts for one, so a page's
   matching, surplus and missing 4-grams are shares of their sum; precision and recall are of the sums over pages.
2. trafilatura's evaluation data: strings that an extraction must keep, and strings that it must not.
3. mozilla/readability: 4-grams against the text of the expected page.
4. The crude reading before extraction: pages saved, and good pages lost. A page is good if a document of it is kept.

"Ours" is the child process with its paragraphs cleaned, "ours, raw" the same before menus, notices and what is not
English go. Each set is read whole, and its English pages alone (by the language of what trafilatura takes out of them).
Speeds are pages a CPU second of this process and its child together.
"""

import argparse
import gzip
import json
import os
import re
import resource
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import compress
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from curation.clean import language_of, repair, why_rejected
from curation.documents import cut
from curation.extraction import Extractor, decode_page, why_too_large
from curation.settings import CleaningSettings
from curation.sources.web import crude_blocks, page_paragraphs, why_hopeless
from shared.console import table

CLEANING = CleaningSettings()
_WORD = re.compile(r"\w+")


@dataclass
class Page:
    """A page and what somebody says must, and must not, come out of it."""

    raw: bytes
    expected: str = ""
    kept: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()


def article_pages(mirror: Path) -> Iterator[Page]:
    folder = mirror / "web" / "article_extraction_benchmark"
    for name, truth in sorted(json.loads((folder / "ground-truth.json").read_bytes()).items()):
        if (path := folder / "html" / f"{name}.html.gz").is_file():
            yield Page(gzip.decompress(path.read_bytes()), expected=truth["articleBody"])


def readability_pages(mirror: Path) -> Iterator[Page]:
    for path in sorted((mirror / "web" / "readability_pages").glob("*/source.html.gz")):
        expected = decode_page(gzip.decompress((path.parent / "expected.html.gz").read_bytes()))
        yield Page(gzip.decompress(path.read_bytes()), expected=re.sub(r"<[^>]*>", " ", expected))


def evaluation_pages(mirror: Path) -> Iterator[Page]:
    folder = mirror / "web" / "trafilatura"
    for _, facts in sorted(json.loads((folder / "evaldata.json").read_bytes()).items()):
        for place in ("eval", "cache"):
            if (path := folder / place / f"{facts['file']}.gz").is_file():
                strings = {key: tuple(" ".join(s.split()) for s in facts[key]) for key in ("with", "without")}
                yield Page(gzip.decompress(path.read_bytes()), kept=strings["with"], left_out=strings["without"])
                break


def all_pages(mirror: Path) -> Iterator[Page]:
    """Yields every page of the mirror's web folders, without what is said of them."""
    for pattern in ("web/storybooks_html/*/*.html", "web/*/*/?[!x]*.html.gz"):
        for path in sorted(mirror.glob(pattern)):
            raw = path.read_bytes()
            yield Page(gzip.decompress(raw) if path.suffix == ".gz" else raw)


def by_ngrams(pages: Iterable[Page], texts: Iterable[str], n: int = 4) -> tuple[float, float, float]:
    """Returns (precision, recall, F1) of n-grams of words, each page counting for one."""
    matching = surplus = missing = 0.0
    for page, text in zip(pages, texts, strict=True):
        truth, found = _ngrams(page.expected, n), _ngrams(text, n)
        counts = (truth & found).total(), (found - truth).total(), (truth - found).total()
        if total := sum(counts):
            matching, surplus, missing = (
                a + b / total for a, b in zip((matching, surplus, missing), counts, strict=True)
            )
    return _scores(matching, surplus, missing)


def _ngrams(text: str, n: int) -> Counter[tuple[str, ...]]:
    words = _WORD.findall(text)
    n = min(n, len(words))
    return Counter(tuple(words[i : i + n]) for i in range(len(words) - n + 1)) if n else Counter()


def by_strings(pages: Iterable[Page], texts: Iterable[str]) -> tuple[float, float, float]:
    """Returns (precision, recall, F1) of strings: those to keep that are there, those to leave out that are not."""
    matching = surplus = missing = 0
    for page, text in zip(pages, texts, strict=True):
        flat = " ".join(text.split())
        n_kept = sum(string in flat for string in page.kept)
        matching += n_kept
        missing += len(page.kept) - n_kept
        surplus += sum(string in flat for string in page.left_out)
    return _scores(matching, surplus, missing)


def _scores(matching: float, surplus: float, missing: float) -> tuple[float, float, float]:
    precision, recall = matching / (matching + surplus), matching / (matching + missing)
    return precision, recall, 2 * precision * recall / (precision + recall)


def cpu_seconds(extractor: Extractor) -> float:
    """Returns the CPU time of this process and of the extractor's child, in seconds (Linux)."""
    mine = resource.getrusage(resource.RUSAGE_SELF)
    fields = Path(f"/proc/{extractor.pid}/stat").read_text().rpartition(")")[2].split()
    return mine.ru_utime + mine.ru_stime + (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--mirror", type=Path, default=os.environ.get("GRADED_MIRROR"), required=not os.environ.get("GRADED_MIRROR")
    )
    args = parser.parse_args()

    import logging

    import trafilatura

    logging.disable(logging.CRITICAL)
    with Extractor(CLEANING.extraction) as extractor:
        extractor.extract("<html><body><p>warm up</p></body></html>")

        def raw(page: Page) -> str:
            return "\n\n".join(extractor.extract(decode_page(page.raw)).paragraphs)

        def ours(page: Page) -> str:
            return "\n\n".join(page_paragraphs(extractor.extract(decode_page(page.raw)).paragraphs)[0])

        def plain(page: Page) -> str:
            return trafilatura.extract(page.raw) or ""

        def fast(page: Page) -> str:
            return trafilatura.extract(page.raw, fast=True, include_comments=False) or ""

        readers: dict[str, Callable[[Page], str]] = {
            "ours": ours, "ours, raw": raw, "trafilatura": plain, "trafilatura, fast, no comments": fast,
        }  # fmt: skip
        rows: list[list[object]] = []
        for name, pages, score in (
            ("article extraction benchmark", list(article_pages(args.mirror)), by_ngrams),
            ("trafilatura's evaluation data", list(evaluation_pages(args.mirror)), by_strings),
            ("readability", list(readability_pages(args.mirror)), by_ngrams),
        ):
            english = [language_of(plain(page)) == "en" for page in pages]
            for reader, read in readers.items():
                started = cpu_seconds(extractor)
                texts = [read(page) for page in pages]
                speed = len(pages) / (cpu_seconds(extractor) - started)
                of_all = [f"{s:.4f}" for s in score(pages, texts)]
                of_english = [f"{s:.4f}" for s in score(compress(pages, english), compress(texts, english))]
                counts = [f"{len(pages)} ({sum(english)})", reader]
                rows.append([name, *counts, *of_all, *of_english, f"{speed:.1f}"])
        scores = ["precision", "recall", "F1", "English: precision", "recall", "F1"]
        print(table(rows, ["pages of", "n (English)", "extracted by", *scores, "pages/s a core"]))
        print("\n" + table(crude_reading(args.mirror, extractor), ["the crude reading", ""]))


def crude_reading(mirror: Path, extractor: Extractor) -> list[list[object]]:
    """Returns rows: what the steps before extraction save, and what they lose of the pages whose text is kept."""
    n_pages = n_saved = n_good = n_lost = 0
    before = saved = extraction = 0.0
    for page in all_pages(mirror):
        n_pages += 1
        started = cpu_seconds(extractor)
        html = decode_page(page.raw)
        is_hopeless = bool(why_too_large(html, CLEANING.extraction) or why_hopeless(crude_blocks(html), "", CLEANING))
        middle = cpu_seconds(extractor)
        found = extractor.extract(html).paragraphs
        ended = cpu_seconds(extractor)
        before, extraction = before + middle - started, extraction + ended - middle
        paragraphs, _ = page_paragraphs(found)
        texts = [repair("\n\n".join(piece)) for piece in cut(paragraphs, CLEANING, whole=True)] if paragraphs else []
        is_good = language_of("\n".join(found)) == "en" and not all(why_rejected(text, CLEANING) for text in texts)
        n_saved += is_hopeless
        saved += (ended - middle) if is_hopeless else 0.0
        n_good += is_good
        n_lost += is_good and is_hopeless
    return [
        ["pages", n_pages],
        ["dropped before extraction", f"{n_saved} ({n_saved / n_pages:.0%})"],
        ["CPU seconds of the steps before", round(before, 2)],
        ["CPU seconds of extraction, of all pages", round(extraction, 2)],
        ["CPU seconds of extraction saved", f"{saved:.2f} ({saved / extraction:.0%})"],
        ["good English pages", n_good],
        ["good English pages dropped", f"{n_lost} ({n_lost / n_good:.1%})"],
    ]


if __name__ == "__main__":
    main()
