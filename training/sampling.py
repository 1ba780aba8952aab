"""Text from a GPT, token by token, each with its probability and the model's confidence in it.

prompt -> BOS + tokens -> key-value cache -> softmax -> a draw -> tokens -> pieces of text
"""

import codecs
from collections.abc import Sequence
from typing import NamedTuple

import torch
from tokenizers import Tokenizer
from torch import Tensor

from training.model import GPT, KVCache
from training.tokenizer import BOS_ID, encode_document

TEMPERATURE, TOP_K = 0.8, 50


class Token(NamedTuple):
    """One generated token."""

    id: int
    probability: float  # by the model's own softmax: all tokens, temperature 1
    o_conf: float | None  # None without a confidence head


class Continuation(NamedTuple):
    """What a model made of a prompt. `ended`: it predicted BOS next, a new document."""

    tokens: list[Token]
    ended: bool


@torch.no_grad()
def continue_tokens(
    model: GPT,
    prompt: Sequence[int],
    n_tokens: int,
    temperature: float = TEMPERATURE,
    top_k: int = TOP_K,
    seed: int = 0,
) -> Continuation:
    """Returns up to n_tokens tokens that follow the prompt's, at temperature 0 the likeliest ones.

    When the context is full, the model reads its last half afresh and goes on. Draws depend on `seed` alone, and are
    made on the CPU: a seed means the same on every device, rounding aside.
    """
    device, settings = model.wte.weight.device, model.settings
    generator = torch.Generator().manual_seed(seed)
    cache = KVCache(settings, 1, device, model.compute_dtype)
    seen = list(prompt)
    unread = seen
    tokens: list[Token] = []
    for _ in range(n_tokens):
        if cache.length + len(unread) > cache.capacity:
            cache.length, unread = 0, seen[-(cache.capacity // 2) :]
        h_pre, h_post = model.hidden(torch.tensor([unread], device=device), cache)
        logits = model.logits(h_post[0, -1]).cpu()  # (V,)
        chosen = _choose(logits, temperature, top_k, generator)
        if chosen == BOS_ID:
            return Continuation(tokens, ended=True)
        o_conf = float(model.o_conf(h_pre[0, -1])) if settings.use_confidence else None
        tokens.append(Token(chosen, float(logits.softmax(-1)[chosen]), o_conf))
        seen.append(chosen)
        unread = [chosen]
    return Continuation(tokens, ended=False)


def _choose(logits: Tensor, temperature: float, top_k: int, generator: torch.Generator) -> int:
    if temperature == 0:
        return int(logits.argmax())
    best, ids = logits.topk(min(top_k, len(logits)))
    probabilities = ((best - best[0]) / temperature).softmax(-1)
    return int(ids[torch.multinomial(probabilities, 1, generator=generator)])


def samples(model: GPT, tokenizer: Tokenizer, prompts: Sequence[str], n_tokens: int, seed: int) -> list[str]:
    """Returns each prompt with what the model makes of it. Leaves the global random state alone."""
    texts = []
    for prompt in prompts:
        tokens = continue_tokens(model, encode_document(tokenizer, prompt), n_tokens, seed=seed).tokens
        texts.append(prompt + "".join(pieces(tokenizer, [token.id for token in tokens])))
    return texts


def pieces(tokenizer: Tokenizer, ids: Sequence[int]) -> list[str]:
    """Returns what each token adds to the text.

    A token that ends amid a character adds nothing, the one that completes it the whole; bytes that are no UTF-8 become
    U+FFFD.
    """
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    texts = [decoder.decode(_bytes_of(tokenizer.id_to_token(i) or "")) for i in ids]
    return [*texts[:-1], texts[-1] + decoder.decode(b"", final=True)] if texts else []


def _bytes_of(token: str) -> bytes:
    """Returns a token's bytes; one that somebody added to the vocabulary as it reads has those of its text."""
    is_byte_level = BYTE_OF.keys() >= set(token)
    return bytes(BYTE_OF[char] for char in token) if is_byte_level else token.encode()


def _byte_alphabet() -> dict[str, int]:
    """Returns the byte behind each character of a byte-level token (Radford et al. 2019, GPT-2)."""
    visible = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in visible]
    return {chr(byte): byte for byte in visible} | {chr(256 + i): byte for i, byte in enumerate(others)}


BYTE_OF = _byte_alphabet()
