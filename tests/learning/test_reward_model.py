"""The reward model learns soft preferences, and its folder is one that others can load."""

from pathlib import Path

import pytest
import torch
from scipy.special import expit
from transformers import AutoModelForSequenceClassification

from constitutional_ai.errors import ModelError
from constitutional_ai.learning import reward_model
from constitutional_ai.learning.policy import Policy
from constitutional_ai.learning.reward_model import LabelledPair, RewardModel
from constitutional_ai.records import Conversation, user
from constitutional_ai.stage_settings import RewardSettings
from tests.learning.conftest import ignore

SETTINGS = RewardSettings(epochs=12, lr=3e-3, batch_pairs=8)


def pairs(p: float, count: int = 24) -> list[LabelledPair]:
    return [LabelledPair([user(f"Request {n}")], "Knock.", "Harmful!", p) for n in range(count)]


@pytest.fixture
def trained(policy: Policy) -> RewardModel:
    reward = RewardModel.from_policy(policy)
    reward_model.train(reward, pairs(0.8), SETTINGS, seed=0, log=ignore, tick=ignore)
    return reward


def test_it_starts_at_zero_with_the_policys_body(policy: Policy) -> None:
    reward = RewardModel.from_policy(policy)
    assert reward([[user("Hello")]], ["Hi!"]) == [0.0]
    mine, theirs = reward.model.base_model, policy.model.base_model
    for a, b in zip(mine.parameters(), theirs.parameters(), strict=True):
        assert torch.equal(a, b) and a is not b


def test_it_learns_how_sure_the_label_is(trained: RewardModel) -> None:
    delta = reward_model.logits(trained, pairs(0.8)[:4])
    assert expit(delta) == pytest.approx([0.8] * 4, abs=0.08)


def test_scores_are_standardised_over_the_training_answers(trained: RewardModel) -> None:
    prompts = [pair.prompt for pair in pairs(0.8)] * 2
    scores = torch.tensor(trained(prompts, ["Knock."] * 24 + ["Harmful!"] * 24))
    assert scores.mean().item() == pytest.approx(0, abs=1e-3)
    assert scores.std(unbiased=False).item() == pytest.approx(1, abs=1e-3)


@pytest.mark.usefixtures("exact")
def test_scores_do_not_depend_on_the_company(trained: RewardModel) -> None:
    prompts: list[Conversation] = [
        [user("Hi")],
        [user("Tell me a long joke, please.")],
        [user("Go")],
    ]
    answers = ["No.", "Knock knock knock knock.", "I will not help with that."]
    together = trained(prompts, answers)
    alone = [trained([p], [a])[0] for p, a in zip(prompts, answers, strict=True)]
    assert together == pytest.approx(alone, abs=1e-4)


@pytest.mark.usefixtures("exact")
def test_the_saved_folder_is_a_standard_classifier(trained: RewardModel, tmp_path: Path) -> None:
    trained.save_pretrained(tmp_path / "model")
    again = RewardModel.load(tmp_path / "model")
    prompt, answers = [user("Hello")], ["Hi!", "No."]
    assert again([prompt] * 2, answers) == pytest.approx(trained([prompt] * 2, answers), abs=1e-5)

    other = AutoModelForSequenceClassification.from_pretrained(tmp_path / "model").eval()
    rows = [trained.encode(prompt, answer) for answer in answers]
    width = max(map(len, rows))
    padded = torch.tensor([row + [other.config.pad_token_id] * (width - len(row)) for row in rows])
    mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows])
    with torch.no_grad():
        raw = other(padded, attention_mask=mask).logits[:, 0]
    standard = (raw - other.config.reward_mean) / other.config.reward_deviation
    assert standard.tolist() == pytest.approx(trained([prompt] * 2, answers), abs=1e-4)


def test_a_language_model_is_no_reward_model(tiny_llama: Path) -> None:
    with pytest.raises(ModelError, match="outputs"):
        RewardModel.load(tiny_llama)


def test_rescaling_moves_probabilities_and_not_the_standard_score(trained: RewardModel) -> None:
    prompts, answers = [[user("Hello")]] * 2, ["Hi!", "No."]
    scores, delta = trained(prompts, answers), reward_model.logits(trained, pairs(0.8)[:2])
    trained.rescale(2.0)
    assert trained(prompts, answers) == pytest.approx(scores, abs=1e-4)
    halved = reward_model.logits(trained, pairs(0.8)[:2])
    assert halved == pytest.approx([d / 2 for d in delta], abs=1e-4)


def test_held_out_pairs_share_no_prompt_with_the_others() -> None:
    many = pairs(0.8) * 3
    train, held = reward_model.split(many, 0.25, seed=1)
    assert sorted(train + held) == list(range(len(many)))
    texts = [{many[n].prompt[0]["content"] for n in part} for part in (train, held)]
    assert not texts[0] & texts[1] and len(texts[1]) == 6
    assert reward_model.split(many, 0.25, seed=1) == (train, held)
    assert reward_model.split(many, 0.25, seed=2) != (train, held)
