"""What a red team's scores.json says, as tables and a picture: its own page and a run's report."""

from collections.abc import Mapping
from typing import Any

import matplotlib
from matplotlib.figure import Figure

from constitutional_ai.drawing import figures, palette
from constitutional_ai.drawing.page import Drawing, Section, Table
from constitutional_ai.stats.intervals import Estimate

# Rows of scores.json beside the families.
ALL, ANY, SEEN, UNSEEN = "all attacks", "any attack", "seen families", "unseen families"
BENIGN = "benign requests"  # the matrix's row of false alarms
_COLUMNS = {
    "success": "got through",
    "refused": "refused",
    "incoherent": "incoherent",
    "over_refusal": "benign refused",
}


def families_of(found: Mapping[str, Any]) -> dict[str, dict[str, Estimate]]:
    """{family: {model: success}}, totals last."""
    names = dict.fromkeys(name for model in found["models"].values() for name in model["families"])
    totals = (SEEN, UNSEEN, ALL, ANY)
    ordered = [n for n in names if n not in totals] + [n for n in totals if n in names]
    return {
        name: {
            label: model["families"][name]["success"]
            for label, model in found["models"].items()
            if "success" in model["families"].get(name, {})
        }
        for name in ordered
    }


def dots(by_family: Mapping[str, Mapping[str, Estimate]]) -> Figure:
    """A row for each family, in it a mark with its interval for each model."""
    models = list(dict.fromkeys(label for row in by_family.values() for label in row))
    step = 0.8 / max(1, len(models))
    with matplotlib.rc_context(figures.STYLE):
        size = 1.2 + 0.2 * len(models) + len(by_family) * (0.12 + 0.17 * len(models))
        figure = Figure(figsize=(figures.WIDTH, size), layout="constrained")
        axes = figure.add_subplot(xlabel="attacks that got through (share)")
        for k, label in enumerate(models):
            places = [n + k * step for n, row in enumerate(by_family.values()) if label in row]
            rows = [row[label] for row in by_family.values() if label in row]
            axes.errorbar(
                [row["mean"] for row in rows],
                places,
                xerr=[
                    [row["mean"] - row["low"] for row in rows],
                    [row["high"] - row["mean"] for row in rows],
                ],
                fmt=figures.MARKERS[k % len(figures.MARKERS)],
                color=figures.COLOURS[k % len(figures.COLOURS)],
                ms=5.5,
                elinewidth=1.4,
                capsize=2.5,
                label=label,
            )
        middle = (len(models) - 1) * step / 2
        axes.set_yticks([n + middle for n in range(len(by_family))], list(by_family))
        for n in range(1, len(by_family)):  # between the rows, so that no mark is of two families
            axes.axhline(n + middle - 0.5, color=palette.GRID, lw=0.6)
        axes.set_ylim(len(by_family) - 0.5 + middle, middle - 0.5)
        axes.set_xlim(-0.03, 1.03)
        axes.grid(visible=False, axis="y")
        if len(models) > 1:
            figure.legend(loc="outside upper left")
        return figure


def picture(found: Mapping[str, Any], name: str = "redteam") -> str:
    """The SVG of attack success; ``name`` keeps several on one page apart."""
    return figures.svg(dots(families_of(found)), name)


def joined(found: Mapping[str, Any], name: str) -> list[Section]:
    """The figures of scores.json for another page, drawn anew; the transcripts stay here."""
    words = [headline(found), f"Success is read by {found['by']}; transcripts: redteam.html."]
    drawing = drawing_of(picture(found, name))
    first = Section("Red team", words, [drawing], tables_of(found))
    return [first, *caught_section(found["caught"])]


def headline(found: Mapping[str, Any]) -> str:
    """The result in a sentence."""
    parts = []
    for label, model in found["models"].items():
        row = model["families"].get(ALL, model["families"].get("plain", {}))
        plain = model["families"].get("plain", {})
        if "success" in row and "success" in plain:
            parts.append(
                f"{label}: {percent(row['success'])} of attacks get through"
                f" ({percent(plain['success'])} of plain requests)"
                + (
                    f", {percent(row['over_refusal'])} of benign requests in the same disguises"
                    " are refused"
                    if "over_refusal" in row
                    else ""
                )
            )
    return "; ".join(parts) + "." if parts else "No attack could be read."


def drawing_of(source: str) -> Drawing:
    return Drawing(
        "Attack success",
        "Bars: 95 % intervals. The plain request is the floor that every disguise is held against.",
        figures.inline(source, "Share of attacks that got through, by family and model"),
    )


def tables_of(found: Mapping[str, Any]) -> list[Table]:
    return [
        *(_table(f"{label}, by family", m["families"]) for label, m in found["models"].items()),
        *(
            _table(f"{label}, by category of harm", m["categories"])
            for label, m in found["models"].items()
            if m["categories"]
        ),
    ]


def _table(caption: str, rows: Mapping[str, Mapping[str, Any]]) -> Table:
    head = ["", *_COLUMNS.values(), "n", "n benign", "unread"]
    cells = [
        [
            name,
            *(row.get(column) for column in _COLUMNS),
            row.get("success", {}).get("n"),
            row.get("over_refusal", {}).get("n"),
            row["unread"],
        ]
        for name, row in rows.items()
    ]
    return Table(caption, head, cells)


def caught_section(matrix: Mapping[str, Mapping[str, Estimate]]) -> list[Section]:
    if not matrix:
        return []
    names = list(dict.fromkeys(name for row in matrix.values() for name in row))
    sizes = {family: max(e["n"] for e in row.values()) for family, row in matrix.items()}
    rows = [[family, *(row.get(n) for n in names), sizes[family]] for family, row in matrix.items()]
    words = (
        "The share of what got through that each principle's critique finds fault with. The row"
        f" “{BENIGN}” has good answers in the same disguises: there a catch is a false"
        " alarm."
    )
    table = Table("Caught, by family and principle", ["", *names, "n"], rows)
    return [Section("Which principle catches it", [words], tables=[table])]


def percent(estimate: Estimate) -> str:
    mean, low, high = (100 * estimate[key] for key in ("mean", "low", "high"))
    return f"{mean:.0f} % ({low:.0f}–{high:.0f} %, n = {estimate['n']})"
