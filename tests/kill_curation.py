"""Kills curation.run with SIGKILL at random moments, runs it again, and counts how often the same bytes come out.

make kill-campaign    (25 kills; minutes). A small version is among the tests.
Half of the kills strike while an earlier mix of the same name stands; that must stay whole until the new one does.
"""

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from shared.files import sha256_file
from shared.manifest import read_manifest, shard_paths

ROOT = Path(__file__).resolve().parent.parent
Hashes = dict[str, str] | None


def command(folder: Path, seed: int, extra: list[str]) -> list[str]:
    places = ["--data-dir", str(folder / "data"), "--manifest-dir", str(folder / "data_manifests")]
    return [sys.executable, "-m", "curation.run", *places, "--seed", str(seed), *extra]


def run(folder: Path, seed: int, extra: list[str]) -> float:
    started = time.monotonic()
    subprocess.run(command(folder, seed, extra), cwd=ROOT, check=True, capture_output=True)
    return time.monotonic() - started


def whole(folder: Path) -> Hashes:
    """Returns the hashes of the mix that stands, or None where its shards are not what the manifest says."""
    path = folder / "data_manifests" / "mix70.json"
    manifest = read_manifest(path)
    paths = [p for paths in shard_paths(path, manifest).values() for p in paths]
    entries = [entry for entries in manifest.splits.values() for entry in entries]
    if any(sha256_file(p) != entry.sha256 for p, entry in zip(paths, entries, strict=True)):
        return None
    return {p.name: sha256_file(p) for p in [path, *paths]}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=25)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("run_flags", nargs="*", help="more flags of curation.run, after --")
    args = parser.parse_args()
    moments = random.Random(args.seed)
    work = Path(tempfile.mkdtemp(prefix="kill-campaign-"))
    seconds = run(work / "reference", 1, args.run_flags)
    expected = whole(work / "reference")
    run(work / "earlier", 0, args.run_flags)
    earlier = whole(work / "earlier")
    print(f"undisturbed: {seconds:.1f} s, {len(expected or {})} files")
    struck = same = attempt = 0
    while struck < args.kills:
        folder = work / f"attempt-{attempt}"
        replaces = attempt % 2 == 1
        attempt += 1
        if replaces:
            shutil.copytree(work / "earlier", folder)
            for cached in ("documents", "scored", "pools"):  # so that there is more than one stage left to strike in
                shutil.rmtree(folder / "data" / cached)
        moment = moments.uniform(0.1, seconds)
        process = subprocess.Popen(
            command(folder, 1, args.run_flags),
            cwd=ROOT,
            start_new_session=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            process.wait(moment)
            seconds = max(1.0, 0.95 * seconds)  # it had finished: no kill, and the next one comes sooner
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            struck += 1
            good = comes_back(folder, args.run_flags, expected, [earlier, expected] if replaces else None)
            same += good
            print(f"kill {struck} after {moment:.2f} s: {'same' if good else 'NOT THE SAME'}", flush=True)
        shutil.rmtree(folder)
    print(f"{same} of {args.kills} kills gave the same bytes ({attempt - struck} runs had ended before their kill)")
    shutil.rmtree(work)
    return 0 if same == args.kills else 1


def comes_back(folder: Path, flags: list[str], expected: Hashes, standing: list[Hashes] | None) -> bool:
    """Does the mix that stood stand whole after the kill, and does the same command then make the expected bytes?"""
    if standing is not None and whole(folder) not in standing:
        return False
    run(folder, 1, flags)
    shards = list((folder / "data" / "shards" / "mix70").glob("*.parquet"))
    return (
        whole(folder) == expected
        and not list(folder.rglob(".half-written-*"))
        and len(shards) == len(expected or {}) - 1
    )


if __name__ == "__main__":
    sys.exit(main())
