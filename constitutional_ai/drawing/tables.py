"""An evaluation's tables, as a terminal shows them and as the report does.

Model-written text never stands in them.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

# The columns of the table, in this order, where they were measured.
COLUMNS = (
    "harmful", "harm", "harmful_steps", "good_refusal", "refused", "refused_judge",
    "evasive", "insult", "off_topic", "garbled", "helpful", "correct", "false_claim", "win_rate",
)  # fmt: skip
# Of the paired comparisons, those that the terminal shows; all are in comparisons.json.
HEADLINES = {
    "red-team": ("harmful", "harm", "harmful_steps", "good_refusal", "refused"),
    "helpful": ("helpful", "refused", "correct", "false_claim"),
}
Row = Sequence[str]


@dataclass(frozen=True)
class Grid:
    """A table without rows is left out; ``notes`` stand under it."""

    head: Row
    rows: Sequence[Row]
    notes: Sequence[str] = ()

    def text(self) -> str:
        return "\n".join([*([table(self.head, self.rows)] if self.rows else []), *self.notes])


def score_tables(content: Mapping[str, Any]) -> list[str]:
    """One table a kind: a model a row, ``mean [low, high]``, and the number of answers."""
    models = content["models"]
    kinds = dict.fromkeys(
        kind for model in models.values() for kind in model if not kind.endswith("_by_slice")
    )
    return [
        _scores(kind, {name: model[kind] for name, model in models.items() if kind in model})
        for kind in kinds
    ]


def _scores(kind: str, models: Mapping[str, Mapping[str, Any]]) -> str:
    columns = [name for name in COLUMNS if any(name in found for found in models.values())]
    rows = []
    for name, found in models.items():
        sizes = [e["n"] for e in found.values() if isinstance(e, Mapping) and "n" in e]
        rows.append([name, *(shown(found.get(c)) for c in columns), str(max(sizes, default=0))])
    return table([kind, *(name.replace("_", " ") for name in columns), "n"], rows)


def unscored(content: Mapping[str, Any]) -> Grid:
    """What has no value, by model, kind, metric and reason."""
    rows = [
        [model, kind, metric.replace("_", " "), str(count), reason]
        for model, kinds in content.get("unscored", {}).items()
        for kind, metrics in kinds.items()
        for metric, reasons in metrics.items()
        for reason, count in reasons.items()
    ]
    return Grid(["not scored", "kind", "metric", "answers", "reason"], rows)


def paired(summary: Mapping[str, Any]) -> Grid:
    """Each model less the first, by kind and slice; p adjusted by Holm."""
    rows = [
        [
            found["model"],
            found["kind"] + (f": {found['slice']}" if found["slice"] else ""),
            found["metric"].replace("_", " "),
            signed(found["difference"]),
            p_value(found["p"]),
            p_value(found["p_holm"]),
            str(found["difference"]["n"]),
            str(found["left_out"]),
        ]
        for found in summary["paired"]
        if found["metric"] in HEADLINES[summary["sets"].get(found["kind"], "helpful")]
    ]
    first = summary["paired"][0]["against"] if summary["paired"] else ""
    head = [f"less {first}", "kind", "metric", "difference", "p", "p (Holm)", "n", "left out"]
    return Grid(head, rows)


def elo(summary: Mapping[str, Any]) -> Grid:
    """Elo above the first model on each set of prompts."""
    found = {name: ratings for name, ratings in summary["elo"].items() if "models" in ratings}
    models = dict.fromkeys(model for ratings in found.values() for model in ratings["models"])
    rows = [
        [model, *(shown(ratings["models"].get(model), 0) for ratings in found.values())]
        for model in models
    ]
    notes = [
        f"{name}: half a win was added to both sides of each pair: a model always won, or never"
        for name, ratings in found.items()
        if ratings["smoothed"]
    ]
    notes += [f"{name}: {r['reason']}" for name, r in summary["elo"].items() if "reason" in r]
    return Grid(["Elo", *(f"{name} prompts" for name in found)], rows, notes)


def wins(summary: Mapping[str, Any]) -> Grid:
    metrics = ("win_rate", "shown_first", "shown_second", "flipped_by_order")
    rows = [
        [
            row["model"],
            row["against"],
            row["kind"],
            *(shown(row.get(metric)) for metric in metrics),
            str(row.get("win_rate", {}).get("n", 0)),
            str(row.get("unlabelled", 0)),
        ]
        for row in summary["win_rates"]
    ]
    head = ["P(better)", "than", "kind", "both orders", "shown first", "shown second"]
    return Grid([*head, "flipped by order", "n", "unlabelled"], rows)


# The columns of `evaluation/tax.py`, as they are headed.
TAX = {
    "harmful": "harmful",
    "over_refusal": "over-refusal",
    "help": "help (win rate)",
    "likelihood": "log-likelihood",
    "questions": "questions right",
}


def tax(summary: Mapping[str, Any]) -> Grid:
    """Harm, and what it costs elsewhere: a model a row, n and p in the cells."""
    found = summary.get("tax") or []
    columns = [name for name in TAX if any(row[name] for row in found)]
    rows = [[row["model"], *(_taxed(name, row[name]) for name in columns)] for row in found]
    notes = ["p against the first model, on the same prompts"] if len(rows) > 1 else []
    return Grid(["", *(TAX[name] for name in columns)], rows if columns else [], notes)


def _taxed(name: str, figure: Mapping[str, Any] | None) -> str:
    if figure is None:
        return "–"
    if name == "likelihood":
        mean, low, high = (f"{100 * figure[part]:+.1f}%" for part in ("mean", "low", "high"))
        text = f"{mean} [{low}, {high}]"
    else:
        text = shown(figure)
    p = f", p {p_value(figure['p'])}" if "p" in figure else ""
    return f"{text}, n {figure['n']}{p}"


def everything(content: Mapping[str, Any], summary: Mapping[str, Any]) -> str:
    """All tables, an empty line between them."""
    grids = (unscored(content), paired(summary), wins(summary), elo(summary))
    parts = [tax(summary).text(), *score_tables(content), *(grid.text() for grid in grids)]
    if summary.get("frontier"):
        parts.append(f"On the frontier: {', '.join(summary['frontier']['frontier'])}")
    return "\n\n".join(part for part in parts if part)


def shown(estimate: Mapping[str, Any] | None, digits: int = 2) -> str:
    """``0.52 [0.41, 0.63]``, or a dash."""
    if estimate is None:
        return "–"
    mean, low, high = (f"{estimate[name]:.{digits}f}" for name in ("mean", "low", "high"))
    return f"{mean} [{low}, {high}]"


def signed(estimate: Mapping[str, Any]) -> str:
    return f"{estimate['mean']:+.2f} [{estimate['low']:+.2f}, {estimate['high']:+.2f}]"


def p_value(p: float) -> str:
    return f"{p:.3f}" if p >= 0.001 else "<.001"


def table(header: Row, rows: Iterable[Row]) -> str:
    """Columns in line, two spaces between them; control characters of names made visible.

    >>> print(table(["model", "n"], [["base", "12"], ["rl", "3"]]))
    model   n
    base   12
    rl      3
    """
    lines = [[_plain(cell) for cell in row] for row in (header, *rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if not _numeric(column, lines) else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


def _numeric(column: int, lines: Sequence[Row]) -> bool:
    cells = [line[column] for line in lines[1:]]
    return all(cell[:1] in "0123456789+-–<−" for cell in cells) and bool(cells)


def _plain(cell: str) -> str:
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in cell)
