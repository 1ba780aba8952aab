"""Licences: every one in use is known, and what is open is what anybody may use, change and sell."""

import pytest

from curation.licenses import CLOSED, FREEST_FIRST, OPEN, UNKNOWN, is_open, needs_attribution, rank
from curation.settings import read_curation_file
from curation.sources.picture_books import _LICENSES as PICTURE_BOOK_LICENSES
from shared.settings import PIPELINES_FILE


def test_every_licence_in_use_is_known() -> None:
    content = read_curation_file(PIPELINES_FILE)
    used = {source.license for source in content.sources.values()} | set(PICTURE_BOOK_LICENSES.values())
    used |= {labels.license for labels in content.label_sets.values() if labels.license}
    used |= {evaluation.license for evaluation in content.evaluations.values()}
    assert used - {UNKNOWN} <= set(FREEST_FIRST)
    assert {"CC-BY-4.0", "CC-PDM-1.0", "CC-BY-NC-SA-3.0", "LicenseRef-BNC", UNKNOWN} <= used


def test_what_forbids_something_is_not_open() -> None:
    assert len(set(FREEST_FIRST)) == len(OPEN) + len(CLOSED)
    assert not any("-NC" in license or "-ND" in license or "LicenseRef" in license for license in OPEN)
    assert all("-NC" in license or "-ND" in license or "LicenseRef" in license for license in CLOSED)
    assert not any(map(is_open, [*CLOSED, UNKNOWN, "", "CC-BY", "cc-by-4.0", "LicenseRef-mine", "CC-BY-4.0 OR MIT"]))


def test_of_two_copies_an_open_one_is_freer_and_one_of_unknown_terms_is_last() -> None:
    assert max(map(rank, OPEN)) < min(map(rank, CLOSED)) <= max(map(rank, CLOSED)) < rank(UNKNOWN) == rank("odd")
    assert rank("CC0-1.0") < rank("CC-BY-4.0") < rank("CC-BY-SA-4.0") < rank("CC-BY-NC-4.0") < rank("CC-BY-NC-SA-4.0")


@pytest.mark.parametrize("license", ["CC0-1.0", "CC-PDM-1.0"])
def test_what_is_in_the_public_domain_needs_no_name(license: str) -> None:
    assert not needs_attribution(license)
    assert all(map(needs_attribution, ["CC-BY-4.0", "MIT", UNKNOWN]))
