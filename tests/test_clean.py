"""What is repaired, and what is dropped for which reason."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from curation.clean import is_english, repair, why_rejected
from curation.settings import CleaningSettings

SETTINGS = CleaningSettings()
STORY = "The dog ran down to the river, and there he saw a duck. It was sitting on an old hat, and it would not move for him."


@pytest.mark.parametrize(
    ("broken", "mended"),
    [
        ("It\u2019s \u201chere\u201d", 'It\'s "here"'),
        ("It\u00e2\u20ac\u2122s here", "It's here"),
        ("a\x00b\x07c", "abc"),
        ("end.\x0cNext page", "end.\nNext page"),
        ("a  b\t c \n\n\n\n d ", "a b c\n\nd"),
        ("one\r\ntwo\rthree", "one\ntwo\nthree"),
        ("fish &amp; chips", "fish & chips"),
        ("\ufb01sh", "fish"),
        ("cafe\u0301", "caf\u00e9"),
        ("\u200b\ufeff", ""),
    ],
)
def test_repairs(broken: str, mended: str) -> None:
    assert repair(broken) == mended


@given(st.text())
def test_repairing_twice_changes_nothing_more(text: str) -> None:
    once = repair(text)
    assert repair(once) == once or "&" in text  # an entity may hide another one


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (STORY, ""),
        ("", "too_short"),
        ("   \n ", "too_short"),
        ("Only four words here.", "too_short"),
        ("x" * 100_000, "too_short"),
        ("Der Hund lief zum Fluss hinunter, und dort sah er eine Ente, die auf einem alten Hut sass und nicht weichen wollte.", "not_english"),
        ("1, 2, 3, 4, 5\n" * 30, "not_prose"),
        ("? ! . , ; " * 30, "not_prose"),
        ("apple bread candle donkey engine flower garden hammer island jacket kettle ladder mirror needle orange pencil rabbit saddle table violin", "not_prose"),
        ("\n".join(["The cat sat on the mat and it was happy there."] * 12), "repetitive"),
        ("Ana has 3 figs. She picks 4 more. How many figs has she now?\nAnswer: 3 + 4 = 7, so she has 7 figs. Then 7 - 2 = 5.", ""),
    ],
)  # fmt: skip
def test_reasons(text: str, reason: str) -> None:
    assert why_rejected(repair(text), SETTINGS) == reason


def test_languages_are_told_apart() -> None:
    assert is_english(STORY)
    assert not is_english("Le chien courut vers la riviere et il y vit un canard assis sur un vieux chapeau.")
