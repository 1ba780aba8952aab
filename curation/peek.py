"""python -m curation.peek data_manifests/mix70.json: reads random documents: of a mix, near its limit, or dropped."""

import json
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from shared.console import UserError, run_command
from shared.settings import Settings, parse_command

EXAMPLE = "python -m curation.peek data_manifests/mix70.json --where \"grade < 2 AND genre = 'story'\""
# What is shown: of which documents, in words, and which of their columns stand beside the text.
_GRADES = ("part", "grade", "p_grade3", "fk_grade", "classifier_grade", "genre", "subject", "license", "n_words")
VIEWS = {
    "kept": ("FROM train", "documents of the mix", _GRADES),
    "near_miss": (
        "FROM pool WHERE split IN ('train', 'val') AND p_grade3 >= 0.25 AND part <> 'grade3'",
        "documents that just missed third grade",
        _GRADES,
    ),
    "rejected": ("FROM rejected", "dropped documents", ("reason", "detail", "n_words")),
}
READ_BESIDE = ("near_duplicate", "repeated_passages")  # what such a document repeats is shown too


class PeekFlags(Settings):
    """The command line of curation.peek."""

    manifest: Path = Field(description="a manifest that curation.run wrote", json_schema_extra={"positional": True})
    show: Literal["kept", "near_miss", "rejected"] = Field(
        "kept", description="documents of the mix, those that just missed third grade, or dropped ones"
    )
    where: str = Field("true", description="SQL condition over the columns; rejected ones have reason and detail")
    n: int = Field(3, ge=1, le=1000, description="how many documents")
    seed: int = Field(0, ge=0, description="another seed shows others")
    chars: int = Field(1200, ge=1, description="characters of each text to show")
    as_json: bool = Field(
        False, description="print one JSON object a line, texts whole", json_schema_extra={"flag": "json"}
    )


def main() -> None:
    flags = parse_command(PeekFlags, "Shows random documents of a mix, or of what did not get into it.", EXAMPLE)

    from curation.inspection import add_pool, open_mix, query, quoted, rows

    database = open_mix(flags.manifest)
    if flags.show != "kept":
        add_pool(database, flags.manifest)
    view, told, _ = VIEWS[flags.show]
    columns, _ = query(database, f"SELECT * {view} LIMIT 0")
    database.execute(f"CREATE TEMP VIEW shown AS SELECT * {view}")
    _, found = query(
        database,
        f"SELECT doc_id, count(*) OVER () FROM (SELECT DISTINCT doc_id FROM shown WHERE ({flags.where}))"
        f" ORDER BY md5('{flags.seed}/' || doc_id), doc_id LIMIT {flags.n}",
        f"its columns: {', '.join(columns)}",
    )
    if not found:
        raise _nothing(flags)
    for doc_id, _ in found:
        document = rows(database, f"SELECT * FROM shown WHERE doc_id = {quoted(str(doc_id))} LIMIT 1")[0]
        if document.get("reason") in READ_BESIDE:
            other = rows(database, f"SELECT text FROM cleaned WHERE doc_id = {quoted(str(document['detail']))}")
            document["repeats"] = other[0]["text"] if other else None
        print(json.dumps(document, ensure_ascii=False) if flags.as_json else _told(document, flags) + "\n")
    if not flags.as_json:
        print(f"{len(found):,} of {found[0][1]:,} {told}; --n shows more, --seed others")


def _nothing(flags: PeekFlags) -> UserError:
    told = VIEWS[flags.show][1]
    if flags.where == "true":
        return UserError(f"{flags.manifest} has no {told}", "--show kept shows the mix")
    return UserError(f"{flags.manifest} has no {told} with {flags.where}", "without --where any are shown")


def _told(document: dict[str, Any], flags: PeekFlags) -> str:
    from curation.inspection import shortened
    from curation.suitability import why_unsuitable

    facts = {name: document[name] for name in VIEWS[flags.show][2] if document[name] is not None}
    if flags.show == "near_miss" and (category := why_unsuitable(str(document["text"]))):
        facts["unsuitable"] = category
    told = ", ".join(f"{name} {v:.2f}" if isinstance(v, float) else f"{name} {v}" for name, v in facts.items())
    lines = [f"== {document['doc_id']}", *([str(document["title"])] if document["title"] else []), told, ""]
    lines.append(shortened(str(document["text"]), flags.chars))
    if repeats := document.get("repeats"):
        lines += ["", f"-- what it repeats, {document['detail']}", "", shortened(str(repeats), flags.chars)]
    return "\n".join(lines)


if __name__ == "__main__":
    run_command(main)
