"""python -m curation.train_grade_classifier: trains a profile's classifier, prints how well it grades unseen works."""

import json
from typing import TYPE_CHECKING

from pydantic import Field

from curation.settings import PlaceFlags, profile_settings, read_curation_file
from shared.console import run_command, say, table
from shared.settings import named_pipelines_file, parse_command

if TYPE_CHECKING:
    pass

EXAMPLE = "python -m curation.train_grade_classifier --profile full --mirror DIR"


class TrainFlags(PlaceFlags):
    """The command line of curation.train_grade_classifier."""

    profile: str = Field("starter", description="whose labels to train on")
    as_json: bool = Field(False, description="print JSON", json_schema_extra={"flag": "json"})


def main() -> None:
    content = read_curation_file(named_pipelines_file())
    defaults = {"profile": content.default_profile}
    flags = parse_command(
        TrainFlags, "Trains the grade classifier of a profile and tables its held-out grades.", EXAMPLE, defaults
    )
    settings = profile_settings(content, flags.profile)

    from curation.grade_classifier import GradeClassifier, read_record
    from curation.grading import Combination, combined_grade
    from curation.labels import ensure_classifier, grade_held_out, read_labelled
    from curation.stages import pull_sources
    from shared.files import sole_writer

    only_labels = settings.model_copy(update={"sources": {name: settings.sources[name] for name in settings.labels}})
    with sole_writer(flags.data_dir):
        files, _missing = pull_sources(only_labels, flags.mirror, flags.data_dir / "raw")
        folder = ensure_classifier(settings, files, flags.data_dir / "models", flags.workers)
    record = read_record(folder)
    fit = Combination(**record["combination"])
    held_out = grade_held_out(read_labelled(settings, files), GradeClassifier(folder, record))
    pairs = list(zip(held_out.fk_grades, held_out.classifier_grades, strict=True))
    graders = {
        "Flesch-Kincaid": held_out.fk_grades,
        "classifier": held_out.classifier_grades,
        "both": [combined_grade(*pair, fit, settings.grading) for pair in pairs],
    }
    rows = []
    for source in ["all", *settings.labels]:
        chosen = [i for i, text in enumerate(held_out.labelled) if source in ("all", text.source)]
        labels = [held_out.labelled[i].grade for i in chosen]
        for name, grades in graders.items():
            figures = _agreement(labels, [grades[i] for i in chosen], settings.grading.grade_limit)
            rows.append([source, name, len(chosen), *figures])
    header = ["labels", "graded by", "texts", "spearman", "rmse_grades", "precision", "recall"]
    if flags.as_json:
        print(json.dumps({"folder": str(folder), "held_out": [dict(zip(header, row, strict=True)) for row in rows]}))
        return
    print(table(rows, header))
    say(f"precision and recall of grade <= {settings.grading.grade_limit}; no model graded a work it had seen")
    print(
        f"{folder}: grade = {fit.intercept:.3f} + {fit.fk_weight:.3f} fk + {fit.classifier_weight:.3f} classifier,"
        f" +- {fit.error:.2f}"
    )


def _agreement(labels: list[float], grades: list[float], limit: float) -> tuple[float, float, float, float]:
    """Returns Spearman's rank correlation, RMSE in grades, and precision and recall of "at most the limit"."""
    import numpy as np

    from curation.grading import spearman

    label, grade = np.asarray(labels), np.asarray(grades)
    rmse = float(np.sqrt(np.mean((label - grade) ** 2)))
    hits = float(np.sum((grade <= limit) & (label <= limit)))
    precision = hits / max(1.0, float(np.sum(grade <= limit)))
    return spearman(labels, grades), rmse, precision, hits / max(1.0, float(np.sum(label <= limit)))


if __name__ == "__main__":
    run_command(main)
