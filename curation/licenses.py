"""What a licence allows: which copy of a text is the freer, what --licenses open leaves out, who must be named.

Licences are SPDX ids; LicenseRef-... are those that SPDX does not list, "unknown" is where nobody stated one.
"""

_VERSIONS = ("4.0", "3.0", "2.5", "2.0", "1.0")


def _creative_commons(terms: str) -> tuple[str, ...]:
    return tuple(f"CC-{terms}-{version}" for version in _VERSIONS)


# Each from the freest to the least free: a copy under an earlier one may be used for more.
OPEN = (
    "CC0-1.0", "CC-PDM-1.0", "MIT", "Apache-2.0", "ODC-By-1.0", *_creative_commons("BY"),
    "CDLA-Sharing-1.0", *_creative_commons("BY-SA"), "GPL-3.0-only",
)  # fmt: skip
CLOSED = (
    *_creative_commons("BY-ND"), *_creative_commons("BY-NC"), *_creative_commons("BY-NC-SA"),
    *_creative_commons("BY-NC-ND"),
    "LicenseRef-MSR-LA",  # Microsoft Research licence agreement, of MCTest: for research that is not commercial
    "LicenseRef-BNC",  # user licence of the British National Corpus: texts may be studied, not passed on
)  # fmt: skip
FREEST_FIRST = (*OPEN, *CLOSED)
UNKNOWN = "unknown"
_NEED_NO_NAME = frozenset(("CC0-1.0", "CC-PDM-1.0"))


def rank(license: str) -> int:
    """Returns the place of a licence among all, the freest first; those that are not known to us are last."""
    return FREEST_FIRST.index(license) if license in FREEST_FIRST else len(FREEST_FIRST)


def is_open(license: str) -> bool:
    """May anybody use, change and sell what has this licence? No for non-commercial, no-derivatives, unknown ones."""
    return license in OPEN


def needs_attribution(license: str) -> bool:
    """Does the licence ask that the author or the work be named? Of what is not known to us we say so too."""
    return license not in _NEED_NO_NAME
