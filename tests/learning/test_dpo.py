"""DPO: the loss against a slow computation, its gradient, its parts, and what it refuses."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from constitutional_ai.errors import DataError, ModelError, TrainingDiverged
from constitutional_ai.learning import dpo
from constitutional_ai.learning.policy import Policy
from constitutional_ai.learning.reward_model import LabelledPair
from constitutional_ai.records import user
from constitutional_ai.settings import ModelSettings
from constitutional_ai.stage_settings import DPOSettings
from tests.learning.conftest import ignore

PAIRS = [
    LabelledPair([user(f"Request {n}")], f"No. {n}", "Take a knife." + " Now." * (n % 3), p)
    for n, p in enumerate((0.95, 0.9, 0.5, 0.7, 0.99, 0.8, 0.6, 0.85))
]
BETA = 0.2


def settings(**changed: Any) -> DPOSettings:
    small = {"beta": BETA, "epochs": 2, "lr": 1e-3, "batch_pairs": 4, "warmup_steps": 1}
    return DPOSettings.model_validate({**small, **changed})


def trained(
    policy: Policy, changed: dict[str, Any], pairs: Sequence[LabelledPair] = PAIRS, **options: Any
) -> tuple[dpo.Pairs, list[dict[str, Any]]]:
    log: list[dict[str, Any]] = []
    made = dpo.Pairs(policy, pairs, settings(**changed))
    dpo.train(made, 3, log.append, ignore, **options)
    return made, log


def answer_logprob(model: Any, policy: Policy, pair: LabelledPair, answer: str) -> float:
    """Σ log P of the answer's tokens and its end token, token by token, by transformers."""
    prompt = policy.tokens.prompt(pair.prompt)
    ids = prompt + policy.tokens.answer(answer)
    assert ids[-1] == policy.tokens.end_id
    with torch.no_grad():
        logits = model(torch.tensor([ids])).logits[0].double()
    logp = torch.log_softmax(logits, -1)
    return sum(float(logp[place - 1, ids[place]]) for place in range(len(prompt), len(ids)))


@pytest.mark.usefixtures("exact")
def test_the_loss_is_that_of_a_slow_loop_over_tokens(tiny_llama: Path) -> None:
    """Another policy than the reference, pairs in batches with padding; TRL's formula, by hand."""
    from transformers import AutoModelForCausalLM

    policy = Policy.load(tiny_llama, "cpu")
    made = dpo.Pairs(policy, PAIRS, settings())
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weight in policy.model.parameters():
            weight.add_(torch.randn(weight.shape, generator=generator) * 0.02)
    reference = AutoModelForCausalLM.from_pretrained(tiny_llama).eval()
    moved = AutoModelForCausalLM.from_pretrained(tiny_llama).eval()
    moved.load_state_dict(policy.model.state_dict())
    expected, h = [], []
    for pair in PAIRS:
        ratios = [
            answer_logprob(moved, policy, pair, answer)
            - answer_logprob(reference, policy, pair, answer)
            for answer in (pair.chosen, pair.rejected)
        ]
        h.append(ratios[0] - ratios[1])
        p = min(pair.p, 0.98)
        expected.append(
            -p * math.log(1 / (1 + math.exp(-BETA * h[-1])))
            - (1 - p) * math.log(1 / (1 + math.exp(BETA * h[-1])))
        )
    loss, figures = made.loss(range(len(PAIRS)))
    assert loss.item() == pytest.approx(sum(expected) / len(expected), rel=1e-4)
    assert figures["rewards/margins"] == pytest.approx(BETA * sum(h) / len(h), abs=1e-3)
    assert dpo.measure(made).h == pytest.approx(h, abs=1e-3)
    assert dpo.measure(made).loss == pytest.approx(loss.item(), rel=1e-4)


def test_before_the_first_step_policy_and_reference_are_equal_to_the_bit(policy: Policy) -> None:
    _, log = trained(policy, {})
    assert log[0]["loss/dpo"] == pytest.approx(math.log(2))
    for name in ("rewards/margins", "logratio/chosen", "logratio/rejected"):
        assert log[0][name] == 0
    assert log[0]["accuracy"] == 0.5  # no side yet
    assert log[0]["logps/chosen"] < 0 and log[-1]["logratio/chosen"] != 0


@pytest.mark.parametrize("loss", ["soft", "hard", "ipo"])
def test_it_moves_towards_the_chosen_and_a_swapped_label_away(tiny_llama: Path, loss: str) -> None:
    pairs = [pair for pair in PAIRS if pair.p > 0.75]
    swapped = [LabelledPair(p.prompt, p.rejected, p.chosen, 1 - p.p) for p in pairs]
    for rows, sign in ((pairs, 1), (swapped, -1)):
        made, log = trained(Policy.load(tiny_llama, "cpu"), {"loss": loss, "epochs": 6}, rows)
        assert all(sign * h > 0 for h in dpo.measure(made).h)
        assert log[-1]["accuracy"] == 1
        assert log[-1]["loss/dpo"] < log[0]["loss/dpo"]


@pytest.mark.usefixtures("exact")
def test_a_soft_label_is_where_it_settles(tiny_llama: Path) -> None:
    """βh → logit(p): a hard label would drive it on without end."""
    pair = [LabelledPair([user("Request")], "No.", "Take a knife.", 0.8)]
    policy = Policy.load(tiny_llama, "cpu")
    made, _ = trained(policy, {"epochs": 150, "lr": 2e-3, "beta": 1.0}, pair)
    assert dpo.measure(made).h == pytest.approx([math.log(0.8 / 0.2)], abs=0.05)


@pytest.mark.usefixtures("exact")
@pytest.mark.parametrize("sl_mix", [0.0, 0.5])
def test_a_batch_in_parts_has_the_gradient_of_the_whole(policy: Policy, sl_mix: float) -> None:
    examples = [policy.encode(pair.prompt, pair.chosen) for pair in PAIRS[:3]]
    gradients, found = [], []
    for tokens in (10_000, 130):
        pairs = dpo.Pairs(policy, PAIRS, settings(batch_tokens=tokens, sl_mix=sl_mix))
        steps = dpo.Steps(pairs, examples if sl_mix else [])
        rows = [*range(len(PAIRS)), *(len(PAIRS) + n for n in range(len(steps.examples)))]
        assert len(pairs.parts(range(len(PAIRS)))) == (1 if tokens > 1000 else 5)
        policy.model.zero_grad()
        found.append(steps.gather(rows))
        gradients.append(_gradient(policy))
        policy.model.zero_grad()
        loss, figures = steps.loss(rows)
        loss.backward()
        gradients.append(_gradient(policy))
        found.append((loss.item(), figures))
    for other in gradients[1:]:
        assert torch.allclose(gradients[0], other, atol=1e-5)
    for total, figures in found[1:]:
        assert total == pytest.approx(found[0][0], rel=1e-5)
        assert figures == pytest.approx(found[0][1], abs=1e-4)
    assert ("loss/sft" in found[0][1]) == bool(sl_mix)


def _gradient(policy: Policy) -> torch.Tensor:
    grads = [p.grad for p in policy.model.parameters() if p.grad is not None]
    return torch.cat([grad.flatten().clone() for grad in grads])


def test_the_finetuning_examples_are_learned_beside_the_pairs(tiny_llama: Path) -> None:
    examples = [([user("Help me")], "Of course."), ([user("And me")], "Sure.")]
    _, log = trained(
        Policy.load(tiny_llama, "cpu"), {"sl_mix": 1.0, "epochs": 12}, examples=examples
    )
    assert log[-1]["loss/sft"] < log[0]["loss/sft"]
    with pytest.raises(DataError, match=r"dpo\.sl_mix is set, but there are no"):
        trained(Policy.load(tiny_llama, "cpu"), {"sl_mix": 1.0})


def test_with_an_adapter_the_reference_is_the_policy_without_it(tiny_llama: Path) -> None:
    policy = Policy.to_train(tiny_llama, ModelSettings(device="cpu", lora_rank=4))
    made, log = trained(policy, {"lr": 1e-2})
    assert log[0]["rewards/margins"] == 0 and log[-1]["rewards/margins"] != 0
    before = dict(made.reference)
    made.policy = policy.reference()
    after: dict[int, tuple[float, float]] = {}
    with torch.no_grad():
        for rows in (part for batch in made.batches for part in made.parts(batch)):
            chosen, rejected = made.logprobs(rows)
            after |= dict(
                zip(rows, zip(chosen.tolist(), rejected.tolist(), strict=True), strict=True)
            )
    assert after == before


@pytest.mark.usefixtures("exact")
def test_hard_and_ipo_take_the_side_alone(policy: Policy) -> None:
    for loss in ("hard", "ipo"):
        made = dpo.Pairs(policy, PAIRS[:2], settings(loss=loss))
        assert made.p == [1, 1]
    h, p = torch.tensor([2.0, -3.0]), torch.tensor([1.0, 1.0])
    of_hard = dpo.Pairs(policy, PAIRS[:2], settings(loss="hard")).loss_of(h, p)
    assert of_hard.item() == pytest.approx(-F.logsigmoid(BETA * h).mean().item())


def test_same_side_counts_half_where_there_is_none() -> None:
    h, p = torch.tensor([1.0, -1.0, 0.0, 2.0]), torch.tensor([0.9, 0.9, 0.9, 0.5])
    assert dpo.same_side(h, p).tolist() == [1, 0, 0.5, 0.5]


def test_a_loss_that_is_no_number_stops_it_and_names_the_pairs(policy: Policy) -> None:
    made = dpo.Pairs(policy, PAIRS, settings(batch_pairs=8))
    made.reference[3] = (math.nan, 0.0)
    names = [f"preferences.jsonl:{n}" for n in range(8)]
    with pytest.raises(TrainingDiverged, match=r"these rows: preferences\.jsonl:3$"):
        dpo.train(made, 3, ignore, ignore, names)


def test_damaged_weights_are_refused_before_anything_is_read(policy: Policy) -> None:
    next(policy.model.parameters()).data[0, 0] = math.nan
    with pytest.raises(ModelError, match="no finite number"):
        dpo.Pairs(policy, PAIRS, settings())


def test_a_pair_beyond_the_context_is_refused(policy: Policy) -> None:
    long = LabelledPair([user("Request")], "No. " * 300, "Yes.", 0.9)
    assert dpo.length(policy.tokens, long) > policy.context
    with pytest.raises(DataError, match="longer than the model's context"):
        dpo.Pairs(policy, [long], settings())
    encoded = [sum(map(len, policy.encode(p.prompt, p.chosen))) for p in PAIRS[:1]]
    other = [sum(map(len, policy.encode(p.prompt, p.rejected))) for p in PAIRS[:1]]
    assert dpo.length(policy.tokens, PAIRS[0]) == max(*encoded, *other)
