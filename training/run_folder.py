"""The folder of a run: what its files are called, its settings, and the model of its newest checkpoint."""

from dataclasses import dataclass
from pathlib import Path

import torch
from pydantic import BaseModel
from tokenizers import Tokenizer

from shared.console import UserError, nearest
from shared.files import sha256_file
from shared.settings import read_yaml, validated
from training.checkpoint import load_weights, model_settings, newest_checkpoint
from training.model import GPT
from training.settings import ConfidenceSettings, TrainingSettings
from training.tokenizer import load_tokenizer

SETTINGS, TOKENIZER, CHECKPOINTS = "settings.yaml", "tokenizer.json", "checkpoints"


class Recorded(BaseModel):
    """settings.yaml of a run: what it reads, and all its settings."""

    manifest: Path
    manifest_sha256: str
    tokenizer_sha256: str
    data_dir: Path
    settings: TrainingSettings


@dataclass(frozen=True)
class TrainedRun:
    """A run's newest whole checkpoint, loaded. Weights and products are fp32, so that figures hold on every device."""

    folder: Path
    recorded: Recorded
    checkpoint: Path
    step: int
    model: GPT
    confidence: ConfidenceSettings
    tokenizer: Tokenizer

    @property
    def tokenizer_path(self) -> Path:
        return self.folder / TOKENIZER


def open_run(folder: Path, device: torch.device) -> TrainedRun:
    """Returns the run in a folder such as runs/mix70-tiny. Raises UserError naming what is missing or wrong."""
    recorded = read_recorded(folder)
    tokenizer = folder / TOKENIZER
    if not tokenizer.is_file():
        raise UserError(f"{tokenizer} not found", f"copy it there: the file with SHA-256 {recorded.tokenizer_sha256}")
    if sha256_file(tokenizer) != recorded.tokenizer_sha256:
        raise UserError(
            f"{tokenizer} is not the tokenizer the run was trained with",
            f"put back the file with SHA-256 {recorded.tokenizer_sha256}",
        )
    checkpoint = newest_checkpoint(folder / CHECKPOINTS)
    if checkpoint is None:
        again = f"python -m training.pretrain --shards {recorded.manifest} --name {folder.resolve().name}"
        raise UserError(f"{folder} has no checkpoint yet", f"wait for its first, or train it: {again} ...")
    model = GPT(model_settings(checkpoint.state, checkpoint.folder))
    load_weights(model, checkpoint.tensors("model"), checkpoint.folder)
    return TrainedRun(
        folder=folder,
        recorded=recorded,
        checkpoint=checkpoint.folder,
        step=checkpoint.step,
        model=model.to(device),
        confidence=recorded.settings.recipe.confidence,
        tokenizer=load_tokenizer(tokenizer),
    )


def read_recorded(folder: Path) -> Recorded:
    """Returns settings.yaml of a run, an old one too. Raises UserError where there is none, or a wrong one."""
    path = folder / SETTINGS
    if not path.is_file():
        runs = sorted(settings.parent.name for settings in folder.parent.glob(f"*/{SETTINGS}"))
        hint = nearest(folder.name, runs) if runs else "train one: python -m training.pretrain --shards MANIFEST"
        raise UserError(f"{folder} is not the folder of a run: {SETTINGS} is missing", hint)
    content = read_yaml(path)
    settings = content.get("settings")
    if isinstance(settings, dict) and isinstance(settings.get("model"), dict):
        content["settings"] = {**settings, "model": model_settings(content, path)}
    return validated(Recorded, content, str(path))
