"""A rollout: whose tokens are scored, what a token's reward is, whose samples they are."""

from pathlib import Path

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from constitutional_ai.engines.base import Sampling
from constitutional_ai.engines.decode import sample_tokens
from constitutional_ai.engines.tokens import ChatTokens
from constitutional_ai.learning.figures import measure
from constitutional_ai.learning.policy import Policy, set_training_attention
from constitutional_ai.learning.rollout import Rollout, Sampler, rollout, token_rewards
from constitutional_ai.records import Prompt
from tests.learning.conftest import Make, made, random_reward, shortness


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
