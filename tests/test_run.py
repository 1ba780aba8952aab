"""curation.run from end to end on the starter corpus: the same bytes always, nothing half-written, errors in one line."""

import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import duckdb
import pytest
import yaml

from shared.files import sha256_file, sole_writer
from shared.manifest import read_manifest, shard_paths
from shared.settings import PIPELINES_FILE
from tests.conftest import ROOT, Mix, run_module


def bytes_of(mix: Mix, name: str = "mix70") -> dict[str, str]:
    """Returns the hashes of all that a mix consists of, by file name."""
    manifest = read_manifest(mix.manifest(name))
    shards = [path for paths in shard_paths(mix.manifest(name), manifest).values() for path in paths]
    return {path.name: sha256_file(path) for path in [mix.manifest(name), *shards]}


def verified(mix: Mix, name: str = "mix70") -> bool:
    return run_module("curation.verify", mix.manifest(name)).returncode == 0


def leftovers(mix: Mix) -> list[Path]:
    return list(mix.folder.rglob(".half-written-*"))


def test_a_mix_is_what_was_asked(starter_mix: Mix) -> None:
    manifest = read_manifest(starter_mix.manifest())
    assert abs(manifest.grade_ratio.actual - 0.7) <= 1e-4
    assert verified(starter_mix)
    files = [str(path) for path in shard_paths(starter_mix.manifest(), manifest)["train"]]
    ratio = "SELECT sum(n_words) FILTER (part = 'grade3') / sum(n_words) FROM read_parquet($files)"
    found = duckdb.execute(ratio, {"files": files}).fetchall()
    assert found == [(manifest.grade_ratio.actual,)]
    kept = {source: n - sum(manifest.dropped[source].values()) for source, n in manifest.documents_in.items()}
    assert kept == {"starter/passages": 417}
    assert leftovers(starter_mix) == []


def test_another_folder_does_not_change_a_byte(starter_mix: Mix, tmp_path: Path) -> None:
    other = Mix(tmp_path / "else where")
    assert other.run("--workers", 1).returncode == 0
    assert bytes_of(other) == bytes_of(starter_mix)


def test_workers_do_not_change_a_byte(tmp_path: Path) -> None:
    texts = tmp_path / "texts"
    texts.mkdir()
    sentences = [
        "The small boat went out on the lake.",
        "Nobody saw the goat eat the map.",
        "In consequence, the parliamentary commission deliberated interminably over constitutional ramifications.",
    ]
    chooser = random.Random(0)
    for file in range(6):
        rows = [{"text": " ".join(chooser.choices(sentences, k=40)), "work": f"w{file}-{i % 7}"} for i in range(900)]
        (texts / f"{file}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    mixes = [Mix(tmp_path / f"workers-{n}") for n in (1, 2, 4)]
    for mix, workers in zip(mixes, (1, 2, 4), strict=True):
        done = mix.run("--local-files", texts, "--workers", workers)
        assert done.returncode == 0, done.stderr
        assert len(list((mix.data / "scored" / "local").rglob("*.parquet"))) > 1
    assert bytes_of(mixes[0]) == bytes_of(mixes[1]) == bytes_of(mixes[2])


def test_another_ratio_grades_nothing_again(starter_mix: Mix) -> None:
    def graded() -> dict[Path, int]:
        return {
            path: path.stat().st_mtime_ns
            for folder in ("scored", "models", "pools")
            for path in (starter_mix.data / folder).rglob("*")
            if path.is_file()
        }

    before = graded()
    started = time.monotonic()
    done = starter_mix.run("--grade-ratio", 0.5)
    assert done.returncode == 0, done.stderr
    assert time.monotonic() - started < 5
    assert graded() == before
    assert verified(starter_mix, "mix50")
    manifests = [read_manifest(starter_mix.manifest(name)) for name in ("mix50", "mix70")]
    assert manifests[0].splits["val"][0].sha256 == manifests[1].splits["val"][0].sha256  # one held-out set


def test_a_second_run_says_so_and_touches_nothing(starter_mix: Mix) -> None:
    before = {
        path: path.stat().st_mtime_ns
        for path in starter_mix.folder.rglob("*")
        if path.is_file() and path.suffix != ".lock" and path.name != ".lock"
    }
    done = starter_mix.run()
    assert "stands already" in done.stderr
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_a_data_folder_elsewhere_is_known_again(tmp_path: Path) -> None:
    mix = Mix(tmp_path / "home")
    mix.data = tmp_path / "another disk" / "data"
    assert mix.run().returncode == 0
    assert verified(mix)
    assert "stands already" in mix.run().stderr


def test_repeats_are_written_and_verified(starter_mix: Mix) -> None:
    done = starter_mix.run("--grade-ratio", 0.9, "--words", 45_000, "--max-repeats", 2, "--name", "twice")
    assert done.returncode == 0, done.stderr
    assert verified(starter_mix, "twice")


def test_a_damaged_shard_is_found_and_made_again(starter_mix: Mix, tmp_path: Path) -> None:
    mix = Mix(tmp_path)
    assert mix.run().returncode == 0
    whole = bytes_of(mix)
    shard = next((mix.data / "shards" / "mix70").glob("train-*.parquet"))
    damaged = bytearray(shard.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    shard.write_bytes(damaged)
    done = run_module("curation.verify", mix.manifest())
    assert done.returncode == 1
    assert shard.name in done.stdout
    assert "SHA-256" in done.stdout
    assert mix.run().returncode == 0
    assert bytes_of(mix) == whole


DAMAGES: dict[str, tuple[str, Callable[[bytes], bytes] | None]] = {
    "a bit of a scored file": ("scored/**/*.parquet", lambda raw: raw[:3000] + bytes([raw[3000] ^ 1]) + raw[3001:]),
    "half a scored file": ("scored/**/*.parquet", lambda raw: raw[: len(raw) // 2]),
    "half an index": ("pools/*/documents.parquet", lambda raw: raw[: len(raw) // 2]),
    "no account": ("pools/*/account.json", lambda raw: b"{"),
    "half a model": ("models/*/all.bin", lambda raw: raw[: len(raw) // 2]),
    "no classifier record": ("models/*/classifier.json", lambda raw: b"[]"),
    "no run record": ("shards/*/run.json", lambda raw: b"\n"),
    "an odd run record": ("shards/*/run.json", lambda raw: b'{"manifest": 5}'),
    "no rejects": ("rejected/**/*.parquet", None),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_what_is_damaged_is_made_again(starter_mix: Mix, tmp_path: Path, damage: str) -> None:
    mix = Mix(tmp_path / "copy")
    shutil.copytree(starter_mix.folder, mix.folder)
    pattern, harm = DAMAGES[damage]
    for path in list(mix.data.glob(pattern)):
        path.write_bytes(harm(path.read_bytes())) if harm else path.unlink()
    mix.manifest().unlink()
    done = mix.run()
    assert done.returncode == 0, done.stderr
    assert bytes_of(mix) == bytes_of(starter_mix)


@pytest.mark.parametrize("content", ['{"x"', "", "{}", "[]"])
def test_a_damaged_manifest_is_replaced_as_its_hint_says(starter_mix: Mix, tmp_path: Path, content: str) -> None:
    mix = Mix(tmp_path / "copy")
    shutil.copytree(starter_mix.folder, mix.folder)
    mix.manifest().write_text(content)
    done = mix.run()
    assert done.returncode == 2
    assert "--replace" in done.stderr
    assert mix.run("--replace").returncode == 0
    assert bytes_of(mix) == bytes_of(starter_mix)


def test_datasets_loads_the_mix_folder(starter_mix: Mix, tmp_path: Path) -> None:
    code = "import datasets, sys; d = datasets.load_dataset(sys.argv[1]); print(d['train'].num_rows, d['validation'].num_rows, d['train'][0]['part'] in ('grade3', 'all_ages'))"
    done = subprocess.run(
        [sys.executable, "-c", code, str(starter_mix.data / "shards" / "mix70")],
        env={**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    manifest = read_manifest(starter_mix.manifest())
    assert done.returncode == 0, done.stderr[-500:]
    assert done.stdout.split()[-3:] == [
        str(manifest.splits["train"][0].n_docs),
        str(manifest.splits["val"][0].n_docs),
        "True",
    ]


def test_a_dry_run_shows_the_plan_and_writes_no_mix(tmp_path: Path) -> None:
    mix = Mix(tmp_path)
    done = mix.run("--dry-run", "--words", 10_000)
    assert done.returncode == 0, done.stderr
    assert "wanted" in done.stderr
    assert not mix.manifests.exists()
    assert not (mix.data / "shards").exists()


def test_two_runs_on_one_folder(tmp_path: Path) -> None:
    mix = Mix(tmp_path)
    with sole_writer(mix.data):
        done = mix.run()
    assert done.returncode == 2
    assert f"process {os.getpid()}" in done.stderr


def test_another_profile_is_not_replaced_unasked(starter_mix: Mix, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text(
        "A short text about a cat and the rain that it did not like at all, and so it went in. " * 3
    )
    done = starter_mix.run("--local-files", tmp_path)
    assert done.returncode == 2
    assert "--replace" in done.stderr


def test_another_manifest_folder_does_not_sweep_these_shards(starter_mix: Mix, tmp_path: Path) -> None:
    done = run_module("curation.run", "--data-dir", starter_mix.data, "--manifest-dir", tmp_path / "m")
    assert done.returncode == 2
    assert "holds the shards of" in done.stderr
    assert verified(starter_mix)


@pytest.mark.parametrize("seconds", [0.6, 1.2, 2.5])
def test_killed_at_any_moment_the_same_command_goes_on(starter_mix: Mix, tmp_path: Path, seconds: float) -> None:
    mix = Mix(tmp_path)
    command = [sys.executable, "-m", "curation.run", "--data-dir", str(mix.data), "--manifest-dir", str(mix.manifests)]
    process = subprocess.Popen(
        command, cwd=ROOT, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    time.sleep(seconds)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert mix.run().returncode == 0
    assert bytes_of(mix) == bytes_of(starter_mix)
    assert leftovers(mix) == []


@pytest.mark.parametrize("last_step", ["write_run_record", "write_manifest", "dataset_card"])
def test_stopped_after_any_step_of_the_commit_the_same_command_mends_it(
    starter_mix: Mix, tmp_path: Path, last_step: str
) -> None:
    """A mix of another seed stands; the run that replaces it ends for good right after one step."""
    mix = Mix(tmp_path)
    assert mix.run("--seed", 1).returncode == 0
    earlier = bytes_of(mix)
    module = {"write_run_record": "shared.run_record"}.get(last_step, "curation.shards")
    code = f"""
import os, sys, curation.run, {module} as module
step = module.{last_step}
module.{last_step} = lambda *args, **kwargs: (step(*args, **kwargs), os._exit(9))
sys.argv = ["curation.run", "--data-dir", {str(mix.data)!r}, "--manifest-dir", {str(mix.manifests)!r}]
curation.run.main()
"""
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True).returncode == 9
    assert bytes_of(mix) in (earlier, bytes_of(starter_mix))
    assert mix.run().returncode == 0
    assert bytes_of(mix) == bytes_of(starter_mix)
    shards = mix.data / "shards" / "mix70"
    assert {path.name for path in shards.iterdir()} == {
        p.name for p in (starter_mix.data / "shards" / "mix70").iterdir()
    }
    assert (shards / "README.md").read_text() == (starter_mix.data / "shards" / "mix70" / "README.md").read_text()


@pytest.fixture
def grading(tmp_path: Path) -> Iterator[tuple["subprocess.Popen[str]", list[int]]]:
    """Yields a run with much left to grade, and the worker processes it has started."""
    (tmp_path / "texts").mkdir()
    for name in "abcd":
        (tmp_path / "texts" / f"{name}.txt").write_text(
            "The dog ran down to the river and saw a duck there. " * 100_000
        )
    mix = Mix(tmp_path)
    assert mix.run("--dry-run").returncode == 0  # so that the classifier is there, and only grading is left
    command = [sys.executable, "-m", "curation.run", "--data-dir", str(mix.data), "--manifest-dir", str(mix.manifests)]
    process = subprocess.Popen(
        [*command, "--local-files", str(tmp_path / "texts")],
        cwd=ROOT, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    workers: list[int] = []
    while not workers and process.poll() is None:
        if list((mix.data / "scored").rglob(".half-written-*")):
            workers = [grandchild for child in _children(process.pid) for grandchild in _children(child)]
        time.sleep(0.05)
    yield process, workers
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _children(process: int) -> list[int]:
    try:
        return [int(child) for child in Path(f"/proc/{process}/task/{process}/children").read_text().split()]
    except FileNotFoundError:
        return []


def test_a_killed_worker_is_told_of(grading: tuple["subprocess.Popen[str]", list[int]]) -> None:
    process, workers = grading
    os.kill(workers[0], signal.SIGKILL)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 1, said
    assert "a worker process was killed" in said
    assert "fewer --workers" in said
    assert "Traceback" not in said


def test_workers_end_with_the_main_process(grading: tuple["subprocess.Popen[str]", list[int]]) -> None:
    process, workers = grading
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    deadline = time.monotonic() + 5
    while any(Path(f"/proc/{worker}/cmdline").exists() for worker in workers) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert [worker for worker in workers if Path(f"/proc/{worker}/cmdline").exists()] == []


@pytest.mark.parametrize(("stop", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_stopping_is_quiet(grading: tuple["subprocess.Popen[str]", list[int]], stop: signal.Signals, code: int) -> None:
    process, _workers = grading
    os.killpg(process.pid, stop)
    _, said = process.communicate(timeout=20)
    assert process.returncode == code, said
    assert "Traceback" not in said


# Wrong use: exit 2, one error line, one hint -----------------------------------------------------------------------

WRONG = {
    "ratio above": (["--grade-ratio", "0.95"], "--grade-ratio 0.95", "at most 0.9"),
    "ratio below": (["--grade-ratio", "0.3"], "--grade-ratio 0.3", "at least 0.5"),
    "ratio no number": (["--grade-ratio", "abc"], "--grade-ratio abc: it takes a number", "at least 0.5"),
    "ratio nan": (["--grade-ratio", "nan"], "--grade-ratio nan", "at least 0.5"),
    "unknown profile": (["--profile", "startr"], "unknown profile startr", "did you mean starter?"),
    "unknown flag": (["--grade-rato", "0.7"], "--grade-rato", "did you mean --grade-ratio?"),
    "stray argument": (["0.7"], "0.7", "example"),
    "no workers": (["--workers", "0"], "--workers 0", "at least 1"),
    "negative words": (["--words", "-5"], "--words -5", "more than 0"),
    "impossible words": (["--words", "1000000000"], "asked 0.70 of 1.0B words", "--words "),
    "too few words": (["--words", "30"], "30 words", "ask for more --words"),
    "repeats without words": (["--max-repeats", "2"], "--max-repeats 2", "--words N"),
    "missing mirror": (["--profile", "full", "--mirror", "nowhere"], "nowhere", "folder"),
    "empty mirror": (["--profile", "full", "--mirror", "{empty}"], "has none of the sources", "labelled/graded_readers"),
    "empty folder": (["--local-files", "{empty}"], "holds no text", ".jsonl"),
    "missing folder": (["--local-files", "nowhere"], "nowhere is not a folder", "--local-files"),
    "an empty value": (["--local-files", ""], "--local-files has an empty value", "leave it out"),
    "odd name": (["--name", "../x"], "--name ../x", ""),
    "unknown executor": (["--executor", "moon"], "--executor moon: it takes one of local", ""),
    "missing settings": (["--pipelines", "nowhere.yaml"], "nowhere.yaml not found", "pipelines.yaml"),
    "data is a file": (["--data-dir", "{file}"], "{file}", ""),
    "unwritable": (["--data-dir", "/proc/nowhere"], "/proc/nowhere", "folder"),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_wrong_use_is_one_line(case: str, tmp_path: Path, starter_mix: Mix) -> None:
    args, error, hint = WRONG[case]
    places = {"empty": tmp_path / "empty", "file": tmp_path / "file"}
    places["empty"].mkdir()
    places["file"].write_text("")
    # The shared pool, so that only the request itself can be at fault; flags given twice: the last one counts.
    args = [arg.format(**places) for arg in args]
    base = [] if "--data-dir" in args else ["--data-dir", str(starter_mix.data)]
    name = [] if "--name" in args else ["--name", "wrong"]
    done = run_module("curation.run", *base, "--manifest-dir", tmp_path / "m", *name, *args)
    assert done.returncode == 2, done.stderr
    lines = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1
    assert error.format(**places) in lines[0]
    assert hint in done.stderr.split("error: ")[1]
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "m").exists()


WRONG_YAML = {
    "unknown key": (("mix", "grade_rato", 0.7), "mix.grade_rato is not a setting", "did you mean grade_ratio?"),
    "out of range": (("mix", "grade_ratio", 1.7), "mix.grade_ratio 1.7", "at most 0.9"),
    "unknown source": (("profiles", "starter", "sources", ["starter/pasages"]), "unknown source starter/pasages", "did you mean starter/passages?"),
    "unknown section": (("minx", {}), "minx is not a setting", "did you mean mix?"),
    "floor above cap": (("mix", "floors", {"genre": {"verse": 0.5}}), "floor of genre verse is not below its cap", ""),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG_YAML)
def test_wrong_settings_are_one_line(case: str, tmp_path: Path) -> None:
    (*path, last, value), error, hint = WRONG_YAML[case]
    content = yaml.safe_load(PIPELINES_FILE.read_text())
    place = content
    for key in path:
        place = place[key]
    place[last] = value
    file = tmp_path / "pipelines.yaml"
    file.write_text(yaml.safe_dump(content))
    done = Mix(tmp_path).run("--pipelines", file)
    assert done.returncode == 2
    assert error in done.stderr
    assert hint in done.stderr
    assert not (tmp_path / "data").exists()


def test_a_full_disk_leaves_nothing_half_written(tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", str(small)], capture_output=True).returncode:
        pytest.skip("cannot mount a small tmpfs here")
    try:
        done = run_module("curation.run", "--data-dir", small / "data", "--manifest-dir", tmp_path / "m")
        assert done.returncode == 1, done.stderr
        assert "no space left" in done.stderr
        assert "Traceback" not in done.stderr
        assert not (tmp_path / "m").exists()
        assert list(small.rglob(".half-written-*")) == []
    finally:
        subprocess.run(["umount", str(small)], check=True)
