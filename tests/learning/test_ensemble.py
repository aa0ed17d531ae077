"""Several reward models as one: whose scores count, and that PPO can train against them."""

from typing import Any

import pytest
import torch

from constitutional_ai.learning import reward_model
from constitutional_ai.learning.ensemble import Ensemble
from constitutional_ai.learning.policy import Policy
from constitutional_ai.learning.reward_model import LabelledPair, RewardModel
from constitutional_ai.learning.value import SeparateValue, SharedValue, make_value
from constitutional_ai.records import user
from constitutional_ai.settings import PPOSettings, RewardSettings

ASKED = [[user("Hello")], [user("Tell me a joke.")]]
SAID = ["Knock knock.", "Harmful!"]


def ignore(*args: Any, **kwargs: Any) -> None:
    pass


@pytest.fixture
def members(policy: Policy) -> list[RewardModel]:
    """Two that disagree: what the one likes, the other does not."""
    found = []
    for chosen, rejected in (SAID, SAID[::-1]):
        reward = RewardModel.from_policy(policy)
        pairs = [LabelledPair([user(f"Request {n}")], chosen, rejected, 0.9) for n in range(16)]
        settings = RewardSettings(epochs=8, lr=3e-3, batch_pairs=8)
        reward_model.train(reward, pairs, settings, seed=0, log=ignore, tick=ignore)
        found.append(reward)
    return found


def test_mean_and_least_are_of_the_members_scores(members: list[RewardModel]) -> None:
    each = torch.tensor([member.score(ASKED, SAID) for member in members])
    assert (each[0] - each[1]).abs().min() > 0.1  # else nothing is tested
    mean, least = Ensemble(members, "mean"), Ensemble(members, "min")
    assert mean.score(ASKED, SAID) == pytest.approx(each.mean(dim=0).tolist(), abs=1e-5)
    assert least.score(ASKED, SAID) == pytest.approx(each.amin(dim=0).tolist(), abs=1e-5)


def test_the_value_function_reads_the_first_members_states(
    policy: Policy, members: list[RewardModel]
) -> None:
    together = Ensemble(members, "mean")
    ids = torch.tensor([together.encode(ASKED[0], SAID[0])])
    assert torch.equal(together.states(ids), members[0].states(ids))
    assert isinstance(make_value(policy, together, PPOSettings(), 0), SharedValue)
    separate = make_value(policy, together, PPOSettings(value="separate"), 0)
    assert isinstance(separate, SeparateValue)
    assert type(separate.model) is RewardModel
