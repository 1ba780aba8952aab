"""What a run will take, before step 0: parameters by part, FLOPs, tokens, epochs, and estimates of memory and hours."""

import math
import time
from collections import Counter
from dataclasses import dataclass

import torch

from shared.console import UserError, human, table
from training.head import CHUNK_LOGITS
from training.model import GPT
from training.settings import ModelSettings, TrainingSettings

WARN_EPOCHS, MAX_EPOCHS = 4, 100  # up to 4 epochs are nearly as good as new data (Muennighoff et al. 2023)
CPU_TOKENS = 4096  # at once: more are no faster, and Ctrl-C waits for them
ASSUMED_UTILIZATION = {"cuda": 0.35, "cpu": 0.5}  # share of the peak that a step reaches, for hours foretold

# Dense matrix products per second with fp32 accumulation, by NVIDIA's data sheets: (bf16 and fp16, fp32). A name not
# here, as of a laptop's variant, is timed instead. RTX 3060: 112 tensor cores x 64 FMA x 1.777 GHz.
PEAK_FLOPS = {
    "NVIDIA GeForce RTX 3060": (25.5e12, 12.7e12),
    "NVIDIA GeForce RTX 3090": (71e12, 35.6e12),
    "NVIDIA GeForce RTX 4090": (165.2e12, 82.6e12),
    "NVIDIA A100-SXM4-40GB": (312e12, 19.5e12),
    "NVIDIA A100-SXM4-80GB": (312e12, 19.5e12),
    "NVIDIA H100 80GB HBM3": (989.4e12, 66.9e12),
    "NVIDIA H200": (989.4e12, 66.9e12),
}


@dataclass(frozen=True)
class Speed:
    """What one device can do: its name, FLOPs per second, and where that figure is from."""

    device: str
    flops: float
    is_known: bool  # from the table; else a matrix product was timed


@dataclass(frozen=True)
class Plan:
    """A run's size. `sequences` is how many a process holds at a time, `micro_steps` how often it does so a step."""

    parameters: dict[str, int]
    flops_per_token: int
    n_steps: int
    n_tokens: int
    epoch_tokens: int
    sequences: int
    micro_steps: int
    memory_bytes: int
    seconds: float

    @property
    def epochs(self) -> float:
        return self.n_tokens / self.epoch_tokens

    @property
    def n_parameters(self) -> int:
        return sum(self.parameters.values())


def make_plan(
    settings: TrainingSettings, epoch_tokens: int, n_processes: int, dtype: torch.dtype, device: str, speed: Speed
) -> Plan:
    """Returns the plan of a run on n_processes devices. Raises UserError when the batch does not divide among them."""
    model, recipe = settings.model, settings.recipe
    share, left = divmod(settings.sequences_per_step, n_processes)
    if left:
        raise UserError(
            f"batch_tokens {recipe.batch_tokens} are {settings.sequences_per_step} sequences of"
            f" {model.sequence_length}: {n_processes} processes cannot share them evenly",
            f"--batch-tokens {(share + 1) * n_processes * model.sequence_length}, or another --processes",
        )
    at_most = min(share, settings.loop.micro_batch)
    if device == "cpu":
        at_most = min(at_most, max(1, CPU_TOKENS // model.sequence_length))
    sequences = max(size for size in range(1, at_most + 1) if share % size == 0)
    parameters = parameters_by_part(model)
    total = sum(parameters.values())
    n_steps = recipe.steps or math.ceil(recipe.tokens_per_parameter * total / recipe.batch_tokens)
    n_tokens = n_steps * recipe.batch_tokens
    flops = flops_per_token(model)
    seconds = flops * n_tokens / (speed.flops * n_processes * ASSUMED_UTILIZATION[device])
    return Plan(
        parameters=parameters,
        flops_per_token=flops,
        n_steps=n_steps,
        n_tokens=n_tokens,
        epoch_tokens=epoch_tokens,
        sequences=sequences,
        micro_steps=share // sequences,
        memory_bytes=memory_bytes(model, parameters, sequences, dtype, device),
        seconds=seconds,
    )


def parameters_by_part(model: ModelSettings) -> dict[str, int]:
    """Returns how many parameters wte, the blocks and each head have."""
    with torch.device("meta"):
        gpt = GPT(model)
    counts: Counter[str] = Counter()
    for name, parameter in gpt.named_parameters():
        counts[name.partition(".")[0]] += parameter.numel()
    return dict(counts)


def flops_per_token(model: ModelSettings) -> int:
    """Returns FLOPs of forward and backward for one token: 6 for each matrix weight, plus attention (PaLM, appendix B).

    The head counts once, tied or not; wte as an embedding is a lookup. Attention counts the whole window, though half
    of it is masked.
    """
    matrices = sum(count for part, count in parameters_by_part(model).items() if part not in ("wte", "lm_head"))
    seen = sum(min(model.sequence_length, model.window(i) or model.sequence_length) for i in range(model.n_layer))
    return 6 * (matrices + model.vocab_size * model.n_embd) + 12 * model.n_embd * seen


def memory_bytes(
    model: ModelSettings, parameters: dict[str, int], sequences: int, dtype: torch.dtype, device: str
) -> int:
    """Returns roughly what one process holds at the top of a step: weights, gradients, optimizer, activations."""
    adam = sum(parameters.get(part, 0) for part in ("wte", "lm_head", "confidence_head"))
    total = sum(parameters.values())
    states = 4 * (2 * total + 2 * adam + (total - adam))  # fp32 weights and gradients; two AdamW moments, one of Muon
    head = (
        model.vocab_size * model.n_embd * (4 + dtype.itemsize) + 10 * CHUNK_LOGITS[device]
    )  # its gradient, its copy, one chunk
    kept = model.n_layer * (10 * model.n_embd + 3 * model.ff_width) + 4 * model.n_embd  # values a token leaves behind
    return states + head + kept * dtype.itemsize * sequences * model.sequence_length


def device_speed(device: torch.device, dtype: torch.dtype) -> Speed:
    """Returns the peak of a known GPU, else what a large matrix product reaches on the device."""
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
        if name in PEAK_FLOPS:
            return Speed(name, PEAK_FLOPS[name][dtype == torch.float32], is_known=True)
        return Speed(name, _timed_product(device, dtype, 4096), is_known=False)
    return Speed(f"CPU, {torch.get_num_threads()} threads", _timed_product(device, dtype, 1024), is_known=False)


def _timed_product(device: torch.device, dtype: torch.dtype, size: int) -> float:
    """Returns FLOPs per second of a square matrix product, the best of several."""
    a, b = (torch.ones(size, size, device=device, dtype=dtype) for _ in range(2))
    best = math.inf
    for _ in range(8):
        started = time.perf_counter()
        float((a @ b)[0, 0])  # a GPU's answer must be waited for
        best = min(best, time.perf_counter() - started)
    return 2 * size**3 / best


def plan_text(plan: Plan, settings: TrainingSettings, n_processes: int, dtype: torch.dtype, speed: Speed) -> str:
    """Returns the plan as lines for a person."""
    parts = [(part, count, count / plan.n_parameters) for part, count in plan.parameters.items()]
    source = "data sheet" if speed.is_known else "a timed matrix product"
    recipe = settings.recipe
    lines = [
        table([*parts, ("all", plan.n_parameters, 1.0)], ["parameters", "count", "share"]),
        f"{plan.n_steps:,} steps of {recipe.batch_tokens:,} tokens ({n_processes} x {plan.micro_steps} x"
        f" {plan.sequences} sequences of {settings.model.sequence_length}): {human(plan.n_tokens)} tokens,"
        f" {plan.n_tokens / plan.n_parameters:.1f} a parameter",
        f"{human(plan.epoch_tokens)} tokens in the mix: {plan.epochs:.2f} epochs",
        f"{human(plan.flops_per_token)} FLOPs a token; {n_processes} x {speed.device},"
        f" {speed.flops / 1e12:.3g} TFLOPS each ({source}), {str(dtype).removeprefix('torch.')}",
        f"about {plan.memory_bytes / 2**30:.2f} GiB a process; about {duration(plan.seconds)} (estimates)",
    ]
    return "\n".join(lines)


def check_epochs(plan: Plan, allow_epochs: bool) -> str | None:
    """Returns a warning when the mix is read more often than pays. Raises UserError above MAX_EPOCHS unless allowed."""
    if plan.epochs > MAX_EPOCHS and not allow_epochs:
        steps = int(WARN_EPOCHS * plan.epoch_tokens * plan.n_steps / plan.n_tokens)
        raise UserError(
            f"{plan.n_steps:,} steps read the mix {plan.epochs:.0f} times: over {MAX_EPOCHS} epochs",
            f"--steps {max(1, steps)} for {WARN_EPOCHS} epochs, a larger mix, or --allow-epochs",
        )
    if plan.epochs > WARN_EPOCHS:
        return f"{plan.epochs:.1f} epochs: after {WARN_EPOCHS} a token read again teaches less than a new one"
    return None


def duration(seconds: float) -> str:
    """Returns a time span as people read it: 42 s, 3:05 min, 2:10 h."""
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02} min" if minutes < 60 else f"{minutes // 60}:{minutes % 60:02} h"
