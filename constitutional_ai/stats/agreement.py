"""How far two raters agree: raw agreement, Cohen's kappa, correlation.

Of a yes or no ``yes_no`` gives the usual kappa. The rest is about pairs, where a rating says which
answer won: 1 the better one by the label, −1 the other, 0 neither. No rater could know which answer
is called "better", so chance agreement is counted with every pair told in both directions. For two
raters without ties kappa is then 2 · agreement − 1.
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np

from constitutional_ai.stats.intervals import Estimate, percentiles, resamples, share

_RESAMPLES = 1000


def rating(p: float) -> int:
    """The winner at P(better).

    >>> rating(0.9), rating(0.5), rating(0.2)
    (1, 0, -1)
    """
    return (p > 0.5) - (p < 0.5)


def _beyond(same: float, chance: float) -> float:
    """Agreement beyond chance, as a share of what there is beyond it."""
    return (same - chance) / (1 - chance) if chance < 1 else math.nan


def kappa(first: Sequence[int], second: Sequence[int]) -> float:
    """Cohen's kappa of two raters (Cohen 1960); nan where chance alone would always agree."""
    a, b = np.asarray(first), np.asarray(second)
    same = float(np.mean(a == b))
    ties = float(np.mean(a == 0)) * float(np.mean(b == 0))
    wins = 2 * float(np.mean(a != 0)) / 2 * float(np.mean(b != 0)) / 2
    chance = ties + wins
    return _beyond(same, chance)


def agreement(first: Sequence[int], second: Sequence[int], seed: int = 0) -> dict[str, Estimate]:
    """``raw`` by Wilson's interval, ``kappa`` by a bootstrap over pairs. {} without pairs."""
    if not first:
        return {}
    a, b = np.asarray(first), np.asarray(second)
    centre = kappa(first, second)
    measured = {"raw": share((a == b).tolist())}
    if math.isfinite(centre):
        rows = resamples(len(a), np.random.default_rng(seed), _RESAMPLES)
        low, high = percentiles([kappa(a[row].tolist(), b[row].tolist()) for row in rows])
        measured["kappa"] = Estimate(mean=centre, low=float(low), high=float(high), n=len(a))
    return measured


def cohen(first: Sequence[bool], second: Sequence[bool]) -> float:
    """Cohen's kappa of two raters who say yes or no; nan where chance alone would always agree."""
    a, b = np.asarray(first, dtype=float), np.asarray(second, dtype=float)
    same = float(np.mean(a == b))
    chance = float(a.mean() * b.mean() + (1 - a.mean()) * (1 - b.mean()))
    return _beyond(same, chance)


def yes_no(first: Sequence[bool], second: Sequence[bool], seed: int = 0) -> dict[str, Estimate]:
    """``raw`` by Wilson's interval, ``kappa`` by a bootstrap over items. {} without items.

    Kappa is left out where both raters always say the same one thing: it is not defined there.
    """
    if not first:
        return {}
    a, b = np.asarray(first), np.asarray(second)
    measured = {"raw": share((a == b).tolist())}
    centre = cohen(first, second)
    if math.isfinite(centre):
        rows = resamples(len(a), np.random.default_rng(seed), _RESAMPLES)
        low, high = percentiles([cohen(a[row].tolist(), b[row].tolist()) for row in rows])
        measured["kappa"] = Estimate(mean=centre, low=float(low), high=float(high), n=len(a))
    return measured


def correlations(
    rows: Sequence[Mapping[str, float]], names: Sequence[str]
) -> list[list[float | None]]:
    """Pearson's correlation of each two columns, over the rows that have both.

    None for fewer than three such rows, or where one column does not vary.
    """
    return [[_correlation(rows, a, b) for b in names] for a in names]


def _correlation(rows: Sequence[Mapping[str, float]], a: str, b: str) -> float | None:
    both = np.asarray([(row[a], row[b]) for row in rows if a in row and b in row])
    if len(both) < 3 or (both.std(axis=0) < 1e-12).any():
        return None
    return float(np.corrcoef(both.T)[0, 1])
