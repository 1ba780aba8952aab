"""Builds syllables.txt.gz: the syllables of every word of the CMU Pronouncing Dictionary, first pronunciation.

python -m curation.build_syllables path/to/nltk_data    (a folder made by nltk.download("cmudict"))
"""

import gzip
import sys
from pathlib import Path

from curation.readability import SYLLABLES_FILE
from shared.console import UserError, run_command, say
from shared.files import written_whole


def count_syllables(nltk_data: Path) -> dict[str, int]:
    """Returns word -> syllables (phones that carry a stress digit) from NLTK's copy of the dictionary."""
    lines = (nltk_data / "corpora" / "cmudict" / "cmudict").read_text(encoding="latin-1").splitlines()
    syllables: dict[str, int] = {}
    for line in lines:
        word, _number, *phones = line.split()  # ABANDON 1 AH0 B AE1 N D AH0 N
        syllables.setdefault(word.lower(), sum(phone[-1].isdigit() for phone in phones))
    return syllables


def main() -> None:
    if len(sys.argv) != 2 or not (Path(sys.argv[1]) / "corpora" / "cmudict" / "cmudict").is_file():
        raise UserError("name a folder that holds corpora/cmudict/cmudict", "python -m nltk.downloader -d DIR cmudict")
    syllables = count_syllables(Path(sys.argv[1]))
    counts = sorted(set(syllables.values()))
    lines = [" ".join([str(n), *sorted(word for word, m in syllables.items() if m == n)]) for n in counts]
    with (
        written_whole(SYLLABLES_FILE) as temporary,
        temporary.open("wb") as raw,
        gzip.GzipFile(filename="", mode="wb", fileobj=raw, mtime=0) as file,
    ):
        file.write(("\n".join(lines) + "\n").encode())
    say(f"{SYLLABLES_FILE}: {len(syllables):,} words")


if __name__ == "__main__":
    run_command(main)
