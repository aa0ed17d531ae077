"""Agreement, calibration error and temperature on numbers whose answers are known."""

import numpy as np
import pytest
from scipy.special import expit, logit
from sklearn.calibration import calibration_curve

from constitutional_ai.stats.calibration import agreement, calibration, fit_temperature


def test_a_model_that_gives_the_labels_back_is_calibrated() -> None:
    p = np.random.default_rng(0).uniform(0.05, 0.95, 200)
    assert calibration(logit(p), p)["ece"] == pytest.approx(0, abs=1e-12)


def test_calibration_error_by_hand() -> None:
    # σ(Δ) = .75 twice, labels .55 and .65: the gap is .15 in the bin of .75 and in that of .25
    found = calibration([logit(0.75)] * 2, [0.55, 0.65])
    assert found["ece"] == pytest.approx(0.15)
    assert [(row["n"], row["predicted"], row["observed"]) for row in found["bins"]] == [
        (2, pytest.approx(0.25), pytest.approx(0.4)),
        (2, pytest.approx(0.75), pytest.approx(0.6)),
    ]


def test_bins_are_sklearns_where_labels_are_hard() -> None:
    rng = np.random.default_rng(1)
    delta, label = rng.normal(size=300), rng.integers(0, 2, 300)
    found = calibration(delta, label)["bins"]
    both = np.concatenate([label, 1 - label])
    observed, predicted = calibration_curve(both, expit(np.concatenate([delta, -delta])), n_bins=10)
    assert [row["observed"] for row in found] == pytest.approx(list(observed))
    assert [row["predicted"] for row in found] == pytest.approx(list(predicted))


def test_calling_the_other_answer_chosen_changes_nothing() -> None:
    rng = np.random.default_rng(2)
    delta, p = rng.normal(size=50), rng.uniform(size=50)
    assert calibration(-delta, 1 - p)["ece"] == pytest.approx(calibration(delta, p)["ece"])


def test_the_temperature_of_an_overconfident_model_is_found() -> None:
    p = np.random.default_rng(3).uniform(0.1, 0.9, 500)
    assert fit_temperature(3.0 * logit(p), p) == pytest.approx(3.0, rel=1e-3)


def test_agreement_leaves_out_labels_near_a_half() -> None:
    delta, p = [1.0, -1.0, 1.0, -1.0], [0.9, 0.9, 0.55, 0.05]
    assert agreement(delta, p) == {"accuracy": 0.75, "n": 4}
    assert agreement(delta, p, margin=0.1) == {"accuracy": pytest.approx(2 / 3), "n": 3}
