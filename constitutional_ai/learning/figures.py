"""The figures of metrics.jsonl: how a rollout shows the policy, and how good the values are.

Names are those of the reference code (Ziegler et al. 2019), so that plots can be compared.
"""

import numpy as np
from torch import Tensor

from constitutional_ai.learning import losses
from constitutional_ai.learning.rollout import Rollout
from constitutional_ai.monitor.ppo import boilerplate, distinct_2
from constitutional_ai.refusal import refuses
from constitutional_ai.stage_settings import PPOSettings

Metrics = dict[str, float]


def measure(made: Rollout, kl_coef: float, settings: PPOSettings) -> Metrics:
    """All of a rollout's figures; KL and entropy in nats, lengths in tokens."""
    mask_BS = made.batch.mask_BS
    k1_BS = losses.kl_k1(made.logprobs_BS, made.reference_BS, mask_BS)
    k3_BS = losses.kl_k3(made.logprobs_BS, made.reference_BS, mask_BS)
    kl_B, lengths_B = losses.masked_sum(k1_BS, mask_BS), mask_BS.sum(dim=1).float()
    penalty_B = settings.missing_end_penalty * (~made.finished_B).float()
    figures = {
        "objective/kl": kl_B.mean().item(),
        "objective/kl_k3": losses.masked_sum(k3_BS, mask_BS).mean().item(),
        "objective/kl_coef": kl_coef,
        "objective/entropy": losses.masked_mean(made.entropy_BS, mask_BS).item(),
        "objective/scores": made.scores_B.mean().item(),
        "objective/scores_std": made.scores_B.std(unbiased=False).item(),
        "objective/non_score_reward": -kl_coef * kl_B.mean().item(),
        "objective/rlhf_reward": (made.scores_B - penalty_B - kl_coef * kl_B).mean().item(),
        "objective/reward_length_correlation": correlation(made.scores_B, lengths_B),
        "tokens/length": lengths_B.mean().item(),
        "tokens/end_rate": made.finished_B.float().mean().item(),
        "text/distinct-2": distinct_2(made.answers),
        "text/boilerplate": boilerplate(made.answers),
        "text/refusal_rate": float(np.mean([refuses(answer) for answer in made.answers])),
    }
    for name in ("red-team", "helpful"):
        rows = [row for row, prompt in enumerate(made.prompts) if prompt.set == name]
        if rows:
            figures[f"objective/scores/{name}"] = made.scores_B[rows].mean().item()
            refused = [refuses(made.answers[row]) for row in rows]
            figures[f"text/refusal_rate/{name}"] = float(np.mean(refused))
    return figures


def value_figures(values_BS: Tensor, returns_BS: Tensor, mask_BS: Tensor) -> Metrics:
    """How far the values before the step are from the returns."""
    error = losses.masked_mean((values_BS - returns_BS) ** 2, mask_BS).item()
    spread = float(returns_BS[mask_BS].var(unbiased=False))
    return {
        "ppo/val/mean": losses.masked_mean(values_BS, mask_BS).item(),
        "ppo/val/error": error,
        "ppo/val/var_explained": 1 - error / max(spread, 1e-8),
        "ppo/returns/mean": losses.masked_mean(returns_BS, mask_BS).item(),
        "ppo/returns/var": spread,
    }


def correlation(x_B: Tensor, y_B: Tensor) -> float:
    """Pearson's correlation, and 0 if one of the two does not vary."""
    x, y = x_B - x_B.mean(), y_B - y_B.mean()
    scale = float(x.norm() * y.norm())
    return float((x * y).sum()) / scale if scale > 1e-12 else 0.0
