"""A profile of planted texts: copies, edited copies, quotations, private data, closed licences, rows that are broken.

Its one mix, made once for all tests, is the fixture `planted` (import planted_mix); nobody changes it.
"""

import gzip
import json
import random
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import yaml

from shared.files import sha256_file
from shared.manifest import Manifest, read_manifest, shard_paths
from shared.settings import PIPELINES_FILE
from tests.conftest import Mix, run_module


def _words(text: str, sign: str | None = None) -> list[str]:
    return text.split(sign)


WHO = _words("Ana Ben Carla Dan Emma Fred Grace Henry Iris Jack Kate Leo Mary Nick Olive Paul Rosa Sam Tina Victor")
DID = _words("found carried washed dropped painted opened closed pulled followed lifted shook borrowed cleaned moved")
HOW = _words("old green wooden heavy tiny yellow broken clean warm round empty quiet strange dusty narrow silver")
WHAT = _words(
    """basket ladder blanket bucket candle drum feather garden hammer kettle letter mirror needle orange pencil pillow
    rope saddle ticket umbrella wagon whistle window button carpet engine fence guitar helmet jacket lantern"""
)
WHERE = _words("behind the barn|near the river|under the bridge|beside the church|on the roof|by the lake", "|")
WHY = _words(
    "because the rain had stopped|before the teacher came back|while her brother was asleep|since nobody else wanted it"
    "|so that the dog could see it|when the bell rang twice|after they had eaten supper|until the moon came up",
    "|",
)

BLIMP = [
    "The senator who visited those museums was hiding the broken telescope from every nervous driver.",
    "Which of the tired librarians had the waitress annoyed before the unusual concert started?",
    "No pedestrian that these doctors admire has ever forgotten about the shiny purple carriage.",
]
UNSUITABLE = """Sam had a big red cat. One day the cat sat on the bed and ate a fish. "What the fuck is that?" said Sam. "It
is my cat," said Ana. "He has had a fish. He likes fish." The cat ran out of the door and sat in the sun. Sam got the
pan and put it back on the shelf. Then Ana gave the cat some milk, and they all went out to play with a ball."""
FRENCH = "Le petit chat est dans la maison et il ne veut pas sortir parce que la pluie tombe depuis ce matin. " * 3


def sentence(dice: random.Random) -> str:
    a, b = dice.sample(WHAT, 2)
    who, how, other = dice.choice(WHO), dice.choice(HOW), dice.choice(HOW)
    return dice.choice(
        [
            f"{who} {dice.choice(DID)} the {how} {a} {dice.choice(WHERE)} {dice.choice(WHY)}.",
            f"{dice.choice(WHERE).capitalize()} there was a {how} {a}, and {who} {dice.choice(DID)} it.",
            f'"Where is my {how} {a}?" asked {who}, who had {dice.choice(DID)} the {other} {b} {dice.choice(WHY)}.',
            f"The {how} {a} and the {other} {b} belonged to {who}.",
        ]
    )


def story(seed: int, n_paragraphs: int = 3) -> list[str]:
    """Returns paragraphs of about 45 easy words; another seed says something else."""
    dice = random.Random(seed)
    return [" ".join(sentence(dice) for _ in range(4)) for _ in range(n_paragraphs)]


def edited(text: str, seed: int) -> str:
    """Returns a text with one word in twenty changed."""
    dice = random.Random(seed)
    words = text.split(" ")
    for i in range(7, len(words), 20):
        words[i] = dice.choice(WHAT)
    return " ".join(words)


def planted_rows() -> tuple[list[dict[str, str] | str], dict[str, int]]:
    """Returns the lines of a source, and how many of its documents are to be dropped for which reason."""
    rows: list[dict[str, str] | str] = []

    def add(work: str, text: str, **facts: str) -> None:
        rows.append({"work": work, "text": text, "title": f"Story {work}", **facts})

    stories = ["\n\n".join(story(i)) for i in range(60)]
    for i, text in enumerate(stories):
        add(f"story-{i}", text)
    for i in range(5):
        add(f"copy-{i}", stories[i].upper() if i % 2 else stories[i].replace(" ", "  "))
    for i in range(5, 9):
        add(f"edited-{i}", edited(stories[i], i))
    for i in range(10, 12):
        add(f"part-{i}", "\n\n".join([*story(100 + i, 2), stories[i].split("\n\n")[1]]))
    for i, item in enumerate(BLIMP):
        add(f"test-{i}", "\n\n".join([*story(200 + i, 2), f"{item} {story(210 + i, 1)[0]}"]))
    for i in range(20, 50):  # fifteen words of each of so many others
        add(f"quote-{i}", f"{story(300 + i, 1)[0]} {' '.join(stories[i].split()[40:55])}. {story(350 + i, 1)[0]}")
    add("mail", f"{story(400, 1)[0]} Write to ana.silva@somewhere.org or call (212) 736-5000. {story(401, 1)[0]}")
    add("mail-2", f"{story(402, 1)[0]} Her address is ben_42@mail.example.net, and that is all. {story(403, 1)[0]}")
    for i in range(4):
        add(f"closed-{i}", "\n\n".join(story(410 + i)), license="CC-BY-NC-4.0")
    for i in range(3):
        add(f"unknown-{i}", "\n\n".join(story(420 + i)), license="unknown")
    add("copy-of-unknown", "\n\n".join(story(420)))  # the freer copy is kept
    add("unsuitable", UNSUITABLE)
    add("short", "A hen sat on an egg.")
    add("french", FRENCH)
    rows += ["{broken", '{"work": "nothing"}']
    dropped = {
        "bad_json": 1, "no_text": 1, "too_short": 1, "not_english": 1,
        "duplicate": 6, "near_duplicate": 4, "contaminated:blimp": 3,
    }  # fmt: skip
    return rows, dropped


def _profile_file(folder: Path) -> Path:
    """Writes pipelines.yaml with a profile of a source and an evaluation of ours. Returns its path."""
    content = yaml.safe_load(PIPELINES_FILE.read_text(encoding="utf-8"))
    content["sources"]["own/texts"] = {
        "reader": "rows", "about": "planted", "license": "CC-BY-4.0", "revision": "1", "mirror": "texts/*.jsonl*",
        "genre": "tale", "subject": "story",
    }  # fmt: skip
    content["evaluations"] = {"blimp": {**content["evaluations"]["blimp"], "mirror": "eval/*.jsonl.gz"}}
    content["profiles"] = {
        "starter": content["profiles"]["starter"],
        "planted": {
            **content["profiles"]["starter"],
            "sources": ["starter/passages", "own/texts"],
            "evaluations": ["blimp"],
        },
    }
    path = folder / "pipelines.yaml"
    path.write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
    return path


class Planted(Mix):
    """A mix of planted texts, and how it was made."""

    def __init__(self, folder: Path, upstream: Path) -> None:
        super().__init__(folder)
        self.upstream = upstream
        self.args = ("--pipelines", upstream / "pipelines.yaml", "--profile", "planted", "--mirror", upstream)

    def make(self, *args: object) -> Manifest:
        done = self.run(*self.args, *args)
        assert done.returncode == 0, done.stderr
        return read_manifest(self.manifest())

    def bytes(self) -> dict[str, str]:
        """Returns the hashes of the manifest, the shards, the card and the attribution."""
        folder = self.data / "shards" / "mix70"
        files = [self.manifest(), *(path for path in folder.iterdir() if path.name != "run.json")]
        return {path.name: sha256_file(path) for path in files}

    def rows(self, split: str) -> list[dict[str, Any]]:
        paths = shard_paths(self.manifest(), read_manifest(self.manifest()))[split]
        return [row for path in paths for row in pq.read_table(path).to_pylist()]


_made: dict[str, "Planted"] = {}  # a fixture that two modules import is two fixtures


@pytest.fixture(scope="session", name="planted")
def planted_mix(tmp_path_factory: pytest.TempPathFactory) -> "Planted":
    if not _made:
        mix = Planted(tmp_path_factory.mktemp("planted"), _upstream(tmp_path_factory.mktemp("upstream")))
        mix.make("--workers", 1)
        _made["mix"] = mix
    return _made["mix"]


def _upstream(folder: Path) -> Path:
    """Returns the folder, with the planted files and the settings in it."""
    (folder / "texts").mkdir()
    (folder / "eval").mkdir()
    lines = [row if isinstance(row, str) else json.dumps(row) for row in planted_rows()[0]]
    (folder / "texts" / "a.jsonl").write_text("\n".join(lines[:70]) + "\n", encoding="utf-8")
    (folder / "texts" / "b.jsonl.gz").write_bytes(gzip.compress("\n".join(lines[70:]).encode(), mtime=0))
    pairs = [{"sentence_good": item, "sentence_bad": item.replace("the", "them"), "UID": "planted"} for item in BLIMP]
    (folder / "eval" / "planted.jsonl.gz").write_bytes(
        gzip.compress("\n".join(map(json.dumps, pairs)).encode(), mtime=0)
    )
    _profile_file(folder)
    return folder


def rejected(mix: Mix, where: str = "true") -> list[dict[str, Any]]:
    done = run_module(
        "curation.peek", mix.manifest(), "--show", "rejected", "--where", where, "--n", 1000, "--json", cwd=mix.folder
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def ngrams(text: str, n: int = 13) -> set[tuple[str, ...]]:
    words = "".join(c if c.isalnum() else "" if c == "'" else " " for c in text.lower()).split()
    return set(zip(*(words[i:] for i in range(n)), strict=False))
