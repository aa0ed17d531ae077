"""Prompts with their answers as padded tensors, the order they come in, and gradients in parts.

Shapes: B rows, T tokens, S = T − 1 predicted positions, N answer tokens of all rows. Rows are
padded on the right, so the causal mask alone keeps real tokens from padding.
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from constitutional_ai.engines.batching import length_batches
from constitutional_ai.records import Prompt

Tokens = tuple[list[int], list[int]]  # ids of a prompt, ids of an answer to it


@dataclass(frozen=True)
class Batch:
    """Prompts with their answers. ``mask_BS`` is true where the predicted token is the answer's."""

    ids_BT: Tensor
    mask_BS: Tensor
    lengths_B: Tensor

    @classmethod
    def of(cls, rows: Sequence[Tokens], pad_id: int, device: torch.device) -> Self:
        """Pad on the right. Every answer holds at least one token."""
        lengths_B = torch.tensor([len(prompt) + len(answer) for prompt, answer in rows])
        starts_B = torch.tensor([len(prompt) for prompt, _ in rows])
        width = int(lengths_B.max())
        ids = [[*p, *a, *[pad_id] * (width - len(p) - len(a))] for p, a in rows]
        target_S = torch.arange(1, width)  # position s predicts token s + 1
        mask_BS = (target_S >= starts_B[:, None]) & (target_S < lengths_B[:, None])
        return cls(torch.tensor(ids).to(device), mask_BS.to(device), lengths_B.to(device))

    def take(self, rows: Sequence[int]) -> "Batch":
        """Some of the rows, as narrow as the longest of them allows."""
        index = torch.tensor(rows, device=self.ids_BT.device)
        lengths_B = self.lengths_B[index]
        width = int(lengths_B.max())
        return Batch(self.ids_BT[index, :width], self.mask_BS[index, : width - 1], lengths_B)

    def parts(self, budget: int) -> list[list[int]]:
        """All row numbers, in parts of at most ``budget`` tokens with their padding."""
        return length_batches(self.lengths_B.tolist(), budget)

    @property
    def width(self) -> int:
        """S, the number of predicted positions."""
        return self.mask_BS.shape[1]

    @property
    def last_B(self) -> Tensor:
        """The predicted position of each row's last token."""
        return self.lengths_B - 2


@dataclass(frozen=True)
class Answered:
    """A policy's answers to some prompts, in order of length.

    ``finished_B`` is false for answers that the token limit cut off.
    """

    prompts: list[Prompt]
    answers: list[str]
    batch: Batch
    finished_B: Tensor


def spread(values_N: Tensor, mask_BS: Tensor) -> Tensor:
    """Values of the answer tokens, put back at their positions; 0 elsewhere."""
    return torch.zeros(mask_BS.shape, device=values_N.device).masked_scatter(mask_BS, values_N)


def accumulate(
    batch: Batch,
    rows: Sequence[int],
    budget: int,
    loss: Callable[[Batch, list[int]], dict[str, Tensor]],
) -> dict[str, float]:
    """Gather the gradient of one loss over ``rows``, a part of at most ``budget`` tokens at a time.

    ``loss(part, rows of the part)`` gives means over the part's answer tokens; the one named
    "loss" has the gradient. Returns the means over all answer tokens.
    """
    lengths = batch.lengths_B[list(rows)].tolist()
    total = int(batch.mask_BS[list(rows)].sum())
    means: dict[str, float] = {}
    for places in length_batches(lengths, budget):
        some = [rows[place] for place in places]
        part = batch.take(some)
        share = int(part.mask_BS.sum()) / total
        figures = loss(part, some)
        (figures["loss"] * share).backward()
        for name, figure in figures.items():
            means[name] = means.get(name, 0.0) + figure.item() * share
    return means


def epochs(batches: Sequence[list[int]], count: int, seed: int) -> list[list[int]]:
    """The batches in a new order each epoch, one epoch after another."""
    return [
        batch
        for epoch in range(count)
        for batch in random.Random(f"{seed}/{epoch}").sample(list(batches), len(batches))
    ]


def endless(size: int, start: int, count: int, seed: int) -> list[int]:
    """Places ``start`` … ``start + count − 1`` of an endless run through ``range(size)``.

    Each pass takes every row once, in an order of its own.

    >>> sorted(endless(3, 0, 3, seed=1)), endless(3, 2, 2, seed=1) == endless(3, 0, 4, seed=1)[2:]
    ([0, 1, 2], True)
    """
    rows: list[int] = []
    while len(rows) < count:
        turn, place = divmod(start + len(rows), size)
        order = random.Random(f"{seed}/{turn}").sample(range(size), size)
        rows += order[place : place + count - len(rows)]
    return rows
