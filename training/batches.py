"""Batches: the train tokens in a seeded order, each of them used; and held-out documents in windows.

Nothing is left out to fill a batch and nothing is padded. Epoch e is every document in an order drawn from (seed, e),
laid end to end, and the stream is all epochs end to end. Sequence i reads T tokens of the stream from i T on, and is to
predict the token after each; step s takes sequences s R to s R + R - 1, and each process its contiguous share of them.
So a batch follows from the seed and the step alone, and a resumed run needs no state but its step.
"""

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from functools import lru_cache
from hashlib import blake2b
from itertools import count
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from shared.files import short_hash
from training.token_shards import TokenShard

Integers = npt.NDArray[np.int64]


class Batches:
    """The train tokens as one process of a run reads them."""

    def __init__(
        self,
        shards: Sequence[TokenShard],
        sequence_length: int,
        sequences_per_step: int,
        seed: int,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        if sequences_per_step % world_size:
            raise ValueError(f"{sequences_per_step} sequences a step do not divide among {world_size} processes")
        self.sequence_length, self.tokens_per_step = sequence_length, sequence_length * sequences_per_step
        self.n_sequences = sequences_per_step // world_size  # of a step, in this process
        self._seed, self._rank = seed, rank
        self._shards = [np.asarray(shard.tokens) for shard in shards]
        self._firsts = [0, *np.cumsum([shard.starts[-1] for shard in shards]).tolist()]
        self.n_tokens: int = self._firsts[-1]  # of an epoch
        if self.n_tokens == 0:
            raise ValueError("there is no token to train on")
        # Where each document begins if the shards are laid end to end, and where the last one ends.
        parts = [shard.starts[:-1] + first for shard, first in zip(shards, self._firsts, strict=False)]
        self._starts: Integers = np.concatenate([*parts, [self.n_tokens]])
        self._hash = short_hash([shard.sha256 for shard in shards])
        self._order = lru_cache(maxsize=2)(self._draw_order)  # a batch may lie across the end of an epoch

    def batch(self, step: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Returns this process's tokens of a step and the tokens that follow them, both int64 (n_sequences, T)."""
        n_tokens = self.n_sequences * self.sequence_length
        tokens = self._read(step * self.tokens_per_step + self._rank * n_tokens, n_tokens + 1)
        shape = (self.n_sequences, self.sequence_length)
        inputs, targets = (part.astype(np.int64).reshape(shape) for part in (tokens[:-1], tokens[1:]))
        return torch.from_numpy(inputs), torch.from_numpy(targets)

    def epoch(self, step: int) -> float:
        """Returns how many times the corpus has been read before a step."""
        return step * self.tokens_per_step / self.n_tokens

    def state(self, step: int) -> dict[str, int | str]:
        """Returns where the stream stands before a step: runs for which this is equal read the same from there on."""
        position = step * self.tokens_per_step
        epoch = position // self.n_tokens
        return {"seed": self._seed, "step": step, "position_tokens": position, "epoch": epoch, "shards": self._hash}

    def _read(self, position: int, n_tokens: int) -> npt.NDArray[np.uint16]:
        tokens = np.empty(n_tokens, np.uint16)
        filled = 0
        for document in self._documents_from(position):
            taken = document[: n_tokens - filled]
            tokens[filled : filled + len(taken)] = taken
            filled += len(taken)
            if filled == n_tokens:
                return tokens
        raise AssertionError("the stream has no end")

    def _documents_from(self, position: int) -> Iterator[npt.NDArray[np.uint16]]:
        """Yields the rest of the document at a position of the stream, and then one document after the other."""
        first_epoch, offset = divmod(position, self.n_tokens)
        for epoch in count(first_epoch):
            order, ends = self._order(epoch)
            place = int(np.searchsorted(ends, offset, side="right"))
            for document, end in zip(order[place:], ends[place:], strict=True):
                stop = int(self._starts[document + 1])
                shard = bisect_right(self._firsts, stop - 1) - 1
                first = self._firsts[shard]
                yield self._shards[shard][stop - int(end - offset) - first : stop - first]
                offset = end
            offset = 0

    def _draw_order(self, epoch: int) -> tuple[Integers, Integers]:
        """Returns the documents of an epoch in order, and where each ends in it.

        Sorting raw numbers, unlike Generator.permutation, gives the same order whatever the version of numpy (NEP 19).
        """
        keys = np.random.PCG64([self._seed, epoch]).random_raw(len(self._starts) - 1)
        order = np.argsort(keys, kind="stable")
        return order, np.cumsum(np.diff(self._starts)[order])


class Windows(NamedTuple):
    """Parts of held-out documents; all arrays are (n_windows,).

    Inputs are shards[shard].tokens[start : start + length], targets the same one token later.
    """

    shard: Integers
    document: Integers  # its number in the shard
    start: Integers
    length: Integers


def held_out_windows(
    shards: Sequence[TokenShard], sequence_length: int, max_tokens_per_part: int | None = None
) -> Windows:
    """Returns windows of at most `sequence_length` inputs in which each token but BOS is predicted exactly once.

    A document is read on its own from its BOS; a longer one goes on in further windows, each of which sees nothing of
    those before it but the token that was predicted last. With `max_tokens_per_part`, documents of each part are taken
    in the order of the hash of their doc_id as long as they stay within it, and one at least.
    """
    windows = [np.empty((4, 0), np.int64)]
    for number, (shard, chosen) in enumerate(zip(shards, _chosen(shards, max_tokens_per_part), strict=True)):
        n_inputs = np.diff(shard.starts)[chosen] - 1  # every token but the last
        n_windows = -(-n_inputs // sequence_length)
        document = np.repeat(chosen, n_windows)
        nth = np.arange(len(document)) - np.repeat(np.cumsum(n_windows) - n_windows, n_windows)  # in its document
        length = np.minimum(np.repeat(n_inputs, n_windows) - nth * sequence_length, sequence_length)
        start = shard.starts[document] + nth * sequence_length
        windows.append(np.stack([np.full_like(start, number), document, start, length]))
    return Windows(*np.concatenate(windows, axis=1))


def _chosen(shards: Sequence[TokenShard], max_tokens_per_part: int | None) -> list[Integers]:
    """Returns the numbers of the documents to read in each shard, ascending."""
    if max_tokens_per_part is None:
        return [np.arange(len(shard.starts) - 1) for shard in shards]
    documents = [
        (blake2b(doc_id.encode()).digest(), part, n_tokens - 1, number, document)
        for number, shard in enumerate(shards)
        for document, (doc_id, part, n_tokens) in enumerate(
            zip(shard.column("doc_id"), shard.column("part"), np.diff(shard.starts).tolist(), strict=True)
        )
    ]
    chosen: list[list[int]] = [[] for _ in shards]
    seen: dict[str, int] = {}  # part -> tokens so far, so that it takes no more once one did not fit
    for _, part, n_predicted, number, document in sorted(documents):
        is_first = part not in seen
        seen[part] = seen.get(part, 0) + n_predicted
        if is_first or seen[part] <= max_tokens_per_part:
            chosen[number].append(document)
    return [np.array(sorted(numbers), dtype=np.int64) for numbers in chosen]
