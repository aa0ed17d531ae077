"""Gradient checkpointing: keep a layer's input, compute the layer again in the backward pass.

Transformers does this in training mode only, which also switches dropout on; models here stay in
evaluation mode. So a layer alone is put into training mode, for the time of a forward that has a
gradient. The parts of the layer, where the dropout is, stay in evaluation mode.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch.utils.checkpoint import checkpoint
from transformers.modeling_layers import GradientCheckpointingLayer

from constitutional_ai.errors import ModelError


def switch_on(model: Any) -> None:
    """Make ``recomputing`` work on this model. Raises ModelError if transformers cannot do so.

    Each layer is set by itself: the model's own method for it differs between versions.
    """
    layers = [
        module for module in model.modules() if isinstance(module, GradientCheckpointingLayer)
    ]
    for layer in layers:
        layer.gradient_checkpointing = True
        once_more = partial(checkpoint, use_reentrant=False)
        layer._gradient_checkpointing_func = once_more  # type: ignore[assignment]
    if not layers:
        raise ModelError(
            f"{type(model).__name__} knows no gradient checkpointing;"
            " set model.gradient_checkpointing = false"
        )


@contextmanager
def recomputing(model: Any) -> Iterator[None]:
    """A forward within keeps little for its backward; without a gradient nothing changes."""
    layers = [
        module
        for module in model.modules()
        if isinstance(module, GradientCheckpointingLayer) and module.gradient_checkpointing
    ]
    for layer in layers if torch.is_grad_enabled() else ():
        layer.training = True
    try:
        yield
    finally:
        for layer in layers:
            layer.training = False
