"""Figures on held-out text: bits per byte, accuracy, and what the confidence is worth.

held-out documents -> windows in batches of similar length -> model -> columns, one value a token -> figures
look() is the short one that all processes of a run take together; evaluate() the whole one, of one process.
"""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Generic, NamedTuple, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from shared.console import UserError
from shared.metrics import Unmeasurable, auroc, brier, ece, mean, r, r2, std
from shared.schema import PARTS
from training.batches import held_out_windows
from training.confidence import TARGETS
from training.distributed import Place, sum_ranks
from training.head import token_statistics
from training.model import GPT
from training.settings import ConfidenceSettings
from training.token_shards import TokenShard
from training.tokenizer import BOS_ID

Array = NDArray[Any]
Column = TypeVar("Column", Tensor, Array)

# Tokens of a batch, padding included: what suits a CPU's cache, and what fills a GPU with little of its memory.
ECE_BINS = 15  # as in Guo et al. 2017
BATCH_TOKENS = {"cpu": 2**12, "cuda": 2**14}
NO_HEAD = "the model has no confidence head"
GRADES = ["K", *map(str, range(1, 13)), "13+", "ungraded"]  # a year each, as in curation.composition


class TokenColumns(NamedTuple, Generic[Column]):
    """What a model makes of held-out tokens, (N,) each; the last two are None without a confidence head."""

    document: Column  # its number among those of all shards
    nll: Column  # nats
    max_softmax: Column  # probability of the likeliest token
    is_right: Column  # whether the likeliest token is the one that came
    o_conf: Column | None
    target: Column | None  # what o_conf is to predict


class HeldOut:
    """Held-out documents to be read on a device: windows in batches of similar length, the longest first.

    Raises UserError when there are none.
    """

    def __init__(
        self,
        shards: Sequence[TokenShard],
        sequence_length: int,
        device: torch.device,
        max_tokens_per_part: int | None = None,
    ) -> None:
        self.shards, self.device = shards, device
        self.windows = held_out_windows(shards, sequence_length, max_tokens_per_part)
        if not len(self.windows.length):
            raise UserError("the mix holds no held-out text", "make a larger one: python -m curation.run")
        first = np.cumsum([0, *(len(shard.starts) - 1 for shard in shards)])
        self.document = first[self.windows.shard] + self.windows.document  # of each window
        self.part = self.column("part")  # of each document, as is n_bytes: UTF-8 bytes, 0 where it is not read
        self.n_bytes = np.where(np.isin(np.arange(first[-1]), self.document), self.column("n_bytes"), 0)
        order = np.argsort(-self.windows.length, kind="stable")
        self.batches: list[Array] = []  # of windows
        while len(order):
            n_windows = max(1, BATCH_TOKENS[device.type] // int(self.windows.length[order[0]]))
            self.batches.append(order[:n_windows])
            order = order[n_windows:]

    def column(self, name: str) -> Array:
        """Returns a column of the documents of all shards, whether they are read or not."""
        return np.concatenate([shard.column(name) for shard in self.shards])

    @property
    def padding(self) -> float:
        """The share of what the model reads that is no token."""
        n_read = sum(len(batch) * int(self.windows.length[batch].max()) for batch in self.batches)
        return 1 - int(self.windows.length.sum()) / n_read

    def batch(self, number: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Returns padded inputs (B, T), and of each token (N,) its position in B * T, its target and its document."""
        chosen = self.batches[number]
        lengths = self.windows.length[chosen]
        tokens = np.full((len(chosen), lengths.max() + 1), BOS_ID, np.int64)
        for row, window, length in zip(tokens, chosen, lengths, strict=True):
            start = self.windows.start[window]
            row[: length + 1] = self.shards[self.windows.shard[window]].tokens[start : start + length + 1]
        is_token = np.arange(lengths.max()) < lengths[:, None]  # (B, T)
        document = np.repeat(self.document[chosen], lengths)
        arrays = tokens[:, :-1], np.flatnonzero(is_token), tokens[:, 1:][is_token], document
        inputs, positions, targets, documents = (torch.from_numpy(array).to(self.device) for array in arrays)
        return inputs, positions, targets, documents


@torch.no_grad()
def read_batch(model: GPT, confidence: ConfidenceSettings, held_out: HeldOut, number: int) -> TokenColumns[Tensor]:
    """Returns the columns of one batch, on the model's device."""
    inputs, positions, targets, document = held_out.batch(number)
    # Padding stands behind a window's tokens, which do not look ahead: it changes nothing and goes no further.
    h_pre, h_post = (h.flatten(0, 1)[positions] for h in model.hidden(inputs))  # (B, T, C) -> (N, C)
    statistics = token_statistics(h_post, model.head_weight, targets)
    if not model.settings.use_confidence:
        return TokenColumns(document, *statistics, None, None)
    target = TARGETS[confidence.target](h_post, model.wte(targets))
    return TokenColumns(document, *statistics, model.o_conf(h_pre), target)


def read_all(model: GPT, confidence: ConfidenceSettings, held_out: HeldOut) -> TokenColumns[Array]:
    """Returns the columns of all held-out tokens, in fp64; with a bar on stderr where that is a terminal."""
    numbers = tqdm(range(len(held_out.batches)), "held-out text", disable=None, leave=False)
    batches = [read_batch(model, confidence, held_out, number) for number in numbers]
    columns: list[Any] = [None if parts[0] is None else _as_array(parts) for parts in zip(*batches, strict=True)]
    return TokenColumns(*columns)


def _as_array(parts: Sequence[Tensor]) -> Array:
    column = torch.cat(list(parts))
    array: Array = (column.double() if column.is_floating_point() else column).cpu().numpy()
    return array


class Figures:
    """Measures tokens, all and by part, and remembers by its place in the answer why a figure is None."""

    def __init__(self, of_part: dict[str, Array] | None = None) -> None:
        self._of_part = of_part or {}  # which tokens are of each part
        self.reasons: dict[str, str] = {}

    def figure(self, where: str, compute: Callable[..., float], *values: Any) -> float | None:
        """Returns compute(*values), or None where that has no meaning."""
        try:
            return compute(*values)
        except Unmeasurable as reason:
            self.reasons[where] = str(reason)
            return None

    def by_part(self, where: str, compute: Callable[..., float], *columns: Array | None) -> dict[str, float | None]:
        """Returns compute() of the columns' tokens of each part; without one of the columns, None for all."""
        present = [column for column in columns if column is not None]
        if len(present) < len(columns):
            self.reasons[where] = NO_HEAD
            return dict.fromkeys(self._of_part)
        return {
            part: self.figure(f"{where}.{part}", compute, *(column[mask] for column in present))
            for part, mask in self._of_part.items()
        }


def look(
    model: GPT, confidence: ConfidenceSettings, held_out: HeldOut, place: Place, stopped: Callable[[], bool]
) -> dict[str, float | None] | None:
    """Returns figures over all that is held out, the same in every process; what cannot be measured is None.

    Processes take batches in turn, and all ask `stopped` before each round: once it says so, there are no figures.
    """
    is_part = torch.from_numpy(np.stack([held_out.part == part for part in PARTS])).to(held_out.device)  # (P, n_docs)
    sums = torch.zeros(len(PARTS), 8, dtype=torch.float64, device=held_out.device)
    for first in range(0, len(held_out.batches), place.world_size):
        if stopped():
            return None
        if first + place.rank < len(held_out.batches):
            columns = read_batch(model, confidence, held_out, first + place.rank)
            sums += is_part[:, columns.document].double() @ _summands(columns)  # (P, N) @ (N, 8)
    by_part = sum_ranks(sums, place).tolist()
    n_tokens, nll, n_right, *moments = (sum(column) for column in zip(*by_part, strict=True))
    measures: dict[str, tuple[Any, ...]] = {
        "val/bpb": (bits_per_byte, nll, held_out.n_bytes.sum()),
        **{
            f"val/bpb_{part}": (bits_per_byte, sums_of_part[1], held_out.n_bytes[held_out.part == part].sum())
            for part, sums_of_part in zip(PARTS, by_part, strict=True)
        },
        "val/loss": (finite, nll / n_tokens),
        "val/accuracy": (finite, n_right / n_tokens),
        "val/confidence_r": (_r_of_moments, n_tokens, *moments),
    }
    return {name: Figures().figure(name, *measure) for name, measure in measures.items()}


def _summands(columns: TokenColumns[Tensor]) -> Tensor:
    """Returns what look() adds up: 1, nll, is_right, and of o_conf and its target what r needs. (N, 8), fp64."""
    nll = columns.nll.double()
    o, t = (torch.zeros_like(nll) if x is None else x.double() for x in (columns.o_conf, columns.target))
    return torch.stack([torch.ones_like(nll), nll, columns.is_right.double(), o, t, o * o, t * t, o * t], dim=1)


def _r_of_moments(n: float, o: float, t: float, oo: float, tt: float, ot: float) -> float:
    """Returns Pearson's correlation from sums. A spread that rounding could have made counts as none."""
    spread_o, spread_t = n * oo - o * o, n * tt - t * t
    if not (spread_o > 1e-10 * n * oo and spread_t > 1e-10 * n * tt):
        raise Unmeasurable("a value that never changes has no correlation")
    return (n * ot - o * t) / math.sqrt(spread_o * spread_t)


def finite(value: float) -> float:
    """Returns the value. Raises Unmeasurable where it is none, as of a model that diverged."""
    if not math.isfinite(value):
        raise Unmeasurable("some values are not finite")
    return value


def bits_per_byte(nll: float, n_bytes: int) -> float:
    """Returns the bits a UTF-8 byte of text takes, if its tokens cost `nll` nats: comparable between tokenizers."""
    if not n_bytes:
        raise Unmeasurable("no text")
    return finite(float(nll)) / math.log(2) / int(n_bytes)


def evaluate(model: GPT, confidence: ConfidenceSettings, held_out: HeldOut) -> dict[str, Any]:
    """Returns all figures in a form that JSON holds: None where there is nothing to measure, and why in "reasons".

    Figures of tokens are {"all": ..., "grade3": ..., "all_ages": ...}; a reason holds for all that is below its place.
    """
    tokens = read_all(model, confidence, held_out)
    n_docs = len(held_out.part)
    nll, n_tokens = (np.bincount(tokens.document, weights, n_docs) for weights in (tokens.nll, None))  # by document
    parts: dict[str, Array] = {"all": np.ones(n_docs, bool)} | {part: held_out.part == part for part in PARTS}
    figures = Figures({part: mask[tokens.document] for part, mask in parts.items()})

    def bpb(where: str, documents: Array) -> float | None:
        return figures.figure(where, bits_per_byte, nll[documents].sum(), held_out.n_bytes[documents].sum())

    def amount(documents: Array) -> dict[str, int]:
        return {
            "n_docs": int((n_tokens[documents] > 0).sum()),
            "n_tokens": int(n_tokens[documents].sum()),
            "n_bytes": int(held_out.n_bytes[documents].sum()),
        }

    def by_label(where: str, labels: Array, order: Sequence[str]) -> dict[str, dict[str, float | None]]:
        masks = {label: labels == label for label in order if label in labels[n_tokens > 0]}
        return {label: {"bpb": bpb(f"{where}.{label}", mask), **amount(mask)} for label, mask in masks.items()}

    source, grade = held_out.column("source"), grade_bands(held_out.column("grade"))
    return {
        **amount(parts["all"]),
        "padding": held_out.padding,
        "bpb": {part: bpb(f"bpb.{part}", mask) for part, mask in parts.items()},
        "loss": figures.by_part("loss", mean, tokens.nll),
        "accuracy": figures.by_part("accuracy", mean, tokens.is_right),
        "by_part": {part: amount(parts[part]) for part in PARTS},
        "by_source": by_label("by_source", source, sorted(set(source))),
        "by_grade": by_label("by_grade", grade, GRADES),
        **_confidence_figures(figures, tokens),
        "reasons": figures.reasons,
    }


def _confidence_figures(figures: Figures, tokens: TokenColumns[Array]) -> dict[str, Any]:
    """Returns o_conf against its target, and how well it and max_softmax foretell that argmax is right."""
    o_conf, target = tokens.o_conf, tokens.target
    against_target: dict[str, tuple[Any, ...]] = {
        "r": (r, o_conf, target),
        "r2": (r2, o_conf, target),
        "target_mean": (mean, target),
        "target_std": (std, target),
        "o_conf_mean": (mean, o_conf),
        "o_conf_std": (std, o_conf),
    }
    foretelling: dict[str, Callable[..., float]] = {
        "auroc": auroc,
        "ece": partial(ece, n_bins=ECE_BINS),
        "brier": brier,
    }
    confidences = {"o_conf": o_conf, "max_softmax": tokens.max_softmax}
    return {
        "confidence": {name: figures.by_part(f"confidence.{name}", *how) for name, how in against_target.items()},
        **{
            measure: {
                name: figures.by_part(f"{measure}.{name}", compute, column, tokens.is_right)
                for name, column in confidences.items()
            }
            for measure, compute in foretelling.items()
        },
    }


def grade_bands(grades: Array) -> Array:
    """Returns the band of each grade, one of GRADES: "3" is third grade, 2.5 up to 3.5; NaN is ungraded."""
    years = np.floor(np.nan_to_num(grades) + 0.5).clip(0, 13).astype(int)
    return np.where(np.isnan(grades), GRADES[-1], np.array(GRADES)[years])
