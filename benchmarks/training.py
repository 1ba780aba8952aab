"""How fast training is on one core, or on one GPU, and where the time of a step goes; all in one run.

python benchmarks/training.py [--device cuda] [--quick]

Prints, for fp32 and bf16, eager and compiled: tokens a second of a whole step; how much of the speed of a large matrix
product the model reaches; the head in chunks beside the plain one, which holds all logits; what the confidence head
costs; and the shares of optimizer and loader. Times are medians of turns, in CPU time on one thread (on a GPU: as the
clock tells), since other work on the machine is not ours; ratios are of times taken one after the other.
"""

import argparse
import os
import statistics
import sys
import time
from collections.abc import Callable
from itertools import accumulate
from pathlib import Path
from typing import Any, cast

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # the profiler, which counts memory, has much to say

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.utils import clip_grad_norm_
from torch.profiler import ProfilerActivity, profile

from shared.console import say, table
from training.batches import Batches
from training.distributed import Place
from training.head import chunked_cross_entropy
from training.model import GPT, INIT_STD
from training.optimizer import Optimizers
from training.settings import ConfidenceSettings, ModelSettings, OptimizerSettings, RecipeSettings
from training.token_shards import TokenShard

SHAPE = ModelSettings(vocab_size=8192, n_layer=4, n_embd=256, sequence_length=512)
N_SEQUENCES = {"cpu": 8, "cuda": 64}  # of a micro-batch
GEMM_SIZE = {"cpu": 2048, "cuda": 8192}
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
Work = Callable[[], Any]


def plain_cross_entropy(h_post: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
    return F.cross_entropy(F.linear(h_post, weight.to(h_post.dtype)).float(), targets)


def model_work(settings: ModelSettings, dtype: torch.dtype, compiled: bool, batch: tuple[Tensor, Tensor]) -> Work:
    """Returns forward and backward of one micro-batch."""
    gpt = GPT(settings, dtype).initialize(0).to(batch[0].device)
    model = torch.compile(gpt, fullgraph=True) if compiled else gpt

    def work() -> None:
        losses = model(*batch, ConfidenceSettings())
        torch.autograd.backward(losses.cross_entropy + 0.1 * losses.confidence)
        gpt.zero_grad()

    return work


def head_work(loss: Callable[..., Tensor], dtype: torch.dtype, compiled: bool, targets: Tensor) -> Work:
    """Returns forward and backward of the head alone."""
    h_post = torch.randn(targets.numel(), SHAPE.n_embd, device=targets.device).to(dtype).requires_grad_()
    weight = torch.randn(SHAPE.vocab_size, SHAPE.n_embd, device=targets.device).mul(INIT_STD).requires_grad_()
    head = torch.compile(loss, fullgraph=True) if compiled else loss
    return lambda: torch.autograd.grad(head(h_post, weight, targets.flatten()), (h_post, weight))


def optimizer_work(device: torch.device) -> Work:
    """Returns clipping and a step of the optimizer."""
    gpt = GPT(SHAPE).initialize(0).to(device)
    optimizers = Optimizers(gpt, OptimizerSettings(), Place(device))
    for parameter in gpt.parameters():
        parameter.grad = torch.randn_like(parameter)

    def work() -> None:
        clip_grad_norm_(gpt.parameters(), 1.0)
        optimizers.step(1.0, 0)

    return work


def loader_work(n_sequences: int) -> Work:
    """Returns the making of one micro-batch, of documents of 500 tokens."""
    tokens = np.random.default_rng(0).integers(SHAPE.vocab_size, size=5_000_000, dtype=np.uint16)
    shard = TokenShard(Path(), "", tokens, np.arange(0, len(tokens) + 1, 500))
    batches = Batches([shard], SHAPE.sequence_length, n_sequences, seed=0)
    steps = iter(range(1_000_000))
    return lambda: batches.batch(next(steps))


def gemm_work(size: int, dtype: torch.dtype, device: torch.device) -> Work:
    a, b = torch.randn(2, size, size, device=device).to(dtype)
    return lambda: F.linear(a, b)


def take_turns(works: dict[str, Work], n_turns: int, device: torch.device) -> dict[str, list[float]]:
    """Returns the seconds of each work's turns; each turn is of all works, one after the other."""
    is_gpu = device.type == "cuda"

    def timed(work: Work) -> float:
        started = time.perf_counter() if is_gpu else time.process_time()
        work()
        if is_gpu:
            torch.cuda.synchronize()
        return (time.perf_counter() if is_gpu else time.process_time()) - started

    seconds: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(n_turns):
        for name, work in works.items():
            seconds[name].append(timed(work))
    return seconds


def peak_megabytes(work: Work, device: torch.device) -> float:
    """Returns how much memory tensors take at most while a work is done, beside those that are there before."""
    if device.type == "cuda":
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        work()
        return (torch.cuda.max_memory_allocated() - before) / 1e6
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        work()
    kineto = cast(Any, profiled.profiler).kineto_results
    changes = sorted((event.start_ns(), event.nbytes()) for event in kineto.events() if event.name() == "[memory]")
    return float(max(accumulate(n_bytes for _, n_bytes in changes)) / 1e6)


def step_flops(n_tokens: int) -> float:
    """Returns the floating-point operations of forward and backward, causal attention over half the sequence."""
    matrices = sum(parameter.numel() for parameter in GPT(SHAPE).parameters())  # wte is one, as the tied head
    return n_tokens * 6.0 * (matrices + SHAPE.n_layer * SHAPE.sequence_length * SHAPE.n_embd)


def measure(dtype: torch.dtype, compiled: bool, n_turns: int, device: torch.device) -> dict[str, str]:
    """Returns the figures of one precision and mode, as they are printed."""
    n_sequences = N_SEQUENCES[device.type]
    tokens, targets = torch.randint(SHAPE.vocab_size, (2, n_sequences, SHAPE.sequence_length), device=device)
    without = SHAPE.model_copy(update={"use_confidence": False})
    works = {
        "model": model_work(SHAPE, dtype, compiled, (tokens, targets)),
        "model without confidence": model_work(without, dtype, compiled, (tokens, targets)),
        "head": head_work(chunked_cross_entropy, dtype, compiled, targets),
        "plain head": head_work(plain_cross_entropy, dtype, compiled, targets),
        "optimizer": optimizer_work(device),
        "loader": loader_work(n_sequences),
        "gemm": gemm_work(GEMM_SIZE[device.type], dtype, device),
    }
    take_turns(works, 3, device)  # warm up, compile
    seconds = take_turns(works, n_turns, device)
    megabytes = {name: peak_megabytes(works[name], device) for name in ("model", "head", "plain head")}
    median = {name: statistics.median(turns) for name, turns in seconds.items()}

    def ratio(name: str, other: str) -> float:
        return statistics.median(a / b for a, b in zip(seconds[name], seconds[other], strict=True))

    n_micro_batches = RecipeSettings().batch_tokens // tokens.numel()
    step = n_micro_batches * (median["model"] + median["loader"]) + median["optimizer"]
    flops = step_flops(tokens.numel()) / median["model"]
    gemm = 2 * GEMM_SIZE[device.type] ** 3 / median["gemm"]
    return {
        "tokens/s of a step": f"{n_micro_batches * tokens.numel() / step:,.0f}",
        "forward and backward, ms": f"{median['model'] * 1e3:,.1f}",
        "  Gflop/s": f"{flops / 1e9:,.0f}",
        "  of a matrix product's": f"{flops / gemm:.0%}",
        "  peak memory, MB": f"{megabytes['model']:,.0f}",
        "confidence head, extra": f"{ratio('model', 'model without confidence') - 1:+.1%}",
        "head, of a step": f"{n_micro_batches * median['head'] / step:.1%}",
        "  time, of the plain one's": f"{ratio('head', 'plain head'):.2f}",
        "  memory, of the plain one's": f"{megabytes['head'] / megabytes['plain head']:.2f}",
        "optimizer, ms": f"{median['optimizer'] * 1e3:.1f}",
        "  of a step": f"{median['optimizer'] / step:.1%}",
        "loader, of a step": f"{n_micro_batches * median['loader'] / step:.2%}",
        "  times as fast as needed": f"{median['model'] / median['loader']:,.0f}",
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--quick", action="store_true", help="few turns")
    args = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    columns = {}
    for name, dtype in DTYPES.items():
        for compiled in (False, True):
            mode = f"{name} {'compiled' if compiled else 'eager'}"
            say(f"measuring {mode}")
            columns[mode] = measure(dtype, compiled, 3 if args.quick else 9, torch.device(args.device))
    n_tokens = N_SEQUENCES[args.device] * SHAPE.sequence_length
    print(
        f"V{SHAPE.vocab_size} L{SHAPE.n_layer} D{SHAPE.n_embd} T{SHAPE.sequence_length}, {n_tokens:,} tokens at a time,"
        f" {RecipeSettings().batch_tokens:,} a step; torch {torch.__version__}, {args.device}\n"
    )
    rows = [[row, *(figures[row] for figures in columns.values())] for row in next(iter(columns.values()))]
    print(table(rows, ["", *columns]))


if __name__ == "__main__":
    main()
