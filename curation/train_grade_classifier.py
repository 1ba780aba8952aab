"""python -m curation.train_grade_classifier: trains a profile's scorer, and reports how it grades unseen texts."""

import json
from pathlib import Path

from pydantic import Field

from curation.settings import PlaceFlags, profile_settings, read_curation_file
from shared.console import run_command, say
from shared.settings import named_pipelines_file, parse_command

EXAMPLE = "python -m curation.train_grade_classifier --profile full --mirror DIR"


class TrainFlags(PlaceFlags):
    """The command line of curation.train_grade_classifier."""

    profile: str | None = Field(None, description="whose labels to train on: full with a mirror, else starter")
    html: Path | None = Field(None, description="where else to put the report as a page")
    as_json: bool = Field(False, description="print JSON", json_schema_extra={"flag": "json"})


def main() -> None:
    content = read_curation_file(named_pipelines_file())
    flags = parse_command(
        TrainFlags, "Trains the grade scorer of a profile, and reports how it grades unseen texts.", EXAMPLE
    )
    settings = profile_settings(content, flags.profile or ("full" if flags.mirror else content.default_profile))

    from curation.grading import Scorer
    from curation.grading_report import as_html, as_text, make_report
    from curation.labels import ensure_classifier, grade_held_out, read_labels
    from curation.stages import pull_sources
    from shared.files import sole_writer, write_text

    with sole_writer(flags.data_dir):
        files, _missing = pull_sources(settings.only_labels(), flags.mirror, flags.data_dir / "raw")
        folder = ensure_classifier(settings, files, flags.data_dir / "models", flags.workers)
        scorer = Scorer(folder, settings.grading)
        say("grading the labelled texts by models that never read them")
        report = make_report(grade_held_out(read_labels(settings, files), scorer, settings), settings.grading)
        write_text(folder / "report.json", json.dumps(report, indent=1) + "\n")
        write_text(folder / "report.txt", as_text(report))
        write_text(folder / "report.html", as_html(report))
    if flags.html is not None:
        write_text(flags.html, as_html(report))
    if flags.as_json:
        print(json.dumps({"folder": str(folder), **report}))
        return
    print(as_text(report))
    fit = scorer.fit
    print(
        f"{folder}: grade = {fit.intercept:.3f} + {fit.fk_weight:.3f} fk + {fit.classifier_weight:.3f} classifier,"
        f" +- {fit.error:.2f}; report.html beside it"
    )


if __name__ == "__main__":
    run_command(main)
