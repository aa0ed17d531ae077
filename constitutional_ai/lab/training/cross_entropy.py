"""Weighted cross-entropy of a linear head, a block of rows at a time: logits stay in the cache.

For a small model with a vocabulary of thousands the logits are by far the largest tensor. The usual
way writes them out, their softmax, and their gradient; here the backward pass of each block of rows
is done at once, while its logits are at hand.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

_ROWS = 256


class _LinearCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden: Tensor, head: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
        low = head.to(hidden.dtype)
        grad_hidden, grad_head = torch.empty_like(hidden), torch.zeros_like(head)
        loss = weights.new_zeros(())
        for start in range(0, len(hidden), _ROWS):
            rows = slice(start, start + _ROWS)
            target, weight = targets[rows, None], weights[rows, None]
            logits = (hidden[rows] @ low.T).float()
            total = logits.logsumexp(-1, keepdim=True)
            loss += ((total - logits.gather(1, target)) * weight).sum()
            # d loss / d logits = weight * (softmax - one hot of the target)
            grad = logits.sub_(total).exp_()
            grad.scatter_add_(1, target, grad.new_full(target.shape, -1.0))
            grad = grad.mul_(weight).to(hidden.dtype)
            grad_hidden[rows] = grad @ low
            grad_head += grad.T @ hidden[rows]
        ctx.save_for_backward(grad_hidden, grad_head)
        return loss

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> tuple[Tensor, Tensor, None, None]:
        grad_hidden, grad_head = ctx.saved_tensors
        return grad_hidden * grads[0], grad_head * grads[0], None, None


def linear_cross_entropy(hidden: Tensor, head: Tensor, targets: Tensor, weights: Tensor) -> Tensor:
    """Sum over rows of ``weights`` times −log softmax(hidden @ head.T)[target], in nats.

    hidden (n, width) in any precision, head (vocabulary, width), targets (n,) int64, weights (n,)
    float32 without gradient. Call it outside autocast: products run in the precision of ``hidden``.
    """
    apply: Callable[..., Tensor] = _LinearCrossEntropy.apply
    return apply(hidden, head, targets, weights)
