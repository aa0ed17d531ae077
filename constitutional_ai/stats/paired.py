"""Statistics of an evaluation: several samples a prompt, paired models, many slices, how many rows.

Prompts were drawn, so every interval here counts prompts. Samples of one prompt are a cluster
(Miller 2024, arXiv 2411.00640), and two models are compared on the prompts that both answered.
Plain intervals, one answer a prompt, are in stats/intervals.py.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
from scipy import special

from constitutional_ai.stats import intervals as stats
from constitutional_ai.stats.intervals import LEVEL, Estimate, Z

POWER = 0.8
INDEPENDENT = 0.5  # share of prompts on which two unrelated models of one rate, one half, differ
_EXACT = 12  # prompts up to which every flip of the signs is tried
_FLIPS = 9999

Clusters = Mapping[str, Sequence[float]]  # {prompt: the values of its samples}


def clustered_mean(clusters: Clusters, seed: int) -> Estimate:
    """The mean over all values; n counts values. One sample a prompt: the plain bootstrap.

    Otherwise Student's t on the cluster-robust standard error, with the G / (G − 1) correction.
    Raises ValueError without a value, or with one cluster alone, which tells no error.
    """
    values = [value for group in clusters.values() for value in group]
    if all(len(group) == 1 for group in clusters.values()):
        return stats.mean(values, seed)
    groups = len(clusters)
    if groups < 2:
        raise ValueError("samples of one prompt alone say nothing about other prompts")
    error = math.sqrt(groups / (groups - 1) * _cluster_variance(clusters))
    half = float(special.stdtrit(groups - 1, (1 + LEVEL) / 2)) * error
    centre = math.fsum(values) / len(values)
    return {"mean": centre, "low": centre - half, "high": centre + half, "n": len(values)}


def clustered_share(clusters: Mapping[str, Sequence[bool]]) -> Estimate:
    """The share of true flags; n counts flags. One sample a prompt: Wilson's interval itself.

    Otherwise Wilson's at the effective number of answers, p(1−p) / SE², which clustering lowers,
    with the G / (G − 1) correction and Student's t for G prompts, as for means. Where all flags
    agree, or there is one prompt alone, no error can be estimated, and only prompts are counted.
    """
    plain = stats.share(flag for group in clusters.values() for flag in group)
    p, variance, groups = plain["mean"], _cluster_variance(clusters), len(clusters)
    effective, z = float(groups), Z
    if 0 < p < 1 and variance > 0:
        effective = p * (1 - p) / variance
        if 1 < groups < plain["n"]:
            effective *= (groups - 1) / groups
            z = float(special.stdtrit(groups - 1, (1 + LEVEL) / 2))
    low, high = stats.wilson(p, min(effective, plain["n"]), z)
    return {**plain, "low": low, "high": high}


def _cluster_variance(clusters: Clusters) -> float:
    """Of the mean: Σ over clusters of (sum of deviations)² / n²; no small-sample factor."""
    n = sum(len(group) for group in clusters.values())
    centre = math.fsum(value for group in clusters.values() for value in group) / n
    sums = (math.fsum(value - centre for value in group) for group in clusters.values())
    return math.fsum(total**2 for total in sums) / n**2


@dataclass(frozen=True)
class Difference:
    """Second minus first, over the ``n`` prompts that both have; ``alone`` counts the others."""

    mean: float
    low: float
    high: float
    n: int
    p: float
    test: str  # "mcnemar", exact; or "sign-flip"
    alone: int

    def estimate(self) -> Estimate:
        return {"mean": self.mean, "low": self.low, "high": self.high, "n": self.n}


def paired(first: Clusters, second: Clusters, seed: int) -> Difference:
    """Compare two models on the prompts that both answered.

    Truth values, one a prompt: McNemar's exact test, and Agresti and Min's interval (2005), which
    has a width where no prompt differs. All else: the test that flips the signs of the prompts'
    differences, which assumes no distribution, and Student's t interval over prompts. Raises
    ValueError without two common prompts.
    """
    both = [(first[prompt], second[prompt]) for prompt in first if prompt in second]
    alone, n = len(set(first) ^ set(second)), len(both)
    if n < 2:
        raise ValueError("a paired comparison needs two prompts that both models answered")
    gaps = np.array([math.fsum(b) / len(b) - math.fsum(a) / len(a) for a, b in both])
    lost, gained = int((gaps < 0).sum()), int((gaps > 0).sum())
    flags = all({*a, *b} <= {0.0, 1.0} for a, b in both)
    if flags and all(len(a) == len(b) == 1 for a, b in both):
        interval, p = agresti_min(lost, gained, n), mcnemar(lost, gained)
        return Difference((gained - lost) / n, *interval, n, p, "mcnemar", alone)
    over_prompts = stats.over_seeds(gaps.tolist())  # Student's t
    interval = over_prompts["low"], over_prompts["high"]
    if flags and np.ptp(gaps) == 0 and abs(gaps[0]) in (0, 1):
        # All samples of all prompts agree: as above, one flag a prompt.
        interval = agresti_min(lost, gained, n)
    p = sign_flip(gaps, seed)
    return Difference(over_prompts["mean"], *interval, n, p, "sign-flip", alone)


def mcnemar(lost: int, gained: int) -> float:
    """Two-sided exact p that gains and losses are equally likely, by the binomial.

    >>> mcnemar(0, 6)
    0.03125
    """
    n = lost + gained
    if n == 0:
        return 1.0
    return min(1.0, 2 * float(special.bdtr(min(lost, gained), n, 0.5)))


def agresti_min(lost: int, gained: int, n: int) -> tuple[float, float]:
    """95 % interval of (gained − lost) / n: Wald's with half a prompt added to all four cells."""
    b, c, total = lost + 0.5, gained + 0.5, n + 2
    centre = (c - b) / total
    half = Z * math.sqrt((b + c) - (c - b) ** 2 / total) / total
    return max(-1.0, centre - half), min(1.0, centre + half)


def sign_flip(gaps: "np.ndarray[Any, Any]", seed: int) -> float:
    """Two-sided p that the gaps are symmetric about 0: exact for few prompts, else by draws."""
    observed = abs(gaps.mean()) - 1e-12
    if len(gaps) <= _EXACT:
        signs = np.array(list(product((-1.0, 1.0), repeat=len(gaps))))
        return float((abs(signs @ gaps / len(gaps)) >= observed).mean())
    rng, reached = np.random.default_rng(seed), 0
    for _ in range(0, _FLIPS, 1111):  # in parts, for the memory of long files
        signs = rng.choice((-1.0, 1.0), size=(1111, len(gaps)))
        reached += int((abs(signs @ gaps / len(gaps)) >= observed).sum())
    return (1 + reached) / (1 + _FLIPS)


def holm(ps: Sequence[float]) -> list[float]:
    """Holm's step-down adjustment (1979), in the order given: the family-wise error stays at α.

    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    adjusted = [0.0] * len(ps)
    reached = 0.0
    for rank, place in enumerate(sorted(range(len(ps)), key=lambda k: ps[k])):
        reached = max(reached, min(1.0, (len(ps) - rank) * ps[place]))
        adjusted[place] = reached
    return adjusted


def prompts_needed(difference: float, discordant: float = INDEPENDENT, power: float = POWER) -> int:
    """How many prompts show a paired difference of two shares with ``power`` (Connor 1987).

    ``discordant`` is the share of prompts on which the two models differ; the default is that of
    unrelated models at one half, the worst case. Raises ValueError for an impossible difference.
    """
    if not 0 < difference <= max(discordant, difference) <= 1:
        raise ValueError("a difference lies between 0 and 1")
    psi = max(discordant, difference)  # what differs on average differs at least so often
    reach = Z * math.sqrt(psi) + special.ndtri(power) * math.sqrt(psi - difference**2)
    return math.ceil((float(reach) / difference) ** 2)


def least_difference(
    prompts: int, discordant: float = INDEPENDENT, power: float = POWER
) -> float | None:
    """The smallest difference of two shares that this many prompts show; None where none is."""
    low, high = 0.0, 1.0
    if prompts < prompts_needed(1.0, discordant, power):
        return None
    while high - low > 1e-6:
        middle = (low + high) / 2
        if prompts_needed(middle, discordant, power) <= prompts:
            high = middle
        else:
            low = middle
    return high
