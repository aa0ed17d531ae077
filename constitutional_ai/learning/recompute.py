"""Gradient checkpointing: keep a layer's input, compute the layer again in the backward pass.

Transformers does so in training mode only, which also switches dropout on, and models here stay in
evaluation mode. So the layers, and they alone, are put into training mode for the time of a forward
that has a gradient: their parts, where the dropout is, stay as they are.
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
    """Let ``recomputing`` have its effect. Raises ModelError where the model knows no such thing.

    The layers are told one by one: the model's own method for it has changed its name of late.
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
    """A forward within keeps little for its backward; nothing changes where it has none."""
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
