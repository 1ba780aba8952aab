"""python -m curation.run --grade-ratio 0.7: from sources to a mix, one line from top to bottom.

files -> classifier, evaluations -> pool of graded documents (slow, once) -> plan -> shards -> manifest (seconds, once a
ratio)
"""

import shlex
import shutil
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from curation.settings import (
    CurationFile,
    CurationSettings,
    MixSettings,
    PlaceFlags,
    profile_settings,
    read_curation_file,
)
from shared.console import UserError, human, run_command, say
from shared.manifest import NAME_PATTERN
from shared.settings import named_pipelines_file, parse_command

if TYPE_CHECKING:
    from curation.mix import MixPlan
    from curation.pool import Pool

EXAMPLE = "python -m curation.run --grade-ratio 0.7 --profile starter"


def _mix_field(name: str) -> Any:
    return MixSettings.model_fields[name]


class RunFlags(PlaceFlags):
    """The command line of curation.run."""

    grade_ratio: float = _mix_field("grade_ratio")
    profile: str = Field("starter", description="which corpus: a profile of pipelines.yaml")
    words: int | None = _mix_field("words")
    local_files: Path | None = Field(None, description="add a folder of your own .txt, .md, .jsonl(.gz), .parquet")
    name: str | None = Field(None, pattern=NAME_PATTERN, description="of the mix (letters, digits, . _ -)")
    seed: int = _mix_field("seed")
    max_repeats: int = _mix_field("max_repeats")
    licenses: Literal["any", "open"] = _mix_field("licenses")
    executor: Literal["local", "ray", "slurm"] = Field("local", description="where the tasks run")
    manifest_dir: Path = Field(Path("data_manifests"), description="where the manifest goes")
    dry_run: bool = Field(False, description="show the plan, write no mix")
    replace: bool = Field(False, description="replace a mix of this name made from another profile")


def main() -> int:
    started = time.time()
    content = read_curation_file(named_pipelines_file())
    mix = content.mix.model_dump(include=set(RunFlags.model_fields))
    defaults = {"profile": content.default_profile, "executor": content.executor.name, **mix}
    flags = parse_command(RunFlags, "Makes a mix of third-grade and all-ages text.", EXAMPLE, defaults)
    settings = _settings(content, flags)
    name = flags.name or f"mix{settings.mix.grade_ratio * 100:g}"
    manifest_path = flags.manifest_dir / f"{name}.json"
    _check_profile(manifest_path, settings.profile, flags.replace)
    _announce(content, settings.profile)

    # Everything below imports datatrove, DuckDB and Arrow: a wrong flag is answered before that.
    from curation.executor_slurm import check_no_jobs
    from curation.labels import ensure_classifier
    from curation.mix import Shortage, plan_mix, plan_notes, plan_table
    from curation.shards import (
        MixPlace,
        attribution,
        check_place,
        commit,
        finish,
        make_manifest,
        standing_mix,
        write_shards,
    )
    from curation.stages import Stopwatch, ensure_evaluations, make_pool, plan_tasks, pull_sources
    from shared.files import remove_temporary_files, sole_writer
    from shared.run_record import write_run_record

    data = flags.data_dir
    place = MixPlace(manifest_path, data / "shards" / name, data / "scratch")
    watch = Stopwatch()
    with sole_writer(data):
        check_no_jobs(data / "logs")
        check_place(place)
        for stage in (
            "documents",
            "rejected",
            "duplicates",
            "scored",
            "evaluations",
            "models",
            "pools",
            "shards",
            "raw",
        ):
            remove_temporary_files(data / stage)
        shutil.rmtree(place.scratch, ignore_errors=True)
        with watch("pull"):
            files, missing = pull_sources(settings, flags.mirror, data / "raw", content.fetching)
        with watch("classifier"):
            classifier = ensure_classifier(settings, files, data / "models", flags.workers)
        with watch("evaluations"):
            evaluations = ensure_evaluations(settings, files, data / "evaluations")
        with watch("pool"):
            tasks = plan_tasks(settings, files, classifier, evaluations, data, flags.workers)
            executor = content.executor.model_copy(update={"name": flags.executor})
            pool = make_pool(tasks, settings, classifier, evaluations, executor, flags.workers, data, watch)
        for part in pool.parts_without_val():
            say(f"note: nothing of part {part} is held out: its works are too few or too large for a tenth of it")
        with watch("plan"):
            try:
                plan = plan_mix(pool.train, settings.mix)
            except Shortage as short:
                say(plan_table(short.parts))
                raise
        say(plan_table(plan.parts))
        for note in plan_notes(plan, pool.train, settings.mix):
            say(f"note: {note}")
        if flags.dry_run:
            say("dry run: no mix was written")
            return 0
        with sole_writer(flags.manifest_dir, f".{name}.lock"):
            remove_temporary_files(flags.manifest_dir, recursive=False)
            if (standing := standing_mix(place, settings, pool)) is not None:
                say(f"{manifest_path} stands already, made from the same settings and inputs; its shards are whole")
                finish(standing, place, attribution(pool, plan))
            else:
                with watch("write"):
                    splits = write_shards(pool, plan, place, settings.mix.shard_words, flags.workers)
                facts = {"workers": flags.workers, "missing": missing, **watch.report()}
                write_run_record(place.run_record, started, **place.record(data), **facts)
                manifest = make_manifest(pool, plan, splits, name, settings, classifier, missing)
                commit(manifest, place, attribution(pool, plan))
    _conclude(content, settings, pool, plan, manifest_path, missing, time.time() - started)
    return 0


def _settings(content: CurationFile, flags: RunFlags) -> CurationSettings:
    if flags.local_files is not None and not flags.local_files.is_dir():
        raise UserError(f"{flags.local_files} is not a folder", "name the folder of your texts with --local-files")
    settings = profile_settings(content, flags.profile, flags.local_files)
    over = {name: getattr(flags, name) for name in ("grade_ratio", "words", "seed", "max_repeats", "licenses")}
    if over["max_repeats"] > 1 and over["words"] is None:
        raise UserError(f"--max-repeats {over['max_repeats']} has no effect without a word budget", "add --words N")
    return settings.model_copy(update={"mix": settings.mix.model_copy(update=over)})


def _check_profile(manifest_path: Path, profile: str, replace: bool) -> None:
    """Raises UserError when a mix of this name was made from another profile."""
    from shared.manifest import read_manifest

    if replace or not manifest_path.is_file():
        return
    other = read_manifest(manifest_path).profile
    if other != profile:
        raise UserError(
            f"{manifest_path} was made from profile {other}, not {profile}", "add --replace, or another --name"
        )


def _announce(content: CurationFile, profile: str) -> None:
    if profile == "starter":
        say(
            f"This is the starter corpus: to try everything, not to train a model worth having.{_full_command(content)}"
        )


def _full_command(content: CurationFile) -> str:
    full = content.pipelines.get("full")
    return f"\nFor {full.makes}:\n  {full.run}" if full else ""


def _conclude(
    content: CurationFile,
    settings: CurationSettings,
    pool: "Pool",
    plan: "MixPlan",
    manifest_path: Path,
    missing: list[str],
    seconds: float,
) -> None:
    from curation.pool import supply_table

    say(supply_table(pool))
    for source, reasons in pool.dropped.items():
        if pool.documents_in[source] and pool.documents_in[source] == sum(reasons.values()):
            told = ", ".join(f"{reason} {count:,}" for reason, count in reasons.items())
            say(f"warning: every document of {source} was dropped: {told}")
    if missing:
        say(f"warning: {len(missing)} files of the profile were missing (named above and in the manifest)")
    asked = settings.mix.grade_ratio
    figures = f"{human(plan.n_words)} words, {plan.ratio:.4f} third grade (asked {asked:g})"
    print(f"{manifest_path}: {figures}, in {seconds:.1f} s")
    print(f"next: python -m curation.composition {shlex.quote(str(manifest_path))}")
    print(f"      python -m curation.composition {shlex.quote(str(manifest_path))} --reject-reasons")
    print(f"      python -m training.pretrain --shards {shlex.quote(str(manifest_path))}")
    _announce(content, settings.profile)


if __name__ == "__main__":
    run_command(main)
