"""BabyLM: each format becomes documents of one work, plain to read, with every line accounted for."""

import gzip
import re
from pathlib import Path

import orjson
import pytest
from datatrove.data import Document
from hypothesis import given
from hypothesis import strategies as st

from curation.documents import REASON, is_dropped
from curation.settings import CleaningSettings, SourceSettings
from curation.sources import talk
from curation.sources.babylm import read_babylm

SETTINGS = SourceSettings(reader="babylm", about="", license="unknown", revision="1", genre="transcript")
CLEANING = CleaningSettings()


def _read(path: Path, content: str | bytes | None = None) -> list[Document]:
    if content is not None:
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    documents = list(read_babylm(path, "babylm/x", SETTINGS, CLEANING))
    assert len({document.id for document in documents}) == len(documents)
    return documents


def _texts(documents: list[Document]) -> list[str]:
    return [document.text for document in documents if not is_dropped(document)]


def _reasons(documents: list[Document]) -> list[str]:
    return [document.metadata[REASON] for document in documents if is_dropped(document)]


_COLUMNS = "transcript_id,utterance_order,speaker_code,gloss,type,language"


def test_childes_rows_become_turns_in_order(tmp_path: Path) -> None:
    rows = [
        "5,4,FAT,it's a kitty+cat from Big_Bird,imperative_emphatic,eng",
        "5,1,MOT,where is xxx the bed+room,question,eng",
        "5,2,MOT,and the cow says,quotation next line,eng",
        "5,3,MOT,moo,declarative,eng",
        "6,1,MOT,look,declarative,eng",
        "6,3,MOT,you can,trail off,eng",
        "6,4,MOT,xxx,declarative,eng",
        "7,1,MOT,mira el gato,declarative,eng spa",
        "8,first,MOT,no number,declarative,eng",
    ]
    documents = _read(tmp_path / "Snow.csv", "\n".join([_COLUMNS, *rows]))
    # A gap in the order (6: from 1 to 3) is a turn of the child.
    assert _texts(documents) == [
        "Where is the bedroom? And the cow says: Moo.\nIt's a kitty cat from Big Bird!",
        "Look.\nYou can...",
    ]
    assert sorted(_reasons(documents)) == ["bad_row", "not_english"]
    assert {document.metadata["work"] for document in documents} >= {"babylm/x/Snow/5", "babylm/x/Snow/6"}
    assert _texts(_read(tmp_path / "Snow.csv", "\n".join([_COLUMNS, *reversed(rows)])))[-1] == _texts(documents)[0]


def test_a_conversation_reads_without_fillers_and_interruptions(tmp_path: Path) -> None:
    said = [
        "A|Okay.|fo_o_fw_\"_by_bc", "A|Uh, I, I have a, uh, dog *typo cat|sd", "B|Uh-huh.|b", "A|and th- he is, is very, very old,|sd",
        "B|But there's,|%", "B|Do you like him?|qy", "A|Yeah.|ny", "B|{F uh, } fine .|ba",
    ]  # fmt: skip
    lines = [orjson.dumps({"id": "swda-1", "text": "\n".join(said)}), b"{broken", b'{"id": 3}']
    documents = _read(tmp_path / "swda.jsonl.gz", gzip.compress(b"\n".join(lines)))
    assert _texts(documents) == ["I have a dog and he is very, very old.\nDo you like him?\nYeah.\nFine."]
    assert sorted(_reasons(documents)) == ["bad_json", "bad_row"]


def test_chat_lines_of_the_hub(tmp_path: Path) -> None:
    content = """*MOT:\twhere is it ?
= = = childes/Eng-NA/Bloom73/Peter/01.cha = = =
[Mother enters the room.]
*MOT:\tsee the kitty+cat?
*MOT:\txxx you want it [points].
*CHI:\tkitty run @wp dada@f .
*SI1:\t&-um me too
*MOT:
= = = childes/x/02.cha = = =
*MOT:\tthank_you.
"""
    documents = _read(tmp_path / "childes.train.txt", content)
    assert _texts(documents) == [
        "Where is it?",
        "See the kitty cat? You want it.\nKitty run dada.\nMe too.",
        "Thank you.",
    ]
    assert documents[1].metadata["work"].endswith("childes/Eng-NA/Bloom73/Peter/01.cha")


def test_subtitles_and_spoken_sentences(tmp_path: Path) -> None:
    content = "- Where are you?\n- [door slams]\n\u266a La la \u266a\nI WANT TO GO, SAID I.\nMARY: I was going to\nthe store.\nSubtitles by Bob\n<i>Hello.</i>\n"
    assert _texts(_read(tmp_path / "open_subtitles.train.txt", content)) == [
        "Where are you?\nLa la.\nI want to go, said I.\nI was going to the store.\nHello."
    ]
    assert _texts(_read(tmp_path / "bnc_spoken.train.txt", "hello there\n.\n\nYes.\n")) == ["Hello there.\nYes."]


def test_unmarked_lines_are_cut_at_blank_lines_and_never_lost(tmp_path: Path) -> None:
    passages = [[f"Line {p} of {n}." for n in range(size)] for p, size in enumerate((30, 150, 90, 3000, 5))]
    documents = _read(tmp_path / "open_subtitles.train.txt", "\n\n".join("\n".join(lines) for lines in passages))
    assert "\n".join(_texts(documents)) == "\n".join(line for lines in passages for line in lines)
    works: dict[str, str] = {}
    for document in documents:
        assert len(document.text.split()) <= CLEANING.max_words
        works[document.metadata["work"]] = works.get(document.metadata["work"], "") + document.text + "\n"
    assert next(iter(works.values())).count("Line 1") == 150 and "Line 2" not in next(iter(works.values()))
    assert max(len(text.split()) for text in works.values()) < 2100


def test_articles_and_books_of_the_hub(tmp_path: Path) -> None:
    cat = "A cat is a small animal with soft fur and sharp claws that many people all over the world keep as a pet."
    content = f"= = = Cat = = =\n{cat}\nHistory.\nCats came to live with people long ago.\n\n= = = Stub = = =\nIt is one.\n\nA:\tHi, uh, there.\nB:\tHello.\n"
    article, stub, conversation = _read(tmp_path / "simple_wiki.train.txt", content)
    assert (article.text, article.metadata["title"]) == (f"{cat}\n\nCats came to live with people long ago.", "Cat")
    assert stub.metadata[REASON] == "stub"
    assert (conversation.text, conversation.metadata["genre"]) == ("Hi there.\nHello.", "transcript")
    book = "= = = PG1 = = =\nThe _old_ cat sat on the =mat=.\n* * *\n[Illustration: A cat]\nShe went home.\n\n= = = PG2 = = =\nA line that\ngoes on.\n\nThe end is here.\n"
    assert _texts(_read(tmp_path / "gutenberg.train.txt", book)) == [
        "The old cat sat on the mat.\n\nShe went home.",
        "A line that goes on.\n\nThe end is here.",
    ]


def test_what_nobody_can_read_is_told(tmp_path: Path) -> None:
    assert _reasons(_read(tmp_path / "notes.docx", b"\xff\xfe")) == ["unknown_format"]
    assert _reasons(_read(tmp_path / "swipe_val.json", "[")) == ["bad_json"]
    content = gzip.compress(
        "\n".join(f"= = = {i} = = =\n*MOT:\tlook at number {i * 7919}." for i in range(3000)).encode()
    )
    documents = _read(tmp_path / "childes.train.txt.gz", content[: len(content) // 2])
    assert _reasons(documents) == ["damaged_file"]
    assert len(documents) > 500


_UTTERANCE = st.text(alphabet="ab ,.?!-*{}[]uhm'", max_size=30)


@given(st.lists(st.tuples(st.sampled_from("AB"), _UTTERANCE)))
def test_turns_are_whole_whatever_is_said(said: list[tuple[str, str]]) -> None:
    for clean in (talk.switchboard_words, talk.childes_words):
        for turn in talk.turns([(speaker, clean(text)) for speaker, text in said], skip_acknowledgements=True):
            assert "\n" not in turn and turn == turn.strip() and "  " not in turn
            assert turn[-1] in '.?!:"' and next(filter(str.isalpha, turn))
    lines = talk.caption_lines([text for _speaker, text in said])
    assert all(line[-1] in '.?!:"' for line in lines)


@pytest.mark.parametrize(
    ("pattern", "least_words", "forbidden"),
    [
        ("aochildes/Rollins.csv.gz", 50_000, r"\b(?:xxx|yyy|www)\b|[_+@]"),
        ("switchboard/swda.jsonl.gz", 1_000_000, r"(?<![\w-])(?:uh|um)\b(?!-)|[*{}|]| [,.?]|^[a-z]"),
        ("simple_wikipedia/dwikipedia.valid.tgt.gz", 100_000, r"``|''| [,.)]|\( |[a-z]{3}\.[a-z]{3}(?<!\.(?:com|org|net))[a-z]* "),
    ],
)  # fmt: skip
def test_real_files(mirror: Path, pattern: str, least_words: int, forbidden: str) -> None:
    documents = _read(mirror / "babylm_like" / pattern)
    texts = _texts(documents)
    assert sum(len(text.split()) for text in texts) > least_words
    assert max(len(text.split()) for text in texts) <= CLEANING.max_words
    found = [
        m[0] for text in texts for m in re.finditer(forbidden, text, re.IGNORECASE * ("^[" not in forbidden) | re.M)
    ]
    assert len(found) <= len(texts) / 200, found[:20]
