"""python -m training.train_tokenizer --shards data_manifests/mix70.json --vocab-size 4096 --output tokenizer.json

Trains a byte-level BPE on the train text of one mix or several, and tells how well it compresses them.
"""

import shlex
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field

from shared.console import run_command, table
from shared.settings import Settings, parse_command, pipelines_flag
from training.settings import ModelSettings, read_training_file

if TYPE_CHECKING:
    from tokenizers import Tokenizer

EXAMPLE = (
    "python -m training.train_tokenizer --shards data_manifests/mix70.json --vocab-size 4096 --output tokenizer.json"
)
VOCAB_SIZE: Any = ModelSettings.model_fields["vocab_size"]


class TrainTokenizerFlags(Settings):
    """The command line of training.train_tokenizer."""

    shards: list[Path] = Field(min_length=1, description="manifests of mixes; a document in two of them counts twice")
    vocab_size: int = VOCAB_SIZE
    output: Path = Field(description="where tokenizer.json goes")
    report: bool = Field(False, description="print how well it compresses each part and source")
    pipelines: Path = pipelines_flag()


def main() -> int:
    flags = parse_command(TrainTokenizerFlags, "Trains a byte-level BPE on the train text of mixes.", EXAMPLE)
    settings = read_training_file(flags.pipelines).tokenizer

    from shared.files import sha256_file
    from shared.manifest import read_manifest, verified_shards
    from training.tokenizer import save_tokenizer, train_tokenizer

    mixes = [verified_shards(path, read_manifest(path)) for path in flags.shards]
    shards = {split: [path for mix in mixes for path in mix[split]] for split in ("train", "val")}
    tokenizer = train_tokenizer(shards["train"], flags.vocab_size, settings)
    save_tokenizer(tokenizer, flags.output)
    if flags.report:
        rows = [row for split in shards for row in _compression(split, shards[split], tokenizer)]
        print(table(rows, ["split", "text", "words", "bytes per token", "tokens per word"]))
    print(f"{flags.output}: {tokenizer.get_vocab_size():,} tokens, SHA-256 {sha256_file(flags.output)}")
    names = shlex.join(["--shards", str(flags.shards[0]), "--tokenizer", str(flags.output)])
    print(f"next: python -m training.pretrain {names}")
    return 0


def _compression(split: str, shards: Sequence[Path], tokenizer: "Tokenizer") -> Iterator[tuple[object, ...]]:
    """Yields a row of the report for all the text of a split, for each part and for each source."""
    import pyarrow.parquet as pq

    from shared.schema import PARTS
    from training.tokenizer import DOCUMENTS_AT_ONCE

    counts: dict[str, Counter[str]] = {}
    for path in shards:
        columns = ["text", "part", "source", "n_words"]
        for batch in pq.ParquetFile(path).iter_batches(DOCUMENTS_AT_ONCE, columns=columns):
            texts, parts, sources, n_words = (batch[name].to_pylist() for name in columns)
            encoded = tokenizer.encode_batch_fast(texts, add_special_tokens=False)
            for text, part, source, words, tokens in zip(texts, parts, sources, n_words, encoded, strict=True):
                n = {"words": words, "bytes": len(text.encode()), "tokens": len(tokens)}
                for name in ("all", part, source):
                    counts.setdefault(name, Counter()).update(n)
    for name, n in sorted(counts.items(), key=lambda item: (item[0] != "all", item[0] not in PARTS, item[0])):
        yield split, name, n["words"], n["bytes"] / max(1, n["tokens"]), n["tokens"] / max(1, n["words"])


if __name__ == "__main__":
    run_command(main)
