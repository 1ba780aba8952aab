"""Tokenizer, token shards and batches: text comes back, damage is found, and each token is used exactly once."""

import json
import random
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, normalizers

from shared.console import UserError
from shared.files import TEMPORARY_PREFIX, sha256_file
from shared.manifest import Manifest, read_manifest, shard_paths, write_manifest
from shared.schema import SCHEMA
from tests.conftest import ROOT, Mix, run_module
from training.batches import Batches, held_out_windows
from training.settings import TokenizerSettings
from training.token_shards import COLUMNS, TokenShard, ensure_token_shards, open_token_shards
from training.tokenizer import (
    BOS,
    BOS_ID,
    encode_document,
    ensure_pool_tokenizer,
    load_tokenizer,
    train_tokenizer,
)


@pytest.fixture(scope="module")
def tokenizer_file(starter_mix: Mix, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns a tokenizer.json of 1,000 tokens, trained by the command on one thread."""
    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"
    done = train_command(starter_mix, path, "1")
    assert done.returncode == 0, done.stderr
    return path


@pytest.fixture(scope="module")
def tokenizer(tokenizer_file: Path) -> Tokenizer:
    return load_tokenizer(tokenizer_file)


def train_command(mix: Mix, output: Path, threads: str, *args: object) -> "subprocess.CompletedProcess[str]":
    flags = ("--shards", mix.manifest(), "--vocab-size", 1000, "--output", output, *args)
    return run_module("training.train_tokenizer", *flags, RAYON_NUM_THREADS=threads)


@pytest.fixture
def mix(starter_mix: Mix, tmp_path: Path) -> Mix:
    """Returns a copy of the starter mix that a test may damage."""
    for folder in ("data_manifests", "data/shards/mix70"):
        shutil.copytree(starter_mix.folder / folder, tmp_path / folder)
    return Mix(tmp_path)


def shards_of(mix: Mix) -> dict[str, Path]:
    return {split: paths[0] for split, paths in shard_paths(mix.manifest(), read_manifest(mix.manifest())).items()}


def ensure(mix: Mix, tokenizer_file: Path) -> dict[str, list[TokenShard]]:
    return ensure_token_shards(mix.manifest(), read_manifest(mix.manifest()), tokenizer_file, mix.data)


def with_a_flipped_bit(content: bytes, rng: random.Random) -> bytes:
    damaged, bit = bytearray(content), rng.randrange(len(content) * 8)
    damaged[bit // 8] ^= 1 << bit % 8
    return bytes(damaged)


# Tokenizer


@given(st.text())
def test_every_text_comes_back(tokenizer: Tokenizer, text: str) -> None:
    assert tokenizer.decode(tokenizer.encode(text).ids) == text


@given(st.lists(st.text(max_size=3) | st.just(BOS)).map("".join))
def test_a_document_cannot_spell_out_a_bos(tokenizer: Tokenizer, text: str) -> None:
    ids = encode_document(tokenizer, text)
    assert ids[0] == BOS_ID and BOS_ID not in ids[1:]
    assert BOS_ID not in tokenizer.encode_batch_fast([text])[0].ids
    assert tokenizer.decode(ids) == text


@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        ("don't WE\u2019LL O'Dell 'sit", ["don", "'t", " WE", "\u2019LL", " O", "'", "Dell", " '", "sit"]),
        (" in 1875, 7", [" in", " ", "18", "75", ",", " ", "7"]),
        ("end.\n\n  Cafe\u0301 -- ok", ["end", ".\n\n", " ", " Cafe\u0301", " --", " ok"]),
    ],
)
def test_no_token_crosses_a_piece(tokenizer: Tokenizer, text: str, pieces: list[str]) -> None:
    spans = [span for _, span in tokenizer.pre_tokenizer.pre_tokenize_str(text)]
    assert [text[start:end] for start, end in spans] == pieces


def test_training_gives_the_same_bytes_on_any_number_of_threads(
    starter_mix: Mix, tokenizer_file: Path, tmp_path: Path
) -> None:
    done = train_command(starter_mix, tmp_path / "again.json", "2", "--report")
    assert (tmp_path / "again.json").read_bytes() == tokenizer_file.read_bytes()
    assert "1,000 tokens" in done.stdout and sha256_file(tokenizer_file) in done.stdout
    for line in ("train  all ", "train  grade3 ", "val    all_ages ", "val    starter/passages "):
        assert line in done.stdout


def test_the_order_of_shards_does_not_matter_and_a_small_corpus_gives_fewer_tokens(
    mix: Mix, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = [*shards_of(mix).values()]
    forwards, backwards = (train_tokenizer(p, 65_536, TokenizerSettings()) for p in (paths, paths[::-1]))
    assert forwards.to_str() == backwards.to_str()
    assert f"note: {forwards.get_vocab_size():,} tokens, not 65,536" in capsys.readouterr().err


def edited(path: Path, change: Callable[[dict[str, Any]], object]) -> str:
    content = json.loads(path.read_text(encoding="utf-8"))
    change(content)
    return json.dumps(content)


def test_a_file_that_is_no_fit_tokenizer_is_named(tokenizer_file: Path, tmp_path: Path) -> None:
    too_many = Tokenizer(models.WordLevel({BOS: 0, **{str(i): i for i in range(1, 65_537)}}, "1"))
    lossy = load_tokenizer(tokenizer_file)
    lossy.normalizer = normalizers.Lowercase()
    wrong = {
        "binary": (b"\xff\xfe", "not UTF-8"),
        "empty": (b"{}", "is not a tokenizer.json"),
        "no-bos": (tokenizer_file.read_bytes().replace(BOS.encode(), b"<|eos|>"), "token 0 is not"),
        "gap": (edited(tokenizer_file, lambda t: t["model"]["vocab"].update(x=70_000)).encode(), "without gaps"),
        "too-many": (too_many.to_str().encode(), "more than 65,536"),
        "lossy": (lossy.to_str().encode(), "give every text back"),
    }
    for name, (content, told) in wrong.items():
        path = tmp_path / name
        path.write_bytes(content)
        with pytest.raises(UserError, match=told) as raised:
            load_tokenizer(path)
        assert str(path) in raised.value.message and "training.train_tokenizer" in raised.value.hint
    with pytest.raises(UserError, match="not found"):
        load_tokenizer(tmp_path / "nowhere.json")


def test_a_tokenizer_is_loaded_without_its_truncation_and_padding(tokenizer_file: Path, tmp_path: Path) -> None:
    cut = load_tokenizer(tokenizer_file)
    cut.enable_truncation(3)
    cut.enable_padding(length=50)
    cut.save(str(tmp_path / "cut.json"))
    text = "The moon is round, and it goes round."
    assert load_tokenizer(tmp_path / "cut.json").decode(cut.encode(text).ids) != text
    assert (
        encode_document(load_tokenizer(tmp_path / "cut.json"), text)[1:]
        == load_tokenizer(tokenizer_file).encode(text).ids
    )


def test_mixes_of_one_pool_share_a_tokenizer(
    starter_mix: Mix, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert starter_mix.run("--grade-ratio", 0.5).returncode == 0
    made = [
        ensure_pool_tokenizer(path, read_manifest(path), 500, TokenizerSettings(max_digits=digits), tmp_path)
        for path, digits in (
            (starter_mix.manifest(), 2),
            (starter_mix.manifest("mix50"), 2),
            (starter_mix.manifest("mix50"), 3),
        )
    ]
    assert made[0] == made[1] != made[2]
    record = json.loads((made[0].parent / "record.json").read_text())
    assert (record["manifest"], record["manifest_sha256"]) == ("mix70", sha256_file(starter_mix.manifest()))
    assert "from mix70" in capsys.readouterr().err
    made[0].write_text(made[0].read_text() + "\n")
    with pytest.raises(UserError, match=re.escape(str(made[0]))):
        ensure_pool_tokenizer(
            starter_mix.manifest(), read_manifest(starter_mix.manifest()), 500, TokenizerSettings(), tmp_path
        )


# Token shards


def with_odd_documents(mix: Mix) -> None:
    """Puts texts into the train shard that curation would hardly write, and grades that are not known."""
    path, manifest = shards_of(mix)["train"], read_manifest(mix.manifest())
    documents = pq.read_table(path).to_pylist()
    for document, text in zip(documents, ["", BOS, "caf\u00e9 \u4e00\u4e01 \U0001f600", "\0\r\n\t"], strict=False):
        document.update(text=text, grade=None)
    pq.write_table(pa.Table.from_pylist(documents, SCHEMA), path)
    entry = manifest.splits["train"][0].model_copy(update={"sha256": sha256_file(path), "bytes": path.stat().st_size})
    write_manifest(manifest.model_copy(update={"splits": {**manifest.splits, "train": [entry]}}), mix.manifest())


def test_token_shards_hold_every_document(mix: Mix, tokenizer: Tokenizer, tokenizer_file: Path) -> None:
    with_odd_documents(mix)
    made = ensure(mix, tokenizer_file)
    for split, path in shards_of(mix).items():
        (shard,), documents = made[split], pq.read_table(path)
        texts = documents["text"].to_pylist()
        for i, text in enumerate(texts):
            assert shard.tokens[shard.starts[i] : shard.starts[i + 1]].tolist() == encode_document(tokenizer, text)
        for name in ("doc_id", "source", "part", "grade"):
            np.testing.assert_array_equal(shard.column(name), documents[name].to_numpy())
        assert shard.column("n_bytes").tolist() == [len(text.encode()) for text in texts]
        assert shard.column("n_tokens").tolist() == np.diff(shard.starts).tolist()
        assert isinstance(shard.tokens, np.memmap) and shard.tokens.dtype == np.uint16


def test_what_is_damaged_is_made_again_and_what_is_whole_is_kept(mix: Mix, tokenizer_file: Path) -> None:
    made = ensure(mix, tokenizer_file)
    train, val = made["train"][0].folder, made["val"][0].folder
    tokens = made["train"][0].tokens.tobytes()
    columns = {name: made["train"][0].column(name) for name in COLUMNS.names}
    whole = {path: path.read_bytes() for folder in (train, val) for path in sorted(folder.iterdir())}
    kept = [path.stat().st_ino for path in val.iterdir()]
    rng = random.Random(0)
    damages: list[Callable[[bytes], bytes]] = [
        lambda content: with_a_flipped_bit(content, rng),
        lambda content: content[:-2],
        lambda content: content + b"x",
        lambda _: b"",
    ]
    for name in ("tokens.npy", "documents.parquet"):
        for damage in damages:
            (train / name).write_bytes(damage(whole[train / name]))
            again = ensure(mix, tokenizer_file)["train"][0]
            assert again.tokens.tobytes() == tokens
            for column, values in columns.items():
                np.testing.assert_array_equal(again.column(column), values)
        (train / name).unlink()
        ensure(mix, tokenizer_file)
    assert {path: path.read_bytes() for path in whole} == whole
    assert [path.stat().st_ino for path in val.iterdir()] == kept


def test_tokens_of_another_shard_or_tokenizer_are_not_taken_for_these(mix: Mix, tokenizer_file: Path) -> None:
    made = ensure(mix, tokenizer_file)
    train, val = made["train"][0].folder, made["val"][0].folder
    shutil.copytree(val, train, dirs_exist_ok=True)
    with pytest.raises(UserError, match=train.name):
        open_token_shards(read_manifest(mix.manifest()), tokenizer_file, mix.data)
    assert ensure(mix, tokenizer_file)["train"][0].sha256 == made["train"][0].sha256
    other = mix.folder / "other.json"
    other.write_text(tokenizer_file.read_text() + "\n")
    shutil.copytree(train.parent, mix.data / "tokens" / sha256_file(other)[:16])
    with pytest.raises(UserError, match=sha256_file(other)[:16]):
        open_token_shards(read_manifest(mix.manifest()), other, mix.data)


def test_every_damage_to_a_parquet_shard_is_found_and_named(mix: Mix, tokenizer_file: Path) -> None:
    shards = shards_of(mix)
    train, whole = shards["train"], shards["train"].read_bytes()

    def expect(path: Path) -> None:
        with pytest.raises(UserError, match=re.escape(str(path))) as raised:
            ensure(mix, tokenizer_file)
        assert "python -m curation.run" in raised.value.hint

    rng = random.Random(1)
    for _ in range(50):
        train.write_bytes(with_a_flipped_bit(whole, rng))
        expect(train)
    train.write_bytes(whole[: len(whole) // 2])
    expect(train)
    train.write_bytes(shards["val"].read_bytes())
    shards["val"].write_bytes(whole)
    expect(train)
    shards["val"].write_bytes(train.read_bytes())
    train.unlink()
    expect(train)
    assert not (mix.data / "tokens").exists()


def test_a_manifest_that_does_not_fit_is_named(mix: Mix, tokenizer_file: Path) -> None:
    whole = read_manifest(mix.manifest())
    entry = whole.splits["train"][0]
    for change in ({"sha256": "0" * 64}, {"bytes": entry.bytes + 1}, {"path": "../outside.parquet"}):
        changed: Manifest = whole.model_copy(
            update={"splits": {**whole.splits, "train": [entry.model_copy(update=change)]}}
        )
        write_manifest(changed, mix.manifest())
        with pytest.raises(UserError, match=re.escape(str(mix.manifest()))):
            ensure(mix, tokenizer_file)
    write_manifest(whole.model_copy(update={"splits": {"train": [], "val": whole.splits["val"]}}), mix.manifest())
    with pytest.raises(UserError, match="no train shards"):
        ensure(mix, tokenizer_file)
    done = train_command(Mix(mix.folder / "nowhere"), mix.folder / "x.json", "1")
    assert done.returncode == 2 and "mix70.json not found" in done.stderr and "Traceback" not in done.stderr


def test_two_runs_at_once_make_the_same_and_leftovers_are_swept(mix: Mix, tokenizer_file: Path) -> None:
    folder = mix.data / "tokens" / sha256_file(tokenizer_file)[:16]
    (folder / f"{TEMPORARY_PREFIX}killed" / "shard").mkdir(parents=True)
    code = (
        "from pathlib import Path; from shared.manifest import read_manifest;"
        "from training.token_shards import ensure_token_shards as ensure;"
        f"m = Path({str(mix.manifest())!r}); s = ensure(m, read_manifest(m), Path({str(tokenizer_file)!r}), Path({str(mix.data)!r}));"
        "print([shard.sha256 for shards in s.values() for shard in shards])"
    )
    runs = [subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE) for _ in range(3)]
    told = {run.communicate(timeout=60)[0] for run in runs}
    assert [run.returncode for run in runs] == [0, 0, 0] and len(told) == 1
    assert sorted(path.name for path in folder.iterdir()) == sorted(
        [".lock", *(e.sha256[:16] for entries in read_manifest(mix.manifest()).splits.values() for e in entries)]
    )


# Batches


@dataclass(frozen=True, eq=False)
class Shard(TokenShard):
    """A token shard without files."""

    columns: dict[str, npt.NDArray[Any]] = field(default_factory=dict)

    def column(self, name: str) -> npt.NDArray[Any]:
        return self.columns[name]


def make_shards(lengths: list[list[int]]) -> list[TokenShard]:
    """Returns shards of documents of the given lengths in tokens; all tokens of all shards differ."""
    firsts = np.cumsum([0, *map(sum, lengths)])
    doc_ids = iter(range(sum(map(len, lengths))))
    return [
        Shard(
            folder=Path(),
            sha256=str(lengths),
            tokens=np.arange(first, first + sum(shard), dtype=np.uint16),
            starts=np.cumsum([0, *shard]),
            columns={
                "doc_id": np.array([f"doc{next(doc_ids)}" for _ in shard], dtype=object),
                "part": np.array(["grade3" if n % 2 else "all_ages" for n in shard], dtype=object),
            },
        )
        for first, shard in zip(firsts, lengths, strict=False)
    ]


LENGTHS = st.lists(st.lists(st.integers(1, 12), min_size=1, max_size=8), min_size=1, max_size=4)


@dataclass(frozen=True)
class Reading:
    """What a run reads and how, as Batches takes it."""

    lengths: list[list[int]]
    sequence_length: int
    per_process: int
    processes: int
    seed: int

    def batches(self, rank: int = 0, processes: int = 1) -> Batches:
        n = self.per_process * self.processes
        return Batches(make_shards(self.lengths), self.sequence_length, n, self.seed, rank, processes)


READINGS = st.builds(Reading, LENGTHS, st.integers(1, 40), st.integers(1, 4), st.integers(1, 4), st.integers(0, 5))


def slow_batch(r: Reading, step: int) -> tuple[list[list[int]], list[list[int]]]:
    """Returns a step's batch from the whole stream, written out."""
    documents = [
        shard.tokens[a:b].tolist()
        for shard in make_shards(r.lengths)
        for a, b in zip(shard.starts, shard.starts[1:], strict=False)
    ]
    n, per_step = r.sequence_length, r.per_process * r.processes
    stream: list[int] = []
    epoch = 0
    while len(stream) <= (step + 1) * per_step * n:
        keys = np.random.PCG64([r.seed, epoch]).random_raw(len(documents))
        stream += [token for _, document in sorted(zip(keys, documents, strict=True)) for token in document]
        epoch += 1
    firsts = [i * n for i in range(step * per_step, (step + 1) * per_step)]
    return [stream[i : i + n] for i in firsts], [stream[i + 1 : i + n + 1] for i in firsts]


@given(READINGS, st.integers(0, 6))
def test_batches_agree_with_a_slow_version_whichever_step_is_asked_first(r: Reading, step: int) -> None:
    tokens, targets = r.batches().batch(step)
    assert (tokens.tolist(), targets.tolist()) == slow_batch(r, step)
    assert tokens.dtype == targets.dtype == torch.int64


@given(READINGS)
def test_every_token_of_an_epoch_is_an_input_once_and_a_target_once(r: Reading) -> None:
    batches = r.batches()
    n_steps = 2 * batches.n_tokens // batches.tokens_per_step + 1
    read = [batches.batch(step) for step in range(n_steps)]
    inputs, targets = (np.concatenate([pair[i].flatten() for pair in read]) for i in (0, 1))
    everything = list(range(sum(map(sum, r.lengths))))
    n = batches.n_tokens
    assert sorted(inputs[:n]) == sorted(inputs[n : 2 * n]) == everything
    assert sorted([inputs[0], *targets[: n - 1]]) == sorted(targets[n - 1 : 2 * n - 1]) == everything
    assert batches.epoch(n_steps) == len(inputs) / n >= 2


@given(READINGS, st.integers(0, 4))
def test_the_processes_of_a_run_read_together_what_one_would_read_alone(r: Reading, step: int) -> None:
    parts = [r.batches(rank, r.processes).batch(step) for rank in range(r.processes)]
    for alone, together in zip(r.batches().batch(step), zip(*parts, strict=True), strict=True):
        assert torch.equal(alone, torch.cat(together))


@given(READINGS, st.permutations(range(6)))
def test_the_order_of_asking_changes_nothing(r: Reading, steps: list[int]) -> None:
    batches = r.batches()
    for step in steps:
        assert torch.equal(batches.batch(step)[0], r.batches().batch(step)[0])
        assert batches.state(step) == r.batches().state(step)


def test_orders_differ_by_epoch_and_seed_and_states_by_stream() -> None:
    shards, others = make_shards([[5] * 40]), make_shards([[5] * 20, [5] * 20])
    first, second = (Batches(shards, 100, 2, seed=0).batch(step)[0].tolist() for step in (0, 1))
    reseeded = Batches(shards, 100, 2, seed=1)
    assert first != second != reseeded.batch(0)[0].tolist()
    states = [Batches(shards, 100, 2, seed=0).state(3), reseeded.state(3), Batches(others, 100, 2, seed=0).state(3)]
    assert states[0] not in states[1:] and states[0] == {**states[0], "step": 3, "position_tokens": 600, "epoch": 3}
    assert Batches(shards, 100, 4, 0, 1, 2).state(3) == Batches(shards, 100, 4, 0).state(3)


def test_uneven_shares_and_empty_shards_are_refused() -> None:
    with pytest.raises(ValueError, match="5 sequences a step"):
        Batches(make_shards([[4]]), 8, 5, 0, 0, 2)
    with pytest.raises(ValueError, match="no token"):
        Batches([], 8, 4, 0)


@given(LENGTHS, st.integers(1, 15))
def test_windows_predict_every_token_but_bos_once(lengths: list[list[int]], sequence_length: int) -> None:
    shards = make_shards(lengths)
    predicted = []
    for number, document, start, length in zip(*held_out_windows(shards, sequence_length), strict=True):
        shard = shards[number]
        assert 1 <= length <= sequence_length
        assert shard.starts[document] <= start < start + length < shard.starts[document + 1]
        predicted += shard.tokens[start + 1 : start + 1 + length].tolist()
    everything = {token for shard in shards for token in shard.tokens.tolist()}
    beginnings = {token for shard in shards for token in shard.tokens[shard.starts[:-1]].tolist()}
    assert len(predicted) == len(set(predicted)) and set(predicted) == everything - beginnings


@given(
    LENGTHS.map(lambda shards: [[n + 1 for n in shard] for shard in shards]),
    st.integers(1, 15),
    *[st.integers(0, 60)] * 2,
)
def test_a_subset_of_windows_is_whole_documents_of_each_part_within_the_budget(
    lengths: list[list[int]], sequence_length: int, budget: int, more: int
) -> None:
    shards = make_shards(lengths)

    def chosen(shards: list[TokenShard], budget: int | None) -> dict[str, tuple[str, int]]:
        """Returns the part and the number of predicted tokens of each document read."""
        found: dict[str, tuple[str, int]] = {}
        for number, document, _, length in zip(*held_out_windows(shards, sequence_length, budget), strict=True):
            doc_id, part = (shards[number].column(name)[document] for name in ("doc_id", "part"))
            found[doc_id] = (part, found.get(doc_id, (part, 0))[1] + int(length))
        return found

    everything, some = chosen(shards, None), chosen(shards, budget)
    assert some.items() <= chosen(shards, budget + more).items() <= everything.items()
    one_shard = make_shards([[n for shard in lengths for n in shard]])
    assert chosen(one_shard, budget) == some
    for part in ("grade3", "all_ages"):
        counts = [n for one, n in some.values() if one == part]
        assert sum(counts) <= budget or len(counts) == 1
        assert bool(counts) == any(one == part for one, _ in everything.values())
