"""why, peek and composition: what they say of a document is what became of it."""

import json
import random
import shutil
from pathlib import Path
from typing import Any

import duckdb
import pytest

from curation.decontaminate import NGRAM_WORDS
from curation.inspection import add_pool, open_mix, rows
from curation.reasons import LATER, STAGES, by_stage
from curation.why import WINDOW_WORDS, explain_document, tell
from shared.manifest import read_manifest
from tests.conftest import Mix, run_module
from tests.planted import BLIMP, Planted, ngrams, planted_mix, story  # noqa: F401


class Explained:
    """The pool of a mix, and what why says of its documents."""

    def __init__(self, mix: Mix) -> None:
        self.manifest = read_manifest(mix.manifest())
        self.database: duckdb.DuckDBPyConnection = open_mix(mix.manifest())
        self.files = add_pool(self.database, mix.manifest())

    def find(self, sql: str) -> list[dict[str, Any]]:
        return rows(self.database, sql)

    def why(self, doc_id: str) -> dict[str, Any]:
        return explain_document(doc_id, self.database, self.files, self.manifest)

    def of_work(self, work: str) -> dict[str, Any]:
        cleaned = self.find(f"SELECT doc_id FROM cleaned WHERE work = 'own/texts/{work}'")
        return self.why(cleaned[0]["doc_id"])


@pytest.fixture(scope="module")
def explained(planted: Planted) -> Explained:
    return Explained(planted)


def test_every_outcome_is_told_as_it_was(explained: Explained) -> None:
    train, val = (
        {row["doc_id"] for row in explained.find(f"SELECT DISTINCT doc_id FROM {s}")} for s in ("train", "val")
    )
    dropped = {row["doc_id"]: row for row in explained.find("SELECT * FROM rejected")}
    everything = [
        row["doc_id"] for row in explained.find("SELECT doc_id FROM pool UNION SELECT doc_id FROM rejected ORDER BY 1")
    ]
    assert len(everything) == sum(explained.manifest.documents_in.values())
    one_of_each = {row["reason"]: doc_id for doc_id, row in dropped.items()}
    for doc_id in [*random.Random(0).sample(everything, 25), *one_of_each.values()]:
        facts = explained.why(doc_id)
        if doc_id in dropped:
            assert facts["outcome"].startswith(f"left out: {dropped[doc_id]['reason']}")
            assert facts["reason"] == dropped[doc_id]["reason"]
        elif doc_id in train:
            assert facts["outcome"] == "in train"
        elif doc_id in val:
            assert facts["outcome"].startswith("held out: in val")
        else:
            assert facts["outcome"].startswith("not in this mix: ")
        assert facts["source"] == doc_id[: len(facts["source"])]
        assert facts["license"] == ("CC0-1.0" if facts["source"] == "starter/passages" else facts["license"])
        assert doc_id in tell({"doc_id": doc_id, "mix": "m", **facts}, 100)


def test_a_copy_names_its_original_and_is_named_by_it(explained: Explained) -> None:
    copies = explained.find("SELECT * FROM rejected WHERE reason IN ('duplicate', 'near_duplicate')")
    assert len(copies) == 10
    for copy in copies:
        facts = explained.why(copy["doc_id"])
        assert facts["repeats"] == copy["detail"]
        assert copy["detail"] in facts["outcome"]
        assert facts["rules"]["gate"] == "passed"
        other = explained.why(copy["detail"])
        assert {"doc_id": copy["doc_id"], "reason": copy["reason"]} in other["repeated_by"]


def test_what_was_cut_out_and_masked_is_told(explained: Explained) -> None:
    facts = [explained.of_work(f"{kind}-{i}") for i in (10, 11) for kind in ("part", "story")]
    removed = [paragraph for one in facts for paragraph in one["removed"]]
    assert sorted(removed) == sorted(story(i)[1] for i in (10, 11))
    assert all(paragraph not in one["text"] for one in facts for paragraph in one["removed"])
    assert explained.of_work("mail")["rules"]["masked"] == {"email": 1, "phone": 1}


def test_the_terms_that_make_a_text_unsuitable_are_told(explained: Explained) -> None:
    facts = explained.of_work("unsuitable")
    assert facts["part"] == "all_ages"
    assert facts["rules"]["unsuitable"] == "profanity"
    assert {"term": "fuck", "category": "profanity", "weight": 10.0, "n": 1} in facts["rules"]["unsuitable_terms"]


def test_a_quotation_is_shown_with_what_it_is_of(explained: Explained) -> None:
    for i, item in enumerate(BLIMP):
        (passage,) = explained.of_work(f"test-{i}")["quotes"]["blimp"]
        assert item in passage
    quoting = explained.find("SELECT doc_id FROM rejected WHERE reason = 'contaminated:val'")
    for row in quoting:
        facts = explained.why(row["doc_id"])
        assert facts["quotes_of"]
        for other in facts["quotes_of"]:
            (held,) = explained.find(f"SELECT text FROM val WHERE doc_id = '{other}'")
            assert any(ngrams(passage) & ngrams(held["text"]) for passage in facts["quotes"]["val"])
    assert WINDOW_WORDS == NGRAM_WORDS


def test_a_cap_is_named_as_the_reason(starter_mix: Mix) -> None:
    starter = Explained(starter_mix)
    missing = starter.find(
        "SELECT doc_id, part, genre FROM pool ANTI JOIN documents USING (doc_id) WHERE split = 'train'"
    )
    verse = [row for row in missing if row["genre"] == "verse"]
    assert verse
    assert any(
        starter.why(row["doc_id"])["outcome"] == f"not in this mix: cap on genre verse of part {row['part']}"
        for row in verse
    )
    other = next(row for row in missing if row["genre"] not in ("verse", "transcript"))
    assert "in an order by hash" in starter.why(other["doc_id"])["outcome"]


def test_why_as_a_person_asks_it(planted: Planted) -> None:
    def why(doc_id: str, *args: object) -> tuple[int, str, str]:
        done = run_module("curation.why", doc_id, *args, cwd=planted.folder)
        return done.returncode, done.stdout, done.stderr

    code, told, said = why("own/texts/a.jsonl#1.0")
    assert code == 0, said
    assert "looking in data_manifests/mix70.json" in said
    facts = dict(line.split("  ", 1) for line in told.split("\n\n")[0].splitlines()[1:])
    assert facts["licence"].strip() == "CC-BY-4.0 (open, asks to be named)"
    assert facts["source"].strip() == "own/texts, revision 1"
    code, _, said = why("own/texts/a.jsonl#1", "--shards", planted.manifest())
    assert code == 2
    assert "did you mean own/texts/a.jsonl#1.0?" in said
    code, told, _ = why("own/texts/a.jsonl#1.0", "--shards", planted.manifest(), "--json")
    assert code == 0
    assert json.loads(told)["text"].startswith(story(0)[0])


def test_without_its_data_folder_a_mix_can_still_be_read(planted: Planted, tmp_path: Path) -> None:
    mix = Mix(tmp_path / "copy")
    shutil.copytree(planted.folder, mix.folder)
    shutil.rmtree(mix.data / "pools")
    assert run_module("curation.peek", mix.manifest(), "--n", 1).returncode == 0
    for module, *args in (
        ("curation.peek", mix.manifest(), "--show", "rejected"),
        ("curation.why", "a", "--shards", mix.manifest()),
    ):
        done = run_module(str(module), *args)
        assert done.returncode == 2
        assert "is not there any more" in done.stderr
        assert "hint: " in done.stderr


def peek(mix: Mix, *args: object) -> list[dict[str, Any]]:
    done = run_module("curation.peek", mix.manifest(), "--json", *args)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_peek_shows_what_was_asked_for(planted: Planted) -> None:
    near = peek(planted, "--show", "near_miss", "--n", 50)
    assert near
    assert all(d["p_grade3"] >= 0.25 and d["part"] == "all_ages" and d["split"] in ("train", "val") for d in near)
    kept = [[d["doc_id"] for d in peek(planted, "--n", 5, "--seed", seed)] for seed in (1, 2)]
    assert kept[0] != kept[1]
    easy = peek(planted, "--where", "grade < 2 AND genre = 'story'", "--n", 9)
    assert all(d["grade"] < 2 and d["genre"] == "story" for d in easy)
    copies = peek(planted, "--show", "rejected", "--where", "reason = 'near_duplicate'", "--n", 9)
    assert len(copies) == 4
    for copy in copies:
        changed = sum(a != b for a, b in zip(copy["text"].split(), copy["repeats"].split(), strict=True))
        assert 0 < changed < len(copy["text"].split()) / 10


@pytest.mark.parametrize(
    ("args", "error", "hint"),
    [
        (["--where", "grad < 3"], "grad", "its columns: doc_id, work"),
        (["--where", "grade < -50"], "no documents of the mix with grade < -50", "without --where"),
        (["--show", "rejected"], "has no dropped documents", "--show kept"),
    ],
)
def test_what_peek_cannot_show_is_said(starter_mix: Mix, args: list[str], error: str, hint: str) -> None:
    done = run_module("curation.peek", starter_mix.manifest(), *args)
    assert done.returncode == 2
    assert error in done.stderr.splitlines()[0]
    assert hint in done.stderr.splitlines()[1]


def test_the_table_of_reasons_adds_up(planted: Planted) -> None:
    manifest = read_manifest(planted.manifest())
    done = run_module("curation.composition", planted.manifest(), "--reject-reasons")
    by_source, by_reason, edited, _ = done.stdout.split("\n\n")
    for line in by_source.splitlines()[2:]:
        source, n_in, *dropped, kept, _ = line.replace(",", "").split()
        assert int(n_in) == sum(map(int, dropped)) + int(kept)
        if source != "all":
            reasons = manifest.dropped[source]
            assert (int(n_in), list(map(int, dropped))) == (
                manifest.documents_in[source],
                list(by_stage(reasons).values()),
            )
    assert len(by_reason.splitlines()) == 2 + sum(map(len, manifest.dropped.values()))
    assert "masked email" in edited
    answer = json.loads(run_module("curation.composition", planted.manifest(), "--reject-reasons", "--json").stdout)
    assert {
        source: n - sum(answer["dropped"][source].values()) for source, n in answer["documents_in"].items()
    } == answer["kept"]
    done = run_module("curation.composition", planted.manifest(), "--reject-reasons", "--by", "genre")
    assert (done.returncode, "has no effect" in done.stderr) == (2, True)


def test_reasons_and_stages_know_each_other() -> None:
    assert by_stage(dict.fromkeys([*LATER, "contaminated:blimp", "too_short", "anything"], 1)) == dict(
        zip(STAGES, (2, 4, 2, 1), strict=True)
    )
