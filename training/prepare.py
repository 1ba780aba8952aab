"""What stands before a run can start: settings resolved, shards verified, tokenizer and token shards made, the plan.

manifest -> verified shards -> tokenizer (one for the pool) -> token shards -> settings with the true vocabulary -> plan
"""

import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml

from shared.console import UserError, say
from shared.files import remove_temporary_files, sha256_file, write_text, written_whole
from shared.manifest import read_manifest
from training.checkpoint import newest_checkpoint, remove_leftovers
from training.distributed import is_launched, multiplies_bf16_fast, process_count
from training.plan import Plan, Speed, check_epochs, device_speed, make_plan, plan_text
from training.run_folder import CHECKPOINTS, SETTINGS, TOKENIZER, read_recorded
from training.settings import PretrainFlags, TrainingSettings, preset_settings, read_training_file
from training.token_shards import TokenShard, ensure_token_shards, open_token_shards
from training.tokenizer import ensure_pool_tokenizer, load_tokenizer


@dataclass(frozen=True)
class Run:
    """One run, ready to start, as each of its processes knows it. `settings.model.vocab_size` is the tokenizer's."""

    flags: PretrainFlags
    settings: TrainingSettings
    folder: Path
    mix: str
    manifest_sha256: str
    tokenizer: Path
    tokenizer_sha256: str
    shards: dict[str, list[TokenShard]]
    plan: Plan
    n_processes: int
    dtype: torch.dtype
    speed: Speed

    def recorded(self) -> dict[str, Any]:
        """Returns what settings.yaml holds: enough to evaluate the run, and to refuse to go on with other settings."""
        return {
            "manifest": str(self.flags.shards),
            "manifest_sha256": self.manifest_sha256,
            "tokenizer_sha256": self.tokenizer_sha256,
            "data_dir": str(self.flags.data_dir),
            "settings": self.settings.model_dump(mode="json"),
        }


def get_ready(flags: PretrainFlags, device: str, leads: bool, makes_files: bool = True) -> Run:
    """Returns the run that the flags ask for. Raises UserError naming what is wrong.

    `leads`: this process tells the plan. Without `makes_files`, another process has just checked and made them all.
    """
    tell = say if leads else say_nothing
    manifest = read_manifest(flags.shards)
    preset = flags.model or ("10M" if device == "cuda" else "tiny")
    if flags.model is None:
        tell(f"model: {preset}, since there is {'a' if device == 'cuda' else 'no'} GPU (--model takes another preset)")
    content = read_training_file(flags.pipelines)
    asked = preset_settings(content, flags.pipelines, preset, flags.settings_changes())
    folder = flags.runs_dir / (flags.name or f"{manifest.name}-{preset}")

    tokenizer = flags.tokenizer or _tokenizer_begun_with(folder)
    if tokenizer is None:
        tokenizer = ensure_pool_tokenizer(
            flags.shards, manifest, asked.model.vocab_size, asked.tokenizer, flags.data_dir
        )
    n_tokens = load_tokenizer(tokenizer).get_vocab_size()
    if n_tokens != asked.model.vocab_size:
        tell(
            f"note: the model's vocabulary is that of {tokenizer}: {n_tokens:,} tokens, not {asked.model.vocab_size:,}"
        )
    settings = asked.model_copy(update={"model": asked.model.model_copy(update={"vocab_size": n_tokens})})
    if makes_files:
        shards = ensure_token_shards(flags.shards, manifest, tokenizer, flags.data_dir)
    else:
        shards = open_token_shards(manifest, tokenizer, flags.data_dir)

    n_processes = int(os.environ["WORLD_SIZE"]) if is_launched() else process_count(flags.processes, device)
    if device == "cpu" and not is_launched():
        torch.set_num_threads(max(1, torch.get_num_threads() // n_processes))  # as each process will have
    dtype = compute_dtype(flags.precision, torch.device(device))
    speed = device_speed(torch.device(device), dtype)
    epoch_tokens = sum(len(shard.tokens) for shard in shards["train"])
    plan = make_plan(settings, epoch_tokens, n_processes, dtype, device, speed)
    tell(plan_text(plan, settings, n_processes, dtype, speed))
    if warning := check_epochs(plan, flags.allow_epochs):
        tell(f"warning: {warning}")
    if flags.dry_run:
        tell("dry run: nothing is trained")
    return Run(
        flags=flags,
        settings=settings,
        folder=folder,
        mix=manifest.name,
        manifest_sha256=sha256_file(flags.shards),
        tokenizer=tokenizer,
        tokenizer_sha256=sha256_file(tokenizer),
        shards=shards,
        plan=plan,
        n_processes=n_processes,
        dtype=dtype,
        speed=speed,
    )


def compute_dtype(precision: str, device: torch.device) -> torch.dtype:
    """Returns what products are computed in. auto is bf16 where that is fast, else fp16 on GPUs and fp32 on CPUs."""
    if precision == "auto":
        precision = "bf16" if multiplies_bf16_fast(device) else "fp16" if device.type == "cuda" else "fp32"
    return {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}[precision]


def say_nothing(message: str) -> None:
    """Says nothing: what all processes but the first do with what one should tell."""


def begin(run: Run) -> None:
    """Makes the run's folder, or finds the same run begun in it. Raises UserError when it holds another."""
    remove_temporary_files(run.folder, recursive=False)
    is_begun = _is_begun(run)
    remove_leftovers(run.folder / CHECKPOINTS)
    if not is_begun or newest_checkpoint(run.folder / CHECKPOINTS) is None:
        if run.flags.resume:
            raise UserError(f"{run.folder} holds no checkpoint to go on from", "leave out --resume, or mend --name")
        with written_whole(run.folder / TOKENIZER) as temporary:
            shutil.copyfile(run.tokenizer, temporary)
    write_text(run.folder / SETTINGS, yaml.safe_dump(run.recorded(), sort_keys=False))


def _tokenizer_begun_with(folder: Path) -> Path | None:
    path = folder / TOKENIZER
    return path if path.is_file() else None


def _is_begun(run: Run) -> bool:
    """Returns whether the folder holds a part of this very run. Raises UserError when it holds another run."""
    if not (run.folder / SETTINGS).is_file():
        return False
    recorded = read_recorded(run.folder)
    before, now = (
        {
            "manifest_sha256": one.manifest_sha256,
            "tokenizer_sha256": one.tokenizer_sha256,
            **_flat(one.settings.model_dump(mode="json", exclude={"loop"})),
        }
        for one in (recorded, run)
    )
    different = [key for key in now if before[key] != now[key]]
    if different:
        told = ", ".join(f"{key} {before[key]}, now {now[key]}" for key in different[:3])
        raise UserError(f"{run.folder} holds a run with {told}", "give this run another --name, or remove that folder")
    return True


def _flat(nested: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in nested.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return flat
