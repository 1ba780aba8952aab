"""python -m curation.composition data_manifests/mix70.json: what is in a mix, by DuckDB."""

import json
from pathlib import Path
from typing import Literal

from pydantic import Field

from shared.console import run_command, table
from shared.settings import Settings, parse_command

EXAMPLE = "python -m curation.composition data_manifests/mix70.json --by subject"
COLUMNS = ("part", "source", "grade", "genre", "subject", "license")


class CompositionFlags(Settings):
    """The command line of curation.composition."""

    manifest: Path = Field(description="a manifest that curation.run wrote", json_schema_extra={"positional": True})
    by: Literal["part", "source", "grade", "genre", "subject", "license"] | None = Field(
        None, description="only the shares by this column"
    )
    sql: str | None = Field(None, description="a query over the views train, val and documents")
    as_json: bool = Field(False, description="print JSON", json_schema_extra={"flag": "json"})


def main() -> None:
    flags = parse_command(CompositionFlags, "Shows what is in a mix, as shares of its train words.", EXAMPLE)

    from curation.inspection import open_mix, query

    database = open_mix(flags.manifest)
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


if __name__ == "__main__":
    run_command(main)
