"""The GPT: x -> blocks -> rmsnorm -> h_pre -> output_projection -> h_post -> logits = h_post @ wte.T.

The default shape is the one transformers ships as NanoChatForCausalLM: weightless RMSNorm after the embedding, before
each sublayer and before the head, RoPE and then the norm of queries and keys, an ungated MLP, no bias, no dropout.
Shapes: B batch, T position, C width, H heads, K key and value heads, S head_dim, V vocabulary.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from training.confidence import TARGETS
from training.head import chunked_cross_entropy
from training.settings import ConfidenceSettings, ModelSettings

ROPE_BASE = 10_000.0  # Su et al. 2021
NORM_EPS = 1e-6
INIT_STD = 0.02  # of wte, under a projection
QUERY_BLOCK = 256  # queries that attend at a time on a CPU: their scores should stay in its cache
# Tied and without a projection, the logit of the input token is std * C before training: kept here at this value at
# every width, so that the untrained head predicts next to nothing.
UNPROJECTED_INPUT_LOGIT = 2.5


class Losses(NamedTuple):
    """What a training step needs of one batch: scalars, fp32."""

    cross_entropy: Tensor  # nats per token
    confidence: Tensor  # mean squared error of o_conf; 0 without a confidence head
    target_mean: Tensor  # of the confidence target
    target_std: Tensor


class KVCache:
    """Keys and values of the tokens read so far, for generation."""

    def __init__(self, settings: ModelSettings, batch: int, device: torch.device, dtype: torch.dtype) -> None:
        shape = (settings.n_layer, batch, settings.kv_heads, settings.sequence_length, settings.head_dim)
        self.keys, self.values = (torch.zeros(shape, device=device, dtype=dtype) for _ in range(2))
        self.length = 0
        self.capacity = settings.sequence_length

    def extend(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Returns all keys and values of a layer, (B, K, length + T, S), with T new ones at the end."""
        end = self.length + keys.shape[2]
        self.keys[layer, :, :, self.length : end] = keys
        self.values[layer, :, :, self.length : end] = values
        return self.keys[layer, :, :, :end], self.values[layer, :, :, :end]


class Linear(nn.Linear):
    """A matrix without bias, kept in fp32 and multiplied in the precision of its input."""

    def __init__(self, n_in: int, n_out: int) -> None:
        super().__init__(n_in, n_out, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight.to(x.dtype))


def rms_norm(x: Tensor) -> Tensor:
    """RMSNorm over the last dimension, without weights."""
    return F.rms_norm(x, (x.shape[-1],), eps=NORM_EPS)


class HeadNorm(nn.Module):
    """LayerNorm with a weight over head_dim, for qk_norm `layer`."""

    def __init__(self, head_dim: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(head_dim))

    def forward(self, x: Tensor) -> Tensor:
        return F.layer_norm(x, self.weight.shape, self.weight.to(x.dtype), eps=NORM_EPS)


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turns each pair (x_i, x_(i + S/2)) by minus its position's angle. x (B, H, T, S); cos, sin (T, S/2)."""
    first, second = x.chunk(2, dim=-1)
    return torch.cat((first * cos + second * sin, second * cos - first * sin), dim=-1)


def attend(q: Tensor, k: Tensor, v: Tensor, window: int | None) -> Tensor:
    """Returns what the last t of T positions read, (B, H, t, S), each of itself and those before it in its window.

    q (B, H, t, S); k, v (B, K, T, S), a head of which serves H / K heads of q.
    """
    return _attend_in_blocks(q, k, v, window) if q.device.type == "cpu" else _attend_by_kernel(q, k, v, window)


def _attend_by_kernel(q: Tensor, k: Tensor, v: Tensor, window: int | None) -> Tensor:
    n_queries, n_keys = q.shape[2], k.shape[2]
    sees_all = window is None and n_queries in (1, n_keys)
    mask = None if sees_all else _attention_mask(n_queries, n_keys, window, q)
    is_causal = sees_all and n_queries > 1
    return F.scaled_dot_product_attention(
        q, k, v, attn_mask=mask, is_causal=is_causal, enable_gqa=q.shape[1] != k.shape[1]
    )


def _attend_in_blocks(q: Tensor, k: Tensor, v: Tensor, window: int | None) -> Tensor:
    """On a CPU 1.1 (fp32) to 2.8 times (bf16) as fast as PyTorch's kernel, which multiplies small tiles, in fp32."""
    if (group := q.shape[1] // k.shape[1]) > 1:
        k, v = k.repeat_interleave(group, dim=1), v.repeat_interleave(group, dim=1)
    blocks, stop = [], k.shape[2] - q.shape[2]
    for block in (q * q.shape[-1] ** -0.5).split(QUERY_BLOCK, dim=2):
        first, stop = stop, stop + block.shape[2]  # positions of the block
        start = max(0, first + 1 - window) if window else 0  # position of the first key that it sees
        scores = block @ k[:, :, start:stop].mT + _attention_mask(stop - first, stop - start, window, q)
        blocks.append(scores.softmax(-1) @ v[:, :, start:stop])
    return torch.cat(blocks, dim=2)


def _attention_mask(n_queries: int, n_keys: int, window: int | None, like: Tensor) -> Tensor:
    """Returns 0 where each of the last n_queries positions sees a key and -inf elsewhere, (n_queries, n_keys)."""
    unseen = torch.full((n_queries, n_keys), -torch.inf, device=like.device, dtype=like.dtype)
    offset = n_keys - n_queries
    mask = unseen.triu(offset + 1)
    return mask + unseen.tril(offset - window) if window else mask


class Attention(nn.Module):
    """Causal self-attention of one layer, over all earlier positions or a window of them."""

    def __init__(self, settings: ModelSettings, layer: int) -> None:
        super().__init__()
        self.layer, self.window = layer, settings.window(layer)
        self.n_head, self.n_kv_head, self.head_dim = settings.n_head, settings.kv_heads, settings.head_dim
        width, kv_width = settings.n_embd, settings.kv_heads * settings.head_dim
        self.c_q = Linear(width, width)
        self.c_k = Linear(width, kv_width)
        self.c_v = Linear(width, kv_width)
        self.c_proj = Linear(width, width)
        self.q_norm, self.k_norm = (_query_key_norm(settings) for _ in range(2))

    def forward(self, x: Tensor, rope: tuple[Tensor, Tensor], cache: KVCache | None) -> Tensor:
        batch, length, width = x.shape

        def by_head(projected: Tensor, n_head: int) -> Tensor:  # (B, T, H * S) -> (B, H, T, S)
            return projected.view(batch, length, n_head, self.head_dim).transpose(1, 2)

        q = self.q_norm(rotate(by_head(self.c_q(x), self.n_head), *rope))
        k = self.k_norm(rotate(by_head(self.c_k(x), self.n_kv_head), *rope))
        v = by_head(self.c_v(x), self.n_kv_head)
        if cache is not None:
            k, v = cache.extend(self.layer, k, v)
        y = attend(q, k, v, self.window)
        out: Tensor = self.c_proj(y.transpose(1, 2).reshape(batch, length, width))  # (B, H, T, S) -> (B, T, C)
        return out


def _query_key_norm(settings: ModelSettings) -> nn.Module:
    if settings.qk_norm == "layer":
        return HeadNorm(settings.head_dim)
    return nn.RMSNorm(settings.head_dim, NORM_EPS, False) if settings.qk_norm == "rms" else nn.Identity()


class MLP(nn.Module):
    """The feed-forward half of a block."""

    def __init__(self, settings: ModelSettings) -> None:
        super().__init__()
        self.activation = settings.activation
        self.fc1 = Linear(settings.n_embd, settings.ff_width)
        if self.activation == "swiglu":
            self.gate = Linear(settings.n_embd, settings.ff_width)
        self.fc2 = Linear(settings.ff_width, settings.n_embd)

    def forward(self, x: Tensor) -> Tensor:
        h = self.fc1(x)
        if self.activation == "relu2":
            h = F.relu(h).square()  # So et al. 2021
        elif self.activation == "gelu":
            h = h * torch.sigmoid(1.702 * h)  # Hendrycks and Gimpel 2016
        else:
            h = F.silu(self.gate(x)) * h  # Shazeer 2020
        out: Tensor = self.fc2(h)
        return out


class Block(nn.Module):
    def __init__(self, settings: ModelSettings, layer: int) -> None:
        super().__init__()
        self.attention = Attention(settings, layer)
        self.mlp = MLP(settings)

    def forward(self, x: Tensor, rope: tuple[Tensor, Tensor], cache: KVCache | None) -> Tensor:
        x = x + self.attention(rms_norm(x), rope, cache)
        out: Tensor = x + self.mlp(rms_norm(x))
        return out


class GPT(nn.Module):
    """A GPT with the switches of ModelSettings. Weights are fp32; matrices are multiplied in `compute_dtype`."""

    cos: Tensor
    sin: Tensor

    def __init__(self, settings: ModelSettings, compute_dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.settings, self.compute_dtype = settings, compute_dtype
        self.wte = nn.Embedding(settings.vocab_size, settings.n_embd)
        self.blocks = nn.ModuleList(Block(settings, layer) for layer in range(settings.n_layer))
        if settings.use_output_projection:
            self.output_projection = Linear(settings.n_embd, settings.n_embd)
        if not settings.tie_weights:
            self.lm_head = Linear(settings.n_embd, settings.vocab_size)
        if settings.use_confidence:
            self.confidence_head = Linear(settings.n_embd, 1)
        frequencies = ROPE_BASE ** (-torch.arange(0, settings.head_dim, 2, dtype=torch.float32) / settings.head_dim)
        angles = torch.arange(settings.sequence_length, dtype=torch.float32)[:, None] * frequencies  # (T, S/2)
        self.register_buffer("cos", angles.cos().to(compute_dtype), persistent=False)
        self.register_buffer("sin", angles.sin().to(compute_dtype), persistent=False)

    @torch.no_grad()
    def initialize(self, seed: int) -> "GPT":
        """Draws all weights; the same seed gives the same weights, whatever was drawn before. Returns the model.

        Sublayers begin at zero (c_proj, fc2), so that h_pre is the normed embedding of the input token. The projection
        is a random one of the same length; without it, wte is drawn small enough for the tied head not to answer with
        the input token. Other matrices are uniform with std 1 / sqrt(C), as in nanochat.
        """
        settings = self.settings
        generator = torch.Generator().manual_seed(seed)
        projected = settings.use_output_projection and not settings.output_projection_residual
        tied_std = INIT_STD if projected else min(INIT_STD, UNPROJECTED_INPUT_LOGIT / settings.n_embd)
        for name, parameter in self.named_parameters():
            matrix = name.split(".")[-2]
            if matrix in ("c_proj", "fc2", "confidence_head"):
                parameter.zero_()
            elif matrix == "wte":
                parameter.normal_(0, tied_std if settings.tie_weights else 1.0, generator=generator)
            elif matrix == "lm_head":
                parameter.normal_(0, 0.001, generator=generator)
            elif matrix == "output_projection":
                std = settings.n_embd**-0.5 if projected else INIT_STD * settings.n_embd**-0.5
                parameter.normal_(0, std, generator=generator)
            elif matrix in ("q_norm", "k_norm"):
                parameter.fill_(1)
            else:
                bound = (3 / settings.n_embd) ** 0.5
                parameter.uniform_(-bound, bound, generator=generator)
        return self

    @property
    def head_weight(self) -> Tensor:
        """The matrix from h_post to logits, (V, C): wte itself where the weights are tied."""
        return self.wte.weight if self.settings.tie_weights else self.lm_head.weight

    def hidden(self, tokens: Tensor, cache: KVCache | None = None) -> tuple[Tensor, Tensor]:
        """Returns h_pre and h_post, (B, T, C), of tokens (B, T) that follow those in the cache."""
        start = cache.length if cache is not None else 0
        end = start + tokens.shape[1]
        if end > self.settings.sequence_length:
            raise ValueError(f"{end} tokens do not fit the sequence length {self.settings.sequence_length}")
        rope = self.cos[start:end], self.sin[start:end]
        x = rms_norm(self.wte(tokens).to(self.compute_dtype))
        for block in self.blocks:
            x = block(x, rope, cache)
        if cache is not None:
            cache.length = end
        h_pre = rms_norm(x)
        return h_pre, self.project(h_pre)

    def project(self, h_pre: Tensor) -> Tensor:
        """Returns h_post of h_pre, both (..., C)."""
        if not self.settings.use_output_projection:
            return h_pre
        h_post: Tensor = self.output_projection(h_pre)
        return h_pre + h_post if self.settings.output_projection_residual else h_post

    def logits(self, h_post: Tensor) -> Tensor:
        """Returns the logits of h_post (..., C) as fp32 (..., V). For generation: training never holds them all."""
        return F.linear(h_post, self.head_weight.to(h_post.dtype)).float()

    def o_conf(self, h_pre: Tensor) -> Tensor:
        """Returns the confidence in the next token: (..., C) -> (...), fp32."""
        o_conf: Tensor = self.confidence_head(h_pre)
        return o_conf.squeeze(-1).float()

    def forward(self, tokens: Tensor, t_exp: Tensor, confidence: ConfidenceSettings) -> Losses:
        """Returns the losses of tokens (B, T) against the expected next tokens t_exp (B, T)."""
        h_pre, h_post = self.hidden(tokens)
        cross_entropy = chunked_cross_entropy(h_post.flatten(0, 1), self.head_weight, t_exp.flatten())
        if not self.settings.use_confidence:
            none = torch.zeros((), device=tokens.device)
            return Losses(cross_entropy, none, none, none)
        target = TARGETS[confidence.target](h_post, self.wte(t_exp))
        o_conf = self.o_conf(h_pre if confidence.trunk_gradient else h_pre.detach())
        return Losses(cross_entropy, F.mse_loss(o_conf, target), target.mean(), target.std())
