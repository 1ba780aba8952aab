"""The README.md beside the shards of a mix: what datasets.load_dataset needs, and what a reader wants to know."""

from pathlib import PurePosixPath

from curation.licenses import is_open, needs_attribution
from curation.reasons import STAGES, by_stage
from shared.manifest import Manifest

ATTRIBUTION = "attribution.csv"  # beside the card


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
    n_train = max(1, n_words["train"])
    licenses = "\n".join(
        f"| {name} | {n:,} | {n / n_train:.1%} | {_yes(is_open(name))} | {_yes(needs_attribution(name))} |"
        for name, n in manifest.licenses.items()
    )
    dropped = "\n".join(
        f"| {source} | {n_in:,} | {' | '.join(f'{n:,}' for n in by_stage(reasons).values())} |"
        f" {n_in - sum(reasons.values()):,} |"
        for source, n_in in manifest.documents_in.items()
        if n_in
        for reasons in [manifest.dropped.get(source, {})]
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

## Licences

| licence | words | share | open | must be named |
|---|---:|---:|---|---|
{licenses}

`{ATTRIBUTION}` lists every work whose licence asks that it be named, with its title, address and licence. Open means
that anybody may use, change and sell it; `--licenses open` makes a mix of such works only.

## Left out of the pool

Documents of each source, how many of them each stage dropped, and those that stayed. Reading: no readable English
prose, or no part of the work's own text; repeats: of other documents; quotes: of a test set or a held-out work.
`python -m curation.composition MANIFEST --reject-reasons` tells the reasons.

| source | documents in | {" | ".join(STAGES)} | kept |
|---|---:|{"---:|" * len(STAGES)}---:|
{dropped}
"""


def _yes(is_so: bool) -> str:
    return "yes" if is_so else "no"
