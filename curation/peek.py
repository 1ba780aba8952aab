"""python -m curation.peek data_manifests/mix70.json: reads random documents of a mix."""

import json
from pathlib import Path

from pydantic import Field

from shared.console import UserError, run_command
from shared.settings import Settings, parse_command

EXAMPLE = "python -m curation.peek data_manifests/mix70.json --where \"grade < 2 AND genre = 'story'\""


class PeekFlags(Settings):
    """The command line of curation.peek."""

    manifest: Path = Field(description="a manifest that curation.run wrote", json_schema_extra={"positional": True})
    where: str = Field("true", description="SQL condition over the columns of the shards")
    n: int = Field(3, ge=1, le=1000, description="how many documents")
    seed: int = Field(0, ge=0, description="another seed shows others")
    chars: int = Field(1200, ge=1, description="characters of each text to show")
    as_json: bool = Field(
        False, description="print one JSON object a line, texts whole", json_schema_extra={"flag": "json"}
    )


def main() -> None:
    flags = parse_command(PeekFlags, "Shows random train documents of a mix.", EXAMPLE)

    from curation.inspection import open_mix, query

    database = open_mix(flags.manifest)
    names, rows = query(
        database,
        f"SELECT * FROM train WHERE ({flags.where}) ORDER BY md5('{flags.seed}/' || doc_id), doc_id LIMIT {flags.n}",
    )
    if not rows:
        raise UserError(f"no document of {flags.manifest} has {flags.where}", "--where true shows any")
    for row in rows:
        document = dict(zip(names, row, strict=True))
        if flags.as_json:
            print(json.dumps(document, ensure_ascii=False))
            continue
        facts = ("part", "grade", "p_grade3", "fk_grade", "classifier_grade", "genre", "subject", "license", "n_words")
        told = ", ".join(f"{f} {v:.2f}" if isinstance(v := document[f], float) else f"{f} {v}" for f in facts)
        text = str(document["text"])
        print(f"== {document['doc_id']}\n{document['title']}\n{told}\n")
        print(text if len(text) <= flags.chars else text[: flags.chars].rsplit(None, 1)[0] + " ...", end="\n\n")


if __name__ == "__main__":
    run_command(main)
