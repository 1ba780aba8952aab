"""Token shards: each parquet shard of a mix as one array of tokens and a table of its documents.

    data/tokens/<tokenizer>/<shard>/tokens.npy           uint16; every document is BOS, then its text
                                    documents.parquet    a row for each document, and what both were made from

Both folder names are the first 16 digits of a SHA-256. They are made once, checked whenever they are opened, and made
again when they do not fit. batches.py reads them.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from tokenizers import Tokenizer

from shared.console import UserError, human, say
from shared.files import made_whole, sha256_file, taking_turns
from shared.manifest import Manifest, verified_shards
from shared.schema import PARQUET_OPTIONS, SCHEMA
from training.tokenizer import BOS_ID, DOCUMENTS_AT_ONCE, load_tokenizer

FORMAT_VERSION = "1"
COLUMNS = pa.schema(
    [
        *(SCHEMA.field(name) for name in ("doc_id", "source", "part", "grade")),
        pa.field("n_bytes", pa.int32(), nullable=False),  # of the text, in UTF-8
        pa.field("n_tokens", pa.int32(), nullable=False),  # BOS included
    ]
)


@dataclass(frozen=True, eq=False)
class TokenShard:
    """One shard's tokens: document i is tokens[starts[i] : starts[i + 1]], BOS first."""

    folder: Path
    sha256: str  # of tokens.npy
    tokens: npt.NDArray[np.uint16]  # (n_tokens,), mapped from the file
    starts: npt.NDArray[np.int64]  # (n_docs + 1,)

    def column(self, name: str) -> npt.NDArray[Any]:
        """Returns one of COLUMNS, a value for each document; a grade that is not known is NaN."""
        column: npt.NDArray[Any] = _read_documents(self.folder)[name].to_numpy()
        return column


def ensure_token_shards(
    manifest_path: Path, manifest: Manifest, tokenizer_path: Path, data_dir: Path
) -> dict[str, list[TokenShard]]:
    """Returns the token shards of train and val, made where they are missing or damaged.

    Every parquet shard is first held against the manifest. Raises UserError naming the one that does not fit.
    """
    paths = verified_shards(manifest_path, manifest)
    tokenizer, tokenizer_hash = load_tokenizer(tokenizer_path), sha256_file(tokenizer_path)
    with taking_turns(_folder(data_dir, tokenizer_hash)):
        for split, entries in manifest.splits.items():
            for entry, path in zip(entries, paths[split], strict=True):
                folder, origin = _folder(data_dir, tokenizer_hash, entry.sha256), _origin(tokenizer_hash, entry.sha256)
                if _open(folder, origin) is None:
                    say(f"encoding {path}, {human(entry.n_words)} words")
                    _make(folder, origin, path, tokenizer)
    return open_token_shards(manifest, tokenizer_path, data_dir)


def open_token_shards(manifest: Manifest, tokenizer_path: Path, data_dir: Path) -> dict[str, list[TokenShard]]:
    """Returns the token shards that ensure_token_shards made, as the other processes of a run need them.

    Raises UserError naming a folder that does not hold them whole.
    """
    tokenizer_hash = sha256_file(tokenizer_path)
    opened: dict[str, list[TokenShard]] = {"train": [], "val": []}
    for split, entries in manifest.splits.items():
        for entry in entries:
            folder = _folder(data_dir, tokenizer_hash, entry.sha256)
            if (shard := _open(folder, _origin(tokenizer_hash, entry.sha256))) is None:
                raise UserError(f"{folder} does not hold the tokens of {entry.path}", "run the same command again")
            opened[split].append(shard)
    return opened


def _folder(data_dir: Path, *hashes: str) -> Path:
    return data_dir.joinpath("tokens", *(sha256[:16] for sha256 in hashes))


def _origin(tokenizer_hash: str, shard_hash: str) -> dict[str, str]:
    return {"format_version": FORMAT_VERSION, "tokenizer": tokenizer_hash, "shard": shard_hash}


def _make(folder: Path, origin: dict[str, str], shard: Path, tokenizer: Tokenizer) -> None:
    """Encodes one parquet shard, on all cores: `tokenizers` shares out each batch of documents among its threads."""
    tokens: list[npt.NDArray[np.uint16]] = []
    documents: list[pa.RecordBatch] = []
    for batch in pq.ParquetFile(shard).iter_batches(DOCUMENTS_AT_ONCE, columns=["text", *COLUMNS.names[:4]]):
        encoded = tokenizer.encode_batch_fast(batch["text"].to_pylist(), add_special_tokens=False)
        of_documents = [np.array([BOS_ID, *encoding.ids], np.uint16) for encoding in encoded]
        tokens += of_documents
        counts = [pc.binary_length(batch["text"]), pa.array(map(len, of_documents), pa.int32())]
        columns = [batch[name] for name in COLUMNS.names[:4]]
        documents.append(pa.record_batch([*columns, *counts], schema=COLUMNS))
    with made_whole(folder) as temporary:
        np.save(temporary / "tokens.npy", np.concatenate(tokens))
        origin = {**origin, "n_tokens": str(sum(map(len, tokens))), "sha256": sha256_file(temporary / "tokens.npy")}
        table = pa.Table.from_batches(documents, COLUMNS.with_metadata(origin))
        pq.write_table(table, temporary / "documents.parquet", **PARQUET_OPTIONS)


def _open(folder: Path, origin: dict[str, str]) -> TokenShard | None:
    """Returns what stands in a folder, or None if that is not whole or was made from something else."""
    try:
        table = _read_documents(folder)
        sha256 = sha256_file(folder / "tokens.npy")
    except (OSError, ValueError, pa.ArrowException):  # ValueError: a name in the parquet footer that is not UTF-8
        return None
    if not table.schema.equals(COLUMNS):
        return None
    starts = np.concatenate([[0], np.cumsum(table["n_tokens"].to_numpy(), dtype=np.int64)])
    expected = {**origin, "n_tokens": str(starts[-1]), "sha256": sha256}
    if table.schema.metadata != {key.encode(): value.encode() for key, value in expected.items()}:
        return None
    return TokenShard(folder, sha256, np.load(folder / "tokens.npy", mmap_mode="r"), starts)


def _read_documents(folder: Path) -> pa.Table:
    return pq.ParquetFile(folder / "documents.parquet", page_checksum_verification=True).read()
