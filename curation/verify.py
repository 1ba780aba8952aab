"""python -m curation.verify data_manifests/mix70.json: recomputes what a manifest says from the shards themselves.

Hashes, names and sizes of shards, counts of documents and words, the ratio, duplicates, works on both sides of the
split, licences, parts, the hash of the settings, and the Flesch-Kincaid grade of every document. What was read and
dropped before the mix cannot be seen in it. Exit 1 names what is wrong.
"""

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import Field

from shared.console import EXIT_FAILURE, human, run_command
from shared.files import sha256_file, short_hash
from shared.manifest import Manifest, ShardEntry, read_manifest, shard_paths
from shared.settings import Settings, parse_command

EXAMPLE = "python -m curation.verify data_manifests/mix70.json"
RATIO_TOLERANCE = 1e-9  # between the manifest's figure and the recomputed one: they are the same division


class VerifyFlags(Settings):
    """The command line of curation.verify."""

    manifest: Path = Field(description="a manifest that curation.run wrote", json_schema_extra={"positional": True})
    as_json: bool = Field(False, description="print JSON", json_schema_extra={"flag": "json"})


@dataclass
class _Seen:
    """What the documents read so far add up to."""

    n_unread: int = 0  # shards that cannot be trusted
    doc_ids: Counter[str] = field(default_factory=Counter)
    texts: dict[str, str] = field(default_factory=dict)  # hash of the text -> doc_id
    works: dict[str, set[str]] = field(default_factory=lambda: {"train": set(), "val": set()})
    n_words: Counter[str] = field(default_factory=Counter)
    n_words_grade3: Counter[str] = field(default_factory=Counter)
    by_source: dict[str, Counter[str]] = field(default_factory=dict)
    licenses: dict[str, set[str]] = field(default_factory=dict)


def main() -> int:
    flags = parse_command(VerifyFlags, "Recomputes a mix's hashes, counts, ratio and grades from its shards.", EXAMPLE)

    manifest = read_manifest(flags.manifest)
    paths = shard_paths(flags.manifest, manifest)
    seen = _Seen()
    problems = [
        f"{path}: {problem}"
        for split, entries in manifest.splits.items()
        for entry, path in zip(entries, paths[split], strict=True)
        for problem in _check_shard(split, entry, path, manifest, seen)
    ]
    problems += _check_settings(manifest, flags.manifest)
    if seen.n_unread == 0:
        problems += _check_mix(manifest, seen)
    ratio = seen.n_words_grade3["train"] / max(1, seen.n_words["train"])
    facts = {
        "documents": sum(seen.doc_ids.values()),
        "words": dict(seen.n_words),
        "grade_ratio": ratio,
        "problems": problems,
    }
    if flags.as_json:
        print(json.dumps(facts))
    elif problems:
        print("\n".join(problems))
    else:
        print(
            f"{flags.manifest}: {facts['documents']:,} documents, {human(seen.n_words['train'])} train and"
            f" {human(seen.n_words['val'])} held-out words, {ratio:.4f} third grade: all as the manifest says"
        )
    return EXIT_FAILURE if problems else 0


def _check_shard(split: str, entry: ShardEntry, path: Path, manifest: Manifest, seen: _Seen) -> Iterator[str]:
    """Yields what is wrong with one shard, and adds its documents to what was seen."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from shared.schema import SCHEMA

    if path.stat().st_size != entry.bytes:
        yield f"{path.stat().st_size} bytes, not {entry.bytes}"
    if not path.stem.endswith(f"-{entry.sha256[:8]}"):
        yield f"its name does not end in {entry.sha256[:8]}, the beginning of its SHA-256"
    if sha256_file(path) != entry.sha256:
        yield f"its SHA-256 is not {entry.sha256[:16]}..."
        seen.n_unread += 1
        return  # nothing else in it can be trusted
    try:
        file = pq.ParquetFile(path, page_checksum_verification=True)
    except pa.ArrowException as error:
        yield f"not parquet: {error}"
        return
    if not file.schema_arrow.equals(SCHEMA):
        yield "its columns are not those of shared/schema.py"
        return
    n_docs = n_words = n_words_grade3 = 0
    for batch in file.iter_batches(batch_size=1024):
        for document in batch.to_pylist():
            n = len(document["text"].split())
            n_docs, n_words = n_docs + 1, n_words + n
            n_words_grade3 += n if document["part"] == "grade3" else 0
            yield from _check_document(document, n, split, manifest, seen)
    for name, found in (("n_docs", n_docs), ("n_words", n_words), ("n_words_grade3", n_words_grade3)):
        if found != getattr(entry, name):
            yield f"{name} is {found}, not {getattr(entry, name)}"
    seen.n_words[split] += n_words
    seen.n_words_grade3[split] += n_words_grade3


def _check_document(
    document: dict[str, object], n_words: int, split: str, manifest: Manifest, seen: _Seen
) -> Iterator[str]:
    from hashlib import blake2b

    from curation.readability import flesch_kincaid_grade
    from curation.suitability import why_unsuitable

    doc_id, text, part = str(document["doc_id"]), str(document["text"]), document["part"]
    seen.doc_ids[f"{split}/{doc_id}"] += 1
    other = seen.texts.setdefault(blake2b(" ".join(text.lower().split()).encode(), digest_size=16).hexdigest(), doc_id)
    if other != doc_id:
        yield f"{doc_id} has the text of {other}"
    seen.works[split].add(str(document["work"]))
    if document["n_words"] != n_words or document["n_chars"] != len(text):
        yield f"{doc_id}: n_words or n_chars is not that of its text"
    is_graded = document["grade"] is not None
    if is_graded and document["fk_grade"] != flesch_kincaid_grade(text):
        yield f"{doc_id}: fk_grade is not that of its text"
    limit = manifest.settings.get("grading", {}).get("min_probability", 0.5)
    p_grade3 = document["p_grade3"]
    is_easy = isinstance(p_grade3, float) and p_grade3 >= limit
    if (part == "grade3") != (is_easy and not why_unsuitable(text)):
        yield f"{doc_id}: part {part} does not follow from p_grade3 {p_grade3} and its text"
    if not document["license"]:
        yield f"{doc_id} has no license"
    if split == "train":
        source = str(document["source"])
        seen.licenses.setdefault(source, set()).add(str(document["license"]))
        mine = seen.by_source.setdefault(source, Counter())
        mine.update(n_docs=1, n_words=n_words, n_words_grade3=n_words if part == "grade3" else 0)


def _check_settings(manifest: Manifest, path: Path) -> Iterator[str]:
    """Yields where the manifest contradicts itself."""
    if manifest.name != path.stem:
        yield f"its name is {manifest.name}, its file's {path.stem}"
    if manifest.settings_hash != short_hash(manifest.settings):
        yield "settings_hash is not that of the settings"
    if manifest.profile != manifest.settings.get("profile"):
        yield "profile is not that of the settings"
    if manifest.grade_ratio.target != manifest.settings.get("mix", {}).get("grade_ratio"):
        yield "grade_ratio.target is not that of the settings"


def _check_mix(manifest: Manifest, seen: _Seen) -> Iterator[str]:
    """Yields what is wrong between the shards, and between them and the manifest."""
    max_repeats = manifest.settings.get("mix", {}).get("max_repeats", 1)
    for doc_id, count in seen.doc_ids.items():
        allowed = max_repeats if doc_id.startswith("train/") else 1
        if count > allowed:
            yield f"{doc_id} stands {count} times, more than {allowed}"
    for work in sorted(seen.works["train"] & seen.works["val"])[:10]:
        yield f"work {work} is on both sides of the split"
    ratio = seen.n_words_grade3["train"] / max(1, seen.n_words["train"])
    if abs(ratio - manifest.grade_ratio.actual) > RATIO_TOLERANCE:
        yield f"grade_ratio.actual is {manifest.grade_ratio.actual}, the shards have {ratio}"
    for source in manifest.sources:
        licenses = " AND ".join(sorted(seen.licenses.get(source.name, set())))
        if source.license != licenses:
            yield f"source {source.name}: license is {source.license}, its documents have {licenses}"
        found = seen.by_source.pop(source.name, Counter())
        for name in ("n_docs", "n_words", "n_words_grade3"):
            if found[name] != getattr(source, name):
                yield f"source {source.name}: {name} is {found[name]} in the shards, not {getattr(source, name)}"
    for name in seen.by_source:
        yield f"source {name} is in the shards, not in the manifest"


if __name__ == "__main__":
    run_command(main)
