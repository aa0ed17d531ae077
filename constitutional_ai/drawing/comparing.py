"""Figures that compare many runs: rows of marks with intervals, and paths through a plane.

Where there are more things to compare than colours that greyscale keeps apart, names stand beside
the marks and colour says nothing.
"""

import math
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from constitutional_ai.drawing.figures import COLOURS, DASHES, MARKERS, STYLE, WIDTH
from constitutional_ai.stats.intervals import Estimate


@dataclass(frozen=True)
class Column:
    """One metric of every row; None where a row has none. ``bounds``: the axis's natural ends."""

    label: str
    values: Sequence[Estimate | None]
    bounds: tuple[float, float] | None = None


@dataclass(frozen=True)
class Path:
    """A line's places in the plane, in order; a single one is a mark with its name."""

    label: str
    points: Sequence[tuple[Estimate, Estimate]]


def dots(names: Sequence[str], columns: Sequence[Column]) -> Figure:
    """A row for each name, from the top; a column for each metric, its 95 % interval as a bar."""
    with matplotlib.rc_context(STYLE):
        labels = [folded(column.label, 21) for column in columns]
        lines = 1 + max((label.count("\n") for label in labels), default=0)
        wide = 0.3 + 0.08 * max(map(len, names), default=0) + 1.75 * len(columns)
        size = (max(WIDTH, wide), 0.5 + 0.17 * lines + 0.27 * len(names))
        figure = Figure(figsize=size, layout="constrained")
        grid = figure.subplots(1, len(columns), sharey=True, squeeze=False)
        for k, (axes, column) in enumerate(zip(grid[0], columns, strict=True)):
            for row, value in enumerate(column.values):
                if value is not None:
                    _bar(axes, value, row, k)
            axes.set_xlabel(labels[k])
            axes.set_yticks(range(len(names)), names)
            if column.bounds:
                low, high = column.bounds
                axes.set_xlim(low - 0.05 * (high - low), high + 0.05 * (high - low))
        grid[0, 0].set_ylim(len(names) - 0.5, -0.5)
        return figure


def _bar(axes: Axes, value: Estimate, row: int, column: int) -> None:
    axes.errorbar(
        value["mean"],
        row,
        xerr=_arms(value),
        fmt=MARKERS[column % len(MARKERS)],
        color=COLOURS[column % len(COLOURS)],
        ms=5.5,
        elinewidth=1.4,
        capsize=2.5,
    )


def plane(paths: Sequence[Path], xlabel: str, ylabel: str, intervals: bool = True) -> Figure:
    """Every path through two metrics, its end marked large; single points bear numbers."""
    with matplotlib.rc_context(STYLE):
        long_ = any(len(path.points) > 1 for path in paths)
        height = 3.4 + 0.21 * len(paths)  # the legend has a line for each
        figure = Figure(figsize=(WIDTH, height), layout="constrained")
        axes = figure.add_subplot(xlabel=folded(xlabel, 36), ylabel=folded(ylabel, 32))
        for k, path in enumerate(paths):
            colour, mark = COLOURS[k % len(COLOURS)], MARKERS[k % len(MARKERS)]
            x, y = ([point[n]["mean"] for point in path.points] for n in (0, 1))
            if long_:
                dash = DASHES[k % len(DASHES)]
                axes.plot(x, y, color=colour, marker=mark, ls=dash, ms=3.5, label=path.label)
                axes.plot(x[-1:], y[-1:], color=colour, marker=mark, ls="", ms=9)
            for one, two in path.points if intervals else ():
                axes.errorbar(
                    one["mean"], two["mean"], xerr=_arms(one), yerr=_arms(two),
                    color=colour, marker=mark, ms=0 if long_ else 7,
                    elinewidth=1.0, capsize=2, alpha=0.55 if long_ else 1,
                )  # fmt: skip
            if not long_:
                label = f"{k + 1}  {path.label}"
                axes.plot(x, y, color=colour, marker=mark, ls="", ms=7, label=label)
        figure.legend(loc="outside lower left")
        if not long_:
            firsts = [path.points[0] for path in paths]
            _number(figure, axes, [(one["mean"], two["mean"]) for one, two in firsts])
        return figure


_NEAR = 18.0  # pixels: numbers of points that lie closer would stand on one another


def _number(figure: Figure, axes: Axes, points: Sequence[tuple[float, float]]) -> None:
    """A number at each point, from 1; points that lie together share a label."""
    figure.draw_without_rendering()  # fixes where the points are on the page
    groups: list[list[int]] = []
    placed = axes.transData.transform(points)
    for k, place in enumerate(placed):
        near = (g for g in groups if any(math.dist(placed[one], place) < _NEAR for one in g))
        group = next(near, None)
        if group is None:
            groups.append([k])
        else:
            group.append(k)
    for group in groups:
        alone = len(group) == 1
        axes.annotate(
            spans([k + 1 for k in group]),
            points[group[0]],
            (6, 5) if alone else (-6, -18),
            textcoords="offset points",
            ha="left" if alone else "right",
        )


def spans(numbers: Sequence[int]) -> str:
    """Rising numbers in few words.

    >>> spans([2, 4, 5, 6, 8, 9])
    '2, 4–6, 8, 9'
    """
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    long_ = (f"{run[0]}–{run[-1]}" if len(run) > 2 else ", ".join(map(str, run)) for run in runs)
    return ", ".join(long_)


def folded(label: str, width: int) -> str:
    """A label in lines of at most so many characters, where its words allow it."""
    return "\n".join(textwrap.wrap(label, width))


def _arms(value: Estimate) -> list[list[float]]:
    """How far the interval reaches to both sides; nothing where there is none."""
    low, high = value["mean"] - value["low"], value["high"] - value["mean"]
    return [[max(0.0, arm) if math.isfinite(arm) else 0.0] for arm in (low, high)]


def by_name(names: Sequence[str], found: Mapping[str, Estimate]) -> list[Estimate | None]:
    """A column's values in the order of the rows."""
    return [found.get(name) for name in names]
