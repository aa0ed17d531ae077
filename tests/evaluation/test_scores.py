"""Figures from rows whose values are known."""

import pytest

from constitutional_ai.evaluation.rows import Compared
from constitutional_ai.evaluation.scores import win_rates
from constitutional_ai.stats.paired import clustered_mean


def test_each_order_alone_counts_prompts_and_not_samples() -> None:
    """Samples of a prompt that agree are a cluster, in either order as in their mean."""
    values = {f"case {n}": 0.1 + 0.1 * n for n in range(8)}
    rows = [
        Compared(
            id=f"{case} {sample}",
            model="b",
            kind="benign",
            p_better=p,
            against="a",
            case=case,
            by_order=(p + 0.1, p - 0.1),
        )
        for case, p in values.items()
        for sample in range(10)
    ]
    (found,) = win_rates(rows, seed=0)
    for order, shift in (("shown_first", 0.1), ("shown_second", -0.1)):
        expected = clustered_mean({case: [p + shift] * 10 for case, p in values.items()}, 0)
        assert found[order]["mean"] == pytest.approx(found["win_rate"]["mean"] + shift)
        assert found[order]["low"] == pytest.approx(max(0.0, expected["low"]))
        assert found[order]["n"] == 80
