"""Finetuning learns the answers, and only the answers."""

from typing import Any

import pytest
import torch

from constitutional_ai.engines.base import Sampling
from constitutional_ai.engines.local import LocalEngine
from constitutional_ai.errors import ModelError
from constitutional_ai.learning import sft
from constitutional_ai.learning.batch import Batch
from constitutional_ai.learning.policy import Policy
from constitutional_ai.records import user
from constitutional_ai.stage_settings import FinetuneSettings
from tests.learning.conftest import ignore

EXAMPLES = [([user("Tell me a joke.")], "Knock knock."), ([user("Hello.")], "Hi!")] * 8
SETTINGS = FinetuneSettings(epochs=20, lr=1e-2, batch_tokens=256, warmup_steps=2)


def test_it_learns_to_say_the_answers_and_to_stop(policy: Policy) -> None:
    rows: list[dict[str, Any]] = []
    sft.train(policy, EXAMPLES, SETTINGS, seed=1, log=rows.append, tick=ignore)
    assert len(rows) == sft.steps(policy, EXAMPLES, SETTINGS)
    assert rows[-1]["loss/sft"] < 0.1 < rows[0]["loss/sft"]
    engine = LocalEngine(policy.model, policy.tokens.tokenizer)
    said = engine.generate([prompt for prompt, _ in EXAMPLES[:2]], Sampling(temperature=0))
    assert [(reply.text, reply.finished) for reply in said] == [
        ("Knock knock.", True),
        ("Hi!", True),
    ]


def test_the_same_seed_gives_the_same_weights(policy: Policy) -> None:
    twin = policy.copy()
    short = SETTINGS.model_copy(update={"epochs": 2})
    for model in (policy, twin):
        sft.train(model, EXAMPLES, short, seed=3, log=ignore, tick=ignore)
    for mine, theirs in zip(policy.model.parameters(), twin.model.parameters(), strict=True):
        assert torch.equal(mine, theirs)


def test_prompt_tokens_have_no_loss(policy: Policy) -> None:
    prompt, answer = policy.encode(*EXAMPLES[0])
    batch = Batch.of([(prompt, answer)], policy.tokens.pad_id, policy.device)
    assert batch.ids_BT[0, 1:][batch.mask_BS[0]].tolist() == answer
    assert answer[-1] == policy.tokens.end_id


def test_a_model_that_holds_no_numbers_is_not_trained(policy: Policy) -> None:
    with torch.no_grad():
        policy.model.lm_head.weight[3, 4] = float("nan")
    with pytest.raises(ModelError, match=r"lm_head\.weight"):
        sft.train(policy, EXAMPLES, SETTINGS, seed=1, log=ignore, tick=ignore)
