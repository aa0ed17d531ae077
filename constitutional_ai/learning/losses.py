"""The maths of training as pure tensor functions: no models, no state.

Shape suffixes
    B  rows (one prompt and its answer)
    S  predicted positions: position s holds what the model at token s says about token s + 1
    N  answer tokens of all rows, flattened
    P  pairs of answers
    V  vocabulary
A ``mask_BS`` is true where the predicted token belongs to the answer, its end token included.
Values elsewhere are never read: they may be anything, even NaN, and their gradient is 0.

Sources: [CAI] Bai et al. 2022, arXiv 2212.08073; [PPO] Schulman et al. 2017, arXiv 1707.06347;
[GAE] Schulman et al. 2015, arXiv 1506.02438; [K3] Schulman 2020, "Approximating KL divergence";
[LMHP] Ziegler et al. 2019, arXiv 1909.08593; [DPO] Rafailov et al. 2023, arXiv 2305.18290;
[IPO] Azar et al. 2023, arXiv 2310.12036.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor


def masked(x_BS: Tensor, mask_BS: Tensor) -> Tensor:
    """0 outside the mask. It comes before all arithmetic: a gradient of 0 · NaN would be NaN."""
    return x_BS.masked_fill(~mask_BS, 0.0)


def masked_mean(x_BS: Tensor, mask_BS: Tensor) -> Tensor:
    """Mean over the masked tokens of all rows together; 0 if the mask is empty."""
    return masked(x_BS, mask_BS).sum() / mask_BS.sum().clamp(min=1)


def masked_sum(x_BS: Tensor, mask_BS: Tensor) -> Tensor:
    """Sum over each row's masked tokens, shape [B]."""
    return masked(x_BS, mask_BS).sum(dim=1)


def whiten(x_BS: Tensor, mask_BS: Tensor) -> Tensor:
    """Mean 0, variance 1 over the masked tokens of the whole batch; 0 elsewhere.

    The variance is the population's, with 1e-8 added, so that a batch of equal values gives zeros.
    """
    x_BS = masked(x_BS, mask_BS)
    mean = masked_mean(x_BS, mask_BS)
    variance = masked_mean((x_BS - mean) ** 2, mask_BS)
    return masked((x_BS - mean) * torch.rsqrt(variance + 1e-8), mask_BS)


def token_logprobs(logits_NV: Tensor, target_N: Tensor) -> Tensor:
    """log P(target) in nats, in float32 whatever the logits' precision; shape [N]."""
    return -F.cross_entropy(logits_NV.float(), target_N, reduction="none")


def entropy(logits_NV: Tensor) -> Tensor:
    """−Σ p log p of each distribution, in nats; shape [N]."""
    logp_NV = torch.log_softmax(logits_NV.float(), dim=-1)
    return -(logp_NV.exp() * logp_NV).sum(dim=-1)


def sft_loss(logprobs_BS: Tensor, mask_BS: Tensor) -> Tensor:
    """L_SL = −log P(answer | prompt), mean over answer tokens ([CAI] section 3.1)."""
    return -masked_mean(logprobs_BS, mask_BS)


def preference_loss(delta_P: Tensor, p_P: Tensor) -> Tensor:
    """L = −[p log σ(Δ) + (1 − p) log σ(−Δ)], mean over pairs.

    ``delta_P`` is r(first) − r(second), ``p_P`` the soft label P(first better). With p = 1 this is
    the Bradley–Terry loss; soft targets follow [CAI] section 4.1. Its minimum is at Δ = logit(p).
    """
    return -(p_P * F.logsigmoid(delta_P) + (1 - p_P) * F.logsigmoid(-delta_P)).mean()


def dpo_loss(h_P: Tensor, p_P: Tensor, beta: float) -> Tensor:
    """L = −[p log σ(βh) + (1 − p) log σ(−βh)], mean over pairs.

    ``h_P`` is log π/π_ref of the first answer minus that of the second, each a sum over tokens:
    βh is the difference of the rewards that the policy implies. With p = 1 this is [DPO] equation
    7; with a soft label its minimum is at h = logit(p) / β, and not at infinity.
    """
    return preference_loss(beta * h_P, p_P)


def ipo_loss(h_P: Tensor, p_P: Tensor, beta: float) -> Tensor:
    """L = (h − 1/(2β))², mean over pairs, h for the answer that is better ([IPO] equation 17).

    β is the paper's τ. Of a soft label ``p_P`` only the side enters, above or below 0.5: how sure
    the judge was does not. As in the paper, h is a sum over tokens; TRL takes their mean.
    """
    better_P = torch.where(p_P > 0.5, h_P, -h_P)
    return ((better_P - 1 / (2 * beta)) ** 2).mean()


def gae(
    rewards_BS: Tensor, values_BS: Tensor, mask_BS: Tensor, gamma: float, lam: float
) -> tuple[Tensor, Tensor]:
    """Advantages and returns, both [B, S], zero outside the mask ([GAE] equation 16).

    Δ_t = r_t + γ V_{t+1} − V_t;  A_t = Δ_t + γ λ A_{t+1};  return_t = A_t + V_t. Each row's masked
    tokens are one contiguous episode that ends at its last one: V beyond it is 0.
    """
    values, rewards = masked(values_BS, mask_BS), masked(rewards_BS, mask_BS)
    advantages = torch.zeros_like(values)
    next_value = next_advantage = torch.zeros_like(values[:, 0])
    for t in reversed(range(values.shape[1])):
        delta = rewards[:, t] + gamma * next_value - values[:, t]
        # Outside the mask everything is 0, which is also what an episode's end must pass back.
        next_advantage = (delta + gamma * lam * next_advantage).masked_fill(~mask_BS[:, t], 0.0)
        next_value = values[:, t]
        advantages[:, t] = next_advantage
    return advantages, masked(advantages + values, mask_BS)


def log_ratio(new_BS: Tensor, old_BS: Tensor, mask_BS: Tensor, limit: float) -> Tensor:
    """log π_new − log π_old, held within ±limit so that its exponential stays finite; 0 outside."""
    return masked(new_BS - old_BS, mask_BS).clamp(-limit, limit)


def kl_k1(logp_BS: Tensor, ref_BS: Tensor, mask_BS: Tensor) -> Tensor:
    """log π − log π_ref of each sampled token: unbiased for KL(π‖π_ref), may be negative ([K3])."""
    return masked(logp_BS - ref_BS, mask_BS)


def kl_k3(logp_BS: Tensor, ref_BS: Tensor, mask_BS: Tensor) -> Tensor:
    """(ρ − 1) − log ρ with ρ = π_ref/π: unbiased, never negative, of lower variance ([K3])."""
    log_rho = masked(ref_BS - logp_BS, mask_BS)
    return torch.expm1(log_rho) - log_rho


class Clipped(NamedTuple):
    """A clipped loss, and the share of tokens on which the clip decided. Both are scalars."""

    loss: Tensor
    clipfrac: Tensor


def policy_loss(
    log_ratio_BS: Tensor, advantages_BS: Tensor, mask_BS: Tensor, clip: float
) -> Clipped:
    """−E[min(ρA, clip(ρ, 1 ± ε)A)] over tokens, ρ = exp(log ratio) ([PPO] equation 7)."""
    ratio, advantages = masked(log_ratio_BS, mask_BS).exp(), masked(advantages_BS, mask_BS)
    plain = -advantages * ratio
    clipped = -advantages * ratio.clamp(1 - clip, 1 + clip)
    return Clipped(
        loss=masked_mean(torch.maximum(plain, clipped), mask_BS),
        clipfrac=masked_mean((clipped > plain).float(), mask_BS).detach(),
    )


def approximate_kl(log_ratio_BS: Tensor, mask_BS: Tensor) -> Tensor:
    """½ E[(log ρ)²]: how far the update has moved from the policy that sampled ([LMHP]'s code)."""
    return 0.5 * masked_mean(masked(log_ratio_BS, mask_BS) ** 2, mask_BS)


def value_loss(
    values_BS: Tensor, old_BS: Tensor, returns_BS: Tensor, mask_BS: Tensor, clip: float
) -> Clipped:
    """½ E[max((V − R)², (clip(V, V_old ± ε) − R)²)] over tokens ([LMHP]'s code; ε is absolute)."""
    values, old, returns = (masked(x_BS, mask_BS) for x_BS in (values_BS, old_BS, returns_BS))
    clipped = old + (values - old).clamp(-clip, clip)
    plain_error, clipped_error = (values - returns) ** 2, (clipped - returns) ** 2
    return Clipped(
        loss=0.5 * masked_mean(torch.maximum(plain_error, clipped_error), mask_BS),
        clipfrac=masked_mean((clipped_error > plain_error).float(), mask_BS).detach(),
    )
