"""What a task leaves behind: parquet files that stand whole, and last a receipt that tells they are as it wrote them.

So work is skipped exactly when its result is there, whatever was stopped, damaged or run with other workers.
"""

import json
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from shared.files import sha256_file, write_text, written_whole
from shared.schema import PARQUET_OPTIONS, SCHEMA

Counts = Mapping[str, Mapping[str, int]]  # what is counted -> reason or kind -> how many

# A document between being cleaned and being graded.
DOCUMENT_SCHEMA = pa.schema(
    [SCHEMA.field(n) for n in ("doc_id", "work", "text", "source", "title", "url", "license", "genre", "subject")]
)
MAX_REJECT_CHARS = 4000
REJECTED_SCHEMA = pa.schema(
    [
        *(SCHEMA.field(name) for name in ("doc_id", "work", "source", "title")),
        pa.field("reason", pa.string(), nullable=False),
        pa.field("detail", pa.string()),  # the document it repeats, the evaluation it quotes
        SCHEMA.field("n_words"),
        pa.field("text", pa.string(), nullable=False),  # its beginning
    ]
)


@dataclass(frozen=True)
class Outputs:
    """The files of a task, and the receipt beside them with their hashes and what was counted."""

    receipt: Path
    files: tuple[Path, ...]

    def are_whole(self) -> bool:
        """Do all files stand as they were written?"""
        try:
            return bool(json.loads(self.receipt.read_bytes())["sha256"] == self._hashes())
        except (OSError, ValueError, KeyError, TypeError):
            return False

    def seal(self, counts: Counts) -> None:
        """Writes the receipt: from here on the task is done."""
        write_text(self.receipt, json.dumps({"sha256": self._hashes(), "counts": counts}, sort_keys=True) + "\n")

    def counts(self) -> Counts:
        """Returns what the task counted."""
        counts: Counts = json.loads(self.receipt.read_bytes())["counts"]
        return counts

    def _hashes(self) -> list[str]:
        return [sha256_file(path) for path in self.files]


class ParquetFile:
    """A parquet file that appears under its name only when it is whole."""

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        self._schema = schema
        self._files = ExitStack()
        self._path = path

    def __enter__(self) -> "ParquetFile":
        temporary = self._files.enter_context(written_whole(self._path))
        self._writer = self._files.enter_context(pq.ParquetWriter(temporary, self._schema, **PARQUET_OPTIONS))
        return self

    def write(self, rows: Sequence[Mapping[str, object]] | pa.Table) -> None:
        """Appends rows; keys that are no columns are left out."""
        if len(rows):
            is_table = isinstance(rows, pa.Table)
            self._writer.write_table(rows if is_table else pa.Table.from_pylist(rows, schema=self._schema))

    def __exit__(self, *error: object) -> bool | None:
        return self._files.__exit__(*error)  # type: ignore[arg-type]


def write_parquet(table: pa.Table, path: Path) -> None:
    """Writes a table whole or not at all."""
    with written_whole(path) as temporary:
        pq.write_table(table, temporary, **PARQUET_OPTIONS)
