"""Every row once, and no batch above its budget."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from constitutional_ai.engines.batching import length_batches


@pytest.mark.parametrize("longest_first", [False, True])
@given(st.lists(st.integers(1, 50), max_size=40), st.integers(1, 200))
def test_batches_hold_every_row_once_within_the_budget(
    longest_first: bool, lengths: list[int], budget: int
) -> None:
    batches = length_batches(lengths, budget, longest_first)
    assert sorted(row for rows in batches for row in rows) == list(range(len(lengths)))
    for rows in batches:
        assert len(rows) == 1 or len(rows) * max(lengths[row] for row in rows) <= budget
    flat = [lengths[row] for rows in batches for row in rows]
    assert flat == sorted(flat, reverse=longest_first)
    for rows, following in pairwise(batches):  # none could have been longer
        longest = max(lengths[row] for row in [*rows, following[0]])
        assert longest * (len(rows) + 1) > budget
