"""One safe step of an optimiser, and a whole training by such steps that can be interrupted.

A step whose loss, gradient or weights are not finite raises TrainingDiverged and names the rows
that it learned from. No checkpoint is ever written of such weights.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NoReturn

import torch
from torch import Tensor, nn

from constitutional_ai.engines.local import broken_weight
from constitutional_ai.errors import ModelError, TrainingDiverged
from constitutional_ai.progress import Tick
from constitutional_ai.store.checkpoints import Part, Resumable, Saving

Names = Callable[[], str]  # the rows that a step learned from; called only if the step fails


def warmup_decay(step: int, total: int, warmup: int, floor: float = 0.1) -> float:
    """The learning rate's factor at ``step`` from 0: up over ``warmup``, then down to ``floor``."""
    return min(1.0, (step + 1) / max(1, warmup)) * (1 - (1 - floor) * step / max(1, total))


def adamw(parameters: Iterable[nn.Parameter], lr: float, eps: float = 1e-8) -> torch.optim.AdamW:
    """AdamW with betas 0.9 and 0.95. No weight decay: trainings here are too short to need any."""
    return torch.optim.AdamW(
        parameters, lr=lr, betas=(0.9, 0.95), eps=eps, weight_decay=0.0, fused=True
    )


def descend(
    loss: Tensor,
    optimiser: torch.optim.Optimizer,
    lr: float,
    rows: Names,
    max_norm: float = 1.0,
) -> float:
    """One step on one loss. Returns the gradient's norm before clipping."""
    loss.backward()
    return apply_gradients(float(loss.detach()), optimiser, lr, rows, max_norm)


def apply_gradients(
    loss: float,
    optimiser: torch.optim.Optimizer,
    lr: float,
    rows: Names,
    max_norm: float = 1.0,
) -> float:
    """Clip the gathered gradients, step, clear them. Returns the norm before clipping.

    Raises TrainingDiverged: before the step if the loss or the gradient is not finite, after it if
    a weight is not.
    """
    parameters = [p for group in optimiser.param_groups for p in group["params"]]
    norm = float(nn.utils.clip_grad_norm_(parameters, max_norm))
    if not math.isfinite(loss + norm):
        refuse(f"loss {loss}, gradient norm {norm}", rows)
    for group in optimiser.param_groups:
        group["lr"] = lr
    optimiser.step()
    optimiser.zero_grad(set_to_none=True)
    if not math.isfinite(float(nn.utils.get_total_norm(parameters))):
        refuse(f"weights that are no finite numbers after a step at learning rate {lr:g}", rows)
    return norm


def refuse(what: str, rows: Names) -> NoReturn:
    """Raise TrainingDiverged, naming the rows that the step learned from."""
    raise TrainingDiverged(
        f"{what}; the last checkpoint before it is kept; lower the learning rate, or look at these"
        f" rows: {rows()}"
    )


def check_weights(model: nn.Module) -> None:
    """Raise ModelError for a weight that is not finite before anything has been trained."""
    if name := broken_weight(model):
        raise ModelError(
            f"the model to be trained has a weight in {name} that is no finite number: its file is"
            " damaged, or an earlier training of it went wrong"
        )


@dataclass(frozen=True)
class Lessons:
    """What a training learns from: ``batches`` of row numbers, one a step.

    ``loss(rows)`` gives the loss of some rows and the figures to log, the most telling one first.
    ``gather(rows)`` gives the same numbers and adds up the gradient itself, for batches that are
    larger than a forward pass may be; None: one backward pass through ``loss``.
    ``content(row)`` is a row as JSON can hold it, ``name(row)`` what the user knows it by.
    """

    batches: Sequence[list[int]]
    loss: Callable[[list[int]], tuple[Tensor, dict[str, float]]]
    content: Callable[[int], object]
    name: Callable[[int], str]
    gather: Callable[[list[int]], tuple[float, dict[str, float]]] | None = None

    def gradient(self, rows: list[int]) -> tuple[float, dict[str, float]]:
        """Add up the gradient of a batch. Returns its loss and the figures to log."""
        if self.gather is not None:
            return self.gather(rows)
        loss, figures = self.loss(rows)
        loss.backward()
        return float(loss.detach()), figures

    def culprits(self, rows: list[int]) -> str:
        """The names of those rows whose own loss is not finite; all, if that is none of them."""
        with torch.no_grad():
            broken = [row for row in rows if not math.isfinite(float(self.loss([row])[0]))]
        return ", ".join(map(self.name, broken or rows))


def fit(
    model: nn.Module,
    lessons: Lessons,
    lr: float,
    warmup: int,
    log: Callable[[dict[str, Any]], None],
    tick: Tick,
    saving: Saving | None = None,
) -> None:
    """Train ``model`` in place; one metrics row and one tick a step.

    With ``saving`` it goes on from the last checkpoint there. Raises TrainingDiverged.
    """
    check_weights(model)
    optimiser, batches = adamw(model.parameters(), lr), lessons.batches

    def content(step: int) -> list[object]:
        return [lessons.content(row) for row in batches[step]]

    kept = Resumable(saving, Part(model, optimiser), content) if saving else None
    start = kept.start if kept else 0
    tick(start)
    for step in range(start, len(batches)):
        loss, figures = lessons.gradient(batches[step])
        rate = lr * warmup_decay(step, len(batches), warmup)
        norm = apply_gradients(loss, optimiser, rate, partial(lessons.culprits, batches[step]))
        log({"step": step, **figures, "lr": rate, "grad_norm": norm})
        tick(1, loss=next(iter(figures.values())))
        if kept:
            kept.done(step)
