"""Rewards that are no single model: whose scores count, and what PPO's value reads of them."""

import pytest
import torch

from constitutional_ai.learning.batch import Answered, Batch
from constitutional_ai.learning.policy import Policy
from constitutional_ai.learning.reward import Ensemble, FunctionReward, Reward
from constitutional_ai.learning.reward_model import LabelledPair, RewardModel, train
from constitutional_ai.learning.value import SeparateValue, SharedValue, make_value
from constitutional_ai.records import Prompt, user
from constitutional_ai.stage_settings import PPOSettings, RewardSettings
from tests.learning.conftest import ignore

ASKED = [[user("Hello")], [user("Tell me a joke.")]]
SAID = ["Knock knock.", "Harmful!"]


@pytest.fixture
def members(policy: Policy) -> list[RewardModel]:
    """Two that disagree: what the one likes, the other does not."""
    fitted = []
    for chosen, rejected in (SAID, SAID[::-1]):
        reward = RewardModel.from_policy(policy)
        pairs = [LabelledPair([user(f"Request {n}")], chosen, rejected, 0.9) for n in range(16)]
        settings = RewardSettings(epochs=8, lr=3e-3, batch_pairs=8)
        train(reward, pairs, settings, seed=0, log=ignore, tick=ignore)
        fitted.append(reward)
    return fitted


def answered(policy: Policy) -> Answered:
    rows = [policy.encode(asked, said) for asked, said in zip(ASKED, SAID, strict=True)]
    prompts = [Prompt(id=str(n), prompt=asked, set="helpful") for n, asked in enumerate(ASKED)]
    batch = Batch.of(rows, policy.tokens.pad_id, policy.device)
    return Answered(prompts, SAID, batch, torch.tensor([True, True]))


@pytest.mark.usefixtures("exact")
def test_mean_and_least_are_of_the_members_scores(
    policy: Policy, members: list[RewardModel]
) -> None:
    """Whether texts are scored or the tokens of a rollout."""
    each = torch.tensor([member(ASKED, SAID) for member in members])
    assert (each[0] - each[1]).abs().min() > 0.1  # else nothing is tested
    mean, least = Ensemble(members, "mean"), Ensemble(members, "min")
    for together, expected in ((mean, each.mean(dim=0)), (least, each.amin(dim=0))):
        assert together(ASKED, SAID) == pytest.approx(expected.tolist(), abs=1e-5)
        scores, states = together.score(answered(policy), 4096)
        assert scores.tolist() == pytest.approx(expected.tolist(), abs=1e-4)
        assert torch.equal(states, members[0].score(answered(policy), 4096)[1])


def test_what_the_value_function_starts_from(policy: Policy, members: list[RewardModel]) -> None:
    together: Reward = Ensemble(members, "mean")
    assert isinstance(make_value(policy, together, PPOSettings(), 0), SharedValue)
    separate = make_value(policy, together, PPOSettings(value="separate"), 0)
    assert isinstance(separate, SeparateValue)
    mine, theirs = separate.model.model.state_dict(), members[0].model.state_dict()
    assert all(torch.equal(weight, theirs[name]) for name, weight in mine.items())
    assert separate.model.model is not members[0].model


def test_a_function_gives_scores_and_no_states(policy: Policy) -> None:
    length: Reward = FunctionReward(lambda prompts, answers: [len(answer) for answer in answers])
    assert length(ASKED, SAID) == [12, 8]
    scores, states = length.score(answered(policy), 4096)
    assert scores.tolist() == [12.0, 8.0] and states is None
