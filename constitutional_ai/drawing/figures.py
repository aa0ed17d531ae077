"""The report's figures: drawn by matplotlib, text kept as text, legible in grey and in dark mode.

A figure is drawn once. As a file it has plain dark ink; inline in the page its ink, grid and
series become the page's own CSS colours, so that dark mode needs no second drawing. Series differ
in marker and dash as well as in colour. A figure of ``WIDTH`` fits a phone with its text at 12 CSS
pixels; the page scrolls a wider one sideways and never draws it smaller.
"""

import io
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from constitutional_ai.drawing.palette import GRID, INK, SERIES
from constitutional_ai.stats.intervals import Estimate, wilson

COLOURS = SERIES["light"]
WIDTH = 4.1  # inches; see page.html, which knows text of 10 points and a scale of 1.2 or more
REFERENCE = -1
MARKERS = ("o", "s", "^", "D", "v")
DASHES = ("-", "--", "-.", ":", (0, (1, 1)))

STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",  # text stays text: selectable, and in the reader's own font
    "font.family": "sans-serif",
    "font.size": 10,
    "text.color": INK,
    "text.parse_math": False,  # a dollar sign is a dollar sign
    "axes.labelcolor": INK,
    "axes.edgecolor": INK,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "xtick.color": INK,
    "ytick.color": INK,
    "legend.frameon": False,
    "axes.labelsize": 10,
    "legend.fontsize": 10,
    "lines.linewidth": 1.8,
    "lines.markersize": 4.5,
}


@dataclass(frozen=True)
class Point:
    """A model in the plane of two scores; those of one ``role`` differ by their ``mark`` only."""

    role: str
    x: Estimate
    y: Estimate
    mark: str = ""


@dataclass(frozen=True)
class Series:
    """A line; ``low`` and ``high``, where given, draw its interval.

    ``look`` is its colour, marker and dash where lines of several panels belong together; REFERENCE
    makes it a thin line that nothing was measured for.
    """

    label: str
    x: Sequence[float]
    y: Sequence[float]
    low: Sequence[float] = ()
    high: Sequence[float] = ()
    look: int | None = None


@dataclass(frozen=True)
class Panel:
    """Lines over one axis; ``bounds`` fixes the axis where a score has natural ends.

    Without them an axis of nothing negative starts at zero, so that heights can be compared.
    """

    ylabel: str
    series: Sequence[Series]
    bounds: tuple[float, float] | None = None


@dataclass(frozen=True)
class Bin:
    """Of a reliability diagram: the mean ``predicted`` and ``observed`` preference of n pairs."""

    predicted: float
    observed: float
    n: int


def tradeoff(points: Sequence[Point], xlabel: str, ylabel: str) -> Figure:
    """Every model by two shares, joined in the order of training; up and right is better."""
    assert points, "a figure needs something to show"
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, 4.3), layout="constrained")
        axes = figure.add_subplot(xlabel=xlabel, ylabel=ylabel)
        path = [p.x["mean"] for p in points], [p.y["mean"] for p in points]
        axes.plot(*path, color=COLOURS[4], lw=0.9, ls=":")
        roles = list(dict.fromkeys(point.role for point in points))
        for k, point in enumerate(points):
            look = roles.index(point.role) % len(MARKERS)
            seen = point.role in [earlier.role for earlier in points[:k]]
            x, y = point.x["mean"], point.y["mean"]
            axes.errorbar(
                x,
                y,
                xerr=[[x - point.x["low"]], [point.x["high"] - x]],
                yerr=[[y - point.y["low"]], [point.y["high"] - y]],
                fmt=MARKERS[look],
                color=COLOURS[look],
                ms=8,
                elinewidth=1.3,
                capsize=2.5,
                label="_again" if seen else point.role,
            )
            axes.annotate(point.mark, (x, y), (6, 6), textcoords="offset points")
        axes.set_ylim(-0.04, 1.06)
        axes.set_xlim(min(0.5, *(p.x["low"] - 0.03 for p in points)), 1.02)
        figure.legend(loc="outside upper left", handletextpad=0.3)
        return figure


def panels(rows: Sequence[Panel], xlabel: str) -> Figure:
    """Line plots under one another that share the x axis; one legend where looks are given."""
    shared = any(one.look is not None for panel in rows for one in panel.series)
    legend = len({one.label for panel in rows for one in panel.series}) if shared else 0
    with matplotlib.rc_context(STYLE):
        size = (WIDTH, 0.8 + 0.2 * legend + 2.0 * len(rows))
        figure = Figure(figsize=size, layout="constrained")
        grid = figure.subplots(len(rows), 1, sharex=True, squeeze=False)
        for axes, panel in zip(grid[:, 0], rows, strict=True):
            axes.set_ylabel(panel.ylabel)
            for k, series in enumerate(panel.series):
                _line(axes, series, k if series.look is None else series.look)
            if panel.bounds:
                low, high = panel.bounds
                axes.set_ylim(low - 0.03 * (high - low), high + 0.03 * (high - low))
            elif all(y >= 0 for one in panel.series for y in (*one.y, *(one.low or ()))):
                axes.set_ylim(bottom=0)
            if len(panel.series) > 1 and not shared:
                axes.legend(loc="best")
        if shared:
            figure.legend(*_once(grid[:, 0]), loc="outside upper left")
        grid[-1, 0].set_xlabel(xlabel)
        if all(float(x).is_integer() for panel in rows for line in panel.series for x in line.x):
            grid[-1, 0].xaxis.set_major_locator(MaxNLocator(integer=True))
        return figure


def _once(grid: Iterable[Axes]) -> tuple[list[Artist], list[str]]:
    """Handles and labels for a legend of several panels, each label once."""
    found: dict[str, Artist] = {}
    for axes in grid:
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            found.setdefault(label, handle)
    return list(found.values()), list(found)


def _line(axes: Axes, series: Series, k: int) -> None:
    if k == REFERENCE:
        axes.plot(series.x, series.y, color=INK, lw=0.8, ls=(0, (6, 4)), label=series.label)
        return
    few = len(series.x) <= 15  # markers on a long line are noise
    colour = COLOURS[k % len(COLOURS)]
    axes.plot(
        series.x,
        series.y,
        color=colour,
        ls=DASHES[k % len(DASHES)],
        marker=MARKERS[k % len(MARKERS)] if few else "",
        label=series.label,
    )
    if series.low:
        axes.fill_between(series.x, series.low, series.high, color=colour, alpha=0.2, lw=0)
        for edge in (series.low, series.high):  # bands that overlap are told apart by their edges
            axes.plot(series.x, edge, color=colour, ls=DASHES[k % len(DASHES)], lw=0.7, alpha=0.7)


def reliability(bins: Sequence[Bin], by: str = "the reward model") -> Figure:
    """Predicted against observed preference; a mark's area is the number of pairs in its bin.

    Bars are Wilson's 95 % intervals. They hold for labels that are 0 or 1; soft labels of the same
    mean scatter less, so theirs are never too short.
    """
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, 4.2), layout="constrained")
        axes = figure.add_subplot(
            xlabel=f"P(better) by {by}", ylabel="P(better) by the label", aspect="equal"
        )
        filled = [b for b in bins if b.n]
        largest = max((b.n for b in filled), default=1)
        axes.plot([0, 1], [0, 1], color=COLOURS[4], ls="--", lw=1, label="perfect")
        predicted, observed = [b.predicted for b in filled], [b.observed for b in filled]
        ends = [wilson(b.observed, b.n) for b in filled]
        arms = [
            [max(0.0, b.observed - low) for b, (low, _) in zip(filled, ends, strict=True)],
            [max(0.0, high - b.observed) for b, (_, high) in zip(filled, ends, strict=True)],
        ]
        axes.errorbar(
            predicted, observed, yerr=arms, color=COLOURS[0], lw=1, elinewidth=1.3, capsize=2.5
        )
        axes.scatter(
            predicted,
            observed,
            s=[20 + 120 * b.n / largest for b in filled],
            color=COLOURS[0],
            label="bins (area: pairs; bar: 95 %)",
        )
        axes.set(xlim=(-0.03, 1.03), ylim=(-0.03, 1.03))
        figure.legend(loc="outside upper left", ncols=2, columnspacing=1.0)
        return figure


def svg(figure: Figure, name: str) -> str:
    """The figure as an SVG document. ``name`` keeps its inner ids apart from other figures'."""
    with matplotlib.rc_context({**STYLE, "svg.hashsalt": name}):
        buffer = io.StringIO()
        nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        figure.savefig(buffer, format="svg", transparent=True, metadata=nothing)
    source = buffer.getvalue()
    # matplotlib numbers its groups from 1 in every figure; two of one id on a page are an error.
    return re.sub(r'(<g id=")', rf"\g<1>{name}-", source)


def png(figure: Figure, path: Path) -> None:
    """The figure as a picture on white, for pages that cannot show inline SVG."""
    with matplotlib.rc_context(STYLE):
        figure.savefig(path, format="png", dpi=160, facecolor="white")


def inline(source: str, alt: str) -> str:
    """An SVG document as an element of an HTML page: scalable, named, in the page's colours."""
    body = source[source.index("<svg") :]
    body = re.sub(r' xmlns(:\w+)?="[^"]*"', "", body)  # HTML knows the namespaces
    body = re.sub(r"<style type=.*?</style>", "", body, flags=re.DOTALL)  # is for all pages
    body = re.sub(r' (width|height)="[\d.]+pt"', "", body, count=2)
    body = re.sub(r"font-family: [^;\"]+", "font-family: inherit", body)
    names = {INK: "ink", GRID: "grid"} | {c: f"series-{k}" for k, c in enumerate(COLOURS)}
    for colour, name in names.items():
        body = body.replace(colour, f"var(--{name})")
    (wide,) = re.findall(r'viewBox="0 0 ([\d.]+) ', body[:400])
    head = f'<svg role="img" aria-label="{escape(alt)}" style="--wide: {wide}px"'
    return body.replace("<svg", head, 1)
