"""Elo scores by Bradley and Terry's model, and the frontier of harmlessness and helpfulness.

The model: P(i better than j) = σ(s_i − s_j). Strengths have maximum likelihood, by Newton's method.
A soft verdict of 0.7 counts as 0.7 of a win and 0.3 of a loss. Elo is 400 / ln 10 times the
strength, with the first model at 0. Intervals come from a bootstrap over prompts, refitted each
time.
"""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse.csgraph import connected_components

from constitutional_ai.errors import DataError
from constitutional_ai.stats.intervals import Estimate, percentiles

ELO = 400 / math.log(10)  # points of one unit of strength
_RESAMPLES = 500
_TIE = 0.5  # wins given to both sides of a pair where no finite strengths are
Wins = NDArray[np.float64]  # [M, M]: how often the row's model beat the column's


@dataclass(frozen=True)
class Game:
    """One verdict: P(``first`` better than ``second``) on a prompt."""

    prompt: str
    first: str
    second: str
    p_first: float


@dataclass(frozen=True)
class Ratings:
    """Elo by model; each n is the number of games.

    ``smoothed``: some model always won, or never, and had no finite score; so half a win was added
    to both sides of each pair.
    """

    models: dict[str, Estimate]
    smoothed: bool


def ratings(games: Sequence[Game], models: Sequence[str], seed: int) -> Ratings:
    """Elo above the first of ``models``. Raises DataError where games do not link all of them."""
    place = {model: k for k, model in enumerate(models)}
    prompts = {game.prompt: None for game in games}
    number = {prompt: k for k, prompt in enumerate(prompts)}
    by_prompt = np.zeros((len(prompts), len(models), len(models)))
    for game in games:
        i, j, k = place[game.first], place[game.second], number[game.prompt]
        by_prompt[k, i, j] += game.p_first
        by_prompt[k, j, i] += 1 - game.p_first
    wins = by_prompt.sum(axis=0)
    if connected_components(wins + wins.T, directed=False)[0] > 1:
        raise DataError("no verdicts link all models; compare each with the first: --pairs first")
    smoothed = not _has_maximum(wins)
    centre = ELO * bradley_terry(_tied(wins) if smoothed else wins)
    rng = np.random.default_rng(seed)
    draws = rng.multinomial(len(prompts), [1 / len(prompts)] * len(prompts), size=_RESAMPLES)
    resampled = (np.tensordot(weights, by_prompt, axes=1) for weights in draws)
    low, high = percentiles(
        [ELO * bradley_terry(w if _has_maximum(w) else _tied(w, wins)) for w in resampled]
    )
    played = Counter(model for game in games for model in {game.first, game.second})
    return Ratings(
        {
            model: {
                "mean": float(centre[k]),
                "low": float(min(low[k], centre[k])),
                "high": float(max(high[k], centre[k])),
                "n": played[model],
            }
            for k, model in enumerate(models)
        },
        smoothed,
    )


def bradley_terry(wins: Wins) -> NDArray[np.float64]:
    """Strengths [M], the first 0, that maximise Σ wins_ij · log σ(s_i − s_j).

    The likelihood is concave. Steps are cut to 2: beyond that σ is flat, and Newton overshoots. The
    games must give a maximum (Ford 1957): whenever the models are split in two groups, each group
    has won over the other.
    """
    games = wins + wins.T
    strengths = np.zeros(len(wins))
    for _ in range(200):
        p = 0.5 * (1 + np.tanh((strengths[:, None] - strengths[None, :]) / 2))
        slope = (wins - games * p).sum(axis=1)[1:]
        curve = games * p * (1 - p)
        hessian = (np.diag(curve.sum(axis=1)) - curve)[1:, 1:]
        step = np.clip(np.linalg.solve(hessian, slope), -2, 2)
        strengths[1:] += step
        if len(step) == 0 or np.abs(step).max() < 1e-10:
            break
    return strengths


def _has_maximum(wins: Wins) -> bool:
    return bool(connected_components(wins > 0, connection="strong")[0] == 1)


def _tied(wins: Wins, played: Wins | None = None) -> Wins:
    """Half a win more for both sides of every pair that met, in ``played`` where it is given."""
    met = wins if played is None else played
    return wins + _TIE * ((met + met.T) > 0)


def frontier(points: Mapping[str, tuple[float, float]]) -> list[str]:
    """The models that no other beats in both scores, by falling first score.

    >>> frontier({"base": (0.1, 0.9), "evasive": (0.8, 0.2), "worse": (0.7, 0.1)})
    ['evasive', 'base']
    """

    def beaten(name: str) -> bool:
        x, y = points[name]
        return any(a >= x and b >= y and (a, b) != (x, y) for a, b in points.values())

    return sorted((n for n in points if not beaten(n)), key=lambda n: (-points[n][0], n))


def as_json(rated: Ratings) -> dict[str, Any]:
    return {"models": rated.models, "smoothed": rated.smoothed}
