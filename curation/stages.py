"""The stages before a mix, over all sources of a profile, in order: maps over files, and shuffles that see all of them.

read (map) -> dedup (shuffle) -> score (map) -> hold out (shuffle) -> quotes of held-out works (map)
"""

import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.compute as pc

from curation.decontaminate import NgramIndex
from curation.dedup import find_duplicates
from curation.evaluations import read_evaluation, read_held_out_readers
from curation.executor import Stage, run_stages
from curation.outputs import Outputs, write_parquet
from curation.pool import HoldOutTask, OverlapTask, Pool, RunTasks, SourceTasks, open_pool
from curation.pull import SourceFile, pull_files, pull_label_set, pull_source, warn_of_missing
from curation.read import ReadTask, make_read_tasks, read_pipeline
from curation.score import ScoreTask, score_pipeline
from curation.settings import CurationSettings, DedupSettings, ExecutorSettings, FetchSettings
from curation.versions import evaluations_version, grading_version, pool_version, reading_version, scoring_version
from shared.console import UserError, say
from shared.files import full_hash, short_hash
from shared.manifest import InputEntry

FETCHING = FetchSettings()
Files = dict[str, list[SourceFile]]


def pull_sources(
    settings: CurationSettings, mirror: Path | None, raw_folder: Path, limits: FetchSettings = FETCHING
) -> tuple[Files, list[str]]:
    """Returns the files of every source, label set and evaluation, and the names of what is missing.

    Raises UserError where there is no source to be had: not in the mirror, nor anywhere else.
    """
    sources = settings.sources | settings.label_sources
    mirrored = [name for name, source in sources.items() if source.mirror]
    if mirror is not None and mirrored and not mirror.is_dir():
        raise UserError(f"mirror {mirror} is not a folder", "name the folder that holds the sources' own folders")
    pulled = {name: pull_source(name, source, mirror, raw_folder, limits) for name, source in sources.items()}
    missing = [line for source in pulled.values() for line in source.missing]
    if mirror is not None and mirrored and not any(pulled[name].files for name in mirrored):
        folders = ", ".join(sources[name].mirror for name in mirrored)
        raise UserError(f"mirror {mirror} has none of the sources of profile {settings.profile}", f"it needs {folders}")
    for name in [name for name in settings.labels if name not in pulled]:
        pulled[name] = pull_label_set(name, settings.labels[name], mirror, raw_folder, limits)
        missing += pulled[name].missing
    for name, evaluation in settings.evaluations.items():
        pulled[name] = pull_files(name, evaluation, mirror, raw_folder, limits)
        missing += [f"evaluation {line} (the corpus is not cleared of it)" for line in pulled[name].missing]
    warn_of_missing(missing)
    if settings.sources and not any(pulled[name].files for name in settings.sources):
        hint = "read local copies with --mirror DIR (GRADED_MIRROR), or add a folder of text with --local-files DIR"
        raise UserError(f"no source of profile {settings.profile} has any file", hint)
    return {name: source.files for name, source in pulled.items()}, missing


HELD_OUT_READERS = "held_out_readers"  # the evaluation made of the school readers that no classifier has read


def ensure_evaluations(settings: CurationSettings, files: Files, folder: Path) -> Path:
    """Returns the index of all test sets of a profile, made now if it is not there yet."""
    readers = [name for name in settings.label_sources if settings.labels[name].reader == "school_readers"]
    inputs = {name: [(file.name, file.sha256) for file in files[name]] for name in (*settings.evaluations, *readers)}
    recorded = {name: evaluation.recorded() for name, evaluation in settings.evaluations.items()}
    books = {name: settings.label_sources[name].recorded() for name in readers}
    reading = [books, settings.cleaning.model_dump(), settings.classifier.n_folds]
    path = folder / f"{short_hash([recorded, inputs, reading, evaluations_version()])}.npz"
    if path.is_file():
        return path
    texts = {name: _evaluation_texts(name, settings, files) for name in settings.evaluations}
    if readers and settings.evaluations:
        texts[HELD_OUT_READERS] = _held_out_texts(readers, settings, files)
    index = NgramIndex.build(texts)
    index.save(path)
    for name, indexed in index.report.items():
        left_out = f"{indexed.n_too_short:,} too short to find"
        say(f"evaluation {name}: {indexed.n_texts:,} texts, {indexed.n_ngrams:,} n-grams, {left_out}")
    return path


def _evaluation_texts(name: str, settings: CurationSettings, files: Files) -> Iterator[str]:
    for file in files[name]:
        for item in read_evaluation(file.path, name, settings.evaluations[name]):
            yield from item.texts


def _held_out_texts(readers: list[str], settings: CurationSettings, files: Files) -> Iterator[str]:
    for name in readers:
        for file in files[name]:
            for item in read_held_out_readers(file.path, name, settings):
                yield from item.texts


@dataclass(frozen=True)
class DedupTask:
    """Finds duplicates among all sources; writes the verdicts on the documents of each."""

    read: dict[str, list[ReadTask]]  # by source, in order of preference
    folder: Path
    settings: DedupSettings
    scratch: Path
    threads: int

    @property
    def outputs(self) -> Outputs:
        return Outputs(self.folder / "verdicts.json", tuple(map(self.verdicts, self.read)))

    def verdicts(self, source: str) -> Path:
        return self.folder / f"{source}.parquet"

    def is_done(self) -> bool:
        return self.outputs.are_whole()

    def run(self) -> None:
        """Writes the verdicts from the sketches."""
        sketches = {source: [task.sketches for task in tasks] for source, tasks in self.read.items()}
        found = find_duplicates(sketches, self.settings, self.scratch, self.threads)
        for source in self.read:
            write_parquet(found.filter(pc.field("source") == source), self.verdicts(source))
        self.outputs.seal({})


@dataclass(frozen=True)
class Plan:
    """All tasks of a profile. Every path of theirs follows from settings, input files and code."""

    sources: list[SourceTasks]
    dedup: DedupTask
    hold_out: HoldOutTask
    overlaps: list[OverlapTask]

    @property
    def read(self) -> list[ReadTask]:
        return [task for source in self.sources for task in source.read]

    @property
    def score(self) -> list[ScoreTask]:
        return [task for source in self.sources for task in source.score]


def plan_tasks(
    settings: CurationSettings,
    files: Files,
    classifier: Path,
    evaluations: Path,
    data: Path,
    threads: int,
) -> Plan:
    """Returns the tasks that make the pool of a profile, done or not."""
    read: dict[str, list[ReadTask]] = {}
    read_keys: dict[str, str] = {}
    for name, source in settings.sources.items():
        inputs = [(file.name, file.sha256) for file in files[name]]
        key = [source.recorded(), settings.cleaning.model_dump(), inputs]
        read_keys[name] = short_hash([name, key, reading_version(source.reader)])
        folders = (data / stage / name / read_keys[name] for stage in ("documents", "rejected"))
        read[name] = make_read_tasks(name, source, files[name], *folders)
    all_read = short_hash([list(read_keys.items()), settings.dedup.model_dump(), pool_version()])
    dedup = DedupTask(read, data / "duplicates" / all_read, settings.dedup, data / "scratch", threads)
    grading = [settings.grading.model_dump(), classifier.name, evaluations.stem, grading_version(), scoring_version()]
    sources = [
        SourceTasks(
            name,
            settings.sources[name].revision,
            InputEntry(n_files=len(files[name]), sha256=full_hash([(file.name, file.sha256) for file in files[name]])),
            tasks,
            [
                ScoreTask(
                    name,
                    task.documents,
                    dedup.verdicts(name),
                    short_hash([read_keys[name], grading]),
                    data / "scored" / name,
                    data / "rejected" / name,
                )
                for task in tasks
            ],
        )
        for name, tasks in read.items()
    ]
    pool = short_hash([all_read, grading])
    hold_out = HoldOutTask(tuple(sources), data / "pools" / pool, data / "scratch", threads)
    overlaps = [
        OverlapTask(task, hold_out, number)
        for number, task in enumerate(task for source in sources for task in source.score)
    ]
    return Plan(sources, dedup, hold_out, overlaps)


def make_pool(
    plan: Plan,
    settings: CurationSettings,
    classifier: Path,
    evaluations: Path,
    executor: ExecutorSettings,
    workers: int,
    data: Path,
    watch: "Stopwatch",
) -> Pool:
    """Returns the pool of a profile; what is not yet done of it is done first."""
    stages = [
        Stage("read", "map", plan.read, lambda tasks: read_pipeline(tasks, settings.cleaning)),
        Stage("dedup", "shuffle", [plan.dedup], RunTasks.pipeline),
        Stage(
            "score",
            "map",
            plan.score,
            lambda tasks: score_pipeline(tasks, settings.cleaning.min_words, evaluations, classifier, settings.grading),
        ),
        Stage("hold out", "shuffle", [plan.hold_out], RunTasks.pipeline),
        Stage("quotes", "map", plan.overlaps, RunTasks.pipeline),
    ]
    if any(stage.pending() for stage in stages):
        there = [source for source in plan.sources if source.read]
        n_files = sum(source.inputs.n_files for source in there)
        say(f"reading, cleaning and grading {n_files} files: {', '.join(source.name for source in there)}")
        report = run_stages(stages, executor, workers, data / "logs")
        watch.seconds |= report.seconds
        watch.worker_bytes = report.peak_worker_bytes
    return open_pool(plan.sources, plan.hold_out, plan.overlaps, settings.mix.licenses, evaluations, data)


class Stopwatch:
    """Seconds of each stage, and the memory the run took."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.worker_bytes = 0  # peak of the largest worker process, where it is known

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        started = time.perf_counter()
        yield
        self.seconds[stage] = round(time.perf_counter() - started, 3)

    def report(self) -> dict[str, Any]:
        """Returns the seconds, and the peak memory (bytes) of this process and of the largest worker."""
        main = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        return {"seconds_by_stage": self.seconds, "peak_memory_bytes": {"main": main, "worker": self.worker_bytes}}
