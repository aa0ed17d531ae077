"""Intervals against scipy's own, and against what they promise: coverage."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats as reference
from statsmodels.stats.proportion import proportion_confint

from constitutional_ai.stats import intervals as stats


@given(st.integers(1, 400), st.data())
def test_share_equals_scipys_wilson(n: int, data: st.DataObject) -> None:
    k = data.draw(st.integers(0, n))
    ours = stats.share([True] * k + [False] * (n - k))
    theirs = reference.binomtest(k, n).proportion_ci(0.95, method="wilson")
    assert ours["mean"] == pytest.approx(k / n)
    assert (ours["low"], ours["high"]) == pytest.approx((theirs.low, theirs.high), abs=1e-12)
    assert 0 <= ours["low"] <= ours["mean"] <= ours["high"] <= 1
    assert ours["n"] == n


def test_share_of_nothing_true_still_has_a_width() -> None:
    estimate = stats.share([False] * 300)
    assert estimate["low"] == 0
    assert 0.01 < estimate["high"] < 0.015


def test_mean_is_seeded_and_close_to_scipys_bootstrap() -> None:
    values = np.random.default_rng(0).beta(2, 5, size=120).tolist()
    ours = stats.mean(values, seed=1)
    assert ours == stats.mean(values, seed=1)
    assert ours != stats.mean(values, seed=2)
    theirs = reference.bootstrap(
        (values,), np.mean, method="percentile", rng=np.random.default_rng(3), n_resamples=20_000
    ).confidence_interval
    assert (ours["low"], ours["high"]) == pytest.approx((theirs.low, theirs.high), abs=0.004)


def test_mean_covers_the_truth_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(5)
    samples = rng.choice([0.0, 1.0, 4.0], p=[0.5, 0.3, 0.2], size=(300, 80))
    intervals = [stats.mean(sample.tolist(), seed=k) for k, sample in enumerate(samples)]
    covered = np.mean([i["low"] <= 1.1 <= i["high"] for i in intervals])
    assert 0.90 <= covered <= 0.98


@given(st.floats(0, 4), st.integers(1, 30))
def test_mean_of_equal_values_contains_itself(value: float, n: int) -> None:
    estimate = stats.mean([value] * n, seed=0)
    assert estimate["low"] <= estimate["mean"] <= estimate["high"]
    assert estimate["mean"] == pytest.approx(value)


def test_over_seeds_equals_scipys_t_interval() -> None:
    values = [0.71, 0.78, 0.84]
    theirs = reference.ttest_1samp(values, 0).confidence_interval(0.95)
    ours = stats.over_seeds(values)
    assert (ours["low"], ours["high"]) == pytest.approx((theirs.low, theirs.high))


def test_one_seed_has_no_interval() -> None:
    estimate = stats.over_seeds([0.5])
    assert estimate["mean"] == 0.5
    assert math.isnan(estimate["low"]) and math.isnan(estimate["high"])


@pytest.mark.parametrize("values", [[], [math.nan], [math.inf, 0.0]])
def test_what_is_no_observation_is_no_score(values: list[float]) -> None:
    for estimate in (lambda: stats.mean(values, 0), lambda: stats.over_seeds(values)):
        with pytest.raises(ValueError, match="an estimate needs"):
            estimate()
    with pytest.raises(ValueError, match="an estimate needs"):
        stats.share([])


@given(st.floats(0, 1), st.integers(1, 500))
def test_wilson_is_statsmodels(share: float, n: int) -> None:
    low, high = proportion_confint(share * n, n, method="wilson")
    assert stats.wilson(share, n) == pytest.approx((max(low, 0), min(high, 1)), abs=1e-9)
