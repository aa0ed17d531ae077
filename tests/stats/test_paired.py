"""Each formula against statsmodels, scipy, or what it promises in simulation."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats as scipy_stats
from statsmodels.api import OLS
from statsmodels.stats.contingency_tables import mcnemar as reference_mcnemar
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.proportion import proportion_confint

from constitutional_ai.stats import intervals as stats
from constitutional_ai.stats import paired as ours


def clusters(rng: np.random.Generator, prompts: int, samples: int) -> dict[str, list[float]]:
    """Scores that agree within a prompt, with an uneven number of samples."""
    centres = rng.normal(size=prompts)
    return {
        str(k): (centre + 0.3 * rng.normal(size=1 + (k % samples))).tolist()
        for k, centre in enumerate(centres)
    }


def test_clustered_mean_is_statsmodels_cluster_robust_error() -> None:
    made = clusters(np.random.default_rng(1), 40, 5)
    values = [v for group in made.values() for v in group]
    groups = [k for k, group in enumerate(made.values()) for _ in group]
    fitted = OLS(values, np.ones(len(values))).fit(
        cov_type="cluster", cov_kwds={"groups": groups}, use_t=True
    )
    low, high = fitted.conf_int()[0]
    found = ours.clustered_mean(made, seed=0)
    assert found["mean"] == pytest.approx(fitted.params[0])
    assert (found["low"], found["high"]) == pytest.approx((low, high))
    assert found["n"] == len(values)


def test_one_sample_a_prompt_is_the_plain_interval() -> None:
    rng = np.random.default_rng(2)
    values = rng.random(50).tolist()
    assert ours.clustered_mean({str(k): [v] for k, v in enumerate(values)}, 3) == stats.mean(
        values, 3
    )
    flags = [bool(v > 0.3) for v in values]
    found = ours.clustered_share({str(k): [flag] for k, flag in enumerate(flags)})
    assert found == pytest.approx(stats.share(flags))


def test_copies_of_an_answer_add_nothing() -> None:
    flags = [k % 3 == 0 for k in range(60)]
    copied = ours.clustered_share({str(k): [flag] * 5 for k, flag in enumerate(flags)})
    single = stats.share(flags)
    assert copied["low"] < single["low"] and copied["high"] > single["high"]  # t, not the normal
    assert (copied["low"], copied["high"]) == pytest.approx(
        (single["low"], single["high"]), abs=0.01
    )
    assert copied["n"] == 300


def test_agreement_of_all_samples_counts_prompts_alone() -> None:
    found = ours.clustered_share({str(k): [True] * 10 for k in range(20)})
    assert found["low"] == pytest.approx(proportion_confint(20, 20, method="wilson")[0])


@pytest.mark.parametrize("prompts", [5, 10, 60])
def test_clustered_shares_cover_the_truth(prompts: int) -> None:
    rng = np.random.default_rng(4)
    covered = 0
    for _ in range(1000):
        rates = rng.beta(1, 2, size=prompts)  # mean 1/3, prompts very different
        made = {str(k): (rng.random(10) < rate).tolist() for k, rate in enumerate(rates)}
        found = ours.clustered_share(made)
        covered += found["low"] <= 1 / 3 <= found["high"]
    assert 0.93 <= covered / 1000 <= 0.985  # by the normal quantile 0.87 with 5, 0.91 with 10


@given(st.integers(0, 60), st.integers(0, 60))
def test_mcnemar_is_statsmodels_exact(lost: int, gained: int) -> None:
    table = [[5, lost], [gained, 7]]
    assert ours.mcnemar(lost, gained) == pytest.approx(
        reference_mcnemar(table, exact=True).pvalue, rel=1e-9
    )


def test_agresti_min_covers_and_has_a_width_where_nothing_differs() -> None:
    rng = np.random.default_rng(5)
    covered = 0
    for _ in range(500):
        lost, gained, _ = rng.multinomial(80, [0.05, 0.15, 0.8])
        low, high = ours.agresti_min(int(lost), int(gained), 80)
        covered += low <= 0.10 <= high
    assert 0.92 <= covered / 500 <= 0.985
    low, high = ours.agresti_min(0, 0, 50)
    assert low < 0 < high


def test_sign_flips_are_scipys_permutation_test() -> None:
    rng = np.random.default_rng(6)
    few, many = rng.normal(0.6, 1, size=9), rng.normal(0.25, 1, size=60)
    for gaps, tolerance in ((few, 1e-12), (many, 0.012)):
        theirs = scipy_stats.permutation_test(
            (gaps, np.zeros_like(gaps)), lambda a, b: np.mean(a - b), permutation_type="samples",
            n_resamples=9999, rng=np.random.default_rng(7),
        )  # fmt: skip
        assert ours.sign_flip(gaps, seed=1) == pytest.approx(theirs.pvalue, abs=tolerance)


def test_sign_flip_of_no_difference_is_no_finding() -> None:
    assert ours.sign_flip(np.zeros(30), seed=0) == 1.0
    assert ours.sign_flip(np.zeros(4), seed=0) == 1.0


def test_paired_takes_the_prompts_that_both_answered() -> None:
    first = {"a": [0.0], "b": [1.0], "c": [0.0], "only first": [1.0]}
    second = {"c": [1.0], "a": [1.0], "b": [1.0], "only second": [0.0], "too": [1.0]}
    found = ours.paired(first, second, seed=0)
    assert (found.mean, found.n, found.alone) == (pytest.approx(2 / 3), 3, 3)
    assert (found.test, found.p) == ("mcnemar", 0.5)


def test_paired_averages_the_samples_of_a_prompt() -> None:
    rng = np.random.default_rng(8)
    first = {str(k): rng.random(3).tolist() for k in range(25)}
    second = {k: (np.array(v) + rng.normal(0.1, 0.2, 3)).tolist() for k, v in first.items()}
    found = ours.paired(first, second, seed=0)
    a, b = ([np.mean(v) for v in side.values()] for side in (first, second))
    theirs = scipy_stats.ttest_rel(b, a)
    interval = theirs.confidence_interval()
    assert found.test == "sign-flip"
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high))
    assert found.p == pytest.approx(theirs.pvalue, abs=0.02)


def test_samples_that_all_agree_leave_a_width() -> None:
    never, always = ({str(k): [flag] * 3 for k in range(20)} for flag in (0.0, 1.0))
    same = ours.paired(never, never, seed=0)
    assert (same.low, same.high) == ours.agresti_min(0, 0, 20) and same.p == 1.0
    gained = ours.paired(never, always, seed=0)
    assert (gained.low, gained.high) == ours.agresti_min(0, 20, 20)


def test_paired_needs_something_in_common() -> None:
    with pytest.raises(ValueError, match="both models answered"):
        ours.paired({"a": [1.0]}, {"a": [0.0], "b": [1.0]}, seed=0)


@pytest.mark.parametrize("ps", [[0.2], [0.01, 0.01, 1.0, 0.0], np.linspace(0.9, 0, 20).tolist()])
def test_holm_is_statsmodels(ps: list[float]) -> None:
    assert ours.holm(ps) == pytest.approx(multipletests(ps, method="holm")[1].tolist())


def test_the_number_of_prompts_gives_the_power_that_it_promises() -> None:
    difference, discordant = 0.12, 0.3
    n = ours.prompts_needed(difference, discordant)
    rng = np.random.default_rng(9)
    cells = [(discordant - difference) / 2, (discordant + difference) / 2, 1 - discordant]
    draws = rng.multinomial(n, cells, size=4000)
    critical = draws[:, :2].sum(axis=1)
    z = (draws[:, 1] - draws[:, 0]) / np.sqrt(np.maximum(critical, 1))
    assert np.mean(np.abs(z) > 1.96) == pytest.approx(0.80, abs=0.03)


def test_least_difference_is_the_inverse() -> None:
    for n in (30, 120, 450, 4000):
        found = ours.least_difference(n)
        assert found is not None
        assert ours.prompts_needed(found) <= n < ours.prompts_needed(found - 0.002)
    assert ours.least_difference(1) is None


@pytest.mark.parametrize("difference", [0.0, -0.1, 1.2, math.nan])
def test_a_difference_that_is_none(difference: float) -> None:
    with pytest.raises(ValueError, match="between 0 and 1"):
        ours.prompts_needed(difference)
