"""A tiny random policy, prompts for it, and settings that make a step of PPO take milliseconds."""

from pathlib import Path
from typing import Any

import pytest
import torch

from constitutional_ai.learning.policy import Policy
from constitutional_ai.records import Prompt, PromptSet, user
from constitutional_ai.settings import PPOSettings


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture
def exact(monkeypatch: pytest.MonkeyPatch) -> None:
    """No bfloat16: for comparisons with other arithmetic."""
    for module in ("loop", "rollout"):
        name = f"constitutional_ai.learning.{module}.has_fast_bf16"
        monkeypatch.setattr(name, lambda device: False)


@pytest.fixture
def policy(tiny_llama: Path) -> Policy:
    return Policy.load(tiny_llama, "cpu")


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
