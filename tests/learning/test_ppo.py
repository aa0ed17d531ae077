"""PPO at toy size: what it computes, that it learns, that it stops, that a kill changes nothing."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from constitutional_ai.engines.base import Sampling
from constitutional_ai.engines.decode import sample_tokens
from constitutional_ai.engines.tokens import ChatTokens
from constitutional_ai.errors import SettingsError, TrainingDiverged
from constitutional_ai.learning import ppo
from constitutional_ai.learning.figures import correlation, measure
from constitutional_ai.learning.policy import Policy, set_training_attention
from constitutional_ai.learning.ppo import PPO, Inputs, KLController, Outcome
from constitutional_ai.learning.reward import FunctionReward
from constitutional_ai.learning.reward_model import RewardModel
from constitutional_ai.learning.rollout import Rollout, Sampler, rollout, token_rewards
from constitutional_ai.learning.value import Target, make_value
from constitutional_ai.monitor.ppo import Probe
from constitutional_ai.records import Conversation, Prompt, user
from tests.learning.conftest import ignore

Make = Callable[..., Any]
WRITTEN = ("metrics.jsonl", "samples.jsonl", "monitor.jsonl")


# A reward that a policy can learn at once: end early.
shortness = FunctionReward(lambda prompts, answers: [-len(answer) / 10 for answer in answers])


def even(prompts: Any, answers: Any, references: Any) -> list[float | None]:
    return [0.5] * len(answers)


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


def train(
    policy: Policy, folder: Path, prompts: list[Prompt], settings: Any, **more: Any
) -> Outcome:
    reward = more.pop("reward", None) or random_reward(policy)
    inputs = Inputs(policy, reward, prompts, settings, folder, 3, **more)
    return ppo.train(inputs, ignore, ignore)


def rows(folder: Path, file: str = "metrics.jsonl") -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / file).read_text().splitlines()]


# ------------------------------------------------------------------------------------ the rollout


def test_rollout_and_reference_agree_exactly_before_the_first_update(
    speaker: Policy, prompts: list[Prompt], make_settings: Make
) -> None:
    found = made(speaker, prompts, make_settings())
    assert torch.equal(found.logprobs_BS, found.reference_BS)
    assert measure(found, 0.1, make_settings())["objective/kl"] == 0.0


@pytest.mark.usefixtures("exact")
def test_rollout_scores_are_the_reward_models_own(
    speaker: Policy, prompts: list[Prompt], make_settings: Make
) -> None:
    """Also of answers that were cut off: they are closed before they are scored."""
    reward = random_reward(speaker)
    found = made(speaker, prompts, make_settings(batch_tokens=64), reward)
    assert found.finished_B.any() and not found.finished_B.all()
    pad = speaker.tokens.pad_id
    for row, (ids, mask) in enumerate(zip(found.batch.ids_BT, found.batch.mask_BS, strict=True)):
        length = int(found.batch.lengths_B[row])
        kept = ids[:length].tolist() + ([] if found.finished_B[row] else [speaker.tokens.end_id])
        assert reward.at_end([kept])[0].item() == pytest.approx(
            found.scores_B[row].item(), abs=1e-4
        )
        assert pad not in ids[:length].tolist() and (ids[length:] == pad).all()
        assert int(mask.sum()) == length - len(speaker.tokens.prompt(found.prompts[row].prompt))
    assert found.states_Nd is not None
    assert len(found.states_Nd) == int(found.batch.mask_BS.sum())
    first = reward.states(found.batch.ids_BT[:1])[0, :-1][found.batch.mask_BS[0]]
    assert torch.allclose(found.states_Nd[: len(first)], first, atol=1e-4)


def test_token_rewards_by_hand(speaker: Policy, prompts: list[Prompt], make_settings: Make) -> None:
    found = made(speaker, prompts[:4], make_settings())
    mask = found.batch.mask_BS
    changed = Rollout(
        **{**vars(found), "reference_BS": (found.logprobs_BS - 0.5).masked_fill(~mask, 9.0)}
    )
    rewards = token_rewards(changed, kl_coef=0.1, missing_end_penalty=2.0)
    for row in range(4):
        expected = [-0.05] * int(mask[row].sum())
        expected[-1] += found.scores_B[row].item() - (0 if found.finished_B[row] else 2.0)
        assert rewards[row][mask[row]].tolist() == pytest.approx(expected, abs=1e-5)
        assert (rewards[row][~mask[row]] == 0).all()


def test_samples_come_from_the_live_weights(
    speaker: Policy, prompts: list[Prompt], make_settings: Make
) -> None:
    sampler, settings = Sampler(speaker), make_settings()
    before = rollout(sampler, speaker.copy(), shortness, prompts, settings, 5).answers
    assert rollout(sampler, speaker.copy(), shortness, prompts, settings, 5).answers == before
    with torch.no_grad():
        speaker.model.get_output_embeddings().weight.mul_(-1.0)
    assert rollout(sampler, speaker.copy(), shortness, prompts, settings, 5).answers != before


@pytest.mark.usefixtures("exact")
def test_samples_are_those_of_the_untouched_model(tiny_llama: Path, prompts: list[Prompt]) -> None:
    """The training forward of a Llama with plain heads knows no cache: it must not generate."""
    config = AutoConfig.from_pretrained(tiny_llama, num_key_value_heads=4)
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config).eval()
    tokens = ChatTokens(AutoTokenizer.from_pretrained(tiny_llama))
    encoded = [tokens.prompt(prompt.prompt) for prompt in prompts]
    sampling = Sampling(max_new_tokens=6, seed=1)
    expected = sample_tokens(model, encoded, sampling, tokens.end_id, tokens.pad_id)
    set_training_attention(model)
    sampler = Sampler(Policy(model, tokens).copy())
    sampler.refresh()
    answers = [answer for _, answer in sampler.answer(prompts, sampling)]
    assert answers == expected


# --------------------------------------------------------------------------------- parts of a step


def test_beta_by_hand() -> None:
    fixed, adaptive = KLController(0.1, None), KLController(0.1, 6.0)
    for kl in (100.0, 6.3, 0.0):
        fixed.update(kl)
        adaptive.update(kl)
    assert fixed.coef == 0.1
    assert adaptive.coef == pytest.approx(0.1 * 1.02 * 1.005 * 0.98)


def test_correlation() -> None:
    x = torch.tensor([1.0, 2.0, 4.0])
    assert correlation(x, 3 * x + 1) == pytest.approx(1.0)
    assert correlation(x, torch.ones(3)) == 0.0


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
    for _ in range(20):
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


# --------------------------------------------------------------------------------------- whole runs


@pytest.mark.parametrize("value", ["shared", "separate"])
def test_it_climbs_the_reward(
    speaker: Policy, prompts: list[Prompt], make_settings: Make, tmp_path: Path, value: str
) -> None:
    settings = make_settings(
        steps=12, rollouts=32, lr=6e-3, kl_coef=0.0, monitor="off", value=value
    )
    assert train(speaker, tmp_path, prompts, settings).steps == 12
    scores = [row["objective/scores"] for row in rows(tmp_path)]
    assert sum(scores[-3:]) / 3 > sum(scores[:3]) / 3 + 0.3


def test_a_plain_function_is_a_reward(
    speaker: Policy, prompts: list[Prompt], make_settings: Make, tmp_path: Path
) -> None:
    settings = make_settings(
        steps=10, rollouts=32, lr=3e-3, kl_coef=0.0, monitor="off", value="separate"
    )
    train(speaker, tmp_path, prompts, settings, reward=shortness)
    scores = [row["objective/scores"] for row in rows(tmp_path)]
    assert scores[-1] > scores[0]
    shared = make_settings(value="shared", monitor="off")
    with pytest.raises(SettingsError, match="separate"):
        train(speaker, tmp_path, prompts, shared, reward=shortness)


def test_a_strong_penalty_keeps_the_policy_where_it_was(
    speaker: Policy, prompts: list[Prompt], make_settings: Make, tmp_path: Path
) -> None:
    kl = {}
    for coef in (0.0, 5.0):
        settings = make_settings(steps=20, rollouts=32, lr=1e-3, kl_coef=coef, monitor="off")
        train(
            speaker.copy(), tmp_path / str(coef), prompts, settings, reward=random_reward(speaker)
        )
        kl[coef] = rows(tmp_path / str(coef))[-1]["objective/kl_k3"]
    assert kl[5.0] < 0.5 * kl[0.0]


def test_the_joint_objective_keeps_the_examples(
    speaker: Policy, prompts: list[Prompt], make_settings: Make, tmp_path: Path
) -> None:
    settings = make_settings(steps=12, lr=3e-3, sl_mix=1.0, monitor="off")
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
        steps=7, lr=1e-3, value=value, kl_target=0.1, sl_mix=0.1, monitor="warn"
    )
    reward, start = random_reward(speaker), speaker.copy()
    more = {"probe": Probe(prompts, even), "examples": [([user("Hello")], "Hi!")] * 3}
    whole, broken = speaker, start.copy()
    train(whole, tmp_path / "whole", prompts, settings, reward=reward, **more)

    record = PPO._record

    def killed_after_writing(self: PPO, step: int, *args: Any) -> None:
        record(self, step, *args)
        if step == 5:
            raise Killed

    monkeypatch.setattr(PPO, "_record", killed_after_writing)
    with pytest.raises(Killed):
        train(broken, tmp_path / "broken", prompts, settings, reward=reward, **more)
    assert len(rows(tmp_path / "broken")) == 6
    monkeypatch.setattr(PPO, "_record", record)
    again = start.copy()  # what a new process loads
    train(again, tmp_path / "broken", prompts, settings, reward=reward, **more)

    for file in WRITTEN:
        assert (tmp_path / "broken" / file).read_bytes() == (tmp_path / "whole" / file).read_bytes()
    assert len(rows(tmp_path / "whole")) == 7
    for mine, theirs in zip(whole.model.parameters(), again.model.parameters(), strict=True):
        assert torch.equal(mine, theirs)
