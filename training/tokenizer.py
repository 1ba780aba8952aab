"""Byte-level BPE on the text of mixes: train, save, load, and the one tokenizer that all mixes of a pool share.

In: a manifest's parquet shards, checked against its hashes. Out: tokenizer.json, which `tokenizers` and transformers
read. token_shards.py encodes with it; train_tokenizer.py is the command.
"""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

from shared.console import UserError, say
from shared.files import made_whole, sha256_file, short_hash, taking_turns, write_text, written_whole
from shared.manifest import Manifest, verified_shards
from training.settings import TokenizerSettings

BOS, BOS_ID = "<|bos|>", 0  # before every document
MAX_VOCABULARY = 65_536  # a token is a uint16
PROBE = "".join(map(chr, [*range(0x250), 0x2019, 0x4E00, 0x1F600]))  # what lossy tokenizers change
DOCUMENTS_AT_ONCE = 256  # read and encoded together: about 1 MB of text


def split_pattern(max_digits: int) -> str:
    """Returns the regular expression of the pieces that no token crosses, after GPT-4's.

    In order: contractions; words, which take one space before them along; digits; punctuation, which takes a space
    before and newlines after along; newlines; white space but for its last character, which goes with the next word.
    """
    return "|".join(
        [
            r"(?i:['\u2019](?:[sdmt]|ll|ve|re))(?![\p{L}\p{M}])",
            r" ?[\p{L}\p{M}]+",
            rf"\p{{N}}{{1,{max_digits}}}",
            r" ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*",
            r"\s*[\r\n]+",
            r"\s+(?!\S)",
            r"\s+",
        ]
    )


def train_tokenizer(shards: Sequence[Path], vocab_size: int, settings: TokenizerSettings) -> Tokenizer:
    """Returns a tokenizer learnt from the text of parquet shards: the same for the same documents in any order.

    It has at most `vocab_size` tokens, BOS among them, and fewer once no pair occurs `min_frequency` times.
    """
    tokenizer = Tokenizer(models.BPE())
    split = pre_tokenizers.Split(Regex(split_pattern(settings.max_digits)), "isolated")
    to_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, to_bytes])
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        min_frequency=settings.min_frequency,
        special_tokens=[BOS],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator((texts for path in shards for texts in _read_texts(path)), trainer)
    if (n_tokens := tokenizer.get_vocab_size()) < vocab_size:
        say(
            f"note: {n_tokens:,} tokens, not {vocab_size:,}: no pair is left that occurs {settings.min_frequency} times"
        )
    return _without_surprises(tokenizer)


def _read_texts(shard: Path) -> Iterator[list[str]]:
    for batch in pq.ParquetFile(shard).iter_batches(DOCUMENTS_AT_ONCE, columns=["text"]):
        yield batch["text"].to_pylist()


def _without_surprises(tokenizer: Tokenizer) -> Tokenizer:
    """Makes a tokenizer encode all of a text and nothing else. Returns it."""
    tokenizer.encode_special_tokens = True  # "<|bos|>" in a text is no BOS; tokenizer.json cannot say so itself
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def save_tokenizer(tokenizer: Tokenizer, path: Path) -> None:
    """Writes tokenizer.json, whole or not at all."""
    with written_whole(path) as temporary:
        tokenizer.save(str(temporary))


def load_tokenizer(path: Path) -> Tokenizer:
    """Returns the tokenizer of a tokenizer.json. Raises UserError where it is none, or none that we can train with."""
    hint = "make one: python -m training.train_tokenizer --shards MANIFEST --vocab-size V --output FILE"
    try:
        content = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UserError(f"{path} not found", hint) from None
    except UnicodeDecodeError:
        raise UserError(f"{path} is not a tokenizer.json: it is not UTF-8 text", hint) from None
    try:
        tokenizer = Tokenizer.from_str(content)
    except Exception as error:  # tokenizers has no error class of its own
        raise UserError(f"{path} is not a tokenizer.json: {error}", hint) from None
    if tokenizer.token_to_id(BOS) != BOS_ID:
        raise UserError(f"{path}: its token {BOS_ID} is not {BOS}", hint)
    n_tokens = tokenizer.get_vocab_size()
    if n_tokens > MAX_VOCABULARY:
        raise UserError(f"{path} has {n_tokens:,} tokens, more than {MAX_VOCABULARY:,}", hint)
    if max(tokenizer.get_vocab().values()) >= n_tokens:
        raise UserError(f"{path}: its {n_tokens:,} tokens are not numbered from 0 on without gaps", hint)
    _without_surprises(tokenizer)
    if tokenizer.decode(tokenizer.encode(PROBE, add_special_tokens=False).ids) != PROBE:
        raise UserError(f"{path} does not give every text back as it was: it is no byte-level tokenizer", hint)
    return tokenizer


def encode_document(tokenizer: Tokenizer, text: str) -> list[int]:
    """Returns BOS and the tokens of a text."""
    return [BOS_ID, *tokenizer.encode(text, add_special_tokens=False).ids]


def ensure_pool_tokenizer(
    manifest_path: Path, manifest: Manifest, vocab_size: int, settings: TokenizerSettings, data_dir: Path
) -> Path:
    """Returns the tokenizer.json that all mixes of the manifest's pool share, made from this mix if it is the first.

    A record beside it names the mix it was made from. Raises UserError when the file is not the one recorded.
    """
    decisive = {
        "pool_hash": manifest.pool_hash,
        "vocab_size": vocab_size,
        "min_frequency": settings.min_frequency,
        "split": split_pattern(settings.max_digits),
    }
    folder = data_dir / "tokenizers" / short_hash(decisive)
    with taking_turns(folder.parent):
        if not folder.exists():
            say(f"making the tokenizer of pool {manifest.pool_hash}, for all its mixes, from {manifest.name}")
            tokenizer = train_tokenizer(verified_shards(manifest_path, manifest)["train"], vocab_size, settings)
            made_from = {"manifest": manifest.name, "manifest_sha256": sha256_file(manifest_path)}
            with made_whole(folder) as temporary:
                save_tokenizer(tokenizer, temporary / "tokenizer.json")
                sha256 = sha256_file(temporary / "tokenizer.json")
                record = {**made_from, "sha256": sha256, "n_tokens": tokenizer.get_vocab_size(), **decisive}
                write_text(temporary / "record.json", json.dumps(record, indent=2) + "\n")
    path = folder / "tokenizer.json"
    record = _read_record(folder / "record.json")
    if not path.is_file() or sha256_file(path) != record.get("sha256"):
        raise UserError(
            f"{path} is not the file that {folder / 'record.json'} tells of",
            f"remove {folder}: the next run makes a tokenizer anew; finished runs keep their own copy",
        )
    return path


def _read_record(path: Path) -> dict[str, Any]:
    try:
        record = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return record if isinstance(record, dict) else {}
