"""Masks what could name or reach a private person: text in, the same text with placeholders and counts by kind out.

email, phone, card (a payment card's number by ISO/IEC 7812, with its check digit), ssn, iban (ISO 13616, with its check
digits), ip, and secret: the token or password in a web address. Each placeholder reads like the thing and belongs to
nobody: example.com (RFC 2606), 555-0100 (set aside for fiction), 192.0.2.1 and 2001:db8::1 (RFC 5737, 3849).
Street addresses stay: stories are full of "12 Elm Street", and a rule would find those first.
"""

import ipaddress
import re
from collections import Counter
from collections.abc import Callable

EMAIL, PHONE, IPV4, IPV6 = "name@example.com", "555-0100", "192.0.2.1", "2001:db8::1"
CARD, SSN, IBAN = "0000 0000 0000 0000", "000-00-0000", "XX00 0000 0000 0000"

_EMAIL = re.compile(r"(?<![\w.+-])[\w.+-]{1,64}@(?:[A-Za-z0-9-]{1,63}\.){1,8}[A-Za-z]{2,24}(?![\w-]|\.\w)")
_SECRET = re.compile(
    r"(?P<before>[?&;#](?:access_|auth_?|api_?|session_?|csrf_?|id_)?"
    r"(?:token|key|sid|session|sessionid|phpsessid|jsessionid|password|passwd|pwd|secret|auth|signature|sig)=)"
    r"(?P<value>[^\s&#;\"'<>]+)",
    re.IGNORECASE,
)
_LOGIN = re.compile(r"(?P<before>\b[a-z][a-z0-9+.-]{1,20}://)(?P<value>[^\s/@:]{1,64}:[^\s/@]{1,64})@")
_IBAN = re.compile(r"(?<![\w-])[A-Z]{2}\d{2}(?: ?[A-Z0-9]{4}){2,7}(?: ?[A-Z0-9]{1,3})?(?![\w-])")
_CARD = re.compile(r"(?<![\w.,/#-])[3-6]\d{3}(?:[ -]?\d){9,15}(?![\w/-]|[.,]\d)")
_SSN = re.compile(r"(?<![\w.,/#-])(?!000|666|9)\d{3}-(?!00)\d{2}-(?!0000)\d{4}(?![\w/-]|[.,]\d)")
_PHONE = re.compile(
    r"""(?<![\w.,/#+=*-])(?:
      \+\d{1,3}(?:[ .-]?\(0?\d{0,4}\))?(?:[ .-]?\d{2,5}){2,5}     # +44 20 7946 0000
    | (?:1[ .-])?\(\d{3}\)[ .-]{0,3}\d{3}[ .-]\d{4}               # (212) 736-5000
    | (?:1[.-])?[2-9]\d{2}(?P<sign>[.-])\d{3}(?P=sign)\d{4}        # 212-736-5000
    )(?![\w/%=*-]|[.,:]\d)""",
    re.VERBOSE,
)
_TOLD = re.compile(  # a number without its area or with spaces is one only where somebody says so
    r"(?P<before>\b(?:tel(?:ephone)?|phone|cell|mobile|fax|call(?:\ us)?|text|ring|dial|whatsapp)\b"
    r"(?:\ (?:number|no|me|us|her|him|them|is|at|on|or|fax))*[.:]{0,2}\ {0,2})"
    r"(?P<value>\(?\d{3,5}\)?(?:[ -]\d{3,4}){1,3}|0\d{9,10}|\d{7,11})(?![\w/%-]|[.,:]\d)",
    re.IGNORECASE,
)
_IPV4 = re.compile(r"(?<![\w.])(?:\d{1,3}\.){3}\d{1,3}(?![\w-]|\.\d)")
_IPV6 = re.compile(r"(?<![\w:.])(?:[0-9A-Fa-f]{0,4}:){2,7}[0-9A-Fa-f]{0,4}(?![\w:])")

_SIGNS = ("@", "://", "=")
_DIGITS = re.compile(r"\d[\d ().-]{5,}\d")
_COLONS = re.compile(":[0-9A-Fa-f]{0,4}:")
_MAX_PASSES = 5  # a placeholder may stand beside what then looks like a part of it


def mask(text: str) -> tuple[str, Counter[str]]:
    """Returns the text with placeholders, and how many there are of each kind. Masking twice changes nothing more."""
    found: Counter[str] = Counter()
    if not any(map(text.__contains__, _SIGNS)) and not _DIGITS.search(text) and not _COLONS.search(text):
        return text, found
    for _ in range(_MAX_PASSES):
        before = text
        for kind, pattern, masked in _RULES:
            text = pattern.sub(_counting(kind, masked, found), text)
        if text == before:
            break
    return text, found


def _counting(
    kind: str, masked: Callable[["re.Match[str]"], str], found: Counter[str]
) -> Callable[["re.Match[str]"], str]:
    def replace(match: "re.Match[str]") -> str:
        after = masked(match)
        if after != match[0]:
            found[kind] += 1
        return after

    return replace


def _always(placeholder: str) -> Callable[["re.Match[str]"], str]:
    return lambda match: placeholder


def _value(placeholder: str) -> Callable[["re.Match[str]"], str]:
    return lambda match: match["before"] + placeholder


def _card(match: "re.Match[str]") -> str:
    digits = [int(digit) for digit in match[0] if digit.isdigit()]
    groups = re.split("[ -]", match[0])
    grouped = len(groups) == 1 or (3 <= len(groups) <= 5 and min(map(len, groups[:-1])) >= 4)
    return CARD if grouped and _passes_luhn(digits) else match[0]


def _passes_luhn(digits: list[int]) -> bool:
    """Is the check digit of ISO/IEC 7812-1, annex B right?"""
    doubled = [digit if i % 2 == 0 else sum(divmod(2 * digit, 10)) for i, digit in enumerate(reversed(digits))]
    return sum(doubled) % 10 == 0


def _iban(match: "re.Match[str]") -> str:
    number = match[0].replace(" ", "")
    if not 15 <= len(number) <= 34:
        return match[0]
    moved = number[4:] + number[:4]
    return IBAN if int("".join(str(int(sign, 36)) for sign in moved)) % 97 == 1 else match[0]


def _phone(match: "re.Match[str]") -> str:
    return PHONE if 10 <= sum(map(str.isdigit, match[0])) <= 15 else match[0]


def _told(match: "re.Match[str]") -> str:
    return match["before"] + PHONE if 7 <= sum(map(str.isdigit, match["value"])) <= 11 else match[0]


def _ipv4(match: "re.Match[str]") -> str:
    parts = [int(part) for part in match[0].split(".")]
    is_address = max(parts) <= 255 and (parts[0] >= 10 or min(parts[1:]) >= 10)  # "version 2.0.1.3", "section 3.2.1.4"
    return IPV4 if is_address else match[0]


def _ipv6(match: "re.Match[str]") -> str:
    if sum(map(str.isalnum, match[0])) < 6 or not re.search("[0-9]", match[0]):
        return match[0]
    try:
        ipaddress.IPv6Address(match[0])
    except ValueError:
        return match[0]
    return IPV6


_RULES: tuple[tuple[str, "re.Pattern[str]", Callable[["re.Match[str]"], str]], ...] = (
    ("secret", _LOGIN, lambda match: match["before"]),
    ("email", _EMAIL, _always(EMAIL)),
    ("secret", _SECRET, _value("x")),
    ("iban", _IBAN, _iban),
    ("card", _CARD, _card),
    ("ssn", _SSN, _always(SSN)),
    ("phone", _PHONE, _phone),
    ("phone", _TOLD, _told),
    ("ip", _IPV6, _ipv6),
    ("ip", _IPV4, _ipv4),
)
