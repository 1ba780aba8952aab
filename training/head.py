"""Cross-entropy over the vocabulary, a chunk of tokens at a time: the full logits never exist.

A chunk's softmax is at once turned into its part of the gradients, so that backward only scales them: three
multiplications by the vocabulary, as in the plain version, and none repeated. N tokens, C width, V vocabulary.
"""

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

# Logits held at a time. On a CPU a chunk should stay near its cache; on a GPU it should fill the device.
CHUNK_LOGITS = {"cpu": 2**22, "cuda": 2**26}
MOST_CHUNKS = 16  # torch.compile writes each out, so that many would take minutes


def chunked_cross_entropy(h_post: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
    """Returns the mean cross-entropy in nats, fp32. h_post (N, C), weight (V, C), targets (N,) int64.

    Differentiable in h_post and weight; weight may be of higher precision than h_post, in which products are taken.
    """
    if not torch.is_grad_enabled():
        return token_statistics(h_post, weight, targets).nll.mean()
    loss: Tensor = _ChunkedCrossEntropy.apply(h_post, weight, targets)  # type: ignore[no-untyped-call]
    return loss


class TokenStatistics(NamedTuple):
    """What the softmax says of each token, (N,) each."""

    nll: Tensor  # nats
    max_softmax: Tensor  # probability of the likeliest token
    is_right: Tensor  # whether the likeliest token is the target


@torch.no_grad()
def token_statistics(h_post: Tensor, weight: Tensor, targets: Tensor) -> TokenStatistics:
    """Returns each token's statistics, for evaluation. h_post (N, C), weight (V, C), targets (N,)."""
    weight = weight.to(h_post.dtype)
    chunks = []
    for h, t in _chunks(h_post, targets, len(weight)):
        logits = F.linear(h, weight).float()  # (n, C) -> (n, V)
        best, likeliest = logits.max(-1)
        log_total = logits.logsumexp(-1)
        nll = log_total - logits.gather(1, t[:, None]).squeeze(1)
        chunks.append((nll, (best - log_total).exp(), likeliest == t))
    return TokenStatistics(*(torch.cat(column) for column in zip(*chunks, strict=True)))


class _ChunkedCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, h_post: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
        w = weight.to(h_post.dtype)
        total = torch.zeros((), device=h_post.device, dtype=torch.float32)
        grad_h, grad_weight = [], torch.zeros_like(weight)
        for h, t in _chunks(h_post, targets, len(weight)):
            log_p = F.log_softmax(F.linear(h, w), dim=-1, dtype=torch.float32)  # (n, C) -> (n, V)
            total = total - log_p.gather(1, t[:, None]).sum()
            grad_logits = _softmax_minus_target(log_p, t).to(w.dtype)
            grad_h.append(grad_logits @ w)  # (n, V) @ (V, C)
            grad_weight += grad_logits.T @ h  # (V, n) @ (n, C)
        ctx.save_for_backward(torch.cat(grad_h), grad_weight)
        return total / len(targets)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None]:
        # Held unscaled until here: in fp16 a share of 1 / N would vanish before the loss scale could save it.
        grad_h, grad_weight = ctx.saved_tensors
        scale = grads[0] / len(grad_h)
        return (grad_h.float() * scale).to(grad_h.dtype), grad_weight * scale, None


def _softmax_minus_target(log_p: Tensor, targets: Tensor) -> Tensor:
    """Returns the gradient of the summed loss by the logits, (n, V)."""
    if torch.compiler.is_compiling():  # one fused kernel
        at_target = torch.arange(log_p.shape[1], device=log_p.device) == targets[:, None]
        return log_p.exp() - at_target.to(log_p.dtype)
    gradient = log_p.exp_()
    return gradient.scatter_add_(1, targets[:, None], gradient.new_full((len(targets), 1), -1.0))


def _chunks(h_post: Tensor, targets: Tensor, vocab_size: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Yields h_post and targets a power of two of tokens at a time: it divides most batches, so chunks are alike."""
    limit = CHUNK_LOGITS.get(h_post.device.type, CHUNK_LOGITS["cuda"])
    n_tokens = max(2 ** int(math.log2(limit / vocab_size)), math.ceil(len(targets) / MOST_CHUNKS))
    return zip(torch.split(h_post, n_tokens), torch.split(targets, n_tokens), strict=True)
