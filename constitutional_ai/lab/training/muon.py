"""Muon: momentum whose update is made orthogonal; for the weight matrices of small models.

An AdamW step scales each entry by itself. Muon (Jordan 2024) instead replaces the momentum
M = U S V^T by about U V^T, so that every direction of a matrix moves by the same amount. A few
Newton-Schulz iterations do it without a decomposition. Embeddings and gains belong to AdamW.
"""

from collections import defaultdict
from collections.abc import Iterable

import torch
from torch import Tensor

from constitutional_ai.machine import has_fast_bf16

# A quintic x -> a x + b x^3 + c x^5, steep at zero: five rounds carry each singular value in
# (0.003, 1] to about one (between 0.68 and 1.2, which is close enough for an update).
_QUINTIC = (3.4445, -4.7750, 2.0315)


def orthogonalise(matrices: Tensor, rounds: int = 5) -> Tensor:
    """Replace each matrix of a stack (n, rows, columns) by nearly its U V^T.

    In bfloat16 where the machine has it: emulated, it takes a hundred times as long.
    """
    a, b, c = _QUINTIC
    tall = matrices.shape[-2] > matrices.shape[-1]
    x: Tensor = matrices.bfloat16() if has_fast_bf16(matrices.device) else matrices.float()
    if tall:  # the Gram matrix is then the small one
        x = x.mT
    x = x / (torch.linalg.matrix_norm(x.float(), keepdim=True).to(x.dtype) + 1e-7)
    for _ in range(rounds):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    result: Tensor = x.mT if tall else x
    return result.to(matrices.dtype)


class Muon(torch.optim.Optimizer):
    """Muon with Nesterov momentum and decoupled weight decay. Parameters must be matrices.

    The update is scaled by 0.2 sqrt(longer side), which gives its entries the root mean square of
    an AdamW update, so that ``lr`` means about the same in both. Same-shaped matrices share one
    batched computation: on small models the iterations are otherwise mostly overhead.
    """

    def __init__(
        self,
        matrices: Iterable[torch.nn.Parameter],
        lr: float,
        momentum: float = 0.95,
        weight_decay: float = 0.01,
    ) -> None:
        super().__init__(matrices, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})
        for group in self.param_groups:
            if any(p.ndim != 2 for p in group["params"]):
                raise ValueError("Muon takes matrices only")

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Move every matrix that has a gradient."""
        for group in self.param_groups:
            by_shape: dict[torch.Size, list[torch.nn.Parameter]] = defaultdict(list)
            for p in group["params"]:
                if p.grad is not None:
                    by_shape[p.shape].append(p)
            for same in by_shape.values():
                self._step_stack(same, **{k: group[k] for k in ("lr", "momentum", "weight_decay")})

    def _step_stack(
        self,
        matrices: list[torch.nn.Parameter],
        lr: float,
        momentum: float,
        weight_decay: float,
    ) -> None:
        ahead = []
        for p in matrices:
            assert p.grad is not None
            average = self.state[p].setdefault("momentum", torch.zeros_like(p))
            average.lerp_(p.grad, 1 - momentum)
            ahead.append(p.grad.lerp(average, momentum))
        scale = 0.2 * max(matrices[0].shape) ** 0.5
        for p, update in zip(matrices, orthogonalise(torch.stack(ahead)), strict=True):
            p.mul_(1 - lr * weight_decay).add_(update, alpha=-lr * scale)
