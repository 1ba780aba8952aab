"""Sentences of talk and verse are told apart, genres are seen in the layout, windows lose nothing."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from curation.normalise import genre_of, is_punctuated, sentence_text, windows

PROSE = (
    'The goat would not cross the bridge. "Come on," said Ines, and she pulled at the rope.\n\n'
    "It looked at the water, it looked at the planks, and then it lay down. So she sat beside it until noon."
)
CHAT = "\n".join(["Pia: are you up", "Gus: no", "Pia: then who is typing", "Gus: the cat i think", "Pia: hello cat"])
PLAY = "\n\n".join(
    [
        "MARTA. Who left the gate open?",
        "ILSE (laughing). The wind did.",
        "MARTA. The wind has no hands.",
        "ILSE. It had yours.",
    ]
)
TALK = "\n".join(
    [
        "look at the big truck", "where did it go", "there it is", "do you want to push it", "push it to me", "good job",
        "one more time", "oh it fell down", "pick it up please", "there we go",
    ]
)  # fmt: skip
PHONE = "\n".join(
    ["Yeah,", "it is.", "Uh, we went up there, um, in May.", "Huh.", "And it was, uh, cold.", "Okay."] * 2
)
VERSE = (
    "The lamp upon the landing stair\nHas kept a little gold to spare,\nAnd when the house is dark and deep\n"
    "It pours it slowly into sleep,\nTill every shoe and every hat,\nThe sugar bowl, the kitchen cat,\n"
    "Are floating on a yellow tide\nThat laps the bed on either side."
)
STANZAS = (
    (
        "The pan is hot. The egg is in.\nIt does a small and sizzly spin.\n\n"
        "My plate is blue. My fork is bent.\nI do not know where the toast went.\n\n"
    ).replace("\n\n", "\n")
    + "The dog has crumbs upon his chin.\nHe gives me such a guilty grin.\nHe ate it all. He would again.\nI pour him water in the pan."
)
LIST = "\n".join(
    ["The Coming of the Ship 9", "The Old Mill 21", "A Letter from Home 33", "The Last Apple 40", "Home 52"]
)
WRAPPED = (
    "When the men came back from the far end of the valley they found that\n"
    "the barn had been swept, the lamps filled, and the long table laid for\n"
    "twelve, although nobody on the farm would say who had taken the trouble\n"
    "to do it, and the old woman only laughed when they asked and pointed at\n"
    "the cat."
)


@pytest.mark.parametrize(
    ("text", "punctuated"),
    [
        ("Wait\u2026 \u201cReally?!\u201d she said \u2013 no!!", 'Wait. "Really?" she said - no!'),
        ("He had . . . nothing left. . .", "He had, nothing left."),
        ("Pia: are you up\nGus: no\nPia: then who\nGus: the cat!", "are you up.\nno.\nthen who.\nthe cat!"),
        ("[9:02] locked out\n[9:03] yes\n[9:03] me too\n[9:04] oh no", "locked out.\nyes.\nme too.\noh no."),
        ("look here\nwhat is it\na frog\nlet it go", "look here.\nwhat is it.\na frog.\nlet it go."),
        (PLAY, "Who left the gate open?\n\nThe wind did.\n\nThe wind has no hands.\n\nIt had yours."),
        (
            "<b>Note</b>: one\n<b>Note</b>: two\n<b>Note</b>: three.",
            "<b>Note</b>: one\n<b>Note</b>: two\n<b>Note</b>: three.",
        ),
    ],
)
def test_sentences_end_where_a_reader_ends_them(text: str, punctuated: str) -> None:
    assert sentence_text(text) == punctuated


@pytest.mark.parametrize("text", [PROSE, WRAPPED, VERSE, "", "One line only", "Dear Sam: come soon.\nBring bread."])
def test_what_is_punctuated_is_left_as_it_is(text: str) -> None:
    assert sentence_text(text) is text


@given(st.text(st.sampled_from("aB:. !?\n[]()12-'\"\u2026\u2014")) | st.text())
def test_punctuating_twice_changes_nothing_more(text: str) -> None:
    once = sentence_text(text)
    assert sentence_text(once) == once


def test_sentence_length_is_trusted_only_where_there_are_sentences() -> None:
    assert is_punctuated(PROSE)
    assert is_punctuated(sentence_text(CHAT))
    assert is_punctuated(sentence_text(TALK))
    assert not is_punctuated("")
    assert not is_punctuated("so we went down to the lake and " * 10)
    assert not is_punctuated("so we went down to the lake and " * 10 + "swam.")


@pytest.mark.parametrize(
    ("text", "genre"),
    [
        (PROSE, None),
        (WRAPPED, None),
        (
            "\n\n".join(
                ['"Is it far?" said Bo.', '"Not very," said the crow.', '"How far is that?"', '"Two fields."'] * 3
            ),
            None,
        ),
        (LIST, None),
        ("Which of these floats?\n(A) a brick\n(B) a cork\n(C) a nail\n(D) a stone\nAnswer: a cork", None),
        ("Question: how many legs has a beetle?\nAnswer: six\n\nQuestion: and a spider?\nAnswer: eight", None),
        ("", None),
        (CHAT, "transcript"),
        (PLAY, "transcript"),
        (TALK, "transcript"),
        (PHONE, "transcript"),
        (VERSE, "verse"),
        (STANZAS, "verse"),
    ],
)
def test_genres_are_seen_in_the_layout(text: str, genre: str | None) -> None:
    assert genre_of(text) == genre


@given(st.text(st.sampled_from("aB:. !?\n[]()12-'\"\u2026\u2014")) | st.text())
def test_any_text_has_a_genre_or_none(text: str) -> None:
    assert genre_of(text) in (None, "verse", "transcript")
    assert is_punctuated(text) in (True, False)


TEXTS = st.lists(st.text(st.sampled_from("ab.!?\"' \n\u00e9\u3000"), min_size=1, max_size=12), max_size=150).map(
    " ".join
)


@given(TEXTS, st.integers(1, 30), st.integers(1, 12))
def test_windows_are_the_text_in_order(text: str, n_words: int, least: int) -> None:
    everything = windows(text, n_words, 10_000)
    assert " ".join(everything).split() == text.split()
    assert all(window.strip() for window in everything)
    assert everything == [text] or not text.strip() or len(text.split()) >= 1.5 * n_words
    chosen = windows(text, n_words, least)
    assert len(chosen) == min(least, len(everything))
    positions = iter(everything)
    assert all(window in positions for window in chosen)  # the same windows, in order
    if len(chosen) > 1:
        assert (chosen[0], chosen[-1]) == (everything[0], everything[-1])


def test_windows_end_with_sentences_and_have_about_the_words_asked_for() -> None:
    text = " ".join(f"Bird {i} sat on the wall and sang a song of {i} notes." for i in range(200))
    cut = windows(text, 100, 1000)
    assert all(window.endswith(".") for window in cut)
    assert all(75 <= len(window.split()) <= 125 for window in cut)
    assert windows(text, 2000, 8) == [text]
    assert len(windows(text, 100, 8)) == 8


def test_long_texts_are_fast() -> None:
    texts = [
        "a. " * 300_000,
        "A: b\n" * 200_000,
        "x" * 1_000_000,
        "[" * 1_000_000,
        "A: " * 300_000,
        ". " * 500_000,
        "a\n" * 500_000,
    ]
    for text in texts:
        began = time.perf_counter()
        windows(text, 200, 8)
        genre_of(text)
        is_punctuated(text)
        assert time.perf_counter() - began < 5, text[:10]
