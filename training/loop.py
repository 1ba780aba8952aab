"""The training loop, read top to bottom: from the newest checkpoint, or from the beginning, to the last step.

Run -> Learner + Batches -> step, line of metrics.jsonl, look at val, samples, checkpoint, ... -> runs/<name>
"""

import shlex
import time
from collections import deque
from pathlib import Path
from typing import Any, NamedTuple

import torch

from shared.console import Failure, UserError, human, say
from shared.manifest import RUN_RECORD
from shared.run_record import library_versions, write_run_record
from training.batches import Batches
from training.checkpoint import forget_figures_after, newest_checkpoint, save_checkpoint
from training.distributed import STOPS, Place, StopRequest, gather_ranks
from training.evaluation import HeldOut, look
from training.learner import Learner, StepFigures
from training.plan import duration
from training.prepare import Run, say_nothing
from training.run_folder import CHECKPOINTS
from training.sampling import samples
from training.tokenizer import load_tokenizer
from training.tracking import METRICS, Tracker

BEST_BY = "val/bpb"  # of the checkpoints, the one with the lowest is kept
SAMPLE_TOKENS = 40
OUT_OF_MEMORY = ("can't allocate memory", "not enough memory", "CUBLAS_STATUS_ALLOC_FAILED")
ETA_STEPS = 20  # the time left is told from the mean of this many steps


def train(run: Run, place: Place, started: float) -> int:
    """Trains to the last step, or until stopped. Returns the exit code; raises UserError where memory is too small."""
    try:
        return _train(run, place, started)
    except RuntimeError as error:  # on a CPU it has no class of its own
        if not isinstance(error, torch.OutOfMemoryError) and not any(sign in str(error) for sign in OUT_OF_MEMORY):
            raise
        at_once = f"{run.plan.sequences} sequences of {run.settings.model.sequence_length} tokens at once"
        hint = f"--micro-batch {run.plan.sequences // 2}: the batch of a step stays the same"
        if run.plan.sequences == 1:
            hint = "a smaller --model, or a shorter --set model.sequence_length=N"
        raise UserError(f"{place.device} has too little memory for {at_once}", hint) from None


def _train(run: Run, place: Place, started: float) -> int:
    """The loop itself."""
    stop = StopRequest()
    settings, plan, shards = run.settings, run.plan, run.shards
    recipe, loop, length = settings.recipe, settings.loop, settings.model.sequence_length
    tell = say if place.is_first else say_nothing
    tokenizer = load_tokenizer(run.tokenizer)

    learner = Learner(settings, run.dtype, place)
    batches = Batches(shards["train"], length, settings.sequences_per_step, recipe.seed, place.rank, place.world_size)
    held_out = HeldOut(shards["val"], length, place.device, loop.evaluate_tokens)
    step, val, is_rounded_off = _restored(run, learner, batches, place)
    if step == plan.n_steps and is_rounded_off:
        tell(f"{run.folder} is finished: {step:,} of {plan.n_steps:,} steps")
        return 0
    first_step = saved_step = step
    wants_compile = run.flags.compile == "on" or (run.flags.compile == "auto" and place.device.type == "cuda")
    tokens, targets = batches.batch(step)
    compiled = learner.get_going(wants_compile, (tokens[: plan.sequences], targets[: plan.sequences]))
    facts = _facts(run, compiled, first_step)
    _record(run, place, started, facts)
    pace = Pace(run)

    def stopped() -> bool:
        return stop.agreed(place) is not None

    stop.arm()
    with Tracker(run.folder, run.flags.wandb, settings, run.flags.shards, facts, place.rank) as tracker:
        while True:
            is_last = step == plan.n_steps
            if not is_rounded_off:
                if is_last or step % loop.evaluate_every == 0:
                    if (val := look(learner.gpt, recipe.confidence, held_out, place, stopped)) is None:
                        break
                    tracker.log({"step": step, **val})
                    tell(_val_line(step, val))
                if step and (is_last or step % loop.sample_every == 0) and place.is_first:
                    texts = samples(learner.gpt, tokenizer, loop.prompts, SAMPLE_TOKENS, seed=0)
                    for prompt, text in zip(loop.prompts, texts, strict=True):
                        tracker.log({"step": step, "prompt": prompt, "sample": text})
                        tell(f"sample  {text!r}")
                is_rounded_off = True
                if step and (is_last or step % loop.save_every == 0 or step == saved_step):
                    tracker.sync()
                    checkpoint = _save(run, learner, batches, step, val, is_rounded_off, place)
                    saved_step = step
                    if is_last and checkpoint:
                        tracker.log_model(checkpoint)
            if is_last:
                break

            pace.start()
            inspect = (step + 1) % loop.inspect_every == 0
            figures = learner.learn(step, plan.n_steps, batches.batch(step), plan.sequences, stopped, inspect)
            if figures is None:
                break
            if not figures.is_finite:
                raise Failure(
                    f"step {step + 1} diverged: loss {figures.loss}, gradient norm {figures.grad_norm}",
                    "begin another run, with another --name, lower learning rates, or --precision fp32",
                )
            step, val, is_rounded_off = step + 1, None, False
            speed = pace.stop()
            tracker.log(_step_figures(step, figures, learner, batches, speed))
            tell(_step_line(step, plan.n_steps, figures, speed))
        is_finished = is_last and is_rounded_off
        if step > saved_step:
            tracker.sync()
            _save(run, learner, batches, step, val, is_rounded_off, place)
        if not is_finished:
            tracker.stop()
    _record(run, place, started, {**facts, "step": step, "finished": is_finished, "val": val})
    if not is_finished and (number := stop.agreed(place)) is not None:
        saved = f"stopped at step {step:,}, which is saved: the same command goes on from there"
        tell(saved if step else "stopped before the first step: nothing is lost")
        return STOPS[number]
    if place.is_first:
        _conclude(run, val, time.time() - started)
    return 0


class Pace:
    """How fast steps go, over all processes."""

    def __init__(self, run: Run) -> None:
        self._run = run
        self._recent: deque[float] = deque(maxlen=ETA_STEPS)
        self._started = 0.0

    def start(self) -> None:
        self._started = time.perf_counter()

    def stop(self) -> "StepSpeed":
        seconds = time.perf_counter() - self._started
        self._recent.append(seconds)
        plan = self._run.plan
        tokens_per_second = plan.n_tokens / plan.n_steps / seconds
        flops = plan.flops_per_token * tokens_per_second
        peak = self._run.speed.flops * self._run.n_processes
        return StepSpeed(seconds, tokens_per_second, flops / peak, sum(self._recent) / len(self._recent))


class StepSpeed(NamedTuple):
    """Speed of one step; `mfu` is the share of the devices' peak in use, `mean_seconds` that of the last steps."""

    seconds: float
    tokens_per_second: float
    mfu: float
    mean_seconds: float


def _restored(run: Run, learner: Learner, batches: Batches, place: Place) -> tuple[int, dict[str, Any] | None, bool]:
    """Returns the step to go on from, its held-out figures if it has any, and whether all that follows a step was done.

    The learner is then as it was at that step, and metrics.jsonl too. Raises UserError where processes disagree.
    """
    checkpoint = newest_checkpoint(run.folder / CHECKPOINTS, tell=say_nothing)  # begin() told what is damaged
    step = checkpoint.step if checkpoint else 0
    own = [step, int(run.manifest_sha256[:15], 16), int(run.tokenizer_sha256[:15], 16), run.dtype.itemsize]
    of_all = gather_ranks(torch.tensor(own), place)
    if (of_all != of_all[0]).any():
        raise UserError(
            f"process {place.rank} goes on from step {step} of {run.folder} in {run.dtype}; another would not",
            "--shards and --runs-dir must name one place that all machines share, and --precision one for all",
        )
    state = checkpoint.state if checkpoint else {}
    is_rounded_off = bool(state.get("is_rounded_off", checkpoint))
    if checkpoint:
        stood, stands = state.get("position"), batches.state(step)
        if stood != stands:
            raise UserError(
                f"{checkpoint.folder} was at {stood}, but here is {stands}", "start anew under another --name"
            )
        learner.restore(checkpoint)
    if place.is_first:
        forget_figures_after(run.folder / METRICS, step if checkpoint else -1, is_rounded_off)
        if checkpoint:
            say(f"going on from {checkpoint.folder}")
            if (before := state.get("precision")) not in (None, precision := _plain(run.dtype)):
                say(f"warning: it was trained in {before} up to here, and is in {precision} from here on")
    return step, state.get("val"), is_rounded_off


def _plain(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _save(
    run: Run,
    learner: Learner,
    batches: Batches,
    step: int,
    val: dict[str, Any] | None,
    is_rounded_off: bool,
    place: Place,
) -> Path | None:
    """Returns the checkpoint of a step, which the first process writes."""
    tensors = learner.tensors()
    if not place.is_first:
        return None
    state = {
        "step": step,
        "position": batches.state(step),
        "val": val,
        "is_rounded_off": is_rounded_off,  # its look and its samples were taken
        "loss_scale": learner.loss_scale(),
        "precision": _plain(run.dtype),
        "processes": run.n_processes,
        **run.recorded(),
    }
    return save_checkpoint(run.folder / CHECKPOINTS, state, **tensors, best_by=BEST_BY)


def _step_figures(
    step: int, figures: StepFigures, learner: Learner, batches: Batches, speed: StepSpeed
) -> dict[str, float]:
    """Returns a step's line of metrics.jsonl."""
    line: dict[str, float] = {
        "step": step,
        "loss": figures.loss,
        "confidence_loss": figures.confidence_loss,
        "target_mean": figures.target_mean,
        "target_std": figures.target_std,
        "lr_factor": figures.lr_factor,
        "grad_norm": figures.grad_norm,
        "tokens": step * batches.tokens_per_step,
        "epoch": batches.epoch(step),
        "seconds": speed.seconds,
        "tokens_per_second": speed.tokens_per_second,
        "mfu": speed.mfu,
    }
    if figures.norms:
        line |= {f"lr/{group}": lr for group, lr in learner.optimizers.learning_rates(figures.lr_factor).items()}
        line |= {f"grad_norm/{group}": norm for group, norm in figures.norms.items()}
        if learner.gpt.settings.use_output_projection:
            line["output_projection_mean_abs"] = float(learner.gpt.output_projection.weight.abs().mean())
    return line


def _step_line(step: int, n_steps: int, figures: StepFigures, speed: StepSpeed) -> str:
    return (
        f"step {step:{len(str(n_steps))}}/{n_steps}  loss {figures.loss:.4f}"
        f"  confidence {figures.confidence_loss:.4f}  lr x{figures.lr_factor:.3f}"
        f"  {human(speed.tokens_per_second)} tokens/s  mfu {speed.mfu:.1%}"
        f"  eta {duration((n_steps - step) * speed.mean_seconds)}"
    )


def _val_line(step: int, val: dict[str, Any]) -> str:
    shown = {name.removeprefix("val/"): figure for name, figure in val.items()}
    return f"val  step {step}  " + "  ".join(
        f"{name} {'-' if figure is None else format(figure, '.4f')}" for name, figure in shown.items()
    )


def _facts(run: Run, compiled: bool, first_step: int) -> dict[str, Any]:
    """Returns what run.json and W&B tell of a run beside its settings."""
    return {
        "mix": run.mix,
        "manifest_sha256": run.manifest_sha256,
        "tokenizer_sha256": run.tokenizer_sha256,
        "parameters": run.plan.parameters,
        "flops_per_token": run.plan.flops_per_token,
        "n_steps": run.plan.n_steps,
        "epochs": run.plan.epochs,
        "device": run.speed.device,
        "peak_flops": run.speed.flops,
        "processes": run.n_processes,
        "precision": _plain(run.dtype),
        "compiled": compiled,
        "resumed_from_step": first_step,
        "versions": library_versions("torch", "tokenizers", "safetensors", "numpy"),
    }


def _record(run: Run, place: Place, started: float, facts: dict[str, Any]) -> None:
    """Writes run.json."""
    if place.device.type == "cuda":
        facts = {**facts, "peak_memory_bytes": torch.cuda.max_memory_allocated(place.device)}
    if place.is_first:
        write_run_record(run.folder / RUN_RECORD, started, **facts)


def _conclude(run: Run, val: dict[str, Any] | None, seconds: float) -> None:
    told = _val_line(run.plan.n_steps, val).partition("  ")[2] if val else "nothing is held out"
    folder = shlex.quote(str(run.folder))
    print(f"{run.folder}: {told}, in {duration(seconds)}")
    print(f"next: python -m training.evaluate {folder}")
    print(f"      python -m training.generate {folder} --prompt {shlex.quote(run.settings.loop.prompts[0])}")
