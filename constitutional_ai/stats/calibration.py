"""Does σ(Δ) of a reward model mean what it says? Agreement, calibration error, temperature.

``delta`` is r(chosen) − r(rejected) of each pair, ``p`` the soft label P(chosen better).
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import expit


def agreement(delta: Sequence[float], p: Sequence[float], margin: float = 0.0) -> dict[str, float]:
    """The share of pairs on the label's side, among labels further than ``margin`` from 0.5."""
    clear = [(d, q) for d, q in zip(delta, p, strict=True) if abs(q - 0.5) > margin]
    right = sum((d > 0) == (q > 0.5) for d, q in clear)
    return {"accuracy": right / len(clear) if clear else float("nan"), "n": len(clear)}


def calibration(delta: Sequence[float], p: Sequence[float], bins: int = 10) -> dict[str, Any]:
    """Expected calibration error of σ(Δ) against soft labels, and the bins of its diagram.

    Every pair counts in both directions, (Δ, p) and (−Δ, 1 − p): which answer is called chosen
    follows the label, and would bend the diagram. ECE = Σ (n_bin / n) |mean label − mean σ(Δ)|
    over bins of equal width (Guo et al. 2017, arXiv 1706.04599).
    """
    predicted = expit(np.concatenate([delta, np.negative(delta)]))
    labels = np.concatenate([p, 1 - np.asarray(p)])
    which = np.minimum((predicted * bins).astype(int), bins - 1)
    table = [
        {
            "predicted": float(predicted[which == b].mean()),
            "observed": float(labels[which == b].mean()),
            "n": int((which == b).sum()),
        }
        for b in range(bins)
        if (which == b).any()
    ]
    gaps = sum(row["n"] * abs(row["observed"] - row["predicted"]) for row in table)
    return {"ece": gaps / len(labels) if len(labels) else float("nan"), "bins": table}


TEMPERATURES = (0.1, 10.0)  # where labels are all right or all chance the best has no bound


def fit_temperature(delta: Sequence[float], p: Sequence[float]) -> float:
    """The divisor of Δ, in ``TEMPERATURES``, that gives soft labels the highest likelihood."""
    d, q = np.asarray(delta), np.asarray(p)

    def loss(log_temperature: float) -> float:
        z = d / np.exp(log_temperature)
        return float(np.mean(q * np.logaddexp(0, -z) + (1 - q) * np.logaddexp(0, z)))

    found = minimize_scalar(loss, bounds=np.log(TEMPERATURES), method="bounded")
    return float(np.exp(found.x))
