"""The README.md beside the shards of a mix: what datasets.load_dataset needs, and what a reader wants to know."""

from pathlib import PurePosixPath

from shared.manifest import Manifest


def dataset_card(manifest: Manifest) -> str:
    """Returns the dataset card of a mix as markdown with the header that the datasets library reads."""
    files = {split: [PurePosixPath(entry.path).name for entry in entries] for split, entries in manifest.splits.items()}
    names = {"train": "train", "val": "validation"}
    data_files = "\n".join(
        f"      - split: {names[split]}\n        path: [{', '.join(paths)}]" for split, paths in files.items() if paths
    )
    n_words = {split: sum(entry.n_words for entry in entries) for split, entries in manifest.splits.items()}
    sources = "\n".join(
        f"| {s.name} | {s.license} | {s.revision} | {s.n_docs:,} | {s.n_words:,} | {s.n_words_grade3:,} |"
        for s in manifest.sources
    )
    dropped = "\n".join(
        f"| {source} | {reason} | {count:,} |"
        for source, reasons in manifest.dropped.items()
        for reason, count in reasons.items()
    )
    return f"""---
language: [en]
pretty_name: {manifest.name}
configs:
  - config_name: default
    data_files:
{data_files}
---

# {manifest.name}

{n_words["train"]:,} words for training, of which {manifest.grade_ratio.actual:.2%} are graded as suiting a US third
grader (asked: {100 * manifest.grade_ratio.target:g}%), and {n_words["val"]:,} held-out words that every mix of pool
`{manifest.pool_hash}` shares. Profile `{manifest.profile}`, settings `{manifest.settings_hash}`.

A row is a document. `part` is `grade3` or `all_ages`; `grade` is a US school grade; `p_grade3` the probability that the
text suits grade 3.5 and below; `fk_grade` and `classifier_grade` are what the grade was made of. Every row carries its
`license` and `source`.

| source | licence | revision | documents | words | words grade3 |
|---|---|---|---:|---:|---:|
{sources}

## Left out of the pool

| source | reason | documents |
|---|---|---:|
{dropped or "| - | nothing | 0 |"}
"""
