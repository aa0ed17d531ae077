"""Log-probabilities of answers against the model's full forward; folders others can load."""

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GraniteConfig, GraniteForCausalLM

from constitutional_ai.engines.base import Sampling
from constitutional_ai.engines.local import LocalEngine
from constitutional_ai.learning.batch import Batch, Tokens
from constitutional_ai.learning.policy import Policy
from constitutional_ai.records import user
from tests.learning.conftest import ROWS


def batch(rows: list[Tokens] = ROWS) -> Batch:
    return Batch.of(rows, pad_id=0, device=torch.device("cpu"))


def by_hand(policy: Policy, row: Tokens, temperature: float = 1.0) -> list[float]:
    """Of one row alone, unpadded, from the whole model's logits."""
    prompt, answer = row
    with torch.no_grad():
        logits = policy.model(torch.tensor([prompt + answer])).logits[0].float() / temperature
    logprobs = logits.log_softmax(-1)
    return [logprobs[len(prompt) - 1 + n, token].item() for n, token in enumerate(answer)]


@pytest.mark.usefixtures("exact")
@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_logprobs_are_the_models_whatever_the_padding(policy: Policy, temperature: float) -> None:
    found = policy.logprobs(batch(), temperature)
    for row, values, mask in zip(ROWS, found, batch().mask_BS, strict=True):
        expected = by_hand(policy, row, temperature)
        assert values[mask].tolist() == pytest.approx(expected, abs=1e-4)
        assert (values[~mask] == 0).all()


@pytest.mark.usefixtures("exact")
def test_entropy_comes_with_the_same_logprobs(policy: Policy) -> None:
    logprobs, entropy = policy.logprobs_and_entropy(batch(), temperature=1.0)
    assert torch.equal(logprobs, policy.logprobs(batch()))
    with torch.no_grad():
        logits = policy.model(torch.tensor([[5, 6, 7, 8]])).logits[0, 2]
    expected = torch.distributions.Categorical(logits=logits).entropy().item()
    assert entropy[0, 2].item() == pytest.approx(expected, abs=1e-4)
    assert (entropy[~batch().mask_BS] == 0).all()


@pytest.mark.usefixtures("exact")
def test_a_head_that_scales_its_logits_is_not_taken_for_a_plain_one(
    tmp_path: Path, policy: Policy
) -> None:
    config = GraniteConfig(
        vocab_size=policy.model.config.vocab_size,
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=2,
        initializer_range=0.5,
        logits_scaling=4.0,
    )
    scaled = Policy(GraniteForCausalLM(config), policy.tokens)
    found = scaled.logprobs(batch())
    assert found[0][batch().mask_BS[0]].tolist() == pytest.approx(
        by_hand(scaled, ROWS[0]), abs=1e-4
    )


def test_gpt2_without_dropout(tiny_gpt2: Path) -> None:
    policy = Policy.load(tiny_gpt2, "cpu")
    assert torch.equal(policy.logprobs(batch()), policy.logprobs(batch()))


def test_the_saved_folder_is_a_standard_one(policy: Policy, tmp_path: Path) -> None:
    policy.save_pretrained(tmp_path / "model")
    names = {path.name for path in (tmp_path / "model").iterdir()}
    assert "model.safetensors" in names and not any(n.endswith((".bin", ".pt")) for n in names)
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "model")
    for mine, theirs in zip(policy.model.parameters(), model.parameters(), strict=True):
        assert torch.equal(mine, theirs)
    assert AutoTokenizer.from_pretrained(tmp_path / "model").chat_template
    engine = LocalEngine.load(tmp_path / "model", dtype="float32", device="cpu")
    assert engine.generate([[user("Hello")]], Sampling(max_new_tokens=3))[0].tokens <= 3


def test_a_copy_goes_its_own_way(policy: Policy) -> None:
    twin = policy.copy()
    with torch.no_grad():
        next(policy.model.parameters()).add_(1.0)
    assert not torch.equal(next(policy.model.parameters()), next(twin.model.parameters()))
