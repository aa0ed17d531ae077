"""Do probabilities mean what they say? Agreement, calibration error, Brier score, temperature.

``delta`` are log-odds of each pair: r(chosen) − r(rejected) of a reward model, or a judge's. ``p``
is the soft label P(chosen better).
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.special import expit, logit


def agreement(delta: Sequence[float], p: Sequence[float], margin: float = 0.0) -> dict[str, float]:
    """The share of pairs on the label's side, among labels further than ``margin`` from 0.5."""
    clear = [(d, q) for d, q in zip(delta, p, strict=True) if abs(q - 0.5) > margin]
    right = sum((d > 0) == (q > 0.5) for d, q in clear)
    return {"accuracy": right / len(clear) if clear else float("nan"), "n": len(clear)}


def calibration(delta: Sequence[float], p: Sequence[float], bins: int = 10) -> dict[str, Any]:
    """Expected calibration error of σ(Δ) against soft labels, and the bins of its diagram.

    Every pair counts in both directions, (Δ, p) and (−Δ, 1 − p): which answer is called chosen
    follows the label, and would bend the diagram.
    """
    predicted = expit(np.concatenate([delta, np.negative(delta)]))
    labels = np.concatenate([p, 1 - np.asarray(p)])
    error, table = reliability(predicted, labels, bins)
    rows = [{"predicted": b.predicted, "observed": b.observed, "n": b.n} for b in table]
    return {"ece": error, "bins": rows}


class Bin(NamedTuple):
    """One bar of a reliability diagram: means over the pairs whose prediction falls there."""

    number: int  # from 0, by rising prediction
    predicted: float
    observed: float
    n: int


def reliability(
    predicted: Sequence[float] | NDArray[np.float64],
    observed: Sequence[float] | NDArray[np.float64],
    bins: int,
) -> tuple[float, list[Bin]]:
    """Expected calibration error of probabilities, and the bins that are not empty.

    ECE = Σ (n_bin / n) |mean observed − mean predicted| over bins of equal width from 0 to 1 (Guo
    et al. 2017, arXiv 1706.04599); nan without any prediction.
    """
    p, seen = np.asarray(predicted, dtype=float), np.asarray(observed, dtype=float)
    which = np.minimum((p * bins).astype(int), bins - 1)
    table = [
        Bin(b, float(p[which == b].mean()), float(seen[which == b].mean()), int(members))
        for b, members in enumerate(np.bincount(which, minlength=bins))
        if members
    ]
    gaps = sum(b.n * abs(b.observed - b.predicted) for b in table)
    return (gaps / len(p) if len(p) else float("nan")), table


def measured(
    p: Sequence[float], labels: Sequence[float], temperature: float = 1.0
) -> dict[str, Any]:
    """``calibration`` of probabilities divided by a temperature, with their Brier score."""
    delta = np.asarray(log_odds(p)) / temperature
    errors = expit(delta) - np.asarray(labels)
    brier = float(np.mean(errors**2)) if len(labels) else float("nan")
    return {**calibration(delta.tolist(), labels), "brier": brier, "n": len(labels)}


NEAREST = 1e-6  # probabilities are kept this far from 0 and 1, whose log-odds are infinite


def log_odds(p: Sequence[float]) -> list[float]:
    return [float(value) for value in logit(np.clip(p, NEAREST, 1 - NEAREST))]


TEMPERATURES = (0.1, 10.0)  # where labels are all right or all chance the best has no bound


def fit_temperature(delta: Sequence[float], p: Sequence[float]) -> float:
    """The divisor of Δ, in ``TEMPERATURES``, that gives soft labels the highest likelihood."""
    d, q = np.asarray(delta), np.asarray(p)

    def loss(log_temperature: float) -> float:
        z = d / np.exp(log_temperature)
        return float(np.mean(q * np.logaddexp(0, -z) + (1 - q) * np.logaddexp(0, z)))

    best = minimize_scalar(loss, bounds=np.log(TEMPERATURES), method="bounded")
    return float(np.exp(best.x))
