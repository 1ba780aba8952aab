"""The report of the grade scorer as tables for a terminal, or as one page that needs nothing but itself.

Both take what grading_report.make_report returns. The page's text is in grading_report.html.j2.
"""

import re
import textwrap
from collections.abc import Iterable, Sequence
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from shared.console import table

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

TEMPLATE = Path(__file__).with_name("grading_report.html.j2")
TEXT_WIDTH, NAME_WIDTH, SET_WIDTH = 120, 56, 18

DECISION = {"precision": "prec.", "recall": "recall", "f1": "F1"}
SETS = {"source": "set", "split": "split", "grader": "grader", "n": "n", "spearman": "Spearman", "rmse_grades": "RMSE"}
SETS |= {"auc": "AUC", **DECISION, "ece": "ECE", "called_easy": "called"}
CONTRAST = {"grader": "grader", "auc": "AUC", "precision_at_recall": "prec. at recall", **DECISION}
GROUP = {"n": "n", "auc": "AUC", "ece": "ECE", **DECISION}
GENRES, LENGTHS = {"genre": "genre", **GROUP}, {"n_words": "words", **GROUP}
BINS = {"genre": "genre", "range": "p_grade3", "n": "n", "mean_probability": "mean", "share_true": "share easy"}
MISTAKES = {
    "p_grade3": "p_grade3",
    "label": "label",
    "grade": "grade",
    "fk_grade": "FK",
    "classifier_grade": "classifier",
}

# Data colours stand out from white (3:1 and more) and from the page's dark ground alike; INK becomes the page's own.
BLUE, ORANGE, INK = "#2f7fd0", "#d9730d", "#010203"
N_COLUMNS = 4  # reliability plots side by side


def as_text(report: dict[str, Any]) -> str:
    """Returns the report as tables for a terminal of 120 columns, the promises first."""
    contrast, confusion = report["easy_or_hard"], report["confusion"]
    promises = [
        (_short(r["name"], NAME_WIDTH), r["n"], r["value"], r["fk_alone"], wanted(r), verdict(r))
        for r in report["targets"]
    ]
    counts = [(name, *row) for name, row in zip(confusion["grades"], confusion["counts"], strict=True)]
    sections = {
        _summary(report): table(promises, ("promise", "n", "both", "FK alone", "wanted", "")),
        "why a promise was not measured": "\n".join(_reasons(report["targets"])),
        _contrast_title(contrast): _table(contrast["graders"], CONTRAST),
        f"by set (easy: grade {report['grade_limit']} and below; called: share called easy)": _table(
            report["sets"], SETS
        ),
        "labelled test texts by genre": _table(report["genres"], GENRES),
        "labelled test texts by length": _table(report["lengths"], LENGTHS),
        "labelled test texts by label (down) and grade (across)": table(counts, ("", *confusion["grades"])),
        "reliability of p_grade3 on labelled test texts": _table(reliability_rows(report), BINS),
        "the surest wrong decisions on test and measured texts": "\n".join(map(_mistake, report["mistakes"])),
    }
    return "\n\n".join(f"{title}\n{body}" for title, body in sections.items() if body) + "\n"


def as_html(report: dict[str, Any]) -> str:
    """Returns the report as one HTML page, its pictures inside; the same report gives the same bytes."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined  # slow, and only the page needs it
    from markupsafe import Markup

    environment = Environment(
        loader=FileSystemLoader(TEMPLATE.parent), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    environment.filters |= {"shown": shown, "wanted": wanted, "verdict": verdict}
    pictures = {name: Markup(svg) for name, svg in _pictures(report).items()}
    return environment.get_template(TEMPLATE.name).render(
        report=report,
        summary=_summary(report),
        contrast_title=_contrast_title(report["easy_or_hard"]),
        reasons=_reasons(report["targets"]),
        reliability=reliability_rows(report),
        pictures=pictures,
        columns={"contrast": CONTRAST, "sets": SETS, "genres": GENRES, "lengths": LENGTHS, "bins": BINS},
        mistakes=MISTAKES,
    )


def wanted(promise: dict[str, Any]) -> str:
    """Returns the bound of a promise: `>= 0.95`."""
    return f"{'>=' if promise['bound'] == 'at least' else '<='} {promise['target']}"


def verdict(promise: dict[str, Any]) -> str:
    """Returns what became of a promise, in words."""
    return {True: "met", False: "not met", None: "not measured"}[promise["met"]]


def shown(value: object) -> str:
    """Returns a figure or a word as the page writes it, numbers as in the terminal's tables."""
    if value is None:
        return "-"
    return f"{value:.4f}" if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else str(value)


def reliability_rows(report: dict[str, Any]) -> list[dict[str, Any]]:
    """Returns the bins of all genres as one table's rows."""
    return [
        {"genre": r["genre"] or "all", "range": f"{b['low']:.1f} to {b['high']:.1f}", **b}
        for r in report["reliability"]
        for b in r["bins"]
    ]


def _summary(report: dict[str, Any]) -> str:
    n_met = sum(promise["met"] is True for promise in report["targets"])
    n_test = report["n_labelled_test_texts"]
    return (
        f"{n_met} of {len(report['targets'])} promises met; "
        f"{report['n_texts']:,} graded texts, {n_test:,} of them labelled test texts"
    )


def _contrast_title(contrast: dict[str, Any]) -> str:
    return (
        f"{contrast['n_easy']:,} easy against {contrast['n_hard']:,} hard texts: AUC, precision where recall reaches "
        f"{contrast['recall']}, and the decision"
    )


def _reasons(promises: Sequence[dict[str, Any]]) -> list[str]:
    return [f"{r['name']}: {r['unmeasured']['value']}" for r in promises if r["value"] is None]


def _table(rows: Iterable[dict[str, Any]], columns: dict[str, str]) -> str:
    names = ("source", "genre")
    cells = [[_short(row[c], SET_WIDTH) if c in names else row[c] for c in columns] for row in rows]
    return table(cells, list(columns.values())) if cells else ""


def _short(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 3] + "..."


def _mistake(row: dict[str, Any]) -> str:
    figures = ", ".join(f"{name} {row[column]:.2f}" for column, name in MISTAKES.items())
    line = f"{figures}: {row['source']}, {_short(row['level'], SET_WIDTH)}, {row['title']}"
    opening = textwrap.fill(row["opening"], TEXT_WIDTH, initial_indent="  ", subsequent_indent="  ")
    return f"{_short(line, TEXT_WIDTH)}\n{opening}"


def _pictures(report: dict[str, Any]) -> dict[str, str]:
    """Returns the pictures as SVG elements for a page; none where there are no labelled test texts."""
    import matplotlib.style
    from matplotlib.figure import Figure

    if not report["reliability"]:
        return {}
    style = {
        "svg.fonttype": "none", "svg.hashsalt": "graded-corpus", "text.parse_math": False,
        "font.size": 10, "font.family": "sans-serif",
        "text.color": INK, "axes.labelcolor": INK, "axes.edgecolor": INK, "xtick.color": INK, "ytick.color": INK,
        "axes.spines.top": False, "axes.spines.right": False,
    }  # fmt: skip
    with matplotlib.style.context(["default", style]):
        drawn = {"reliability": draw_reliability(report, Figure()), "spread": draw_spread(report, Figure())}
        return {name: _inline_svg(figure, name) for name, figure in drawn.items()}


def _inline_svg(figure: "Figure", name: str) -> str:
    """Returns the figure as an <svg> whose ids are its own, whose ink is the page's, and which has no other size."""
    out = StringIO()
    metadata = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    figure.savefig(out, format="svg", transparent=True, metadata=metadata)
    svg = out.getvalue()
    svg = svg[svg.index("<svg") :].replace(INK, "currentColor")
    svg = re.sub(r"<style.*?</style>", "", svg, flags=re.DOTALL)  # it would style the whole page
    svg = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{name}-", svg)
    svg = re.sub(r"font-family: [^;\"]*", "font-family: sans-serif", svg)
    return re.sub(r'<svg [^>]*?(viewBox="[^"]*")[^>]*>', r'<svg \1 aria-hidden="true">', svg, count=1)


def draw_reliability(report: dict[str, Any], figure: "Figure") -> "Figure":
    """Returns the figure with one plot for all labelled test texts, and one for each large genre."""
    groups = report["reliability"]
    n_rows = -(-len(groups) // N_COLUMNS)
    figure.set_size_inches(10, 2.9 * n_rows)
    figure.set_layout_engine("constrained")
    for i, group in enumerate(groups):
        axes: Axes = figure.add_subplot(n_rows, N_COLUMNS, i + 1, aspect="equal", xlim=(0, 1), ylim=(0, 1))
        axes.plot([0, 1], [0, 1], color=INK, linewidth=0.8, linestyle="--", alpha=0.6)
        probabilities = [b["mean_probability"] for b in group["bins"]]
        shares = [b["share_true"] for b in group["bins"]]
        sizes = [12 + 200 * b["n"] / group["n"] for b in group["bins"]]
        axes.plot(probabilities, shares, color=BLUE, linewidth=1.2)
        axes.scatter(probabilities, shares, s=sizes, color=BLUE, alpha=0.8, linewidths=0, clip_on=False, zorder=3)
        axes.set_title(f"{_short(group['genre'] or 'all', 20)} ({group['n']:,})", fontsize=10)
        axes.set_xticks([0, 0.5, 1])
        axes.set_yticks([0, 0.5, 1])
        axes.set_xlabel("mean p_grade3")
        if i % N_COLUMNS == 0:
            axes.set_ylabel("share easy")
    return figure


def draw_spread(report: dict[str, Any], figure: "Figure") -> "Figure":
    """Returns the figure with the grades of each label: 10th to 90th percentile, quartiles and median."""
    rows = report["spread"]
    figure.set_size_inches(10, 4.6)
    figure.set_layout_engine("constrained")
    axes = figure.add_subplot()
    reach = (min(r["label"] for r in rows) - 0.6, max(r["label"] for r in rows) + 0.6)
    axes.plot(reach, reach, color=INK, linewidth=0.8, linestyle="--", alpha=0.6, label="grade = label")
    limit = report["grade_limit"]
    axes.axhline(limit, color=INK, linewidth=0.8, linestyle=":", label=f"grade {limit}")
    for grader, name, colour, offset in (("fk_alone", "FK alone", ORANGE, -0.16), ("both", "both", BLUE, 0.16)):
        at = [r["label"] + offset for r in rows]
        low, lower, middle, upper, high = zip(*(r[grader] for r in rows), strict=True)
        axes.vlines(at, low, high, color=colour, linewidth=1.2)
        axes.vlines(at, lower, upper, color=colour, linewidth=7, alpha=0.55)
        axes.scatter(at, middle, s=34, color=colour, marker="o" if grader == "both" else "D", zorder=3, label=name)
    axes.set_xticks([r["label"] for r in rows], [f"{r['label']}\n{r['n']:,}" for r in rows])
    axes.set_xlim(reach)
    axes.set_xlabel("label (US grade), and texts of it")
    axes.set_ylabel("grade given")
    axes.legend(frameon=False, loc="lower right")
    return figure
