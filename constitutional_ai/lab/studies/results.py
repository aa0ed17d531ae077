"""What a study measured: the cells of its table, each with a value for every seed, in one file.

The intervals of a figure are over seeds, by Student's t. If a study ran with one seed, they are
that seed's own, over its prompts; pages say which.
"""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from constitutional_ai.errors import DataError, UserError
from constitutional_ai.stats import intervals as stats
from constitutional_ai.stats.intervals import Estimate

RESULTS = "results"  # the folder of result files, under a study's --out and under docs/studies


@dataclass(frozen=True)
class Cell:
    """``metric`` of ``line`` at ``x``: an estimate over prompts in each seed.

    ``line`` names a variant or a model. ``x`` is the place on a figure's axis, 0 without one.
    """

    line: str
    metric: str
    by_seed: Mapping[str, Estimate]
    x: float = 0.0

    @property
    def estimate(self) -> Estimate:
        """Over seeds; with one seed, or if no seed makes a difference, over its prompts."""
        first = next(iter(self.by_seed.values()))
        if len(self.by_seed) == 1 or (self.seedless and first["low"] < first["high"]):
            return first
        return stats.over_seeds([one["mean"] for one in self.by_seed.values()])

    def within(self, bounds: tuple[float, float] | None) -> Estimate:
        """The estimate; its interval goes no further than the metric, which t knows nothing of."""
        found = self.estimate
        if bounds is None:
            return found
        low, high = max(found["low"], bounds[0]), min(found["high"], bounds[1])
        return {**found, "low": low, "high": high}

    @property
    def seedless(self) -> bool:
        """Whether every seed came out the same, as when the same prompts meet the same model."""
        means = [one["mean"] for one in self.by_seed.values()]
        return max(means) - min(means) < 1e-9

    @property
    def n(self) -> int:
        """The number of observations in each seed: the fewest."""
        return min(one["n"] for one in self.by_seed.values())


@dataclass(frozen=True)
class Made:
    """A variant's run in one seed: the hash that its last stage was made under, and its cost."""

    variant: str
    seed: int
    hash: str
    stage: str
    seconds: float  # of all its stages, shared ones too


@dataclass(frozen=True)
class Result:
    """All that a page, a figure or a claim is made from. ``notes`` stand under the table."""

    study: str
    seeds: Sequence[int]
    file: str
    overrides: Sequence[str]
    model: str
    command: str
    version: str
    cells: Sequence[Cell]
    runs: Sequence[Made]
    notes: Sequence[str] = field(default_factory=list)
    extra: Mapping[str, Any] = field(default_factory=dict)

    def cell(self, line: str, metric: str, x: float = 0.0) -> Cell | None:
        """The one cell of that name, None if it was not measured."""
        for cell in self.cells:
            if (cell.line, cell.metric) == (line, metric) and math.isclose(cell.x, x):
                return cell
        return None

    def line(self, line: str, metric: str) -> list[Cell]:
        """A line's cells in the order of x."""
        own = [cell for cell in self.cells if (cell.line, cell.metric) == (line, metric)]
        return sorted(own, key=lambda cell: cell.x)

    def lines(self, metrics: Iterable[str]) -> list[str]:
        """The lines that have any of these metrics, in the order in which they were measured."""
        wanted = set(metrics)
        return list(dict.fromkeys(cell.line for cell in self.cells if cell.metric in wanted))


class Collected:
    """Gathers cells seed by seed."""

    def __init__(self) -> None:
        self._values: dict[tuple[str, str, float], dict[str, Estimate]] = {}

    def add(self, line: str, metric: str, seed: int, value: Estimate | float, x: float = 0) -> None:
        """One seed's value. A bare number has no interval of its own; a NaN is left out."""
        if not isinstance(value, dict):
            value = {"mean": value, "low": value, "high": value, "n": 1}
        if math.isfinite(value["mean"]):
            self._values.setdefault((line, metric, x), {})[str(seed)] = value

    def cells(self) -> list[Cell]:
        return [Cell(line, metric, by, x) for (line, metric, x), by in self._values.items()]


def save(result: Result, path: Path) -> None:
    """Write a result file; JSON without NaN."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(asdict(result), indent=1, ensure_ascii=False, allow_nan=False)
    path.write_text(text + "\n", encoding="utf-8")


def load(path: Path) -> Result:
    """Read a result file. Raises DataError if it is missing or broken."""
    try:
        data = json.loads(path.read_bytes())
        cells = [Cell(**cell) for cell in data.pop("cells")]
        runs = [Made(**made) for made in data.pop("runs")]
        return Result(cells=cells, runs=runs, **data)
    except OSError:
        raise DataError(f"{path}: no such result; run `cai study` for it first") from None
    except (ValueError, TypeError, KeyError) as error:
        raise DataError(f"{path}: not a study's result ({error}); run the study again") from None


def load_all(folder: Path) -> dict[str, Result]:
    """Every result under a study's folder, by name. Raises UserError if there is none."""
    files = sorted((folder / RESULTS).glob("*.json"))
    if not files:
        raise UserError(f"{folder / RESULTS}: no results; run `cai study all --out {folder}`")
    return {path.stem: load(path) for path in files}
