"""The schedule, and the step that refuses what is not finite."""

from itertools import pairwise

import pytest
import torch
from torch import nn

from constitutional_ai.errors import TrainingDiverged
from constitutional_ai.learning.descent import adamw, descend, warmup_decay


def test_warmup_then_linear_decay() -> None:
    factors = [warmup_decay(step, total=100, warmup=5) for step in range(100)]
    assert factors[0] == pytest.approx(0.2)
    assert max(factors) == factors[4] == pytest.approx(1 - 0.9 * 0.04)
    assert factors[99] == pytest.approx(1 - 0.9 * 0.99)
    assert all(a > b for a, b in pairwise(factors[4:]))


def model_and_optimiser() -> tuple[nn.Linear, torch.optim.AdamW]:
    torch.manual_seed(0)
    model = nn.Linear(3, 1)
    return model, adamw(model.parameters(), lr=0.1)


def one_step(model: nn.Module, optimiser: torch.optim.Optimizer, scale: float = 1.0) -> float:
    loss = (model(torch.ones(2, 3)) * scale).pow(2).mean()
    return descend(loss, optimiser, lr=0.1, rows=lambda: "row 7")


@pytest.mark.parametrize("scale", [float("nan"), float("inf")])
def test_a_loss_that_is_no_number_stops_before_the_weights_change(scale: float) -> None:
    model, optimiser = model_and_optimiser()
    before = model.weight.clone()
    with pytest.raises(TrainingDiverged, match="row 7"):
        one_step(model, optimiser, scale)
    assert torch.equal(model.weight, before)


def test_the_gradient_is_clipped_and_its_norm_returned() -> None:
    model, _ = model_and_optimiser()
    sgd = torch.optim.SGD(model.parameters(), lr=1.0)
    before = torch.cat([p.flatten().clone() for p in model.parameters()])
    norm = descend((model(torch.ones(1, 3)) * 1000).sum(), sgd, lr=1.0, rows=str)
    after = torch.cat([p.flatten() for p in model.parameters()])
    assert norm == pytest.approx(1000 * 4**0.5)
    assert (after - before).norm().item() == pytest.approx(1.0, rel=1e-4)
