"""Every interval that a score, a table or a plot carries: 95 %, two-sided.

Shares get Wilson's interval (1927), which stays honest at 0 and 1; means of bounded scores get the
bootstrap's percentile interval; means over a few seeds get Student's t. No interval here speaks of
anything but the sampling named: prompts and answers in an evaluation, seeds in a study.
"""

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import TypedDict

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

LEVEL = 0.95
Z = float(special.ndtri((1 + LEVEL) / 2))  # 1.96
RESAMPLES = 2000


class Estimate(TypedDict):
    """``mean`` of ``n`` observations, with its 95 % interval from ``low`` to ``high``."""

    mean: float
    low: float
    high: float
    n: int


def share(flags: Iterable[bool]) -> Estimate:
    """The share of true flags. Raises ValueError without any: no score is not a score of 0.

    >>> share([True] * 3 + [False])["mean"]
    0.75
    """
    observed = list(flags)
    return share_of(sum(observed), len(observed))


def share_of(count: int, n: int) -> Estimate:
    """The share ``count`` of ``n``. Raises ValueError where n is 0."""
    if not n:
        raise ValueError("an estimate needs at least one observation")
    low, high = wilson(count / n, n)
    return {"mean": count / n, "low": low, "high": high, "n": n}


def share_by(flags: Iterable[tuple[str, bool]]) -> dict[str, Estimate]:
    """The share of true flags by their key, keys in order.

    >>> {key: share["mean"] for key, share in share_by([("b", True), ("a", False)]).items()}
    {'a': 0.0, 'b': 1.0}
    """
    groups: defaultdict[str, list[bool]] = defaultdict(list)
    for key, flag in flags:
        groups[key].append(flag)
    return {key: share(groups[key]) for key in sorted(groups)}


def wilson(mean: float, n: float, z: float = Z) -> tuple[float, float]:
    """The interval of a share ``mean`` of ``n`` observations; ``n`` need not be whole.

    ``z`` is the quantile that it goes by: Student's t where the error was estimated from few.
    """
    centre = (mean + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * math.sqrt(mean * (1 - mean) / n + z**2 / (4 * n**2))
    # At 0 and 1 the interval ends exactly there; the formula misses by a rounding.
    low = 0.0 if mean == 0 else max(0.0, centre - half)
    high = 1.0 if mean == 1 else min(1.0, centre + half)
    return low, high


def mean(values: Iterable[float], seed: int) -> Estimate:
    """The mean of bounded scores, its interval by a bootstrap that ``seed`` decides."""
    observed = list(values)
    n, centre = _mean(observed)
    rows = resamples(n, np.random.default_rng(seed))
    low, high = percentiles(np.asarray(observed, dtype=float)[rows].mean(axis=1))
    # All values equal: the mean of copies can differ from the value in the last bit.
    return {
        "mean": centre,
        "low": min(float(low), centre),
        "high": max(float(high), centre),
        "n": n,
    }


def resamples(n: int, rng: np.random.Generator, times: int = RESAMPLES) -> NDArray[np.int64]:
    """The rows of ``times`` bootstrap samples of ``n`` observations; [times, n]."""
    return rng.integers(n, size=(times, n))


def percentiles(drawn: ArrayLike) -> NDArray[np.float64]:
    """The interval's ends from a bootstrap's draws, over the first axis; nan draws are left out."""
    draws = np.asarray(drawn, dtype=np.float64)
    return np.asarray(np.nanquantile(draws, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=0))


def over_seeds(values: Sequence[float]) -> Estimate:
    """The mean over repeated runs, by Student's t; one alone has no interval (low = high = nan)."""
    n, centre = _mean(values)
    if n == 1:
        return {"mean": centre, "low": math.nan, "high": math.nan, "n": 1}
    half = (
        float(special.stdtrit(n - 1, (1 + LEVEL) / 2))
        * float(np.std(values, ddof=1))
        / math.sqrt(n)
    )
    return {"mean": centre, "low": centre - half, "high": centre + half, "n": n}


def _mean(values: Sequence[float]) -> tuple[int, float]:
    if not values:
        raise ValueError("an estimate needs at least one observation")
    if not all(math.isfinite(value) for value in values):
        raise ValueError("an estimate needs finite observations")
    return len(values), math.fsum(values) / len(values)
