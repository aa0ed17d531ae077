"""Loss maths against hand-computed values and independent implementations."""

import math
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import log_loss

from constitutional_ai.learning import losses

NAN = float("nan")


def test_masked_mean_reads_only_the_mask() -> None:
    x = torch.tensor([[1.0, NAN, 3.0], [NAN, 8.0, NAN]])
    mask = torch.tensor([[True, False, True], [False, True, False]])
    assert losses.masked_mean(x, mask).item() == pytest.approx(4.0)
    assert losses.masked_sum(x, mask).tolist() == [4.0, 8.0]


def test_mean_of_an_empty_mask_is_zero() -> None:
    assert losses.masked_mean(torch.full((2, 3), NAN), torch.zeros(2, 3, dtype=torch.bool)) == 0


def test_whitening_has_mean_zero_and_variance_one_over_the_mask() -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(4, 7, generator=generator) * 3 + 5
    mask = torch.rand(4, 7, generator=generator) > 0.4
    white = losses.whiten(x, mask)
    assert white[mask].mean().item() == pytest.approx(0, abs=1e-5)
    assert white[mask].var(unbiased=False).item() == pytest.approx(1, abs=1e-4)
    assert (white[~mask] == 0).all()
    poisoned = x.masked_fill(~mask, NAN)
    assert torch.equal(losses.whiten(poisoned, mask), white)


def test_whitening_of_equal_values_is_zero() -> None:
    mask = torch.ones(2, 3, dtype=torch.bool)
    assert (losses.whiten(torch.full((2, 3), 7.0), mask) == 0).all()


def test_token_logprobs_and_entropy_by_hand() -> None:
    logits = torch.log(torch.tensor([[0.5, 0.25, 0.25], [0.1, 0.2, 0.7]]))
    logprobs = losses.token_logprobs(logits, torch.tensor([1, 2]))
    assert logprobs.tolist() == pytest.approx([math.log(0.25), math.log(0.7)], rel=1e-5)
    expected = [1.5 * math.log(2), -sum(p * math.log(p) for p in (0.1, 0.2, 0.7))]
    assert losses.entropy(logits).tolist() == pytest.approx(expected, rel=1e-5)


def test_sft_loss_is_the_mean_over_answer_tokens() -> None:
    logprobs = torch.tensor([[-9.0, -1.0, -2.0], [-9.0, -9.0, -6.0]])
    mask = torch.tensor([[False, True, True], [False, False, True]])
    assert losses.sft_loss(logprobs, mask).item() == pytest.approx(3.0)


def test_preference_loss_is_cross_entropy_with_soft_targets() -> None:
    delta = torch.tensor([0.3, -2.0, 5.0])
    p = torch.tensor([0.9, 0.5, 0.02])
    ours = losses.preference_loss(delta, p)
    assert ours.item() == pytest.approx(
        F.binary_cross_entropy_with_logits(delta, p).item(), rel=1e-6
    )


def test_preference_loss_with_hard_labels_is_sklearns_log_loss() -> None:
    delta, label = np.array([0.3, -2.0, 1.5]), np.array([1, 0, 0])
    expected = log_loss(label, 1 / (1 + np.exp(-delta)), labels=[0, 1])
    ours = losses.preference_loss(torch.tensor(delta), torch.tensor(label, dtype=torch.float64))
    assert ours.item() == pytest.approx(expected, rel=1e-9)


def test_preference_loss_has_its_minimum_at_the_logit_of_the_label() -> None:
    p = torch.tensor([0.8])
    delta = torch.logit(p).requires_grad_()
    (gradient,) = torch.autograd.grad(losses.preference_loss(delta, p), delta)
    assert gradient.item() == pytest.approx(0, abs=1e-6)


def test_preference_loss_is_symmetric_under_a_swap_of_the_pair() -> None:
    delta, p = torch.randn(8), torch.rand(8)
    swapped = losses.preference_loss(-delta, 1 - p)
    assert losses.preference_loss(delta, p).item() == pytest.approx(swapped.item(), rel=1e-5)


def test_dpo_loss_by_hand() -> None:
    """β = 0.5: h = 2 at p = 0.9, h = −1 at p = 0.5, both from σ as it is defined."""
    sigma = [1 / (1 + math.exp(-1.0)), 1 / (1 + math.exp(0.5))]
    terms = [
        -(p * math.log(s) + (1 - p) * math.log(1 - s))
        for p, s in zip((0.9, 0.5), sigma, strict=True)
    ]
    ours = losses.dpo_loss(torch.tensor([2.0, -1.0]), torch.tensor([0.9, 0.5]), beta=0.5)
    assert ours.item() == pytest.approx(sum(terms) / 2, rel=1e-6)


def test_dpo_loss_has_its_minimum_at_the_logit_of_the_label_by_beta() -> None:
    p, beta = torch.tensor([0.8, 0.3]), 0.1
    h = (torch.logit(p) / beta).requires_grad_()
    (gradient,) = torch.autograd.grad(losses.dpo_loss(h, p, beta), h)
    assert gradient.tolist() == pytest.approx([0, 0], abs=1e-7)
    at_zero = torch.zeros(2, requires_grad=True)
    (gradient,) = torch.autograd.grad(losses.dpo_loss(at_zero, p, beta), at_zero)
    assert gradient.tolist() == pytest.approx([-0.3 * beta / 2, 0.2 * beta / 2])


@given(st.floats(-40, 40), st.floats(0.01, 2))
def test_dpo_loss_with_a_hard_label_is_the_papers_and_ipo_a_square(h: float, beta: float) -> None:
    one, other = (torch.tensor([x], dtype=torch.float64) for x in (h, -h))
    right, wrong = torch.ones(1).double(), torch.zeros(1).double()
    expected = np.logaddexp(0, -beta * h)  # −log σ(βh)
    assert losses.dpo_loss(one, right, beta).item() == pytest.approx(expected, abs=1e-5)
    square = (h - 0.5 / beta) ** 2
    assert losses.ipo_loss(one, right, beta).item() == pytest.approx(square, abs=1e-4)
    for loss in (losses.dpo_loss, losses.ipo_loss):
        swapped = loss(other, wrong, beta).item()
        assert swapped == pytest.approx(loss(one, right, beta).item())


def test_ipo_loss_knows_the_side_of_a_label_and_no_more() -> None:
    h = torch.tensor([3.0])
    made = [losses.ipo_loss(h, torch.tensor([p]), 0.1).item() for p in (0.51, 0.99, 0.49)]
    assert made == pytest.approx([4.0, 4.0, 64.0])  # 1 / (2β) is 5


def brute_force_advantage(
    rewards: list[float], values: list[float], gamma: float, lam: float
) -> list[float]:
    """The definition: A_t = Σ_l (γλ)^l δ_{t+l}, with V = 0 beyond the episode."""
    after = [*values[1:], 0.0]
    delta = [r + gamma * v2 - v1 for r, v1, v2 in zip(rewards, values, after, strict=True)]
    return [
        sum((gamma * lam) ** k * d for k, d in enumerate(delta[t:])) for t in range(len(rewards))
    ]


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    spans=st.lists(st.tuples(st.integers(0, 4), st.integers(1, 5)), min_size=1, max_size=4),
    gamma=st.sampled_from([1.0, 0.9]),
    lam=st.sampled_from([0.0, 0.95, 1.0]),
)
def test_gae_equals_the_sum_that_defines_it(
    seed: int, spans: list[tuple[int, int]], gamma: float, lam: float
) -> None:
    generator = torch.Generator().manual_seed(seed)
    width = max(start + length for start, length in spans)
    rewards = torch.full((len(spans), width), NAN)
    values, mask = rewards.clone(), torch.zeros(len(spans), width, dtype=torch.bool)
    for row, (start, length) in enumerate(spans):
        mask[row, start : start + length] = True
        rewards[row, start : start + length] = torch.randn(length, generator=generator)
        values[row, start : start + length] = torch.randn(length, generator=generator)
    advantages, returns = losses.gae(rewards, values, mask, gamma, lam)
    for row in range(len(spans)):
        m = mask[row]
        expected = brute_force_advantage(
            rewards[row][m].tolist(), values[row][m].tolist(), gamma, lam
        )
        assert advantages[row][m].tolist() == pytest.approx(expected, abs=1e-4)
        total = (advantages[row] + values[row])[m]
        assert returns[row][m].tolist() == pytest.approx(total.tolist(), abs=1e-5)
    assert (advantages[~mask] == 0).all() and (returns[~mask] == 0).all()


def test_gae_without_discount_returns_the_reward_to_go() -> None:
    rewards = torch.tensor([[1.0, 2.0, 3.0]])
    mask = torch.ones(1, 3, dtype=torch.bool)
    _, returns = losses.gae(rewards, torch.randn(1, 3), mask, gamma=1.0, lam=1.0)
    assert returns[0].tolist() == pytest.approx([6.0, 5.0, 3.0], abs=1e-5)


def test_policy_loss_by_hand() -> None:
    ratio = torch.tensor([[1.5, 0.5, 1.5, 0.5, 1.1, 7.0]])
    advantage = torch.tensor([[1.0, 1.0, -1.0, -1.0, 2.0, NAN]])
    mask = torch.tensor([[True] * 5 + [False]])
    result = losses.policy_loss(ratio.log(), advantage, mask, clip=0.2)
    # min(ρA, clip(ρ)A): 1.2 (clipped), 0.5, −1.5, −0.8 (clipped), 2.2
    assert result.loss.item() == pytest.approx(-(1.2 + 0.5 - 1.5 - 0.8 + 2.2) / 5, rel=1e-5)
    assert result.clipfrac.item() == pytest.approx(2 / 5)
    logs = [math.log(r) ** 2 for r in (1.5, 0.5, 1.5, 0.5, 1.1)]
    approxkl = losses.approximate_kl(ratio.log(), mask)
    assert approxkl.item() == pytest.approx(sum(logs) / 10, rel=1e-5)


def test_policy_gradient_at_ratio_one_is_the_advantage() -> None:
    new = torch.zeros(1, 3, requires_grad=True)
    advantage, mask = torch.tensor([[1.0, -2.0, 0.5]]), torch.ones(1, 3, dtype=torch.bool)
    losses.policy_loss(new, advantage, mask, clip=0.2).loss.backward()
    assert new.grad is not None
    assert new.grad[0].tolist() == pytest.approx([-1 / 3, 2 / 3, -0.5 / 3], rel=1e-5)


def test_log_ratio_is_clamped_and_masked() -> None:
    new, old = torch.tensor([[50.0, -50.0, 0.5, NAN]]), torch.zeros(1, 4)
    mask = torch.tensor([[True, True, True, False]])
    assert losses.log_ratio(new, old, mask, limit=10.0).tolist() == [[10.0, -10.0, 0.5, 0.0]]


def test_value_loss_by_hand() -> None:
    values, old = torch.tensor([[1.0, 0.1, 0.5]]), torch.zeros(1, 3)
    returns, mask = torch.tensor([[1.0, 1.0, NAN]]), torch.tensor([[True, True, False]])
    result = losses.value_loss(values, old, returns, mask, clip=0.2)
    # errors: max(0, (0.2 − 1)²) = 0.64 by the clip; (0.1 − 1)² = 0.81 either way
    assert result.loss.item() == pytest.approx(0.5 * (0.64 + 0.81) / 2, rel=1e-5)
    assert result.clipfrac.item() == pytest.approx(0.5)


X, Y = torch.tensor([[0.1, -1.0, 0.5, 0.2]]), torch.tensor([[0.2, 0.1, 0.3, -0.4]])
MASK = torch.tensor([[True, True, True, False]])


@pytest.mark.parametrize(
    "loss",
    [
        lambda x, y: losses.sft_loss(x, MASK),
        lambda x, y: losses.whiten(x, MASK).pow(3).sum(),
        lambda x, y: losses.policy_loss(losses.log_ratio(x, y, MASK, 10.0), y, MASK, 0.2).loss,
        lambda x, y: losses.policy_loss(x, y, MASK, 0.2).loss,
        lambda x, y: losses.value_loss(x, y, 2 * y, MASK, 0.2).loss,
        lambda x, y: losses.approximate_kl(x, MASK),
        lambda x, y: losses.kl_k1(x, y, MASK).sum(),
        lambda x, y: losses.kl_k3(x, y, MASK).sum(),
        lambda x, y: losses.gae(y, x, MASK, 1.0, 0.9)[0].sum(),
    ],
)
@pytest.mark.parametrize("poison", [NAN, float("inf")])
def test_what_stands_outside_the_mask_changes_no_gradient(loss: Any, poison: float) -> None:
    clean, broken = X.clone().requires_grad_(), X.masked_fill(~MASK, poison).requires_grad_()
    loss(clean, Y).backward()
    loss(broken, Y.masked_fill(~MASK, poison)).backward()
    assert clean.grad is not None and broken.grad is not None
    assert torch.equal(clean.grad, broken.grad)
    assert clean.grad[MASK].abs().max() > 0 and (clean.grad[~MASK] == 0).all()


def test_kl_estimators_are_unbiased() -> None:
    generator = torch.Generator().manual_seed(1)
    p, q = torch.tensor([0.7, 0.2, 0.1]), torch.tensor([0.3, 0.3, 0.4])
    drawn = torch.multinomial(p, 200_000, replacement=True, generator=generator)[None]
    mask = torch.ones_like(drawn, dtype=torch.bool)
    exact = F.kl_div(q.log(), p, reduction="sum").item()
    k1 = losses.kl_k1(p.log()[drawn], q.log()[drawn], mask)
    k3 = losses.kl_k3(p.log()[drawn], q.log()[drawn], mask)
    assert k1.mean().item() == pytest.approx(exact, abs=0.01)
    assert k3.mean().item() == pytest.approx(exact, abs=0.01)
    assert k3.min() >= 0 and k1.min() < 0
    assert k3.var() < k1.var()
