"""How fast curation is, beside textstat and stock datatrove blocks, all in one run on one core.

python benchmarks/curation.py [--mirror DIR] [--megabytes 20]

Prints MB/s of each stage of ours on the same documents, of textstat's Flesch-Kincaid, and of a chain of stock parts:
textstat, datatrove's Gopher quality filter and MinHash signatures, and fastText's one-at-a-time predict. MinHash is
measured where spaCy is installed, which datatrove splits English words with. Megabytes are UTF-8 bytes of text. Without
a mirror the starter corpus is repeated to size, which flatters everything that remembers.
"""

import argparse
import gzip
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from datatrove.data import Document

from curation.clean import repair, why_rejected
from curation.decontaminate import NgramIndex
from curation.documents import is_dropped
from curation.grade_classifier import classifier_line
from curation.grading import Scorer
from curation.labels import ensure_classifier
from curation.normalise import genre_of
from curation.pii import mask
from curation.readability import flesch_kincaid_grade, read_syllables
from curation.settings import profile_settings, read_curation_file
from curation.sketch import sketch_documents
from curation.sources import READERS
from curation.sources.gutenberg import gutenberg_books
from curation.stages import pull_sources
from curation.subjects import subject_of
from shared.console import table
from shared.settings import PIPELINES_FILE


def megabytes(texts: Iterable[str]) -> float:
    return sum(len(text.encode()) for text in texts) / 1e6


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    """Returns CPU seconds and the result; CPU time, since other work on the machine is not ours."""
    started = time.process_time()
    result = work()
    return time.process_time() - started, result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mirror", type=Path, default=os.environ.get("GRADED_MIRROR"))
    parser.add_argument("--megabytes", type=float, default=20)
    args = parser.parse_args()
    content = read_curation_file(PIPELINES_FILE)
    settings = profile_settings(content, "starter")
    files, _ = pull_sources(settings, None, Path())

    source = "textbooks/story_books" if args.mirror else "starter/passages"
    kind = content.sources[source]
    if args.mirror:
        paths = [args.mirror / kind.mirror / b.file for b in gutenberg_books() if b.source == source]
    else:
        paths = [file.path for file in files[source]] * 60
    chosen, size = [], 0.0
    for path in paths:
        raw = path.read_bytes()
        chosen.append(path)
        size += len(gzip.decompress(raw) if path.suffix == ".gz" else raw) / 1e6
        if size >= args.megabytes:
            break

    rows: list[tuple[str, float]] = []

    def measure(name: str, work: Callable[[], Any], n_megabytes: float) -> Any:
        seconds, result = timed(work)
        rows.append((name, n_megabytes / seconds))
        return result

    with tempfile.TemporaryDirectory() as folder:
        classifier_folder = ensure_classifier(settings, files, Path(folder), workers=1)
        scorer = Scorer(classifier_folder, settings.grading)
        scorer.grade_texts(["warm up"], ["none"])
        flesch_kincaid_grade("warm up")

        documents = measure(
            "ours: read and cut",
            lambda: [
                d for p in chosen for d in READERS[kind.reader](p, source, kind, settings.cleaning) if not is_dropped(d)
            ],
            size,
        )
        texts = [document.text for document in documents]
        works = [document.metadata["work"] for document in documents]
        total = megabytes(texts)
        repaired = measure("ours: repair", lambda: [repair(text) for text in texts], total)
        measure("ours: mask", lambda: [mask(text) for text in repaired], total)
        measure("ours: rules", lambda: [why_rejected(text, settings.cleaning) for text in repaired], total)
        drafts = [Document(text=t, id=d.id, metadata=d.metadata) for t, d in zip(repaired, documents, strict=True)]
        measure("ours: sketch", lambda: sketch_documents(drafts), total)
        index = NgramIndex.build({"itself": repaired[:200]})
        measure("ours: decontaminate", lambda: index.find_all(repaired), total)
        ours = measure("ours: Flesch-Kincaid", lambda: [flesch_kincaid_grade(text) for text in repaired], total)
        measure("ours: genre", lambda: [genre_of(text) for text in repaired], total)
        measure("ours: classifier, in batches", lambda: scorer.classifier.predict(repaired, works), total)
        measure("ours: grading, whole", lambda: scorer.grade_texts(repaired, works), total)
        measure("ours: subject", lambda: [subject_of(text) for text in repaired], total)

        from datatrove.pipeline.dedup import MinhashDedupSignature
        from datatrove.pipeline.filters import GopherQualityFilter

        nltk_data = Path(args.mirror or "") / "reference" / "nltk_data"
        os.environ["NLTK_DATA"] = str(nltk_data)
        import textstat
        from textstat.backend.counts import _count_syllables

        if not nltk_data.is_dir():  # its own algorithm on our copy of its dictionary: not everybody can download that
            phones = {word: [["X1"] * count] for word, count in read_syllables().items()}
            _count_syllables.get_cmudict = lambda lang: phones
        textstat.flesch_kincaid_grade("warm up")
        theirs = measure(
            "textstat: Flesch-Kincaid", lambda: [textstat.flesch_kincaid_grade(t) for t in repaired], total
        )
        assert theirs == ours, "the grades must be the same to the last bit"
        line_of = partial(classifier_line, rare_zipf=settings.classifier.rare_zipf)
        model = __import__("fasttext").load_model(str(classifier_folder / "all.bin"))
        measure(
            "fastText: predict, one at a time",
            lambda: [model.f.predict(line_of(t) + "\n", 12, 0.0, "strict") for t in repaired],
            total,
        )
        part = [Document(text=t, id=str(i)) for i, t in enumerate(repaired)][: max(1, len(repaired) // 8)]
        part_size = megabytes(d.text for d in part)
        for name, step in (
            ("datatrove: Gopher quality filter", GopherQualityFilter),
            ("datatrove: MinHash signatures", lambda: MinhashDedupSignature(output_folder=f"{folder}/minhash")),
        ):
            try:
                measure(name, partial(lambda block: list(block.run(iter(part), 0, 1) or ()), step()), part_size)
            except ImportError as error:
                print(f"{name}: not measured: {str(error).splitlines()[0]}", file=sys.stderr)

    speeds = dict(rows)
    print(table([[name, round(speed, 2)] for name, speed in rows], ["stage", "MB/s a core"]))
    ratio = speeds["ours: Flesch-Kincaid"] / speeds["textstat: Flesch-Kincaid"]
    print(f"\nFlesch-Kincaid: {ratio:.1f}x textstat, the same grades on {len(texts):,} documents ({total:.1f} MB)")
    reading, scoring = (
        1 / sum(1 / speeds[f"ours: {name}"] for name in names)
        for names in (
            ("read and cut", "repair", "mask", "rules", "sketch"),
            ("decontaminate", "genre", "grading, whole", "subject"),
        )
    )
    stock = [speed for name, speed in rows if not name.startswith("ours")]
    chain = f"{1 / sum(1 / speed for speed in stock):.2f}" if len(stock) == 4 else "not measured without spaCy"
    print(f"stage read: {reading:.2f} MB/s a core, stage score: {scoring:.2f}; the stock chain: {chain}")


if __name__ == "__main__":
    main()
