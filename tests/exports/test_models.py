"""The exported reward model, read as a server reads it."""

import json
from pathlib import Path

import pytest

from constitutional_ai.exports.models import copy_reward_model
from constitutional_ai.records import assistant, user


def test_the_exported_head_gives_the_score_that_ppo_here_sees(
    tmp_path: Path, tiny_reward_model: Path
) -> None:
    """As a server reads it: the template's text, all tokens, the raw head at the last one."""
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    from constitutional_ai.learning.reward_model import RewardModel

    ours = RewardModel.load(tiny_reward_model)
    folder = tmp_path / "reward-model"
    divided_by, offset = copy_reward_model(tiny_reward_model, folder)
    assert (divided_by, offset) == (0.25, pytest.approx(2.8))
    theirs = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    for prompt, answer in (
        ([user("Do harm.")], "No, but here is a safe way."),
        ([user("Hi."), assistant("Hello."), user("Sing.")], "La la la."),
    ):
        text = tokenizer.apply_chat_template([*prompt, assistant(answer)], tokenize=False)
        ids = tokenizer(text, add_special_tokens=False).input_ids
        assert ids == ours.encode(prompt, answer)
        with torch.no_grad():  # ours without its bfloat16, so that all digits must agree
            read = theirs(torch.tensor([ids])).logits.item() - offset
            state = ours.model.base_model(torch.tensor([ids])).last_hidden_state[0, -1]
            assert read == pytest.approx(float(ours.score_states(state)), rel=1e-4, abs=1e-4)
            assert abs(read) > 0.1
    assert theirs.config.reward_deviation == 1.0
    before = json.loads((tiny_reward_model / "config.json").read_text())
    assert before["reward_deviation"] == 0.25  # the run's own model is as it was
    prompted = tokenizer.apply_chat_template(
        [user("Hi.")], tokenize=False, add_generation_prompt=True
    )
    assert prompted.endswith("assistant\n")
