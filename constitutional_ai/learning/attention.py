"""Faster training of small Llama models: plain attention and fused norms in the autocast precision.

Transformers computes its norms in five float32 operations and its eager softmax in float32. Torch's
own fused attention has a slow bfloat16 backward on CPUs if heads are narrow. In a model of two
million parameters these cost more than the matrix products. ``speed_up`` swaps them; parameters and
the saved folder stay those of the standard class.

Not covered: left padding, packed documents, key-value caches. Batches are padded on the right, so
the causal mask alone keeps real tokens from seeing padding.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import lru_cache
from types import MethodType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AttentionInterface, PreTrainedModel
from transformers.models.llama.modeling_llama import LlamaRMSNorm

_NAME = "plain_causal"


@lru_cache(maxsize=64)
def _causal(length: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """(length, length): zero for what a query may see, minus infinity above the diagonal."""
    return torch.full((length, length), float("-inf"), dtype=dtype, device=device).triu_(1)


def plain_causal_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float,
    dropout: float = 0.0,
    **_: Any,
) -> tuple[Tensor, None]:
    """Causal attention over (batch, heads, time, width), softmax in the precision of the products.

    ``attention_mask`` is ignored: padding must be on the right.
    Returns (batch, time, heads, width).
    """
    if query.shape != key.shape or dropout:
        raise ValueError("fast training knows neither key-value caches, grouped heads nor dropout")
    scores = (query * scaling) @ key.mT
    scores = scores + _causal(query.shape[2], scores.dtype, scores.device)
    return (scores.softmax(-1).to(value.dtype) @ value).transpose(1, 2), None


AttentionInterface.register(_NAME, plain_causal_attention)


def _fused_norm(self: LlamaRMSNorm, hidden: Tensor) -> Tensor:
    weight = self.weight.to(hidden.dtype)
    return F.rms_norm(hidden, weight.shape, weight, self.variance_epsilon)


def _autocast_output(module: nn.Module, inputs: Any, output: Tensor) -> Tensor:
    """Start the residual stream in the autocast precision; transformers would keep it float32."""
    device = output.device.type
    if not torch.is_autocast_enabled(device):
        return output
    return output.to(torch.get_autocast_dtype(device))


def speed_up(model: PreTrainedModel) -> ExitStack:
    """From now on ``model`` runs full right-padded sequences fast; closing the stack undoes it."""
    undo = ExitStack()
    usual = model.config._attn_implementation
    model.set_attn_implementation(_NAME)
    undo.callback(model.set_attn_implementation, usual)
    hook = model.get_input_embeddings().register_forward_hook(_autocast_output)
    undo.callback(hook.remove)
    for norm in (m for m in model.modules() if isinstance(m, LlamaRMSNorm)):
        norm.forward = MethodType(_fused_norm, norm)  # type: ignore[method-assign]
        undo.callback(delattr, norm, "forward")
    return undo


def can_speed_up(model: PreTrainedModel) -> bool:
    """Whether the model is a Llama whose heads all have their own keys, without dropout."""
    config = model.config
    return (
        config.model_type == "llama"
        and config.num_key_value_heads == config.num_attention_heads
        and not config.attention_dropout
    )


@contextmanager
def fast_training(model: PreTrainedModel) -> Iterator[None]:
    """``speed_up`` within this context only."""
    with speed_up(model):
        yield
