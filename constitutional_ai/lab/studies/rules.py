"""When a claim holds: differences between cells, and the bounds that their intervals must keep.

A comparison holds if the whole 95% interval of the difference lies within its bounds. It does not
hold if the whole interval lies outside. If a bound cuts the interval, it is undecided. A claim
holds if all its comparisons hold, and does not hold if one of them does not.

The difference is taken in each seed, its interval over seeds. With a single seed, or if no seed
makes a difference on either side, the intervals of both sides over prompts are added as for
independent values. Without such an interval a single seed decides nothing.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from constitutional_ai.lab.studies.results import Cell, Result
from constitutional_ai.stats import intervals as stats
from constitutional_ai.stats.intervals import Estimate

Verdict = Literal["holds", "does not hold", "undecided", "cannot be shown here", "not measured"]
HOLDS: Verdict = "holds"
FAILS: Verdict = "does not hold"
UNDECIDED: Verdict = "undecided"
CANNOT: Verdict = "cannot be shown here"
MISSING: Verdict = "not measured"


@dataclass(frozen=True)
class At:
    """A cell of a study: ``x`` None takes the last one of the line."""

    study: str
    line: str
    metric: str
    x: float | None = 0.0

    def cell(self, results: Mapping[str, Result]) -> Cell | None:
        result = results.get(self.study)
        if result is None:
            return None
        if self.x is None:
            return next(reversed(result.line(self.line, self.metric)), None)
        return result.cell(self.line, self.metric, self.x)

    def __str__(self) -> str:
        place = ", at the end" if self.x is None else f", at {self.x:g}" if self.x else ""
        return f"{self.metric.replace('_', ' ')} of “{self.line}”{place}"


@dataclass(frozen=True)
class Comparison:
    """``one`` minus ``other``, or ``one`` alone, must lie between ``low`` and ``high``."""

    one: At
    other: At | None = None
    low: float = -math.inf
    high: float = math.inf

    @property
    def text(self) -> str:
        """The rule in words."""
        bounds = [f"above {self.low:g}"] * (self.low > -math.inf)
        bounds += [f"below {self.high:g}"] * (self.high < math.inf)
        minus = f" minus {self.other}" if self.other else ""
        return f"{self.one}{minus}: {' and '.join(bounds)}"


@dataclass(frozen=True)
class Falling:
    """A line's metric is lower at each x than at the one before."""

    study: str
    line: str
    metric: str

    def comparisons(self, results: Mapping[str, Result]) -> list[Comparison]:
        result = results.get(self.study)
        places = [cell.x for cell in result.line(self.line, self.metric)] if result else []
        at = [At(self.study, self.line, self.metric, x) for x in places]
        return [Comparison(later, earlier, high=0) for earlier, later in pairwise(at)]


@dataclass(frozen=True)
class Outcome:
    """A comparison as it came out; ``difference`` is None if a side was not measured."""

    comparison: Comparison
    difference: Estimate | None
    verdict: Verdict


def compared(comparison: Comparison, results: Mapping[str, Result]) -> Outcome:
    """The difference, and whether it keeps its bounds."""
    one = comparison.one.cell(results)
    if comparison.other:
        other = comparison.other.cell(results)
        value = difference(one, other) if one and other else None
    else:
        value = one.estimate if one else None
    if value is None:
        return Outcome(comparison, None, MISSING)
    low, high = value["low"], value["high"]
    single = one is not None and len(one.by_seed) == 1
    if not math.isfinite(low) or (single and not _has_width(value)):
        return Outcome(comparison, value, UNDECIDED)
    if comparison.low < low and high < comparison.high:
        return Outcome(comparison, value, HOLDS)
    outside = high <= comparison.low or low >= comparison.high
    return Outcome(comparison, value, FAILS if outside else UNDECIDED)


def difference(one: Cell, other: Cell) -> Estimate | None:
    """``one`` minus ``other`` over the seeds that have both; None without any."""
    seeds = [seed for seed in one.by_seed if seed in other.by_seed]
    if not seeds:
        return None
    a, b = one.by_seed[seeds[0]], other.by_seed[seeds[0]]
    by_prompts = one.seedless and other.seedless and _has_width(a) and _has_width(b)
    if len(seeds) > 1 and not by_prompts:
        return stats.over_seeds(
            [one.by_seed[seed]["mean"] - other.by_seed[seed]["mean"] for seed in seeds]
        )
    if not (_has_width(a) and _has_width(b)):
        return {"mean": a["mean"] - b["mean"], "low": math.nan, "high": math.nan, "n": 1}
    middle = a["mean"] - b["mean"]
    below = math.hypot(a["mean"] - a["low"], b["high"] - b["mean"])
    above = math.hypot(a["high"] - a["mean"], b["mean"] - b["low"])
    return {"mean": middle, "low": middle - below, "high": middle + above, "n": 1}


def _has_width(value: Estimate) -> bool:
    """In one seed, a value without an interval of its own decides nothing."""
    return value["low"] < value["high"]


def together(outcomes: Sequence[Outcome]) -> Verdict:
    """The verdict of a claim from those of its comparisons."""
    verdicts = {one.verdict for one in outcomes}
    for verdict in (FAILS, MISSING, UNDECIDED):
        if verdict in verdicts:
            return verdict
    return HOLDS if outcomes else MISSING
