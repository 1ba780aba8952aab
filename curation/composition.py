"""python -m curation.composition data_manifests/mix70.json: what is in a mix, by DuckDB."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from shared.console import UserError, run_command, table
from shared.settings import Settings, parse_command

if TYPE_CHECKING:
    import duckdb

EXAMPLE = "python -m curation.composition data_manifests/mix70.json --by subject"
COLUMNS = ("part", "source", "grade", "genre", "subject", "license")


class CompositionFlags(Settings):
    """The command line of curation.composition."""

    manifest: Path = Field(description="a manifest that curation.run wrote", json_schema_extra={"positional": True})
    by: Literal["part", "source", "grade", "genre", "subject", "license"] | None = Field(
        None, description="only the shares by this column"
    )
    reject_reasons: bool = Field(False, description="what was dropped on the way, by source and reason")
    coverage: bool = Field(False, description="which third-grade concepts its third-grade documents treat, and holes")
    sql: str | None = Field(None, description="a query over the views train, val and documents")
    as_json: bool = Field(False, description="print JSON", json_schema_extra={"flag": "json"})


def main() -> None:
    flags = parse_command(CompositionFlags, "Shows what is in a mix, as shares of its train words.", EXAMPLE)

    views = {
        "--reject-reasons": flags.reject_reasons,
        "--coverage": flags.coverage,
        "--sql": flags.sql,
        "--by": flags.by,
    }
    asked = [flag for flag, value in views.items() if value]
    if len(asked) > 1:
        raise UserError(f"{asked[1]} has no effect with {asked[0]}", "ask for one of them at a time")

    from curation.inspection import open_mix, query

    if flags.reject_reasons:
        _show_reject_reasons(flags)
        return
    database = open_mix(flags.manifest)
    if flags.coverage:
        _show_coverage(flags, database)
        return
    if flags.sql is not None:
        names, rows = query(database, flags.sql)
        answer = [dict(zip(names, row, strict=True)) for row in rows]
        print(json.dumps(answer, default=str, ensure_ascii=False) if flags.as_json else table(rows, names))
        return
    columns = (flags.by,) if flags.by else COLUMNS
    shares = {column: query(database, f"FROM share_by('{column}')")[1] for column in columns}
    keys = ("value", "n_docs", "n_words", "n_words_grade3", "share")
    if flags.as_json:
        print(json.dumps({c: [dict(zip(keys, row, strict=True)) for row in rows] for c, rows in shares.items()}))
        return
    for column, rows in shares.items():
        print(table(rows, [column, "documents", "words", "words grade3", "share"]), end="\n\n")


def _show_reject_reasons(flags: CompositionFlags) -> None:
    """Prints for each source: documents in = kept in the pool + dropped by reason; and what was edited in kept ones."""
    from curation.reasons import STAGES, by_stage, stage_of
    from shared.manifest import read_manifest

    manifest = read_manifest(flags.manifest)
    dropped = manifest.dropped
    kept = {source: n - sum(dropped.get(source, {}).values()) for source, n in manifest.documents_in.items()}
    if flags.as_json:
        accounts = {k: getattr(manifest, k) for k in ("documents_in", "dropped", "edited")}
        print(json.dumps({**accounts, "kept": kept}))
        return
    rows: list[list[Any]] = [
        [source, n_in, *by_stage(dropped.get(source, {})).values(), kept[source], kept[source] / max(1, n_in)]
        for source, n_in in manifest.documents_in.items()
        if n_in
    ]
    totals = [sum(column) for column in zip(*(row[1:-1] for row in rows), strict=True)]
    rows.append(["all", *totals, totals[-1] / max(1, totals[0])])
    print(table(rows, ["source", "documents in", *(f"-{stage}" for stage in STAGES), "= kept", "share"]), end="\n\n")
    reasons = [
        [source, stage_of(reason), reason, n, n / manifest.documents_in[source]]
        for source, by_reason in dropped.items()
        for reason, n in sorted(by_reason.items(), key=lambda item: (STAGES.index(stage_of(item[0])), -item[1]))
    ]
    if reasons:
        print(table(reasons, ["source", "stage", "dropped because", "documents", "share"]), end="\n\n")
    edited = [[source, what, n] for source, edits in manifest.edited.items() for what, n in edits.items()]
    if edited:
        print(table(edited, ["source", "edited inside documents", "times"]), end="\n\n")
    if empty := [source for source, n_in in manifest.documents_in.items() if not n_in]:
        print(f"nothing was there to read of {', '.join(empty)}")
    if reasons:
        print(f"next: python -m curation.peek {flags.manifest} --show rejected --where \"reason = '{reasons[0][2]}'\"")


def _show_coverage(flags: CompositionFlags, database: "duckdb.DuckDBPyConnection") -> None:
    """Prints how many concepts of each subject the third-grade train documents cover, and names thin ones and holes."""
    from curation.subjects import COVERED_DOCS, SUBJECTS, coverage

    grade3 = "SELECT DISTINCT ON (doc_id) doc_id, text, n_words FROM train WHERE part = 'grade3'"  # no repeats
    rows = database.execute(f"SELECT text, n_words FROM ({grade3})")
    covered = coverage(row for batch in iter(lambda: rows.fetchmany(1000), []) for row in batch)
    if flags.as_json:
        told = [{"subject": c.subject, "concept": c.name, "n_docs": n, "n_words": words} for c, n, words in covered]
        print(json.dumps(told))
        return
    counts: list[list[object]] = []
    names: list[str] = []
    for subject in SUBJECTS:
        of_subject = [(c.name, n) for c, n, _ in covered if c.subject == subject]
        thin = [f"{name} ({n})" for name, n in of_subject if 0 < n < COVERED_DOCS]
        holes = [name for name, n in of_subject if n == 0]
        counts.append([subject, len(of_subject), len(of_subject) - len(thin) - len(holes), len(thin), len(holes)])
        for kind, listed in (("thin", thin), ("holes", holes)):
            names += [f"{subject}, {kind}: {'; '.join(listed)}"] if listed else []
    print(table(counts, ["subject", "concepts", "covered", "thin", "holes"]), end="\n\n")
    print(f"(treated in {COVERED_DOCS} third-grade documents or more, in fewer, in none)", *names, sep="\n")


if __name__ == "__main__":
    run_command(main)
