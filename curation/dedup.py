"""Duplicates across all sources: the sketches of all documents in, verdicts on those that say nothing new out.

A shuffle step of group-bys, which any number of machines may share by ranges of the key: documents by text_hash, by
each of their bands, each of their fingerprints, each of their short paragraphs. Each finds what occurs more than once.
One pass over that alone, in order of preference, decides; it holds 4 bytes for each passage that occurs again. So a
document is dropped only because of one that is kept, and no order of files, tasks or threads can change a verdict.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from curation.database import open_duckdb
from curation.licenses import rank
from curation.settings import DedupSettings
from curation.sketch import NO_PARAGRAPH
from shared.console import UserError
from shared.schema import SCHEMA

MIN_REPEATED = 3  # fingerprints of a document or a long paragraph: fewer may be a saying
MIN_REPEATED_RUN = 8  # of short paragraphs in a row, such as talk, about 40 words: fewer may be a quotation
MIN_PAGES = 0.1  # of a site, with the same short paragraph, besides settings.navigation_pages: on a large one people
# say the same words too
MAX_COMPARED = 64  # kept documents of one band that a document is compared with: bounds the work on templates

VERDICT_SCHEMA = pa.schema(
    [
        SCHEMA.field("doc_id"),
        SCHEMA.field("source"),
        pa.field("reason", pa.string()),  # why it is dropped; null where only paragraphs are to go
        pa.field("kept_doc_id", pa.string()),  # the document it repeats, or repeats the most of; null of navigation
        pa.field("paragraphs", pa.list_(pa.uint16()), nullable=False),  # to remove, see remove_paragraphs
    ]
)


def remove_paragraphs(text: str, numbers: Iterable[int]) -> str:
    """Returns a text without the paragraphs of these numbers."""
    unwanted = set(numbers)
    return "\n\n".join(paragraph for i, paragraph in enumerate(text.split("\n\n")) if i not in unwanted)


def find_duplicates(
    sketch_files: Mapping[str, Sequence[Path]], settings: DedupSettings, scratch: Path, threads: int
) -> pa.Table:
    """Returns verdicts (VERDICT_SCHEMA), ordered by doc_id, on the documents to be dropped or cut.

    sketch_files: the files of each source, the sources in order of preference. Of two works the one with the freer
    licence is preferred, then the cleaner (by its share of known words, in per cent), then the one of the earlier
    source, then by name; within a work the earlier document. Reasons:
    - duplicate: the same words as another document;
    - near_duplicate: its MinHash signature agrees with another's in min_agreement of its places or more;
    - repeated_passages: min_repeated_passages or more of its fingerprints stand in documents that are preferred;
    - null: it stays, without the paragraphs of whose fingerprints min_repeated_paragraph or more stand elsewhere, and
      without the short ones that stand in navigation_pages or more pages of its work, a site.
    """
    paths = [str(path) for source in sketch_files.values() for path in source]
    if not paths:
        return VERDICT_SCHEMA.empty_table()
    with open_duckdb(scratch, threads) as database:
        _rank_documents(database, list(sketch_files), paths)
        verdicts = _decide(_Shared.of(database, settings), settings)
        _keep_verdicts(database, verdicts)
        return _all_verdicts(database, settings)


def _rank_documents(database: duckdb.DuckDBPyConnection, sources: list[str], paths: list[str]) -> None:
    """Makes table documents: their number `doc` by preference, and `same`, the first of those with the same words."""
    database.from_parquet(paths).create_view("sketches")
    licenses = [str(name) for (name,) in database.execute("SELECT DISTINCT license FROM sketches").fetchall()]
    ranks = pa.table({"license": pa.array(licenses, pa.string()), "freedom": pa.array(map(rank, licenses), pa.int32())})
    database.register("freedoms", ranks)
    database.register("preferences", pa.table({"source": sources, "preference": range(len(sources))}))
    database.execute(
        r"""
        CREATE TEMP TABLE documents AS
        WITH works AS (
            SELECT work, (100 * sum(n_known_words)) // greatest(sum(n_words), 1) AS cleanliness
            FROM sketches GROUP BY work
        ), numbered AS (
            SELECT doc_id, source, text_hash, n_words,
                   row_number() OVER (
                       ORDER BY freedom, cleanliness DESC, preference, work, position, doc_id
                   ) - 1 AS place
            FROM (SELECT *, try_cast(regexp_extract(doc_id, '#.*?(\d+)$', 1) AS BIGINT) AS position FROM sketches)
            JOIN works USING (work) JOIN freedoms USING (license) JOIN preferences USING (source)
        )
        SELECT place::INTEGER AS doc, doc_id, source,
               if(n_words > 0, min(doc) OVER (PARTITION BY text_hash, n_words), doc) AS same,
               n_words > 0 AND same = doc AS is_compared
        FROM numbered
        """
    )
    again = "SELECT source, doc_id FROM documents GROUP BY ALL HAVING count(*) > 1 ORDER BY doc_id LIMIT 1"
    for source, doc_id in database.execute(again).fetchall():
        raise UserError(
            f"source {source} has two documents {doc_id}: names of its files or rows are not different",
            f"rename one, or change the mirror of {source} in pipelines.yaml: verdicts go by names",
        )


@dataclass(frozen=True)
class _Rows:
    """Rows (document, what it has), ordered by document; the rows of a document are a slice."""

    docs: NDArray[np.int32]
    columns: tuple[NDArray[np.signedinteger], ...]

    @classmethod
    def of(cls, database: duckdb.DuckDBPyConnection, query: str) -> "_Rows":
        columns = list(database.execute(f"{query} ORDER BY ALL").fetchnumpy().values())
        return cls(columns[0], tuple(columns[1:]))

    def __getitem__(self, doc: int) -> tuple[NDArray[np.signedinteger], ...]:
        bounds = np.array([doc, doc + 1], self.docs.dtype)  # of another type, all docs would be copied to it
        start, end = np.searchsorted(self.docs, bounds)
        return tuple(column[start:end] for column in self.columns)


@dataclass(frozen=True)
class _Shared:
    """What occurs in more than one document, by documents' numbers."""

    bands: _Rows  # (doc, band)
    signatures: dict[int, NDArray[np.uint16]]  # of the documents in bands
    fingerprints: _Rows  # (doc, passage, paragraph)
    n_fingerprints: dict[int, int]  # of the documents most of whose fingerprints are shared
    paragraphs: _Rows  # (doc, paragraph, n_fingerprints, is_long) of the documents that may lose some

    @classmethod
    def of(cls, database: duckdb.DuckDBPyConnection, settings: DedupSettings) -> "_Shared":
        compared = "FROM sketches JOIN documents USING (doc_id) WHERE is_compared"
        database.execute(
            f"""
            CREATE TEMP TABLE bands AS SELECT doc, unnest(bands) AS band {compared};
            CREATE TEMP TABLE passages AS
            SELECT doc, unnest(fingerprints) AS fingerprint, unnest(paragraphs) AS paragraph {compared};
            CREATE TEMP TABLE numbers AS
            SELECT fingerprint, (row_number() OVER () - 1)::INTEGER AS passage
            FROM (SELECT fingerprint FROM passages GROUP BY fingerprint HAVING count(*) > 1);
            """
        )
        bands = _Rows.of(
            database,
            """SELECT doc, number FROM bands JOIN (
                   SELECT band, row_number() OVER () AS number FROM bands GROUP BY band HAVING count(*) > 1
               ) USING (band)""",
        )
        database.register("banded", pa.table({"doc": np.unique(bands.docs)}))
        found = database.execute(f"SELECT doc, signature {compared} AND doc IN (SELECT doc FROM banded)").fetchall()
        documents = database.execute(
            f"""SELECT doc, count(*) FROM passages LEFT JOIN numbers USING (fingerprint) GROUP BY doc
                HAVING count(passage) >= {settings.min_repeated_passages} * count(*)"""
        ).fetchall()
        return cls(
            bands,
            {doc: np.frombuffer(signature, dtype="<u2") for doc, signature in found},
            _Rows.of(database, "SELECT doc, passage, paragraph FROM passages JOIN numbers USING (fingerprint)"),
            dict(documents),
            _Rows.of(
                database,
                f"""WITH places AS (
                        SELECT doc, paragraph, count(*) AS n, count(passage) AS n_shared
                        FROM passages LEFT JOIN numbers USING (fingerprint)
                        WHERE paragraph <> {NO_PARAGRAPH} GROUP BY doc, paragraph
                    ), long AS (
                        SELECT doc, unnest(long_paragraphs) AS paragraph, true AS is_long {compared}
                    )
                    SELECT doc, paragraph, n, coalesce(is_long, false)::TINYINT AS is_long
                    FROM places LEFT JOIN long USING (doc, paragraph)
                    QUALIFY sum(n_shared) FILTER (n_shared >= {settings.min_repeated_paragraph} * n)
                            OVER (PARTITION BY doc) >= {MIN_REPEATED}""",
            ),
        )


@dataclass
class _Verdicts:
    """What is said of documents, by number; the reason is None where only paragraphs are to go."""

    docs: list[int] = field(default_factory=list)
    reasons: list[str | None] = field(default_factory=list)
    kept: list[int] = field(default_factory=list)
    paragraphs: list[list[int]] = field(default_factory=list)

    def add(self, doc: int, reason: str | None, kept: int, paragraphs: Sequence[int] = ()) -> None:
        self.docs.append(doc)
        self.reasons.append(reason)
        self.kept.append(kept)
        self.paragraphs.append(list(paragraphs))


def _decide(shared: _Shared, settings: DedupSettings) -> _Verdicts:
    """Returns verdicts on the documents that share something, each compared with those kept before it."""
    verdicts = _Verdicts()
    in_band: dict[int, list[int]] = {}
    n_passages = int(shared.fingerprints.columns[0].max(initial=-1)) + 1
    owners = np.full(n_passages, -1, dtype=np.int32)  # of each passage: the first kept document that has it
    for doc in np.union1d(shared.bands.docs, shared.fingerprints.docs).tolist():
        (bands,) = shared.bands[doc]
        near = _most_alike({other for band in bands for other in in_band.get(band, ())}, doc, shared, settings)
        if near is not None:
            verdicts.add(doc, "near_duplicate", near)
            continue
        passages, places = shared.fingerprints[doc]
        owned = owners[passages]
        repeated = owned >= 0
        n_repeated = np.count_nonzero(repeated)
        enough = max(MIN_REPEATED, settings.min_repeated_passages * shared.n_fingerprints.get(doc, np.inf))
        if n_repeated >= enough:
            verdicts.add(doc, "repeated_passages", _most_common(owned[repeated]))
            continue
        numbers = _repeated_paragraphs(doc, places[repeated], shared, settings)
        stays = ~np.isin(places, numbers)
        if numbers:
            verdicts.add(doc, None, _most_common(owned[repeated & ~stays]), numbers)
        owners[passages[~repeated & stays]] = doc
        for band in bands:
            if len(kept := in_band.setdefault(band, [])) < MAX_COMPARED:
                kept.append(doc)
    return verdicts


def _most_alike(others: set[int], doc: int, shared: _Shared, settings: DedupSettings) -> int | None:
    """Returns the first of those whose signatures agree most with a document's, or None where none agrees enough."""
    if not others:
        return None
    candidates = sorted(others)
    agreement = (np.stack([shared.signatures[other] for other in candidates]) == shared.signatures[doc]).mean(axis=1)
    best = int(agreement.argmax())
    return candidates[best] if agreement[best] >= settings.min_agreement else None


def _most_common(owners: NDArray[np.int32]) -> int:
    return int(np.bincount(owners).argmax())


def _repeated_paragraphs(
    doc: int, places: NDArray[np.signedinteger], shared: _Shared, settings: DedupSettings
) -> list[int]:
    """Returns the paragraphs to cut out of a document whose repeated fingerprints stand at `places`.

    They are runs of repeated ones, with whatever stands between two of them and says nothing new.
    """
    counts = Counter(places.tolist())
    cut: list[int] = []
    run: list[int] = []
    is_enough = False
    columns = [column.tolist() for column in shared.paragraphs[doc]]
    for number, total, is_long in [*zip(*columns, strict=True), (NO_PARAGRAPH, 1, 0)]:
        if counts[number] >= settings.min_repeated_paragraph * total and number != NO_PARAGRAPH:
            run.append(number)
            is_enough |= bool(is_long and counts[number] >= MIN_REPEATED)
        elif run:
            if is_enough or sum(counts[i] for i in run) >= MIN_REPEATED_RUN:
                cut += range(run[0], run[-1] + 1)
            run, is_enough = [], False
    return cut


def _keep_verdicts(database: duckdb.DuckDBPyConnection, verdicts: _Verdicts) -> None:
    """Makes table decided, of verdicts by documents' numbers, with those that have the same words as another."""
    ints, strings = pa.int32(), pa.string()
    database.register(
        "compared",
        pa.table(
            {
                "doc": pa.array(verdicts.docs, ints),
                "reason": pa.array(verdicts.reasons, strings),
                "kept": pa.array(verdicts.kept, ints),
                "paragraphs": pa.array(verdicts.paragraphs, pa.list_(pa.uint16())),
            }
        ),
    )
    database.execute(
        """
        CREATE TEMP TABLE decided AS
        SELECT * FROM compared
        UNION ALL
        SELECT d.doc, 'duplicate', CASE WHEN c.reason IS NULL THEN d.same ELSE c.kept END, []
        FROM documents d LEFT JOIN compared c ON c.doc = d.same WHERE d.doc <> d.same
        """
    )


def _all_verdicts(database: duckdb.DuckDBPyConnection, settings: DedupSettings) -> pa.Table:
    """Returns all verdicts, with the navigation among the documents that are kept."""
    found = database.sql(
        f"""
        WITH pages AS (
            SELECT doc, work, lines, line_paragraphs, count(*) OVER (PARTITION BY work) AS n_pages
            FROM sketches JOIN documents USING (doc_id)
            WHERE doc NOT IN (SELECT doc FROM decided WHERE reason IS NOT NULL)
        ), short AS (
            SELECT doc, work, n_pages, unnest(lines) AS line, unnest(line_paragraphs) AS paragraph FROM pages
        ), navigation AS (
            SELECT doc, list(paragraph) AS paragraphs FROM short JOIN (
                SELECT work, line FROM short GROUP BY work, line
                HAVING count(DISTINCT doc) >= greatest({settings.navigation_pages}, {MIN_PAGES} * any_value(n_pages))
            ) USING (work, line) GROUP BY doc
        ), verdicts AS (
            SELECT doc, reason, kept,
                   list_sort(list_distinct(list_concat(coalesce(decided.paragraphs, []),
                                                       coalesce(navigation.paragraphs, [])))) AS paragraphs
            FROM decided FULL JOIN navigation USING (doc)
        )
        SELECT d.doc_id, d.source, reason, k.doc_id AS kept_doc_id, paragraphs
        FROM verdicts JOIN documents d USING (doc) LEFT JOIN documents k ON k.doc = kept ORDER BY d.doc_id
        """
    ).to_arrow_table()
    return found.cast(VERDICT_SCHEMA)
