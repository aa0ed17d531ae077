"""Padding, orders, and gradients that are gathered in parts."""

import pytest
import torch
from torch import Tensor

from constitutional_ai.learning import losses
from constitutional_ai.learning.batch import Batch, accumulate, endless, epochs, spread
from tests.learning.conftest import ROWS

CPU = torch.device("cpu")


def test_a_batch_marks_the_positions_that_predict_the_answer() -> None:
    batch = Batch.of(ROWS, 0, CPU)
    assert batch.ids_BT.shape == (3, 5) and batch.width == 4
    assert batch.mask_BS.int().tolist() == [[0, 0, 1, 1], [1, 1, 1, 1], [0, 0, 0, 1]]
    assert batch.last_B.tolist() == [3, 3, 3]
    some = batch.take([0])
    assert some.ids_BT.tolist() == [[5, 6, 7, 8, 9]] and some.mask_BS.shape == (1, 4)
    shorter = Batch.of([([5], [6]), ([5], [6, 7, 8])], 0, CPU).take([0])
    assert shorter.ids_BT.tolist() == [[5, 6]]


def test_values_are_put_back_at_their_positions() -> None:
    mask = Batch.of(ROWS, 0, CPU).mask_BS
    spread_BS = spread(torch.arange(1.0, 8.0), mask)
    assert spread_BS.tolist() == [[0, 0, 1, 2], [3, 4, 5, 6], [0, 0, 0, 7]]


@pytest.mark.parametrize("budget", [1, 10, 1000])
def test_gathered_in_parts_or_at_once_the_gradient_is_the_same(budget: int) -> None:
    """Of a loss over the answer tokens of two of three rows, long and short."""
    batch = Batch.of([([5, 6, 7], [8, 9]), ([5], [2, 3, 4]), ([9], [2])], 0, CPU)
    table = torch.arange(10.0, requires_grad=True)

    def loss(part: Batch, rows: list[int]) -> dict[str, Tensor]:
        assert part.lengths_B.tolist() == batch.lengths_B[rows].tolist()
        squares = table[part.ids_BT[:, 1:]] ** 2
        mean = losses.masked_mean(squares, part.mask_BS)
        return {"loss": mean, "twice": 2 * mean.detach()}

    means = accumulate(batch, [2, 0], budget, loss)
    assert means == pytest.approx({"loss": (64 + 81 + 4) / 3, "twice": 2 * (64 + 81 + 4) / 3})
    assert table.grad is not None
    assert table.grad.tolist() == pytest.approx([0, 0, 4 / 3, 0, 0, 0, 0, 0, 16 / 3, 6])


def test_epochs_shuffle_by_seed() -> None:
    batches = [[n] for n in range(20)]
    first, again, other = (epochs(batches, 2, seed) for seed in (1, 1, 2))
    assert first == again != other
    assert sorted(first[:20]) == sorted(first[20:]) == batches
    assert first[:20] != first[20:]


def test_endless_draws_every_row_once_a_turn() -> None:
    drawn = [row for step in range(6) for row in endless(7, step * 3, 3, seed=2)]
    assert sorted(drawn[:7]) == sorted(drawn[7:14]) == list(range(7))
    assert drawn == endless(7, 0, 18, seed=2) != endless(7, 0, 18, seed=3)
