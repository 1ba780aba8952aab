"""What dedup and decontamination find: planted cases, known ones of real texts, and how fast.

python benchmarks/dedup.py --mirror DIR [--pairs FILE] [--workers 2]

Reads the books and picture-book stories of a mirror. Into them 100 cases of each kind are planted, from a fixed seed:
whole documents with other white space, case and quotes; documents with 5% of their words changed; a paragraph of 30
words or more inside another document, which is in nobody's books; evaluation items inside such a document, verbatim
and with 5% of their words changed. Known cases are looked for with the same verdicts. --pairs writes 50 removed
documents beside what they repeat, to be read.
"""

import argparse
import csv
import gzip
import html
import os
import random
import re
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import orjson
import pyarrow.parquet as pq
from datatrove.data import Document

from curation.clean import repair, why_rejected
from curation.decontaminate import NgramIndex
from curation.dedup import find_duplicates
from curation.documents import cut, is_dropped, make_document
from curation.label_sets import read_clear
from curation.settings import CurationFile, SourceSettings, read_curation_file
from curation.sketch import sketch_documents
from curation.sources.gutenberg import gutenberg_books, read_gutenberg
from curation.sources.picture_books import read_picture_books
from shared.console import table
from shared.settings import PIPELINES_FILE

SOURCES = ("african_storybook", "pratham", "readers", "school_books", "story_books", "novels")
N_CASES = 100
EDITED_WORDS = 0.05
SEED = 5
N_PAIRS = 50
# Books that a mirror holds twice, in both folders as the same file of Project Gutenberg: read again, from the second.
HELD_TWICE = {"Stevenson-Treasure-Island.txt.gz": "120-0.txt.gz", "Baum-The-Wonderful-Wizard-of-Oz.txt.gz": "55.txt.gz"}

Corpus = dict[str, list[Document]]  # by source, in order of preference


def read_source(name: str, mirror: Path, content: CurationFile) -> list[Document]:
    """Returns the documents of one of SOURCES as the first stage leaves them."""
    source = f"textbooks/{name}"
    settings = content.sources[source]
    if settings.reader == "gutenberg":
        paths = [mirror / settings.mirror / book.file for book in gutenberg_books() if book.source == source]
        found = (d for p in paths for d in read_gutenberg(p, source, settings, content.cleaning))
    else:
        paths = sorted(mirror.glob(settings.mirror))
        found = (d for p in paths for d in read_picture_books(p, source, settings, content.cleaning))
    documents = []
    for document in found:
        document.text = repair(document.text)
        if not is_dropped(document) and not why_rejected(document.text, content.cleaning):
            documents.append(document)
    return documents


def edited(text: str, dice: random.Random, strangers: Sequence[str]) -> str:
    """Returns a text with EDITED_WORDS of its words replaced, left out or followed by another, at random."""
    pieces = re.split(r"(\s+)", text)
    for i in range(0, len(pieces), 2):
        if dice.random() < EDITED_WORDS:
            stranger = dice.choice(strangers)
            pieces[i] = dice.choice([stranger, "", f"{pieces[i]} {stranger}"])
    return "".join(pieces)


def dressed_up(text: str, dice: random.Random) -> str:
    """Returns a text with other white space, case and quotes."""
    text = dice.choice([text.upper(), text.lower(), text])
    text = dice.choice([text, text.replace('"', "\u201d").replace("'", "\u2019")])
    return re.sub(r"[ \n]+", lambda _: dice.choice([" ", "  ", "\n", "\t"]), text)


class Planted:
    """Documents of a source of their own, the last in order of preference, and what should become of each."""

    def __init__(self, corpus: Corpus, unique: list[Document]) -> None:
        """Takes hosts and originals from documents that no other repeats; hosts leave the corpus."""
        self.dice = random.Random(SEED)
        self.hosts = self.dice.sample([d for d in unique if len(d.text.split()) > 200], 2 * N_CASES)
        taken = {d.id for d in self.hosts}
        for name in corpus:
            corpus[name] = [d for d in corpus[name] if d.id not in taken]
        self.originals = [d for d in unique if d.id not in taken]
        self.strangers = [word for d in self.dice.sample(self.originals, 50) for word in d.text.split()]
        self.documents: list[Document] = []
        self.paragraphs: dict[str, int] = {}  # of the documents that hold a paragraph of another: its number
        self.paragraph_words: dict[str, int] = {}
        for original in self.dice.sample(self.originals, N_CASES):
            self._add("exact", dressed_up(original.text, self.dice))
        for original in self.dice.sample(self.originals, N_CASES):
            self._add("edited", edited(original.text, self.dice, self.strangers))
        long = [p for d in self.dice.sample(self.originals, 10 * N_CASES) for p in d.text.split("\n\n")]
        long = [p for p in long if len(p.split()) >= 30]
        for paragraph, host in zip(self.dice.sample(long, N_CASES), self.hosts[:N_CASES], strict=True):
            paragraphs = host.text.split("\n\n")
            number = self.dice.randrange(len(paragraphs) + 1)
            paragraphs.insert(number, paragraph)
            document = self._add("paragraph", "\n\n".join(paragraphs))
            self.paragraphs[document.id] = number
            self.paragraph_words[document.id] = len(paragraph.split())

    def _add(self, kind: str, text: str) -> Document:
        settings = SourceSettings(reader="starter", about="", license="unknown", revision="1")
        work = f"{kind}{len(self.documents)}"
        self.documents.append(make_document("planted", settings, work, "0", text))
        return self.documents[-1]

    def contaminated(self, items: Sequence[str]) -> Iterator[tuple[str, str]]:
        """Yields (item verbatim, item edited) inside documents that hold none."""
        for item, host in zip(items, self.hosts[N_CASES:], strict=False):
            words = host.text.split(" ")
            place = self.dice.randrange(len(words))
            verbatim, changed = (
                " ".join([*words[:place], text, *words[place:]])
                for text in (item, edited(item, self.dice, self.strangers))
            )
            yield verbatim, changed


def evaluation_texts(mirror: Path, content: CurationFile) -> dict[str, list[str]]:
    """Returns texts of evaluations: CLEAR excerpts, quiz questions as they are asked, BLiMP sentences."""
    clear = content.label_sets["labels/clear"]
    found = {
        "clear": [t.text for p in sorted(mirror.glob(clear.mirror)) for t in read_clear(p, "clear", clear, 200)],
        "blimp": [row["sentence_good"] for row in _json_rows(mirror.glob("eval/blimp/**/*.jsonl.gz"))],
    }
    for name in ("arc_easy", "arc_challenge", "openbook_qa", "piqa", "boolq"):
        queries = [str(row["query"]) for row in _json_rows(mirror.glob(f"quiz/{name}*"))]
        found[name] = [re.split(r"\nChoices:|\nAnswer:", q.removeprefix("Question: "))[0] for q in queries]
    return found


def _json_rows(paths: Iterable[Path]) -> Iterator[Any]:
    for path in sorted(paths):
        data = path.read_bytes()
        yield from map(orjson.loads, (gzip.decompress(data) if path.suffix == ".gz" else data).splitlines())


def fairytale_stories(mirror: Path, content: CurationFile) -> list[Document]:
    settings = SourceSettings(reader="quizzes", about="", license="Apache-2.0", revision="1")
    documents = []
    for path in sorted(mirror.glob("quiz/fairytaleqa/section-stories/*.csv")):
        with path.open(encoding="utf-8-sig", newline="") as file:
            paragraphs = [repair(row["text"]) for row in csv.DictReader(file)]
        for i, part in enumerate(cut(paragraphs, content.cleaning, whole=True)):
            documents.append(make_document("fairytaleqa", settings, path.stem, str(i), "\n\n".join(part)))
    return documents


def books_held_twice(mirror: Path, content: CurationFile) -> list[Document]:
    source = "textbooks/story_books"
    documents = []
    with tempfile.TemporaryDirectory() as folder:
        for second, first in HELD_TWICE.items():
            path = Path(folder) / first
            path.symlink_to(mirror.resolve() / "children" / "novels" / second)
            for document in read_gutenberg(path, source, content.sources[source], content.cleaning):
                if not is_dropped(document):
                    document.id = document.id.replace(source, "held_twice")
                    document.metadata |= {"source": "held_twice", "work": f"held_twice/{first}"}
                    document.text = repair(document.text)
                    documents.append(document)
    return documents


def web_pages(mirror: Path, folder: str, license: str, content: CurationFile) -> list[Document]:
    """Returns the pages of a folder with their tags crudely stripped, navigation and all."""
    settings = SourceSettings(reader="web", about="", license=license, revision="1")
    documents = []
    for path in sorted((mirror / "web" / folder).rglob("*.htm*")):
        page = re.sub(r"(?is)<(script|style|head)\b.*?</\1>|<!--.*?-->", " ", path.read_text("utf-8", "replace"))
        page = re.sub(r'(?s)<span class="l\d">.*?</span>', " ", page)  # of storybooks: the same words for the switch
        blocks = re.split(r"(?i)</?(?:p|div|h\d|li|tr|blockquote)\b[^>]*>", page)
        texts = (" ".join(html.unescape(re.sub(r"<[^>]*>", " ", block)).split()) for block in blocks)
        work = f"{path.parent.name}/{path.stem}"
        for i, part in enumerate(cut([t for t in texts if t], content.cleaning, whole=True)):
            documents.append(make_document(folder, settings, work, str(i), repair("\n\n".join(part))))
    return documents


def shingles(text: str, n: int = 13) -> set[int]:
    """Returns the word n-grams of a text, made without the code under test."""
    words = re.findall(r"[a-z0-9]+", text.lower().replace("'", "").replace("-", ""))
    return {hash(tuple(words[i : i + n])) for i in range(len(words) - n + 1)}


class Verdicts:
    """The verdicts on a corpus, by document."""

    def __init__(self, corpus: Corpus, content: CurationFile, workers: int) -> None:
        self.documents = {d.id: d for documents in corpus.values() for d in documents}
        self.n_bytes = sum(len(d.text.encode()) for d in self.documents.values())
        with tempfile.TemporaryDirectory() as folder:
            files: dict[str, list[Path]] = {}
            started = time.process_time()
            for name, documents in corpus.items():
                files[name] = [Path(folder) / f"{name.replace('/', '_')}.parquet"]
                pq.write_table(sketch_documents(documents, name == "storybooks_html"), files[name][0])
            self.sketch_seconds = time.process_time() - started
            started = time.perf_counter()
            rows = find_duplicates(files, content.dedup, Path(folder) / "scratch", workers).to_pylist()
            self.find_seconds = time.perf_counter() - started
        self.by_doc = {row["doc_id"]: row for row in rows}

    def is_dropped(self, doc_id: str) -> bool:
        return doc_id in self.by_doc and self.by_doc[doc_id]["reason"] is not None

    def words_gone(self, document: Document) -> float:
        """Returns the share of a document's words that are dropped or cut out."""
        if self.is_dropped(document.id):
            return 1.0
        gone = self.by_doc.get(document.id, {}).get("paragraphs", [])
        paragraphs = document.text.split("\n\n")
        return sum(len(paragraphs[i].split()) for i in gone) / max(1, len(document.text.split()))


def planted_rows(
    planted: Planted, verdicts: Verdicts, texts: dict[str, list[str]], index: NgramIndex
) -> Iterator[tuple[str, int, int]]:
    """Yields (kind, cases, how many were found)."""
    for kind in ("exact", "edited"):
        ids = [d.id for d in planted.documents if d.id.startswith(f"planted/{kind}")]
        yield f"document, {kind}", len(ids), sum(map(verdicts.is_dropped, ids))
    found = [
        doc_id
        for doc_id, number in planted.paragraphs.items()
        if verdicts.is_dropped(doc_id) or number in verdicts.by_doc.get(doc_id, {}).get("paragraphs", ())
    ]
    yield "paragraph of 30 words or more", len(planted.paragraphs), len(found)
    for name in texts:
        items = [text for text in texts[name] if len(text.split()) >= 6]
        cases = list(planted.contaminated(planted.dice.sample(items, N_CASES)))
        for kind, documents in zip(("verbatim", "edited"), zip(*cases, strict=True), strict=True):
            yield f"item of {name}, {kind}", len(documents), sum(name in index.find(text) for text in documents)


def known_rows(
    verdicts: Verdicts, books: set[int], planted: Planted, clear: list[str], index: NgramIndex
) -> Iterator[tuple[str, int, int]]:
    """Yields (source, works that stand in the books, how many of them are gone)."""
    for source in ("fairytaleqa", "held_twice", "gutenberg_html"):
        yield f"works of {source} in the books", *known_works(verdicts, books, source)
    stories = {g for d in verdicts.documents.values() if "african_storybook" in d.id for g in shingles(d.text)}
    yield "storybooks_html in African Storybook", *known_works(verdicts, stories, "storybooks_html")
    sites = sorted(
        {d.metadata["work"].split("/")[1] for d in verdicts.documents.values() if "storybooks_html/" in d.id}
    )
    for i, site in enumerate(sites[1:], 1):
        earlier = {
            g for d in verdicts.documents.values() if any(f"/{s}/" in d.id for s in sites[:i]) for g in shingles(d.text)
        }
        yield f"{site} in the sites before it", *known_works(verdicts, earlier, "storybooks_html", f"/{site}/")
    excerpts = {gram for text in clear for gram in shingles(text)}
    originals = (d for d in verdicts.documents.values() if d.id.startswith("textbooks/"))
    there = [d for d in originals if len(shingles(d.text) & excerpts) >= 10]
    yield "documents with a CLEAR excerpt", len(there), sum("clear" in index.find(d.text) for d in there)


def speed_rows(verdicts: Verdicts, planted: Planted, index: NgramIndex) -> Iterator[tuple[str, float]]:
    """Yields (what, figure)."""
    yield "documents", float(len(verdicts.documents))
    yield "MB of text", verdicts.n_bytes / 1e6
    yield "sketching, MB a CPU second", verdicts.n_bytes / 1e6 / verdicts.sketch_seconds
    yield "find_duplicates, seconds", verdicts.find_seconds
    texts = [d.text for d in planted.originals[:5000]]
    started = time.process_time()
    index.find_all(texts)
    yield "decontaminating, MB a CPU second", sum(map(len, texts)) / 1e6 / (time.process_time() - started)


def known_works(verdicts: Verdicts, books: set[int], source: str, part: str = "") -> tuple[int, int]:
    """Returns of the works of a source that stand in the books (half of their 13-grams do): how many, how many gone."""
    works = defaultdict(list)
    for document in verdicts.documents.values():
        if document.metadata["source"] == source and part in document.id:
            works[document.metadata["work"]].append(document)
    n_known = n_found = 0
    for documents in works.values():
        known = [shingles(d.text) for d in documents]
        if sum(len(s & books) for s in known) >= 0.5 * max(1, sum(map(len, known))):
            n_known += 1
            n_words = [len(d.text.split()) for d in documents]
            gone = sum(n * verdicts.words_gone(d) for n, d in zip(n_words, documents, strict=True))
            n_found += gone >= 0.5 * sum(n_words)
    return n_known, n_found


def write_pairs(verdicts: Verdicts, path: Path) -> None:
    """Writes N_PAIRS removed documents, drawn at random, each with what it repeats."""
    removed = [r for r in verdicts.by_doc.values() if r["reason"] and r["source"].startswith("textbooks/")]
    with path.open("w", encoding="utf-8") as file:
        for row in random.Random(SEED).sample(removed, N_PAIRS):
            gone, kept = (verdicts.documents[row[key]] for key in ("doc_id", "kept_doc_id"))
            ours, theirs = shingles(gone.text, 5), shingles(kept.text, 5)
            share = len(ours & theirs) / max(1, len(ours))
            print(f"{'=' * 100}\n{row['reason']}: {gone.id} repeats {kept.id}, share {share:.2f}", file=file)
            for sign, document in (("-", gone), ("+", kept)):
                print(f"{sign} {document.metadata['title']}\n{document.text[:1200]}\n", file=file)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mirror", type=Path, default=os.environ.get("GRADED_MIRROR"), required=False)
    parser.add_argument("--pairs", type=Path)
    parser.add_argument("--workers", type=int, default=2)
    args = parser.parse_args()
    if args.mirror is None:
        parser.error("it needs --mirror DIR")
    content = read_curation_file(PIPELINES_FILE)
    with ProcessPoolExecutor(args.workers) as pool:
        read = partial(read_source, mirror=args.mirror, content=content)
        corpus: Corpus = dict(zip(SOURCES, pool.map(read, SOURCES), strict=True))
    corpus = {f"textbooks/{name}": documents for name, documents in corpus.items()}
    texts = evaluation_texts(args.mirror, content)
    started = time.process_time()
    index = NgramIndex.build(texts)
    indexed = [(name, *vars(facts).values()) for name, facts in index.report.items()]
    print(table(indexed, ("evaluation", *vars(index.report["clear"]))))
    print(f"indexed in {time.process_time() - started:.1f} CPU seconds\n")
    first = Verdicts(corpus, content, args.workers)
    repeated = {row["kept_doc_id"] for row in first.by_doc.values()} | set(first.by_doc)
    alone = [d for d in first.documents.values() if d.id not in repeated]
    quoting = Counter(name for found in index.find_all([d.text for d in alone]) for name in found)
    print(f"of {len(alone):,} books' documents so many quote an evaluation: {dict(quoting.most_common())}\n")
    alone = [d for d, found in zip(alone, index.find_all([d.text for d in alone]), strict=True) if not found]
    planted = Planted(corpus, alone)
    books = {gram for documents in corpus.values() for d in documents for gram in shingles(d.text)}
    corpus |= {
        "held_twice": books_held_twice(args.mirror, content),
        "fairytaleqa": fairytale_stories(args.mirror, content),
        "storybooks_html": web_pages(args.mirror, "storybooks_html", "CC-BY-4.0", content),
        "gutenberg_html": web_pages(args.mirror, "gutenberg_html", "CC-PDM-1.0", content),
        "planted": planted.documents,
    }
    verdicts = Verdicts(corpus, content, args.workers)
    print(table(list(planted_rows(planted, verdicts, texts, index)), ("planted", "cases", "found")), "\n")
    print(table(list(known_rows(verdicts, books, planted, texts["clear"], index)), ("known", "there", "found")), "\n")
    print(table(list(speed_rows(verdicts, planted, index)), ("speed", "figure")), "\n")
    reasons = Counter((r["source"], r["reason"] or "cut") for r in verdicts.by_doc.values())
    print(table([(*key, n) for key, n in sorted(reasons.items())], ("source", "verdict", "documents")))
    if args.pairs:
        write_pairs(verdicts, args.pairs)


if __name__ == "__main__":
    main()
