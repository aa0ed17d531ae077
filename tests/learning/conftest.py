"""A tiny random policy, prompts for it, and settings that make a step of PPO take milliseconds."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from constitutional_ai.learning import sft
from constitutional_ai.learning.batch import Tokens
from constitutional_ai.learning.policy import Policy
from constitutional_ai.learning.reward import FunctionReward
from constitutional_ai.learning.reward_model import RewardModel
from constitutional_ai.learning.rollout import Rollout, Sampler, rollout
from constitutional_ai.records import Prompt, PromptSet, user
from constitutional_ai.stage_settings import FinetuneSettings, PPOSettings

Make = Callable[..., Any]  # the fixture ``make_settings``
# Prompts and answers of several lengths.
ROWS: list[Tokens] = [([5, 6, 7], [8, 9]), ([5], [20, 21, 22, 23]), ([9, 9, 9, 9], [2])]


def ignore(*args: Any, **kwargs: Any) -> None:
    """In place of a log, a tick or a note."""


# A reward that a policy can learn at once: end early.
shortness = FunctionReward(lambda prompts, answers: [-len(answer) / 10 for answer in answers])


def random_reward(policy: Policy) -> RewardModel:
    """A reward model with an opinion: its head is not zero."""
    reward = RewardModel.from_policy(policy)
    generator = torch.Generator().manual_seed(4)
    reward.model.score.weight.data.normal_(0, 0.3, generator=generator)
    return reward


def made(policy: Policy, prompts: list[Prompt], settings: Any, reward: Any = None) -> Rollout:
    reference = policy.copy()
    return rollout(
        Sampler(policy), reference, reward or random_reward(policy), prompts, settings, 5
    )


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture
def exact(monkeypatch: pytest.MonkeyPatch) -> None:
    """No bfloat16: for comparisons with other arithmetic."""
    for module in ("machine", "learning.rollout"):
        name = f"constitutional_ai.{module}.has_fast_bf16"
        monkeypatch.setattr(name, lambda device: False)


@pytest.fixture
def policy(tiny_llama: Path) -> Policy:
    return Policy.load(tiny_llama, "cpu")


@pytest.fixture(scope="session")
def speaker_folder(tiny_llama: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A policy that has half learned some short answers: it varies them, and mostly ends them."""
    torch.set_num_threads(1)
    said = ["Hi!", "No.", "Knock knock.", "Tell me.", "Is it?", "Open the door."]
    examples = [
        ([user(f"{name} {n}")], answer)
        for n, answer in enumerate(said)
        for name in ("red-team", "helpful")
    ]
    speaker = Policy.load(tiny_llama, "cpu")
    settings = FinetuneSettings(epochs=30, lr=5e-3, batch_tokens=512)
    sft.train(speaker, examples, settings, 0, ignore, ignore)
    folder = tmp_path_factory.mktemp("speaker") / "model"
    speaker.save_pretrained(folder)
    return folder


@pytest.fixture
def speaker(speaker_folder: Path) -> Policy:
    return Policy.load(speaker_folder, "cpu")


@pytest.fixture
def prompts() -> list[Prompt]:
    sets: tuple[PromptSet, ...] = ("red-team", "helpful")
    return [
        Prompt(id=f"{name}-{n}", prompt=[user(f"{name} {n}")], set=name)
        for name in sets
        for n in range(10)
    ]


def ppo_settings(**changed: Any) -> PPOSettings:
    """Eight short answers a step."""
    small = {
        "steps": 6,
        "rollouts": 8,
        "max_new_tokens": 8,
        "monitor_every": 2,
        "checkpoint_every": 2,
        "batch_tokens": 256,
        "warmup_steps": 1,
    }
    return PPOSettings.model_validate({**small, **changed})


@pytest.fixture
def make_settings() -> Any:
    return ppo_settings
