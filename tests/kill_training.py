"""Kills training.pretrain with SIGKILL, runs it again, and counts how often the uninterrupted run comes out.

make kill-campaign    (20 kills; minutes). A small version is among the tests.
Every other kill waits for a checkpoint that is being written. Compared are the loss of every step, the figures on
held-out text, the samples, and the bytes of the last checkpoint's weights and optimizer.
"""

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from shared.files import TEMPORARY_PREFIX, sha256_file

ROOT = Path(__file__).resolve().parent.parent
SMALL = [
    *("model.n_layer=2", "model.n_embd=64", "model.sequence_length=64", "recipe.batch_tokens=512"),
    *("loop.save_every=3", "loop.evaluate_every=10", "loop.sample_every=20", "loop.evaluate_tokens=2000"),
]
TIMES = ("seconds", "tokens_per_second", "mfu")


def command(manifest: Path, data: Path, runs: Path, *extra: str) -> list[str]:
    places = ["--shards", str(manifest), "--data-dir", str(data), "--runs-dir", str(runs)]
    small = [argument for setting in SMALL for argument in ("--set", setting)]
    run = ["--model", "tiny", "--name", "run", "--steps", "40", *small, *extra]
    return [sys.executable, "-m", "training.pretrain", *places, *run]


def outcome(runs: Path) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """Returns a finished run's figures but for times, and the hashes of its last checkpoint's tensors."""
    lines = [json.loads(line) for line in (runs / "run" / "metrics.jsonl").read_text().splitlines()]
    figures = [{key: value for key, value in line.items() if key not in TIMES} for line in lines]
    last = max((runs / "run" / "checkpoints").glob("step-*"))
    return figures, {path.name: sha256_file(path) for path in last.glob("*.safetensors")}


def run(arguments: list[str]) -> float:
    started = time.monotonic()
    subprocess.run(arguments, cwd=ROOT, check=True, capture_output=True)
    return time.monotonic() - started


def kill(arguments: list[str], runs: Path, moment: float | None) -> bool:
    """Starts a run and kills it after `moment` seconds, or, with None, during a save. Returns whether that struck it."""
    process = subprocess.Popen(
        arguments, cwd=ROOT, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    started = time.monotonic()
    while process.poll() is None:
        is_saving = any((runs / "run" / "checkpoints").glob(f"{TEMPORARY_PREFIX}*"))
        if is_saving if moment is None else time.monotonic() - started > moment:
            os.killpg(process.pid, signal.SIGKILL)
            return process.wait() == -signal.SIGKILL
        time.sleep(0.001)
    return False


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--processes", type=int, default=1)
    args = parser.parse_args()
    moments = random.Random(args.seed)
    work = Path(tempfile.mkdtemp(prefix="kill-training-"))
    data, manifests = work / "data", work / "data_manifests"
    mix = ["--grade-ratio", "0.7", "--data-dir", str(data), "--manifest-dir", str(manifests)]
    run([sys.executable, "-m", "curation.run", *mix])
    extra = ["--processes", str(args.processes)]
    run(command(manifests / "mix70.json", data, work / "reference", *extra))
    expected = outcome(work / "reference")
    seconds = run(command(manifests / "mix70.json", data, work / "again", *extra))
    if outcome(work / "again") != expected:
        print("two uninterrupted runs differ: nothing to compare with")
        return 1
    print(f"undisturbed: {seconds:.1f} s, {len(expected[0])} lines of figures", flush=True)
    struck = same = attempt = 0
    while struck < args.kills:
        runs = work / f"attempt-{attempt}"
        moment = None if attempt % 2 else moments.uniform(1.0, seconds)
        attempt += 1
        if kill(command(manifests / "mix70.json", data, runs, *extra), runs, moment):
            struck += 1
            run(command(manifests / "mix70.json", data, runs, *extra))
            found = outcome(runs)
            wrong = {
                "other figures": found[0] != expected[0],
                "other weights": found[1] != expected[1],
                "leftovers": bool(list(runs.rglob(f"{TEMPORARY_PREFIX}*"))),
            }
            same += not any(wrong.values())
            when = "during a save" if moment is None else f"after {moment:.2f} s"
            told = ", ".join(what for what, is_so in wrong.items() if is_so)
            print(f"kill {struck} {when}: {told or 'same'}", flush=True)
        else:
            seconds *= 0.95  # it had ended: the next one comes sooner
        shutil.rmtree(runs)
    print(f"{same} of {args.kills} kills gave the same run ({attempt - struck} runs had ended before their kill)")
    shutil.rmtree(work)
    return 0 if same == args.kills else 1


if __name__ == "__main__":
    sys.exit(main())
