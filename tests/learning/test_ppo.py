"""PPO at toy size: what it computes, that it learns, that it stops, that a kill changes nothing."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from constitutional_ai.errors import SettingsError, TrainingDiverged
from constitutional_ai.learning import ppo
from constitutional_ai.learning.policy import Policy
from constitutional_ai.learning.ppo import PPO, Inputs, KLController, Outcome
from constitutional_ai.learning.reward import FunctionReward
from constitutional_ai.monitor.ppo import Probe
from constitutional_ai.records import Conversation, Prompt, user
from tests.learning.conftest import Make, ignore, random_reward, shortness

WRITTEN = ("metrics.jsonl", "samples.jsonl", "monitor.jsonl")


def even(prompts: Any, answers: Any, references: Any) -> list[float | None]:
    return [0.5] * len(answers)


def train(
    policy: Policy, folder: Path, prompts: list[Prompt], settings: Any, **more: Any
) -> Outcome:
    reward = more.pop("reward", None) or random_reward(policy)
    inputs = Inputs(policy, reward, prompts, settings, folder, 3, **more)
    return ppo.train(inputs, ignore, ignore)


def rows(folder: Path, file: str = "metrics.jsonl") -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / file).read_text().splitlines()]


# --------------------------------------------------------------------------------- parts of a step


def test_beta_by_hand() -> None:
    fixed, adaptive = KLController(0.1, None), KLController(0.1, 6.0)
    for kl in (100.0, 6.3, 0.0):
        fixed.update(kl)
        adaptive.update(kl)
    assert fixed.coef == 0.1
    assert adaptive.coef == pytest.approx(0.1 * 1.02 * 1.005 * 0.98)


@pytest.mark.usefixtures("exact")
@pytest.mark.parametrize("value", ["shared", "separate"])
def test_gathering_gradients_over_parts_changes_nothing(
    speaker: Policy, prompts: list[Prompt], make_settings: Make, tmp_path: Path, value: str
) -> None:
    found = []
    for budget in (16, 4096):
        settings = make_settings(batch_tokens=budget, value=value, monitor="off", steps=2, lr=1e-5)
        folder, twin = tmp_path / str(budget), speaker.copy()
        train(twin, folder, prompts, settings, reward=random_reward(speaker))
        found.append(rows(folder))
    for small, large in zip(*found, strict=True):
        small.pop("ppo/val/clipfrac"), large.pop("ppo/val/clipfrac")  # a step function
        assert small == pytest.approx(large, abs=5e-3)


# --------------------------------------------------------------------------------------- whole runs


@pytest.mark.parametrize("value", ["shared", "separate"])
def test_it_climbs_the_reward(
    speaker: Policy, prompts: list[Prompt], make_settings: Make, tmp_path: Path, value: str
) -> None:
    """A reward model's, and with a value function of its own that of a plain function."""
    reward = random_reward(speaker) if value == "shared" else shortness
    settings = make_settings(steps=8, rollouts=24, lr=8e-3, kl_coef=0.0, monitor="off", value=value)
    assert train(speaker, tmp_path, prompts, settings, reward=reward).steps == 8
    scores = [row["objective/scores"] for row in rows(tmp_path)]
    assert sum(scores[-3:]) / 3 > sum(scores[:3]) / 3 + 0.3


def test_a_strong_penalty_keeps_the_policy_where_it_was(
    speaker: Policy, prompts: list[Prompt], make_settings: Make, tmp_path: Path
) -> None:
    kl = {}
    for coef in (0.0, 5.0):
        settings = make_settings(steps=8, rollouts=16, lr=3e-3, kl_coef=coef, monitor="off")
        train(
            speaker.copy(), tmp_path / str(coef), prompts, settings, reward=random_reward(speaker)
        )
        kl[coef] = rows(tmp_path / str(coef))[-1]["objective/kl_k3"]
    assert kl[5.0] < 0.5 * kl[0.0]


def test_the_joint_objective_keeps_the_examples(
    speaker: Policy, prompts: list[Prompt], make_settings: Make, tmp_path: Path
) -> None:
    settings = make_settings(steps=6, lr=5e-3, sl_mix=1.0, monitor="off")
    train(speaker, tmp_path, prompts, settings, examples=[([user("Hello")], "Hi!")] * 3)
    losses = [row["loss/sft"] for row in rows(tmp_path)]
    assert losses[-1] < 0.5 * losses[0]
    with pytest.raises(SettingsError, match="sl_mix"):
        train(speaker, tmp_path, prompts, settings)


def test_steps_follow_the_red_team_share(
    speaker: Policy, prompts: list[Prompt], make_settings: Make, tmp_path: Path
) -> None:
    settings = make_settings(steps=1, rollouts=8, red_team_share=0.25, monitor="off")
    train(speaker, tmp_path, prompts, settings)
    kept = rows(tmp_path, "samples.jsonl")
    for step in (0, 1):  # what the first step drew, and what the trained policy says in the end
        assert [row["set"] for row in kept if row["step"] == step].count("red-team") == 2


def test_a_policy_that_is_no_number_stops_the_run(
    speaker: Policy, prompts: list[Prompt], make_settings: Make, tmp_path: Path
) -> None:
    def broken(prompts: list[Conversation], answers: list[str]) -> list[float]:
        return [float("nan")] * len(answers)

    settings = make_settings(value="separate", monitor="off")
    before = speaker.copy()
    with pytest.raises(TrainingDiverged, match="red-team-"):
        train(speaker, tmp_path, prompts, settings, reward=FunctionReward(broken))
    for mine, theirs in zip(speaker.model.parameters(), before.model.parameters(), strict=True):
        assert torch.equal(mine, theirs)


# --------------------------------------------------------------------------------- stop and resume


def falling() -> Any:
    """A judge that likes what it sees less every time."""
    seen = 0

    def compare(prompts: Any, answers: Any, references: Any) -> list[float | None]:
        nonlocal seen
        seen += 1
        return [0.9 - 0.2 * seen + 0.01 * (n % 2) for n in range(len(answers))]

    return compare


def test_the_monitor_stops_the_run_and_goes_back(
    speaker: Policy, prompts: list[Prompt], make_settings: Make, tmp_path: Path
) -> None:
    start = speaker.copy()
    settings = make_settings(steps=30, lr=3e-3, kl_coef=0.0, monitor="stop")
    apart = Probe(prompts, falling())
    reward = FunctionReward(PassingReward())
    outcome = train(
        speaker,
        tmp_path,
        prompts,
        make_settings(**{**dict(settings), "value": "separate"}),
        probe=apart,
        reward=reward,
    )
    assert outcome.steps == 4 and "fell" in outcome.stopped and outcome.restored == 0
    for mine, theirs in zip(speaker.model.parameters(), start.model.parameters(), strict=True):
        assert torch.equal(mine, theirs)
    checks = rows(tmp_path, "monitor.jsonl")
    assert [row["step"] for row in checks] == [0, 2, 4] and checks[-1]["alarm"]
    assert rows(tmp_path)[2]["monitor/judge"] == checks[1]["monitor/judge"]


class PassingReward:
    """Every call is rewarded more than the one before: the proxy always climbs."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, prompts: list[Conversation], answers: list[str]) -> list[float]:
        self.calls += 1
        return [float(self.calls) + 0.1 * len(answer) for answer in answers]


def test_a_monitor_that_warns_lets_it_run(
    speaker: Policy, prompts: list[Prompt], make_settings: Make, tmp_path: Path
) -> None:
    settings = make_settings(monitor="warn", value="separate")
    apart = Probe(prompts, falling())
    outcome = train(
        speaker, tmp_path, prompts, settings, probe=apart, reward=FunctionReward(PassingReward())
    )
    assert outcome.steps == 6 and not outcome.stopped and outcome.warnings


def test_too_much_kl_stops_the_run(
    speaker: Policy, prompts: list[Prompt], make_settings: Make, tmp_path: Path
) -> None:
    settings = make_settings(steps=30, lr=3e-2, kl_coef=0.0, max_kl=0.5, monitor="off")
    outcome = train(speaker, tmp_path, prompts, settings)
    assert outcome.steps < 30 and "max_kl" in outcome.stopped


class Killed(BaseException):
    pass


@pytest.mark.parametrize("value", ["shared", "separate"])
def test_a_killed_run_goes_on_as_if_nothing_had_happened(
    speaker: Policy,
    prompts: list[Prompt],
    make_settings: Make,
    tmp_path: Path,
    value: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    settings = make_settings(  # "warn": whether the toy refuses by chance differs between machines
        steps=5, lr=1e-3, value=value, kl_target=0.1, sl_mix=0.1, monitor="warn"
    )
    reward, start = random_reward(speaker), speaker.copy()
    more = {"probe": Probe(prompts, even), "examples": [([user("Hello")], "Hi!")] * 3}
    whole, broken = speaker, start.copy()
    train(whole, tmp_path / "whole", prompts, settings, reward=reward, **more)

    record = PPO._record

    def killed_after_writing(self: PPO, step: int, *args: Any) -> None:
        record(self, step, *args)
        if step == 3:
            raise Killed

    monkeypatch.setattr(PPO, "_record", killed_after_writing)
    with pytest.raises(Killed):
        train(broken, tmp_path / "broken", prompts, settings, reward=reward, **more)
    assert len(rows(tmp_path / "broken")) == 4
    monkeypatch.setattr(PPO, "_record", record)
    again = start.copy()  # what a new process loads
    train(again, tmp_path / "broken", prompts, settings, reward=reward, **more)

    for file in WRITTEN:
        assert (tmp_path / "broken" / file).read_bytes() == (tmp_path / "whole" / file).read_bytes()
    assert len(rows(tmp_path / "whole")) == 5
    for mine, theirs in zip(whole.model.parameters(), again.model.parameters(), strict=True):
        assert torch.equal(mine, theirs)
