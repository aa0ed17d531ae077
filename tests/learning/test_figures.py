"""The figures of a rollout."""

import pytest
import torch

from constitutional_ai.learning.figures import correlation


def test_correlation() -> None:
    x = torch.tensor([1.0, 2.0, 4.0])
    assert correlation(x, 3 * x + 1) == pytest.approx(1.0)
    assert correlation(x, torch.ones(3)) == 0.0
