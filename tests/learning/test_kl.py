"""The weight of the KL penalty, by hand."""

import pytest

from constitutional_ai.learning.kl import KLController


def test_kl_controller_by_hand() -> None:
    fixed, adaptive = KLController(0.1, None), KLController(0.1, 6.0)
    for kl in (100.0, 6.3, 0.0):
        fixed.update(kl)
        adaptive.update(kl)
    assert fixed.coef == 0.1
    assert adaptive.coef == pytest.approx(0.1 * 1.02 * 1.005 * 0.98)
