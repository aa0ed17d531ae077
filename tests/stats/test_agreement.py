"""Agreement against scikit-learn and by hand."""

import math
import random

import pytest
from sklearn.metrics import cohen_kappa_score

from constitutional_ai.stats.agreement import agreement, cohen, correlations, kappa


def test_kappa_is_that_of_scikit_learn_with_pairs_told_both_ways() -> None:
    rng = random.Random(1)
    a = [rng.choice([-1, 0, 1, 1]) for _ in range(300)]
    b = [x if rng.random() < 0.6 else rng.choice([-1, 0, 1]) for x in a]
    both_ways = [*a, *(-x for x in a)], [*b, *(-x for x in b)]
    assert kappa(a, b) == pytest.approx(cohen_kappa_score(*both_ways))


def test_kappa_of_yes_and_no_is_that_of_scikit_learn() -> None:
    a = [True, True, False, False, True, False, True, False, True]
    b = [True, False, False, True, True, False, True, True, True]
    assert cohen(a, b) == pytest.approx(cohen_kappa_score(a, b))


def test_without_ties_kappa_is_twice_the_agreement_less_one() -> None:
    assert kappa([1] * 10, [1] * 9 + [-1]) == pytest.approx(0.8)
    assert kappa([1] * 10, [-1] * 10) == pytest.approx(-1)
    assert math.isnan(kappa([0, 0], [0, 0]))


def test_agreement_has_intervals_around_its_means() -> None:
    found = agreement([1] * 100, [1] * 80 + [-1] * 20)
    assert found["raw"]["mean"] == 0.8
    assert found["kappa"]["low"] < 0.6 < found["kappa"]["high"]
    assert agreement([], []) == {}


def test_correlations_take_rows_that_have_both_and_say_where_there_is_none() -> None:
    rows = [{"a": float(n), "b": -2.0 * n, "c": 1.0} for n in range(5)] + [{"a": 9.0}]
    matrix = correlations(rows, ["a", "b", "c"])
    assert matrix[0][1] == pytest.approx(-1)
    assert matrix[0][0] == pytest.approx(1)
    assert matrix[0][2] is None
    assert correlations(rows[:2], ["a", "b"])[0][1] is None
