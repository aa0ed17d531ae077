"""Both value functions learn the returns, and the clip holds them back."""

import pytest
import torch

from constitutional_ai.errors import SettingsError
from constitutional_ai.learning.policy import Policy
from constitutional_ai.learning.value import Target, make_value
from constitutional_ai.records import Prompt
from tests.learning.conftest import Make, made, random_reward, shortness


@pytest.mark.parametrize("value", ["shared", "separate"])
def test_the_value_learns_the_returns(
    speaker: Policy, prompts: list[Prompt], make_settings: Make, value: str
) -> None:
    settings = make_settings(value=value, value_epochs=10, lr=3e-3)
    reward = random_reward(speaker)
    found = made(speaker, prompts, settings, reward)
    mask = found.batch.mask_BS
    returns = (2 * found.scores_B[:, None]).expand_as(mask).masked_fill(~mask, 0.0)
    learner = make_value(speaker, reward, settings, seed=0)
    rows = [list(range(len(prompts)))]
    for _ in range(8):
        old = learner.predict(found)
        assert (old[~mask] == 0).all()
        learner.fit(found, Target(returns, old, rows, first=True))
    error = learner.predict(found) - returns
    assert error[mask].var() < 0.5 * returns[mask].var()


def test_the_clip_holds_the_value_back(
    speaker: Policy, prompts: list[Prompt], make_settings: Make
) -> None:
    settings = make_settings(value_clip=0.2, value_epochs=60, value_lr=3e-4)
    reward = random_reward(speaker)
    found = made(speaker, prompts, settings, reward)
    returns = torch.full(found.batch.mask_BS.shape, 9.0)
    moved = {}
    for first in (False, True):
        learner = make_value(speaker, reward, settings, seed=0)
        old = learner.predict(found)
        learner.fit(found, Target(returns, old, [], first))
        change = learner.predict(found) - old
        moved[first] = change[found.batch.mask_BS].mean().item()
    assert 0.1 < moved[False] < 0.6 < 2 < moved[True]


def test_a_plain_function_has_no_states_to_share(speaker: Policy, make_settings: Make) -> None:
    with pytest.raises(SettingsError, match="separate"):
        make_value(speaker, shortness, make_settings(value="shared"), seed=0)
