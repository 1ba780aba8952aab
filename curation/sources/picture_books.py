"""Picture-book stories of African Storybook and Pratham Books: markdown, `##` between pages, licence in the last lines.

A file is one story (.md), or a repository's archive with its stories under en/ (.tar.gz).
"""

import re
import tarfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from datatrove.data import Document

from curation.documents import cut, make_document
from curation.settings import CleaningSettings, SourceSettings

# The stories name their licence without its version; both collections state version 4.0 on their sites.
_LICENSES = {
    "CC-BY": "CC-BY-4.0",
    "CC-BY-NC": "CC-BY-NC-4.0",
    "CC-BY-NC-SA": "CC-BY-NC-SA-4.0",
    "CC-BY-SA": "CC-BY-SA-4.0",
    "CC-0": "CC0-1.0",
    "PUBLIC-DOMAIN": "CC-PDM-1.0",
}
_HOMES = {  # where a story of each collection can be read, by its file's name
    "textbooks/african_storybook": "https://github.com/global-asp/asp-source/blob/master/en/{name}.md",
    "textbooks/pratham": "https://github.com/global-asp/pb-source/blob/master/en/{name}.md",
}
_METADATA = re.compile(r"^\* ([A-Z][A-Za-z ]{1,20}): *(.*)$", re.MULTILINE)


def read_picture_books(
    path: Path, source: str, settings: SourceSettings, cleaning: CleaningSettings
) -> Iterator[Document]:
    """Yields the stories of a file, each of them whole unless it is longer than a document may be."""
    home = _HOMES.get(source)
    for name, markdown in _stories(path):
        facts = dict(_METADATA.findall(markdown))
        license = facts.get("License", "").strip("[] ").upper().replace(" ", "-")
        heading, _, body = _METADATA.sub("", markdown).partition("\n")
        title = heading.lstrip("# ").strip() + _by(facts)
        pages = re.split(r"^##.*$", body, flags=re.MULTILINE)
        paragraphs = [
            " ".join(block.split()) for page in pages for block in re.split(r"\n\s*\n", page) if block.strip()
        ]
        for i, document in enumerate(cut(paragraphs, cleaning, whole=True)):
            yield make_document(
                source,
                settings,
                name,
                str(i),
                "\n\n".join(document),
                title=title,
                url=home.format(name=name) if home else None,
                license=_LICENSES.get(license, "unknown"),
            )


def _by(facts: dict[str, str]) -> str:
    """Returns who wrote and who translated a story, whom its licence asks to name, to go behind its title."""
    author = facts.get("Text", "").strip()
    translator = (facts.get("Translated By") or facts.get("Translation") or "").strip()
    told = f", by {author}" if author else ""
    return told + (f", translated by {translator}" if translator and translator != author else "")


def _stories(path: Path) -> Iterator[tuple[str, str]]:
    if path.suffix == ".md":
        yield path.stem, path.read_text(encoding="utf-8", errors="replace")
        return
    with tarfile.open(path) as archive:
        members = [m for m in archive.getmembers() if m.isfile() and re.search(r"/en/[^/]+\.md$", m.name)]
        for member in sorted(members, key=lambda m: m.name):
            file = archive.extractfile(member)
            assert file is not None, member.name
            yield PurePosixPath(member.name).stem, file.read().decode("utf-8", errors="replace")
