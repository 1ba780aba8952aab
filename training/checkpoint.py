"""Checkpoints: all a run needs to go on, in one folder that stands whole or not at all.

In: tensors by name and any JSON, from the loop. Out: checkpoints/step-00000200/ with model.safetensors,
optimizer.safetensors, rng.safetensors, state.json and, written last, complete.json with the hashes of the others.
Nothing is ever unpickled: a stranger's checkpoint may be wrong, but it cannot run code.
"""

import json
import math
import os
import re
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import BaseModel, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from shared.console import UserError, say
from shared.files import TEMPORARY_PREFIX, sha256_file, sync_folder, write_text
from shared.settings import validated
from training.settings import ModelSettings

Tensors = Mapping[str, torch.Tensor]
Kind = Literal["model", "optimizer", "rng"]
STATE, MARKER = "state.json", "complete.json"
FILES = ("model.safetensors", "optimizer.safetensors", "rng.safetensors", STATE)
REPLACED_PREFIX = ".replaced-"  # of a checkpoint that makes room for another of its step
ELSEWHERE = "use another checkpoint, or a whole copy of this one"

# What a model did before each key existed. A new field of ModelSettings gets its line here.
OLD_BEHAVIOUR: dict[str, Any] = {
    "sequence_length": 1024,
    "head_dim": 64,
    "n_kv_head": None,
    "d_ff": None,
    "activation": "relu2",
    "qk_norm": "rms",
    "window_pattern": "full",
    "window_size": None,
    "tie_weights": False,
    "use_output_projection": False,
    "output_projection_residual": False,
    "use_confidence": False,
}


class _File(BaseModel):
    sha256: str
    bytes: int


class _Marker(BaseModel):
    files: dict[str, _File]


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint whose every byte was checked."""

    folder: Path
    state: dict[str, Any]

    @property
    def step(self) -> int:
        return int(self.state["step"])

    def tensors(self, kind: Kind) -> dict[str, torch.Tensor]:
        """Returns the tensors of one file by name, on the CPU. Raises UserError where it is no safetensors file."""
        path = self.folder / f"{kind}.safetensors"
        try:
            return load_file(path)
        except SafetensorError as error:
            raise UserError(f"{path} is not a whole safetensors file: {error}", ELSEWHERE) from None


def save_checkpoint(
    folder: Path, state: Mapping[str, Any], *, model: Tensors, optimizer: Tensors, rng: Tensors, best_by: str
) -> Path:
    """Returns the new checkpoint, folder/step-N where N is state["step"], once it is on disk.

    Only then are older ones removed: the last two stay, and the one with the lowest state["val"][best_by]. A kill at
    any moment leaves the earlier checkpoints or the new one. So does a full disk, which raises OSError.
    """
    remove_leftovers(folder)
    final = folder / f"step-{state['step']:08d}"
    temporary = folder / f"{TEMPORARY_PREFIX}{final.name}"
    try:
        temporary.mkdir(parents=True)
        _write_synced(temporary / STATE, json.dumps(state, indent=2, allow_nan=False))
        for kind, tensors in (("model", model), ("optimizer", optimizer), ("rng", rng)):
            _write_tensors(temporary / f"{kind}.safetensors", tensors)
        files = {path.name: _File(sha256=sha256_file(path), bytes=path.stat().st_size) for path in temporary.iterdir()}
        _write_synced(temporary / MARKER, _Marker(files=files).model_dump_json(indent=2))
        sync_folder(temporary)
        if final.exists():
            final.rename(folder / f"{REPLACED_PREFIX}{final.name}")
        temporary.rename(final)
        sync_folder(folder)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    _prune(folder, final, best_by)
    return final


def newest_checkpoint(folder: Path, tell: Callable[[str], None] = say) -> Checkpoint | None:
    """Returns the newest whole checkpoint in a folder, or None where there is none at all.

    Each damaged one on the way is told. Raises UserError where all are damaged.
    """
    found = _step_folders(folder)
    for path in found:
        try:
            return read_checkpoint(path)
        except UserError as error:
            tell(f"warning: {error.message}; passed over")
    if found:
        raise UserError(f"{folder}: all its {len(found)} checkpoints are damaged", "start anew under another --name")
    return None


def read_checkpoint(folder: Path) -> Checkpoint:
    """Returns the checkpoint in a folder, all its hashes checked. Raises UserError naming the file that is wrong."""
    marker, state = folder / MARKER, folder / STATE
    if not marker.is_file():
        raise UserError(f"{folder} is no whole checkpoint: {MARKER} is missing", ELSEWHERE)
    try:
        files = _Marker.model_validate_json(marker.read_bytes()).files
    except ValidationError:
        raise UserError(f"{marker} is damaged", ELSEWHERE) from None
    if set(files) != set(FILES):
        raise UserError(f"{marker} names {', '.join(sorted(files))}, not {', '.join(FILES)}", ELSEWHERE)
    for name, entry in files.items():
        path = folder / name
        if not path.is_file():
            raise UserError(f"{path} is missing", ELSEWHERE)
        if (size := path.stat().st_size) != entry.bytes:
            raise UserError(f"{path} is damaged: it has {size} bytes, not {entry.bytes}", ELSEWHERE)
        if sha256_file(path) != entry.sha256:
            raise UserError(f"{path} is damaged: its SHA-256 is not the one in {MARKER}", ELSEWHERE)
    content = _read_state(folder)
    if not isinstance(content.get("step"), int) or not isinstance(content.get("settings"), dict):
        raise UserError(f"{state} lacks step or settings", ELSEWHERE)
    return Checkpoint(folder, content)


def remove_leftovers(folder: Path) -> None:
    """Removes what killed saves left. For the one run that writes to the folder: a live save looks like a leftover."""
    for replaced in folder.glob(f"{REPLACED_PREFIX}*"):
        standing = folder / replaced.name.removeprefix(REPLACED_PREFIX)
        if standing.exists():
            shutil.rmtree(replaced)
        else:  # killed between two renames: the new one had not come yet
            replaced.rename(standing)
    for leftover in folder.glob(f"{TEMPORARY_PREFIX}*"):
        shutil.rmtree(leftover)


def model_settings(state: Mapping[str, Any], where: Path | str = "the checkpoint") -> ModelSettings:
    """Returns the shape of a saved model; what its settings do not tell is as it was before that key existed.

    Raises UserError where the settings have a key that this program does not know.
    """
    stored = state["settings"].get("model", {})
    if unknown := sorted(stored.keys() - ModelSettings.model_fields.keys()):
        raise UserError(
            f"{where}: this program does not know settings.model.{unknown[0]}: the checkpoint is newer than it",
            "update the program",
        )
    if stored.get("tie_weights") and "use_output_projection" not in stored:
        say(f"warning: {where} has tied weights and does not tell use_output_projection: taken to be without one")
    return validated(ModelSettings, OLD_BEHAVIOUR | stored, f"{where}: settings.model")


def load_weights(model: torch.nn.Module, weights: Tensors, where: Path | str = "the checkpoint") -> None:
    """Fills a model. Raises UserError naming the weights that are missing, unexpected or of another shape."""
    expected = model.state_dict()
    wrong = {
        "missing": expected.keys() - weights.keys(),
        "unexpected": weights.keys() - expected.keys(),
        "of another shape": {
            name for name in expected.keys() & weights.keys() if expected[name].shape != weights[name].shape
        },
    }
    if any(wrong.values()):
        told = "; ".join(f"{what}: {', '.join(sorted(names))}" for what, names in wrong.items() if names)
        raise UserError(f"{where} does not fit the model: {told}", "load it with the settings it was saved with")
    model.load_state_dict(weights, strict=True)


def forget_figures_after(metrics: Path, step: int, is_rounded_off: bool = True) -> None:
    """Removes the lines of later steps from metrics.jsonl, and a last line that a kill tore: a run goes on at `step`.

    Of the step itself only its loss stays, unless what follows a step, its look and its samples, was done as well.

    Raises UserError naming any other line that is not JSON.
    """
    if not metrics.exists():
        return
    *lines, _torn = metrics.read_text(encoding="utf-8", errors="replace").split("\n")
    kept = []
    for number, line in enumerate(lines, 1):
        try:
            figures = json.loads(line)
            if figures["step"] < step or (figures["step"] == step and (is_rounded_off or "loss" in figures)):
                kept.append(f"{line}\n")
        except (ValueError, KeyError, TypeError):
            raise UserError(f"{metrics}, line {number}, is no figures of a step", "remove that line") from None
    write_text(metrics, "".join(kept))


def _write_synced(path: Path, text: str) -> None:
    with path.open("w", encoding="utf-8") as file:
        file.write(f"{text}\n")
        file.flush()
        os.fsync(file.fileno())


def _write_tensors(path: Path, tensors: Tensors) -> None:
    """Writes tensors under the names they have without DDP and torch.compile around the model."""
    plain = {
        re.sub(r"\b(module|_orig_mod)\.", "", name): tensor.detach().cpu().contiguous()
        for name, tensor in tensors.items()
    }
    try:
        save_file(plain, path)
    except SafetensorError as error:  # it tells a full disk in words only
        if code := re.search(r"os error (\d+)", str(error)):
            raise OSError(int(code[1]), os.strerror(int(code[1])), str(path)) from None
        raise
    shutil.copymode(path.with_name(STATE), path)  # safetensors lets only the owner read
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def _prune(folder: Path, newest: Path, best_by: str) -> None:
    """Removes what is neither `newest`, nor the whole one before it, nor the best."""
    standing = [path for path in _step_folders(folder) if _step(path) <= _step(newest)]
    before = next((path for path in standing[1:] if _is_whole(path)), newest)
    best = min(standing, key=lambda path: _figure(path, best_by))
    for path in standing:
        if path not in (newest, before, best):
            path.rename(folder / f"{TEMPORARY_PREFIX}{path.name}")
    sync_folder(folder)
    remove_leftovers(folder)


def _figure(folder: Path, name: str) -> float:
    try:
        figure = (_read_state(folder).get("val") or {}).get(name)
    except (UserError, FileNotFoundError):
        figure = None
    return math.inf if figure is None else float(figure)


def _is_whole(folder: Path) -> bool:
    try:
        read_checkpoint(folder)
    except UserError:
        return False
    return True


def _read_state(folder: Path) -> dict[str, Any]:
    try:
        state = json.loads((folder / STATE).read_bytes())
    except ValueError:
        state = None
    if not isinstance(state, dict):
        raise UserError(f"{folder / STATE} is damaged", ELSEWHERE)
    return state


def _step_folders(folder: Path) -> list[Path]:
    """Returns the checkpoints in a folder, damaged ones too, the newest first."""
    return sorted((path for path in folder.glob("step-*") if _step(path) >= 0 and path.is_dir()), key=_step)[::-1]


def _step(path: Path) -> int:
    named = re.fullmatch(r"step-(\d{8,})", path.name)
    return int(named[1]) if named else -1
