"""A study's figures, drawn from its result file alone."""

import math
from collections.abc import Mapping

from matplotlib.figure import Figure

from constitutional_ai.drawing import comparing, figures
from constitutional_ai.drawing.figures import Panel, Series
from constitutional_ai.lab.studies.results import Cell, Result
from constitutional_ai.lab.studies.study import Axis, Dots, Drawn, Lines, Plane, Study
from constitutional_ai.stats.intervals import Estimate

LABEL = 22  # characters of a panel's label in one line


def draw(study: Study, result: Result) -> dict[str, Figure]:
    """Every figure of the study for which something was measured, by name."""
    figures_ = {name: _figure(drawn, result) for name, drawn in study.figures.items()}
    return {name: figure for name, figure in figures_.items() if figure is not None}


def _figure(drawn: Drawn, result: Result) -> Figure | None:
    match drawn:
        case Lines():
            return _lines(drawn, result)
        case Dots():
            return _dots(drawn, result)
        case Plane():
            return _plane(drawn, result)


def _lines(drawn: Lines, result: Result) -> Figure | None:
    panels = []
    every = drawn.only or tuple(result.lines(axis.metric for axis in drawn.axes))
    look = {name: k for k, name in enumerate(every)}
    for axis in drawn.axes:
        names = drawn.only or tuple(result.lines([axis.metric]))
        series = [_series(result, name, axis, drawn.x, look[name]) for name in names]
        if series := [one for one in series if one.x]:
            label = comparing.folded(axis.label, LABEL)
            if drawn.diagonal:
                x = sorted(x for one in series for x in one.x)
                ends = [x[0], x[-1]]
                series.append(Series("perfect", ends, ends, look=figures.REFERENCE))
            panels.append(Panel(label, series, axis.bounds))
    return figures.panels(panels, drawn.xlabel) if panels else None


def _series(result: Result, line: str, axis: Axis, xmetric: str, look: int) -> Series:
    cells = result.line(line, axis.metric)
    places = [_place(result, cell, xmetric) for cell in cells]
    known = [
        (x, cell.within(axis.bounds))
        for x, cell in zip(places, cells, strict=True)
        if x is not None
    ]
    known.sort(key=lambda place: place[0])  # a measured x may fall from one cell to the next
    mean, low, high = ([value[key] for _, value in known] for key in ("mean", "low", "high"))
    drawn = all(math.isfinite(value) for value in [*low, *high])
    if not drawn or low == mean:
        low, high = [], []
    return Series(line, [x for x, _ in known], mean, low, high, look)


def _place(result: Result, cell: Cell, xmetric: str) -> float | None:
    """Where a cell stands on the x axis; None where the metric that says so is missing."""
    if not xmetric:
        return cell.x
    other = result.cell(cell.line, xmetric, cell.x)
    return other.estimate["mean"] if other else None


def _dots(drawn: Dots, result: Result) -> Figure | None:
    names = result.lines(axis.metric for axis in drawn.axes)
    one_range = _range(result, drawn.alike)
    columns = [
        comparing.Column(
            axis.label,
            comparing.by_name(names, _of(result, axis)),
            one_range if axis in drawn.alike else axis.bounds,
        )
        for axis in drawn.axes
    ]
    columns = [column for column in columns if any(column.values)]
    return comparing.dots(names, columns) if columns else None


def _range(result: Result, axes: tuple[Axis, ...]) -> tuple[float, float] | None:
    """From the lowest to the highest end of all their intervals."""
    estimates = [value for axis in axes for value in _of(result, axis).values()]
    ends = [one[key] for one in estimates for key in ("mean", "low", "high")]
    finite = [end for end in ends if math.isfinite(end)]
    return (min(finite), max(finite)) if finite and min(finite) < max(finite) else None


def _of(result: Result, axis: Axis) -> Mapping[str, Estimate]:
    cells = (cell for cell in result.cells if cell.metric == axis.metric)
    return {cell.line: cell.within(axis.bounds) for cell in cells}


def _plane(drawn: Plane, result: Result) -> Figure | None:
    paths = []
    for name in result.lines([drawn.x.metric]):
        points = []
        for cell in result.line(name, drawn.x.metric):
            other = result.cell(name, drawn.y.metric, cell.x)
            if other is not None:
                points.append((cell.within(drawn.x.bounds), other.within(drawn.y.bounds)))
        if points:
            paths.append(comparing.Path(name, points))
    return comparing.plane(paths, drawn.x.label, drawn.y.label) if paths else None
