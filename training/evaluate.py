"""python -m training.evaluate runs/RUN: a run's newest checkpoint on all the held-out text of its mix.

Prints tables, and writes runs/RUN/evaluation.json, which holds the same figures.
"""

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from shared.console import UserError, run_command, say, table
from shared.files import sha256_file, write_text
from shared.manifest import Manifest, read_manifest
from shared.settings import Settings, parse_command

if TYPE_CHECKING:
    from training.run_folder import TrainedRun

EXAMPLE = "python -m training.evaluate runs/mix70-tiny"
EVALUATION = "evaluation.json"


class EvaluateFlags(Settings):
    """The command line of training.evaluate."""

    run: Path = Field(description="a folder that training.pretrain made", json_schema_extra={"positional": True})
    as_json: bool = Field(False, description="print JSON", json_schema_extra={"flag": "json"})
    device: Literal["auto", "cpu", "cuda"] = "auto"
    data_dir: Path | None = Field(None, description="where token shards are; left out: where training had them")


def main() -> None:
    flags = parse_command(EvaluateFlags, "Measures a run's newest checkpoint on the mix's held-out text.", EXAMPLE)

    import torch

    from training.distributed import usable_device
    from training.evaluation import HeldOut, evaluate
    from training.run_folder import open_run
    from training.token_shards import ensure_token_shards

    device = torch.device(usable_device(flags.device))
    run = open_run(flags.run, device)
    manifest = _manifest_trained_on(run)
    shards = ensure_token_shards(
        run.recorded.manifest, manifest, run.tokenizer_path, flags.data_dir or run.recorded.data_dir
    )
    held_out = HeldOut(shards["val"], run.model.settings.sequence_length, device)
    started = time.perf_counter()
    figures = evaluate(run.model, run.confidence, held_out)
    seconds = time.perf_counter() - started
    say(f"{figures['n_tokens']:,} tokens in {seconds:.1f} s, beside them {figures['padding']:.1%} padding")
    answer = {
        "run": run.folder.resolve().name,
        "step": run.step,
        "checkpoint": run.checkpoint.name,
        "manifest": manifest.name,
        "manifest_sha256": run.recorded.manifest_sha256,
        **figures,
    }
    content = json.dumps(answer, indent=2, ensure_ascii=False, allow_nan=False)
    write_text(run.folder / EVALUATION, f"{content}\n")
    print(content if flags.as_json else _tables(answer))
    say(f"made {run.folder / EVALUATION}; to read what it writes: python -m training.generate {run.folder}")


def _manifest_trained_on(run: "TrainedRun") -> Manifest:
    """Returns the manifest of the run. Raises UserError when another file stands in its place."""
    path, sha256 = run.recorded.manifest, run.recorded.manifest_sha256
    if not path.is_file():
        raise UserError(
            f"{path}, which {run.folder} was trained on, is not found",
            "start in the folder that training was started in",
        )
    if sha256_file(path) != sha256:
        raise UserError(
            f"{path} is not the manifest that {run.folder} was trained on: its SHA-256 is not {sha256[:16]}...",
            f"put that manifest back, or train on this one: python -m training.pretrain --shards {path}",
        )
    return read_manifest(path)


def _tables(answer: dict[str, Any]) -> str:
    """Returns the figures for a person; what could not be measured is a dash, and explained at the end."""
    text = ["bpb", "n_docs", "n_tokens", "n_bytes"]
    amounts = {"all": answer, **answer["by_part"]}
    measures = {name: answer[name] for name in ("bpb", "loss", "accuracy")}
    tables = [
        table(
            [
                [part, *(of[part] for of in measures.values()), *(amounts[part][n] for n in text[1:])]
                for part in amounts
            ],
            ["part", "bits per byte", "nats per token", "accuracy", "documents", "tokens", "bytes"],
        ),
        *(
            table(
                [[label, *(row[name] for name in text)] for label, row in answer[f"by_{by}"].items()],
                [by, "bits per byte", "documents", "tokens", "bytes"],
            )
            for by in ("source", "grade")
        ),
        table(
            [[part, *(of[part] for of in answer["confidence"].values())] for part in amounts],
            ["o_conf and its target", *answer["confidence"]],
        ),
        table(
            [
                [name, part, *(answer[measure][name][part] for measure in ("auroc", "ece", "brier"))]
                for name in answer["auroc"]
                for part in amounts
            ],
            ["is argmax right?", "part", "auroc", "ece", "brier"],
        ),
    ]
    reasons = [f"{where}: {reason}" for where, reason in answer["reasons"].items()]
    title = f"{answer['run']}, step {answer['step']:,}, on the held-out text of {answer['manifest']}"
    return "\n\n".join([title, *tables, *(["not measured:\n" + "\n".join(reasons)] if reasons else [])])


if __name__ == "__main__":
    run_command(main)
