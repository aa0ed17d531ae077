"""Bradley and Terry's model against choix, and what its intervals promise."""

import choix
import numpy as np
import pytest

from constitutional_ai.errors import DataError
from constitutional_ai.stats import elo
from constitutional_ai.stats.elo import ELO, Game, bradley_terry, frontier, ratings


def test_strengths_are_choix() -> None:
    rng = np.random.default_rng(0)
    wins = rng.integers(1, 40, size=(5, 5)).astype(float)
    np.fill_diagonal(wins, 0)
    theirs = choix.ilsr_pairwise_dense(wins, tol=1e-12)
    ours = bradley_terry(wins)
    assert ours[0] == 0
    assert ours - ours.mean() == pytest.approx(theirs - theirs.mean(), abs=1e-6)


def test_lopsided_games_converge() -> None:
    wins = np.array([[0, 1e-4, 0], [5000, 0, 1e-3], [0, 9000, 0]])
    ours = bradley_terry(wins)
    theirs = [0, np.log(5000 / 1e-4), np.log(5000 / 1e-4) + np.log(9000 / 1e-3)]
    assert ours == pytest.approx(np.array(theirs), rel=1e-6)  # a chain has a closed form


def test_two_models_are_the_log_odds() -> None:
    games = [Game(str(k), "a", "b", float(k % 4 == 0)) for k in range(40)]
    found = ratings(games, ["a", "b"], seed=0)
    assert found.models["a"] == {"mean": 0, "low": 0, "high": 0, "n": 40}
    assert found.models["b"]["mean"] == pytest.approx(400 * np.log10(3))
    assert not found.smoothed


def simulated(rng: np.random.Generator, prompts: int) -> list[Game]:
    strengths = {"a": 0.0, "b": 0.6, "c": -0.4}
    games = []
    for k in range(prompts):
        for i, j in (("a", "b"), ("a", "c"), ("b", "c")):
            p = 1 / (1 + np.exp(strengths[j] - strengths[i]))
            games.append(Game(str(k), i, j, float(rng.random() < p)))
    return games


def test_intervals_cover_the_truth(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(elo, "_RESAMPLES", 80)
    rng = np.random.default_rng(1)
    covered = 0
    for trial in range(25):
        found = ratings(simulated(rng, 120), ["a", "b", "c"], seed=trial).models
        covered += found["b"]["low"] <= ELO * 0.6 <= found["b"]["high"]
        covered += found["c"]["low"] <= ELO * -0.4 <= found["c"]["high"]
    assert 0.88 <= covered / 50 <= 1.0


def test_copies_of_a_prompts_games_do_not_narrow_the_interval() -> None:
    games = simulated(np.random.default_rng(2), 60)
    once = ratings(games, ["a", "b", "c"], seed=0).models["b"]
    ten_times = ratings(games * 10, ["a", "b", "c"], seed=0).models["b"]
    assert ten_times["high"] - ten_times["low"] == pytest.approx(
        once["high"] - once["low"], rel=1e-6
    )


def test_a_model_that_always_wins_gets_a_finite_score_and_a_word() -> None:
    games = [Game(str(k), "a", "b", 0.0) for k in range(20)]
    found = ratings(games, ["a", "b"], seed=0)
    assert found.smoothed
    assert found.models["b"]["mean"] == pytest.approx(400 * np.log10(20.5 / 0.5))


def test_models_that_never_met_are_an_error() -> None:
    games = [Game("1", "a", "b", 0.5), Game("1", "c", "d", 0.5)]
    with pytest.raises(DataError, match="no verdicts link"):
        ratings(games, ["a", "b", "c", "d"], seed=0)


def test_the_frontier_keeps_what_nothing_beats() -> None:
    points = {"base": (0.1, 0.9), "rl": (0.9, 0.88), "twin": (0.9, 0.88), "evasive": (0.9, 0.1)}
    assert frontier(points) == ["rl", "twin", "base"]
