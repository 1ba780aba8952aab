"""What is masked, what is left alone, and that masking is done once."""

import time
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from curation.pii import CARD, EMAIL, IBAN, IPV4, IPV6, PHONE, SSN, mask


@pytest.mark.parametrize(
    ("text", "masked", "kind"),
    [
        ("Write to ann.o'neil@school.edu.", "Write to ann.o'" + EMAIL + ".", "email"),
        ("Mail <first.last+tag@mail.co.uk> now", f"Mail <{EMAIL}> now", "email"),
        ("Our number is (212) 736-5000.", f"Our number is {PHONE}.", "phone"),
        ("fax 212-736-5000, or 1.212.736.5000", f"fax {PHONE}, or {PHONE}", "phone"),
        ("London: +44 20 7946 0958", f"London: {PHONE}", "phone"),
        ("Call us: 736-5000 today", f"Call us: {PHONE} today", "phone"),
        ("Tel. 020 7946 0958", f"Tel. {PHONE}", "phone"),
        ("card 4111 1111 1111 1111, please", f"card {CARD}, please", "card"),
        ("card 378282246310005 too", f"card {CARD} too", "card"),
        ("SSN 219-09-9999", f"SSN {SSN}", "ssn"),
        ("Pay to DE89 3704 0044 0532 0130 00.", f"Pay to {IBAN}.", "iban"),
        ("Pay to GB29NWBK60161331926819.", f"Pay to {IBAN}.", "iban"),
        ("from 203.0.113.77 at night", f"from {IPV4} at night", "ip"),
        ("from 2a00:1450:4001:81b::200e", f"from {IPV6}", "ip"),
        ("https://a.org/x?id=3&access_token=ab.c-9#top", "https://a.org/x?id=3&access_token=x#top", "secret"),
        ("ftp://ann:hunter2@files.example.org/x", "ftp://files.example.org/x", "secret"),
    ],
)
def test_masks(text: str, masked: str, kind: str) -> None:
    assert mask(text) == (masked, Counter({kind: masked.count(PHONE) or 1}))


@pytest.mark.parametrize(
    "text",
    [
        "In 1492, and again in 1776-1783, ships came. Read pages 123-145.",
        "12 + 34 = 46, 3.14159265358979 and 1,234,567,890 are numbers; 4111 - 1111 = 3000.",
        "They won 21-17, 6-4, 3-6, 7-5. The time was 10:15:30. Dial 911.",
        "ISBN 978-0-306-40615-7, ISBN 0-306-40615-2, 9780306406157.",
        "On 2012-10-12 and 10/12/2012 it was 12.5 degrees at 52.5200 N, 13.4050 E.",
        "See section 3.2.1.4 of version 2.0.1.3, or 10.2 and 10.3.",
        "Meet me @ noon. It cost 5 @ 10 cents. Follow @reader.",
        "He lives at 12 Elm Street, Springfield 62704.",
        "std::vector and a::b, or Genesis 1:1, at 7:30: run",
        "y = 2x; z = 3. What is 4532 1488 + 343?",
        "The card 4111 1111 1111 1112 has a wrong check digit. 999-99-9999 is nobody.",
        "Text 2 has 300 400 words. Ring 3 times.",
        "https://example.org/a?page=2&key_stage=3",
    ],
)
def test_leaves_alone(text: str) -> None:
    assert mask(text) == (text, Counter())


pieces = st.sampled_from(
    ["a", "ann@b.co", "@", ".", ":", "::", "-", " ", "(212) ", "736-5000", "219-09-9999", "4111 1111 1111 1111", "call ", "10.11.12.13",
     "2a00:1450::200e", "DE89 3704 0044 0532 0130 00", "1", "0", "+44 ", "?token=", "&", "http://", "://", "a:b@", EMAIL, PHONE, CARD, SSN, IBAN, IPV4, IPV6]
)  # fmt: skip


@given(st.lists(pieces, max_size=14).map("".join) | st.text(st.sampled_from("a1@.:- +()=?&/D4")))
@example("call (212) 736-5000 1234")
def test_masking_twice_changes_nothing_more(text: str) -> None:
    once, _ = mask(text)
    assert mask(once) == (once, Counter())


@pytest.mark.parametrize(
    "piece", ["1", "1 ", "a@", "a.", "1.", "a:", "1-", "+1 ", "(111) ", "?key=", "AA11", "call ", "a://", "4111 ", "1:"]
)
def test_a_megabyte_of_anything_is_masked_at_once(piece: str) -> None:
    began = time.process_time()
    mask(piece * (1_000_000 // len(piece)))
    assert time.process_time() - began < 3


def test_books_hold_hardly_any(mirror: Path) -> None:
    """In old books whatever is masked is a mistake, but for the transcribers' addresses."""
    found: Counter[str] = Counter()
    for path in sorted((mirror / "labelled" / "african_storybook" / "en").glob("*.md")):
        found += mask(path.read_text(encoding="utf-8"))[1]
    assert set(found) <= {"phone", "email"} and found["phone"] <= 2
