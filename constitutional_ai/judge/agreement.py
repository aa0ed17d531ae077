"""How far two raters agree, and what raters would reach that read nothing.

A rating says of a pair which answer won: 1 the better one by the label, −1 the other, 0 neither.
"The better one" is no name that a rater could know, so chance agreement is counted with every pair
told in both directions; for two raters without ties Cohen's kappa is then 2 · agreement − 1.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from constitutional_ai.data.labelled import Labelled
from constitutional_ai.refusal import refuses
from constitutional_ai.stats import intervals as stats
from constitutional_ai.stats.intervals import Estimate

_RESAMPLES = 1000


def rating(p: float) -> int:
    """The winner at P(better).

    >>> rating(0.9), rating(0.5), rating(0.2)
    (1, 0, -1)
    """
    return (p > 0.5) - (p < 0.5)


def kappa(first: Sequence[int], second: Sequence[int]) -> float:
    """Cohen's kappa of two raters (Cohen 1960); nan where chance alone would agree always."""
    a, b = np.asarray(first), np.asarray(second)
    same = float(np.mean(a == b))
    ties = float(np.mean(a == 0)) * float(np.mean(b == 0))
    wins = 2 * float(np.mean(a != 0)) / 2 * float(np.mean(b != 0)) / 2
    chance = ties + wins
    return (same - chance) / (1 - chance) if chance < 1 else math.nan


def agreement(first: Sequence[int], second: Sequence[int], seed: int = 0) -> dict[str, Any]:
    """Raw agreement by Wilson's interval, kappa by a bootstrap over pairs. {} without pairs."""
    if not first:
        return {}
    a, b = np.asarray(first), np.asarray(second)
    centre = kappa(first, second)
    rows = np.random.default_rng(seed).integers(len(a), size=(_RESAMPLES, len(a)))
    drawn = [kappa(a[row].tolist(), b[row].tolist()) for row in rows]
    found: dict[str, Any] = {"raw": stats.share((a == b).tolist())}
    if math.isfinite(centre):
        low, high = np.nanquantile(drawn, [(1 - stats.LEVEL) / 2, (1 + stats.LEVEL) / 2])
        found["kappa"] = Estimate(mean=centre, low=float(low), high=float(high), n=len(a))
    return found


def correlations(
    rows: Sequence[dict[str, float]], names: Sequence[str]
) -> list[list[float | None]]:
    """Pearson's correlation of each two columns, over the rows that have both; None for fewer than
    three such rows, or where one does not vary.
    """
    return [[_correlation(rows, a, b) for b in names] for a in names]


def _correlation(rows: Sequence[dict[str, float]], a: str, b: str) -> float | None:
    both = np.asarray([(row[a], row[b]) for row in rows if a in row and b in row])
    if len(both) < 3 or (both.std(axis=0) < 1e-12).any():
        return None
    return float(np.corrcoef(both.T)[0, 1])


# Raters that read nothing: they take the answer for which this is higher.
BLIND: dict[str, Callable[[str], float]] = {
    "the shorter answer": lambda answer: -len(answer),
    "the longer answer": lambda answer: len(answer),
    "the answer that opens like a refusal": lambda answer: float(refuses(answer)),
    "the answer that does not": lambda answer: -float(refuses(answer)),
}


def floors(rows: Sequence[Labelled]) -> dict[str, dict[str, Any]]:
    """What each blind rater reaches: strictly right of all pairs, and right of those it decides.

    All pairs count, also those that no judge could be asked about.
    """
    found: dict[str, dict[str, Any]] = {}
    for name, value in BLIND.items():
        ratings = [rating(0.5 + value(r.better) - value(r.worse)) for r in rows]
        decided = [r for r in ratings if r]
        found[name] = {
            "right": stats.share(r == 1 for r in ratings),
            "decided": len(decided) / len(rows),
            "right_of_decided": stats.share(r == 1 for r in decided) if decided else None,
        }
    return found
