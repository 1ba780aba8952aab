"""python -m curation.why DOC_ID: where a document is from, what every rule said of it, and what became of it."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import duckdb
from pydantic import Field

from shared.console import UserError, run_command, say
from shared.manifest import Manifest, read_manifest
from shared.settings import Settings, parse_command

EXAMPLE = "python -m curation.why starter/passages/grade02/a-goat-at-the-market#0 --shards data_manifests/mix70.json"
MOST_NAMED = 5  # copies, terms or passages that are told of; --json has all
WINDOW_WORDS = 13  # decontaminate.NGRAM_WORDS; a test holds them together


class WhyFlags(Settings):
    """The command line of curation.why."""

    doc_id: str = Field(description="as peek and the shards name it", json_schema_extra={"positional": True})
    shards: Path | None = Field(None, description="the mix to look in; left out: the newest of data_manifests")
    chars: int = Field(600, ge=0, description="characters of its text to show")
    as_json: bool = Field(False, description="print JSON, the text whole", json_schema_extra={"flag": "json"})


def main() -> None:
    flags = parse_command(WhyFlags, "Tells all that is known of one document.", EXAMPLE)
    manifest_path = flags.shards or _newest(Path("data_manifests"))

    from curation.inspection import add_pool, open_mix

    database = open_mix(manifest_path)
    files = add_pool(database, manifest_path)
    facts = explain_document(flags.doc_id, database, files, read_manifest(manifest_path))
    facts = {"doc_id": flags.doc_id, "mix": str(manifest_path), **facts}
    print(json.dumps(facts, ensure_ascii=False) if flags.as_json else tell(facts, flags.chars))


def _newest(folder: Path) -> Path:
    manifests = sorted(folder.glob("*.json"), key=lambda path: path.stat().st_mtime)
    if not manifests:
        raise UserError(
            f"{folder} holds no mix", "make one: python -m curation.run --grade-ratio 0.7; or name one with --shards"
        )
    say(f"looking in {manifests[-1]}")
    return manifests[-1]


def explain_document(
    doc_id: str, database: duckdb.DuckDBPyConnection, files: dict[str, list[Path]], manifest: Manifest
) -> dict[str, Any]:
    """Returns origin, grades, what each rule said, copies, quotations and outcome of a document, as plain values.

    Raises UserError with the nearest name where there is none of this name.
    """
    from curation.inspection import quoted, rows

    named = f"WHERE doc_id = {quoted(doc_id)}"
    graded = next(iter(rows(database, f"SELECT * FROM pool {named}")), {})
    cleaned = next(iter(rows(database, f"SELECT * FROM cleaned {named}")), {})
    dropped = next(iter(rows(database, f"SELECT * FROM rejected {named}")), {})
    if not graded and not dropped:
        raise _unknown(doc_id, database, manifest)
    document = {**dropped, **cleaned, **graded}
    return {
        "outcome": _outcome(graded, dropped, database, files, manifest),
        "reason": dropped.get("reason"),
        "detail": dropped.get("detail"),
        **_origin(document, manifest),
        "n_words": document["n_words"] if graded or not cleaned else len(str(cleaned["text"]).split()),
        **{name: graded.get(name) for name in GRADES},
        "rules": _rules(cleaned, graded, dropped, manifest),
        **_duplicates(doc_id, str(cleaned.get("text", "")), database),
        "quotes": _quotations(str(document["text"]), dropped, files),
        "quotes_of": _held_out_documents(str(document["text"]), dropped, database),
        "text": document["text"],
    }


def _unknown(doc_id: str, database: duckdb.DuckDBPyConnection, manifest: Manifest) -> UserError:
    from curation.inspection import quoted, rows

    near = rows(
        database,
        f"""SELECT doc_id FROM (SELECT doc_id FROM pool UNION SELECT doc_id FROM rejected)
            ORDER BY levenshtein(doc_id, {quoted(doc_id)}), doc_id LIMIT 1""",
    )
    hint = f"did you mean {near[0]['doc_id']}?" if near else "its pool is empty"
    return UserError(f"{manifest.name} and its pool have no document {doc_id}", hint)


def _origin(document: dict[str, Any], manifest: Manifest) -> dict[str, Any]:
    from curation.licenses import is_open, needs_attribution

    source = manifest.settings["sources"].get(document["source"], {})
    license = document.get("license") or source.get("license", "unknown")
    named = {name: document.get(name) for name in ("title", "url", "source", "work", "genre", "subject")}
    terms = {"license": license, "is_open": is_open(license), "must_be_named": needs_attribution(license)}
    return {**named, **terms, "revision": source.get("revision")}


# What became of it ----------------------------------------------------------------------------------------------------

GRADES = ("part", "grade", "p_grade3", "fk_grade", "classifier_grade")


def _outcome(
    graded: dict[str, Any],
    dropped: dict[str, Any],
    database: duckdb.DuckDBPyConnection,
    files: dict[str, list[Path]],
    manifest: Manifest,
) -> str:
    """Returns in words whether a document is in the mix, and why not."""
    from curation.inspection import quoted, rows

    if dropped:
        return f"left out: {_meaning(str(dropped['reason']), dropped['detail'], manifest)}"
    found = rows(database, f"SELECT split FROM documents WHERE doc_id = {quoted(str(graded['doc_id']))}")
    if not found:
        return f"not in this mix: {_why_not_taken(graded, files['index'], database, manifest)}"
    if found[0]["split"] == "val":
        return "held out: in val, with its whole work, for every mix of this pool"
    return "in train" if len(found) == 1 else f"in train, {len(found)} times"


def _meaning(reason: str, detail: object, manifest: Manifest) -> str:
    """Returns a reason for which a document was dropped in words."""
    from curation.explain import RULES
    from curation.reasons import LATER, QUOTES

    if reason in LATER:
        return f"{reason}: {LATER[reason].format(detail=detail)}"
    if reason.startswith(QUOTES):
        return f"{reason}: it shares 13 words in a row, or a whole shorter text, with {detail}"
    if reason in RULES:
        return f"{reason}: {RULES[reason].format(**manifest.settings['cleaning'])}"
    return f"{reason}, said the reader of its source" + (f": {detail}" if detail else "")


def _why_not_taken(
    graded: dict[str, Any], index: list[Path], database: duckdb.DuckDBPyConnection, manifest: Manifest
) -> str:
    """Returns why a document of the pool's train side is not in a mix: a cap or floor, or its place in the order."""
    import pyarrow.compute as pc

    from curation.inspection import rows
    from curation.mix import plan_mix
    from curation.settings import MixSettings

    part, mix = str(graded["part"]), MixSettings.model_validate(manifest.settings["mix"])
    is_capped = any(graded[column] in caps for column, caps in mix.caps.items())
    if is_capped or any(mix.floors.values()):  # else no plan is needed to say why
        train = database.sql("SELECT doc_id FROM splits WHERE split = 'train'").to_arrow_table()
        pool = database.read_parquet(list(map(str, index))).to_arrow_table()
        pool = pool.filter(pc.field("doc_id").isin(train["doc_id"]))
        left_out = plan_mix(pool, mix).parts[part].left_out
        if reason := left_out.get(pool["doc_id"].to_pylist().index(graded["doc_id"])):
            return f"{reason} of part {part}"
    sums = "SELECT (SELECT sum(n_words) FROM train WHERE {0}) AS taken, sum(n_words) AS n FROM pool WHERE {0}"
    words = rows(database, sums.format(f"part = '{part}'") + " AND split = 'train'")[0]
    return (
        f"the mix took {words['taken']:,} of {words['n']:,} words of part {part}, in an order by hash, without this one"
    )


# What each rule said --------------------------------------------------------------------------------------------------


def _rules(
    cleaned: dict[str, Any], graded: dict[str, Any], dropped: dict[str, Any], manifest: Manifest
) -> dict[str, Any]:
    """Returns what the rules that read a text alone say of it: the gate, suitability for children, its layout."""
    from curation import pii
    from curation.clean import why_rejected
    from curation.normalise import genre_of
    from curation.settings import CleaningSettings
    from curation.suitability import unsuitable_terms, why_unsuitable

    text = str((graded or cleaned or dropped)["text"])
    is_whole = bool(graded or cleaned)  # of what was dropped before, only the head is kept
    settings = CleaningSettings.model_validate(manifest.settings["cleaning"])
    placeholders = {"email": pii.EMAIL, "phone": pii.PHONE, "card": pii.CARD, "ssn": pii.SSN, "iban": pii.IBAN}
    placeholders |= {"ip": pii.IPV4, "ip (v6)": pii.IPV6}
    return {
        "gate": (why_rejected(text, settings) or "passed") if is_whole else None,
        "unsuitable": why_unsuitable(text) or None,
        "unsuitable_terms": [
            {"term": term.term, "category": term.category, "weight": term.weight, "n": n}
            for term, n in unsuitable_terms(text)
        ],
        "layout": genre_of(text) or "prose",
        "masked": {kind: n for kind, sign in placeholders.items() if (n := text.count(sign))},
    }


def _duplicates(doc_id: str, text: str, database: duckdb.DuckDBPyConnection) -> dict[str, Any]:
    """Returns what a document repeats, which of its paragraphs were cut out, and what repeats it."""
    from curation.inspection import quoted, rows

    verdict = next(iter(rows(database, f"SELECT * FROM verdicts WHERE doc_id = {quoted(doc_id)}")), None)
    paragraphs = text.split("\n\n")
    other = rows(
        database,
        f"""SELECT doc_id, reason FROM rejected WHERE detail = {quoted(doc_id)}
            UNION ALL
            SELECT doc_id, 'repeated_paragraph' FROM verdicts
            WHERE kept_doc_id = {quoted(doc_id)} AND reason IS NULL ORDER BY doc_id""",
    )
    kept = verdict["kept_doc_id"] if verdict else None
    fate = rows(database, f"SELECT reason FROM rejected WHERE doc_id = {quoted(str(kept))}") if kept else []
    return {
        "repeats": kept,
        "repeats_fate": fate[0]["reason"] if fate else None,
        "removed": [paragraphs[i] for i in (verdict or {}).get("paragraphs", []) if i < len(paragraphs)],
        "repeated_by": [{"doc_id": row["doc_id"], "reason": row["reason"]} for row in other],
    }


def _quotations(text: str, dropped: dict[str, Any], files: dict[str, list[Path]]) -> dict[str, list[str]]:
    """Returns the passages that a contaminated document shares, by evaluation."""
    from curation.decontaminate import NgramIndex
    from curation.reasons import QUOTES, QUOTES_VAL

    reason = str(dropped.get("reason", ""))
    if not reason.startswith(QUOTES):
        return {}
    index = NgramIndex.load(files["val_ngrams" if reason == QUOTES_VAL else "evaluations"][0])
    words = text.split()
    starts = range(max(1, len(words) - WINDOW_WORDS + 1))
    windows = [" ".join(words[i : i + WINDOW_WORDS]) for i in starts]
    found: dict[str, list[list[int]]] = {}
    for start, names in zip(starts, index.find_all(windows), strict=True):
        for name in names:
            spans = found.setdefault(name, [])
            if spans and start <= spans[-1][1]:
                spans[-1][1] = start + WINDOW_WORDS
            else:
                spans.append([start, start + WINDOW_WORDS])
    return {name: [" ".join(words[a:b]) for a, b in spans] for name, spans in sorted(found.items())}


def _held_out_documents(text: str, dropped: dict[str, Any], database: duckdb.DuckDBPyConnection) -> list[str]:
    """Returns the held-out documents that share a passage with one that was dropped because of that."""
    from curation.decontaminate import NgramIndex
    from curation.inspection import rows
    from curation.reasons import QUOTES_VAL

    if dropped.get("reason") != QUOTES_VAL:
        return []
    index = NgramIndex.build({"it": [text]})
    held = rows(database, "SELECT doc_id, text FROM pool JOIN splits USING (doc_id) WHERE is_held_out ORDER BY doc_id")
    found = index.find_all([row["text"] for row in held])
    return [row["doc_id"] for row, names in zip(held, found, strict=True) if names]


# As a person reads it -------------------------------------------------------------------------------------------------


def tell(facts: dict[str, Any], chars: int) -> str:
    """Returns what is known of a document as lines for a person, its text last."""
    from curation.inspection import shortened

    rules = facts["rules"]
    license = f"{facts['license']} ({'open' if facts['is_open'] else 'not open'}"
    license += ", asks to be named)" if facts["must_be_named"] else ")"
    told: list[tuple[str, object]] = [
        ("outcome", facts["outcome"]),
        ("source", f"{facts['source']}, revision {facts['revision']}"),
        ("work", facts["work"]),
        ("title", facts["title"]),
        ("address", facts["url"]),
        ("licence", license),
        ("genre", facts["genre"]),
        ("subject", facts["subject"]),
        ("words", f"{facts['n_words']:,}"),
        *_told_grades(facts),
        ("quality gate", rules["gate"]),
        ("suitability", _told_suitability(rules)),
        ("layout", rules["layout"]),
        ("masked", ", ".join(f"{kind} {n}" for kind, n in rules["masked"].items())),
        *_told_copies(facts),
    ]
    for name, passages in facts["quotes"].items():
        told += [(f"quotes {name}", _told_passage(passage)) for passage in passages[:MOST_NAMED]]
    told += [("", f"which stands in {other}") for other in facts["quotes_of"][:MOST_NAMED]]
    told = [(label, value) for label, value in told if value not in (None, "")]
    width = max(len(label) for label, _ in told)
    lines = [f"== {facts['doc_id']}   ({facts['mix']})"]
    lines += [f"{label.ljust(width)}  {value}" for label, value in told]
    return "\n".join([*lines, *(["", shortened(str(facts["text"]), chars)] if chars else [])])


def _told_grades(facts: dict[str, Any]) -> list[tuple[str, object]]:
    if facts["part"] is None:
        return []
    if facts["grade"] is None:
        return [("part", f"{facts['part']}: it has no words that can be graded")]
    told = f"{facts['grade']:.2f} (Flesch-Kincaid {facts['fk_grade']:.2f}"
    told += f", classifier {facts['classifier_grade']:.2f})" if facts["classifier_grade"] is not None else ")"
    return [("part", facts["part"]), ("grade", told), ("p_grade3", f"{facts['p_grade3']:.2f}")]


def _told_passage(passage: str) -> str:
    from curation.inspection import shortened

    return f'"{shortened(passage, 200)}" ({len(passage.split()):,} words)'


def _told_suitability(rules: dict[str, Any]) -> str:
    terms = rules["unsuitable_terms"]
    named = ", ".join(f"{t['term']} ({t['category']} {t['weight']:g} x{t['n']})" for t in terms[:MOST_NAMED])
    more = f" and {len(terms) - MOST_NAMED} more" if len(terms) > MOST_NAMED else ""
    verdict = f"not for children: {rules['unsuitable']}" if rules["unsuitable"] else "passed"
    return f"{verdict}; {named}{more}" if terms else verdict


def _told_copies(facts: dict[str, Any]) -> list[tuple[str, object]]:
    from curation.inspection import shortened

    told: list[tuple[str, object]] = []
    if facts["removed"]:
        where = f"they stand in {facts['repeats']}" if facts["repeats"] else "navigation of its site"
        told.append(("cut out", f"{len(facts['removed'])} paragraphs ({where})"))
        told += [("", f'"{shortened(paragraph, 100)}"') for paragraph in facts["removed"][:MOST_NAMED]]
    if facts["repeats_fate"]:
        told.append(("its like", f"{facts['repeats']} is left out too: {facts['repeats_fate']}"))
    by = facts["repeated_by"]
    if by:
        counts = Counter(row["reason"] for row in by)
        told.append(("repeated by", ", ".join(f"{n} {reason}" for reason, n in sorted(counts.items()))))
        told += [("", f"{row['doc_id']} ({row['reason']})") for row in by[:MOST_NAMED]]
    return told


if __name__ == "__main__":
    run_command(main)
