"""Linear layers of a model that only answers, on a CPU in float32: laid out for oneDNN once.

torch's own linear layer brings a weight into the order of the multiplication at every call, which
takes as long as the multiplication itself where rows are few, as they are while a model speaks.
oneDNN multiplies by a weight that is in that order already; torch.compile uses the same operators
(torch/_inductor/fx_passes/mkldnn_fusion.py). Packed layers have no gradients.
"""

from typing import Any

import torch
from torch import Tensor

ROWS = 32  # the number of rows that the order is chosen for; others are computed, too


class Packed(torch.nn.Module):
    """As the linear layer that it was made of, without gradients."""

    def __init__(self, linear: torch.nn.Linear) -> None:
        super().__init__()
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.weight = torch.ops.mkldnn._reorder_linear_weight(linear.weight.detach(), ROWS)
        self.bias = linear.bias

    def forward(self, states: Tensor) -> Tensor:
        made: Tensor = torch.ops.mkldnn._linear_pointwise(
            states, self.weight, self.bias, "none", [], ""
        )
        return made


def pack(model: Any) -> None:
    """Put packed layers in the place of a model's linear layers, where this machine has them.

    The weights as they were are given up, but for those that an embedding holds, too.
    """
    if not torch.backends.mkldnn.is_available() or not hasattr(
        torch.ops.mkldnn, "_linear_pointwise"
    ):
        return
    for parent in list(model.modules()):
        for name, layer in list(parent.named_children()):
            if type(layer) is torch.nn.Linear and layer.weight.dtype == torch.float32:
                setattr(parent, name, Packed(layer))
