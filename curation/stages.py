"""The stages before a mix, over all sources of a profile: files found, documents scored."""

import resource
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from curation.executor import run_pipeline
from curation.pool import ScoredSource
from curation.pull import SourceFile, pull_label_set, pull_source, warn_of_missing
from curation.score import make_tasks, scoring_pipeline
from curation.settings import CurationSettings
from curation.versions import code_version
from shared.console import UserError, say
from shared.files import full_hash, short_hash
from shared.manifest import InputEntry


def pull_sources(
    settings: CurationSettings, mirror: Path | None, raw_folder: Path
) -> tuple[dict[str, list[SourceFile]], list[str]]:
    """Returns the files of every source and label set, and the names of what is missing.

    Raises UserError where a mirror has none of the sources.
    """
    mirrored = [name for name, source in settings.sources.items() if source.mirror]
    if mirror is not None and mirrored and not mirror.is_dir():
        raise UserError(f"mirror {mirror} is not a folder", "name the folder that holds the sources' own folders")
    pulled = {name: pull_source(name, source, mirror, raw_folder) for name, source in settings.sources.items()}
    missing = [line for source in pulled.values() for line in source.missing]
    if mirror is not None and mirrored and not any(pulled[name].files for name in mirrored):
        folders = ", ".join(settings.sources[name].mirror for name in mirrored)
        raise UserError(f"mirror {mirror} has none of the sources of profile {settings.profile}", f"it needs {folders}")
    for name in [name for name in settings.labels if name not in pulled]:
        pulled[name] = pull_label_set(name, settings.labels[name], mirror, raw_folder)
        missing += pulled[name].missing
    warn_of_missing(missing)
    return {name: source.files for name, source in pulled.items()}, missing


def score_sources(
    settings: CurationSettings,
    files: dict[str, list[SourceFile]],
    classifier: Path,
    data: Path,
    workers: int,
    watch: "Stopwatch",
) -> list[ScoredSource]:
    """Scores what is not yet scored with these settings, inputs and code. Returns where the documents are."""
    tasks = {}
    for name, source in settings.sources.items():
        stage = short_hash(
            {
                "source": source.recorded(),
                "cleaning": settings.cleaning.model_dump(),
                "grading": settings.grading.model_dump(),
                "classifier": classifier.name,
                "files": [(file.name, file.sha256) for file in files[name]],
                "code": code_version(),
            }
        )
        tasks[name] = make_tasks(
            name, source, files[name], data / "scored" / name / stage, data / "rejected" / name / stage
        )
    pending = [task for source_tasks in tasks.values() for task in source_tasks if not task.is_done()]
    if pending:
        n_files = sum(len(task.files) for task in pending)
        say(f"reading, cleaning and grading {n_files} files: {', '.join(dict.fromkeys(t.source for t in pending))}")
        pipeline = scoring_pipeline(pending, settings.cleaning, classifier, settings.grading)
        logs = data / "logs"
        shutil.rmtree(logs, ignore_errors=True)
        watch.worker_bytes = run_pipeline(pipeline, len(pending), workers, logs, "score")
    return [
        ScoredSource(
            name,
            settings.sources[name].revision,
            InputEntry(n_files=len(files[name]), sha256=full_hash([(file.name, file.sha256) for file in files[name]])),
            [task.scored for task in mine],
            [task.rejected for task in mine],
        )
        for name, mine in tasks.items()
    ]


class Stopwatch:
    """Seconds of each stage, and the memory the run took."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.worker_bytes = 0  # peak of the largest scoring process

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        started = time.perf_counter()
        yield
        self.seconds[stage] = round(time.perf_counter() - started, 3)

    def report(self) -> dict[str, Any]:
        """Returns the seconds, and the peak memory (bytes) of this process and of the largest worker."""
        main = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        return {"seconds_by_stage": self.seconds, "peak_memory_bytes": {"main": main, "worker": self.worker_bytes}}
