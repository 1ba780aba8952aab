"""python -m curation.grade: which school grade a text suits, and why.

text, files or JSONL -> repair -> gate -> grade -> one JSON object each; --text prints it for a person.
"""

import gzip
import json
import multiprocessing
import signal
import sys
import zlib
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field

from curation.settings import CleaningSettings, CurationSettings, PlaceFlags, profile_settings, read_curation_file
from shared.console import UserError, run_command, say
from shared.settings import named_pipelines_file, parse_command

if TYPE_CHECKING:
    from curation.explain import Push, Verdict
    from curation.grading import Scorer

EXAMPLE = 'python -m curation.grade --text "The dog ran home. ..."'
BATCH = 64  # texts a process judges at a time
STDIN = Path("-")


class GradeFlags(PlaceFlags):
    """The command line of curation.grade."""

    files: tuple[Path, ...] = Field(
        (), description="text files, each one text; - is standard input", json_schema_extra={"positional": True}
    )
    text: str | None = Field(None, description="a text, printed for a person to read")
    jsonl: Path | None = Field(None, description="objects with text and id, one a line (.jsonl, .jsonl.gz, or -)")
    output: Path | None = Field(None, description="where the answers go; left out: standard output")
    profile: str | None = Field(None, description="whose classifier: full with a mirror, else starter")
    no_why: bool = Field(False, description="leave out why: twenty times as fast")
    as_json: bool = Field(False, description="print --text as JSON too", json_schema_extra={"flag": "json"})


def main() -> None:
    content = read_curation_file(named_pipelines_file())
    flags = parse_command(GradeFlags, "Grades texts: which US school grade they suit, and why.", EXAMPLE)
    if flags.files.count(STDIN) > 1:
        raise UserError("standard input can be read once", "name - once")
    if sum((flags.text is not None, flags.jsonl is not None, bool(flags.files))) != 1:
        raise UserError("name one thing to grade", "--text TEXT, --jsonl FILE, or text files (- is standard input)")
    if flags.output is not None and flags.output.exists() and not flags.output.is_file():
        raise UserError(f"--output {flags.output} is no file", "name a file; without --output answers go to the screen")
    settings = profile_settings(content, flags.profile or ("full" if flags.mirror else content.default_profile))
    texts = _read(flags)  # a bad line is told before a classifier is trained
    folder = _classifier(settings, flags)

    from curation.grading import Scorer

    scorer = partial(Scorer, folder, settings.grading)
    judged = _judge_all([text for _, text in texts], scorer, settings, flags)
    if flags.text is not None and not flags.as_json and flags.output is None:
        print(for_a_person(next(judged), settings))
        say(f"(by the classifier of profile {settings.profile}{_of_better(settings.profile)})")
        return
    lines = (
        json.dumps({"id": name, **verdict.as_json()}) + "\n" for (name, _), verdict in zip(texts, judged, strict=True)
    )
    _write(lines, flags.output)


def _read(flags: GradeFlags) -> list[tuple[Any, str]]:
    """Returns the id and text of all that is to be graded. Raises UserError naming the file and line in error."""
    if flags.text is not None:
        return [("text", flags.text)]
    if flags.jsonl is not None:
        return list(read_jsonl(flags.jsonl))
    return [(str(path), _read_text(path)) for path in flags.files]


def _read_text(path: Path) -> str:
    return _bytes_of(path).decode(errors="replace")


def _bytes_of(path: Path) -> bytes:
    if path == STDIN:
        return sys.stdin.buffer.read()
    try:
        raw = path.read_bytes()
        return gzip.decompress(raw) if path.suffix == ".gz" else raw
    except FileNotFoundError:
        raise UserError(f"{path} not found", "name a file of texts") from None
    except (gzip.BadGzipFile, zlib.error, EOFError) as error:
        raise UserError(f"{path}: {error}", "it is no whole gzip file: make it again") from None


def read_jsonl(path: Path) -> Iterator[tuple[Any, str]]:
    """Yields id (or the number of the line) and text of each line. Raises UserError naming the line in error."""
    for number, line in enumerate(_bytes_of(path).split(b"\n"), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line, parse_constant=_no_json)
        except (ValueError, RecursionError) as error:  # of the decoding too
            raise UserError(f"{path}, line {number}: {error}", "each line must be one JSON object") from None
        if not isinstance(row, dict) or not isinstance(row.get("text"), str):
            raise UserError(f"{path}, line {number} has no text", 'each line must be an object with a "text"')
        yield row.get("id", number), row["text"]


def _no_json(constant: str) -> None:
    raise ValueError(f"{constant} is no JSON")


def _classifier(settings: CurationSettings, flags: GradeFlags) -> Path:
    """Returns the folder of the profile's classifier, trained first where it is missing."""
    from curation.grade_classifier import is_whole
    from curation.labels import classifier_folder, ensure_classifier
    from curation.stages import pull_sources
    from shared.files import sole_writer

    files, _missing = pull_sources(settings.only_labels(), flags.mirror, flags.data_dir / "raw")
    folder = classifier_folder(settings, files, flags.data_dir / "models")
    if is_whole(folder):
        return folder
    with sole_writer(flags.data_dir):
        return ensure_classifier(settings, files, flags.data_dir / "models", flags.workers)


def _judge_all(
    texts: list[str], make_scorer: "partial[Scorer]", settings: CurationSettings, flags: GradeFlags
) -> Iterator["Verdict"]:
    """Yields the verdict on each text, in order, made by so many processes."""
    from tqdm import tqdm

    from curation.explain import judge

    batches = [texts[i : i + BATCH] for i in range(0, len(texts), BATCH)]
    if flags.workers == 1 or len(batches) == 1:
        scorer = make_scorer()
        for batch in tqdm(batches, unit="batch", disable=None, leave=False):
            yield from judge(batch, scorer, settings.cleaning, not flags.no_why)
        return
    context = multiprocessing.get_context("forkserver")
    initial = (make_scorer, settings.cleaning, not flags.no_why)
    with ProcessPoolExecutor(flags.workers, context, _get_ready, initial) as pool:
        try:
            judged = tqdm(pool.map(_judge_batch, batches), total=len(batches), unit="batch", disable=None, leave=False)
            yield from chain.from_iterable(judged)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _get_ready(make_scorer: "partial[Scorer]", cleaning: CleaningSettings, with_why: bool) -> None:
    """Loads the scorer of this worker process, which leaves Ctrl-C to the main process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _worker[:] = [make_scorer(), cleaning, with_why]


_worker: list[Any] = []  # of a worker process: what `judge` takes after the texts, loaded once


def _judge_batch(texts: list[str]) -> list["Verdict"]:
    from curation.explain import judge

    return judge(texts, *_worker)


def _write(lines: Iterable[str], output: Path | None) -> None:
    if output is None:
        for line in lines:
            sys.stdout.write(line)
        return
    from shared.files import written_whole

    output.parent.mkdir(parents=True, exist_ok=True)
    with written_whole(output) as temporary, temporary.open("w", encoding="utf-8") as file:
        n_texts = 0
        for line in lines:
            file.write(line)
            n_texts += 1
    say(f"{output}: {n_texts:,} judged")


def _of_better(profile: str) -> str:
    return "; --mirror DIR or --profile full takes the one that has read more" if profile == "starter" else ""


def for_a_person(verdict: "Verdict", settings: CurationSettings) -> str:
    """Returns a verdict as a few lines to read."""
    from curation.explain import RULES

    told = [RULES[reason].format(**settings.cleaning.model_dump()) for reason in verdict.reasons]
    grading = verdict.grading
    if grading.grade is None:
        return "not graded: " + "; ".join(told)
    suits = "third grade" if grading.part == "grade3" else "for all ages"
    n_windows = len(grading.window_grades)
    windows = f"{n_windows} windows, {min(grading.window_grades):.1f} to {max(grading.window_grades):.1f}"
    lines = [
        f"{suits}: grade {grading.grade:.1f}, suits grade {settings.grading.grade_limit:g} and below with probability "
        f"{grading.p_grade3:.3f}",
        f"  Flesch-Kincaid {grading.fk_grade:.1f}, classifier {grading.classifier_grade:.1f}"
        + (f" ({windows})" if n_windows > 1 else ""),
        *(f"  note: {note}" for note in told),
    ]
    for way, pushes in (
        ("harder", [p for p in verdict.why if p.change > 0]),
        ("easier", [p for p in verdict.why if p.change < 0]),
    ):
        lines += [_push_line(way if i == 0 else "", push) for i, push in enumerate(pushes)]
    return "\n".join(lines)


def _push_line(way: str, push: "Push") -> str:
    text = push.text if len(push.text) <= 80 else push.text[:77].rsplit(None, 1)[0] + " ..."
    return f"  {way:<6}  {push.change:+.2f}  {push.kind:<8}  {' '.join(text.split())}"


if __name__ == "__main__":
    run_command(main, when_stopped="stopped; nothing was written")
