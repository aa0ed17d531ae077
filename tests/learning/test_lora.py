"""Adapters: off is the start model to the bit, merged is the adapted model, and only they move."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
)

from constitutional_ai.engines.base import Sampling
from constitutional_ai.errors import ModelError
from constitutional_ai.learning import ppo, reward_model, sft
from constitutional_ai.learning.batch import Batch
from constitutional_ai.learning.policy import Policy
from constitutional_ai.learning.ppo import PPO, Inputs
from constitutional_ai.learning.reward_model import LabelledPair, RewardModel
from constitutional_ai.learning.rollout import Sampler, rollout
from constitutional_ai.records import Prompt, user
from constitutional_ai.settings import ModelSettings
from constitutional_ai.stage_settings import FinetuneSettings, RewardSettings
from constitutional_ai.store.checkpoints import moving
from tests.learning.conftest import ROWS, Make, ignore, random_reward, shortness

LORA = ModelSettings(device="cpu", lora_rank=4, lora_alpha=8)


def batch() -> Batch:
    return Batch.of(ROWS, pad_id=0, device=torch.device("cpu"))


def tune(policy: Policy, steps: int = 3) -> None:
    examples = [([user(f"Request {n}")], "Knock knock.") for n in range(4)]
    settings = FinetuneSettings(epochs=steps, lr=1e-2, batch_tokens=4096, warmup_steps=1)
    sft.train(policy, examples, settings, 0, ignore, ignore)


@pytest.fixture(params=["tiny_llama", "tiny_gpt2"])
def folder(request: pytest.FixtureRequest) -> Path:
    found: Path = request.getfixturevalue(request.param)
    return found


def test_a_fresh_adapter_changes_nothing_and_few_weights_move(folder: Path) -> None:
    plain, adapted = Policy.load(folder, "cpu"), Policy.to_train(folder, LORA)
    assert torch.equal(plain.logprobs(batch()), adapted.logprobs(batch()))
    trained = {name for name, p in adapted.model.named_parameters() if p.requires_grad}
    assert trained and all("lora_" in name for name in trained)
    assert moving(adapted.model).keys() == trained
    assert type(adapted.model) is type(plain.model)


def test_the_reference_is_the_start_model_to_the_bit_after_training(folder: Path) -> None:
    plain, adapted = Policy.load(folder, "cpu"), Policy.to_train(folder, LORA)
    reference = adapted.reference()
    tune(adapted)
    expected = plain.logprobs(batch())
    assert torch.equal(reference.logprobs(batch()), expected)
    assert not torch.allclose(adapted.logprobs(batch()), expected, atol=1e-2)
    assert reference.model is adapted.model
    assert all(p.requires_grad == ("lora_" in n) for n, p in adapted.model.named_parameters())


@pytest.mark.usefixtures("exact")
def test_the_merged_folder_is_the_adapted_model(folder: Path, tmp_path: Path) -> None:
    adapted = Policy.to_train(folder, LORA)
    tune(adapted)
    expected = adapted.logprobs(batch())
    adapted.merge()
    adapted.save_pretrained(tmp_path / "model")
    merged = Policy.load(tmp_path / "model", "cpu")
    assert torch.allclose(merged.logprobs(batch()), expected, atol=1e-4)
    names = AutoModelForCausalLM.from_pretrained(folder).state_dict().keys()
    assert merged.model.state_dict().keys() == names
    assert not any("lora" in name for name in load_file(tmp_path / "model" / "model.safetensors"))
    assert adapted.adapter is None  # a plain model from now on, the one that was saved
    assert torch.equal(adapted.logprobs(batch()), merged.logprobs(batch()))


@pytest.mark.usefixtures("exact")
@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning")  # peft's own
def test_peft_reads_the_adapter_folder(folder: Path, tmp_path: Path) -> None:
    from peft import PeftModel

    adapted = Policy.to_train(folder, LORA)
    tune(adapted)
    adapted.save_adapter(tmp_path / "adapter", "some/model@v1")
    config = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == "some/model" and config["revision"] == "v1"
    theirs = PeftModel.from_pretrained(
        AutoModelForCausalLM.from_pretrained(folder).eval(), tmp_path / "adapter"
    )
    ids = torch.tensor([[5, 6, 7, 8, 9]])
    with torch.no_grad():
        assert torch.allclose(theirs(ids).logits, adapted.model(ids).logits, atol=1e-4)


def test_without_an_adapter_there_is_no_adapter_folder(policy: Policy, tmp_path: Path) -> None:
    policy.save_adapter(tmp_path / "adapter", "base")
    assert not (tmp_path / "adapter").exists()


def test_targets_can_be_named_and_must_exist(tiny_llama: Path) -> None:
    some = LORA.model_copy(update={"lora_targets": ("q_proj", "v_proj")})
    adapted = Policy.to_train(tiny_llama, some)
    layers = {name.split(".lora_")[0].rpartition(".")[2] for name in moving(adapted.model)}
    assert layers == {"q_proj", "v_proj"}
    with pytest.raises(ModelError, match=r"no linear layer \['query'\]; it has: down_proj, "):
        Policy.to_train(tiny_llama, LORA.model_copy(update={"lora_targets": ("query",)}))


def test_frozen_weights_may_be_bfloat16_under_a_float32_adapter(
    tiny_llama: Path, tmp_path: Path
) -> None:
    options = LORA.model_copy(update={"dtype": "bfloat16"})
    adapted = Policy.to_train(tiny_llama, options)
    dtypes = {p.requires_grad: p.dtype for p in adapted.model.parameters()}
    assert dtypes == {True: torch.float32, False: torch.bfloat16}
    tune(adapted)
    expected = adapted.logprobs(batch())
    adapted.merge()
    adapted.save_pretrained(tmp_path / "model")
    saved = load_file(tmp_path / "model" / "model.safetensors")
    assert {weight.dtype for weight in saved.values()} == {torch.bfloat16}
    merged = Policy.load(tmp_path / "model", "cpu")
    difference = (merged.logprobs(batch()) - expected).abs().max().item()
    assert difference < 0.3  # nats: bfloat16 keeps three digits, and these weights are wide


def test_adapters_are_drawn_alike_and_leave_the_dice_alone(tiny_llama: Path) -> None:
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    one, two = (moving(Policy.to_train(tiny_llama, LORA).model) for _ in range(2))
    assert torch.equal(torch.rand(3), expected)
    assert all(torch.equal(one[name], two[name]) for name in one)


# --------------------------------------------------------------------------------- reward and PPO


def pairs() -> list[LabelledPair]:
    return [LabelledPair([user(f"Request {n}")], "Knock.", "Harmful!", 0.9) for n in range(8)]


@pytest.mark.usefixtures("exact")
@pytest.mark.filterwarnings("ignore:.is_gradient_checkpointing:FutureWarning")  # peft's own
def test_a_reward_model_with_an_adapter(tiny_llama: Path, tmp_path: Path) -> None:
    from peft import PeftModel

    start = Policy.load(tiny_llama, "cpu")
    reward = RewardModel.from_policy(start)
    reward.prepare(LORA)
    settings = RewardSettings(epochs=4, lr=1e-2, batch_pairs=4, warmup_steps=1)
    reward_model.train(reward, pairs(), settings, 0, ignore, ignore)
    for name, weight in reward.model.base_model.state_dict().items():
        if "lora_" not in name:
            plain = start.model.base_model.state_dict()[name.replace(".base_layer.", ".")]
            assert torch.equal(weight, plain)
    asked, answers = [user("Request 1")], ["Knock.", "Harmful!"]
    expected = reward([asked] * 2, answers)
    assert expected[0] > expected[1]
    reward.save_adapter(tmp_path / "adapter", "base")
    reward.merge()
    reward.save_pretrained(tmp_path / "model")
    again = RewardModel.load(tmp_path / "model")
    assert again([asked] * 2, answers) == pytest.approx(expected, abs=1e-3)

    body = AutoModelForSequenceClassification.from_pretrained(tiny_llama, num_labels=1)
    theirs = PeftModel.from_pretrained(body, tmp_path / "adapter").eval()
    ids = torch.tensor([reward.encode(asked, "Knock.")])
    body.config.pad_token_id = reward.tokens.pad_id
    with torch.no_grad():
        raw = theirs(ids, attention_mask=torch.ones_like(ids)).logits[0, 0].item()
    assert (raw - reward.mean) / reward.deviation == pytest.approx(expected[0], abs=1e-3)


def test_before_the_first_update_the_kl_is_zero(
    speaker_folder: Path, prompts: list[Prompt], make_settings: Make
) -> None:
    adapted = Policy.to_train(speaker_folder, LORA)
    reward = random_reward(Policy.load(speaker_folder, "cpu"))
    found = rollout(Sampler(adapted), adapted.reference(), reward, prompts[:6], make_settings(), 5)
    assert torch.equal(found.logprobs_BS, found.reference_BS)
    assert any(found.answers)


@pytest.mark.usefixtures("exact")
@pytest.mark.parametrize("heads", [2, 4])
def test_samples_come_from_model_and_adapter_together(
    tiny_llama: Path, tmp_path: Path, prompts: list[Prompt], heads: int
) -> None:
    """Also where plain heads give a Llama a faster way to sample, which knows no adapters."""
    start = tmp_path / "start"
    torch.manual_seed(0)
    config = AutoConfig.from_pretrained(tiny_llama, num_key_value_heads=heads)
    AutoModelForCausalLM.from_config(config).save_pretrained(start)
    AutoTokenizer.from_pretrained(tiny_llama).save_pretrained(start)
    adapted, plain = Policy.to_train(start, LORA), Policy.load(start, "cpu")
    greedy = Sampling(temperature=0, max_new_tokens=8)
    sampler = Sampler(adapted)
    sampler.refresh()
    assert sampler.answer(prompts, greedy) == Sampler(plain).answer(prompts, greedy)
    tune(adapted)
    adapted.merge()
    adapted.save_pretrained(tmp_path / "merged")
    merged = Sampler(Policy.load(tmp_path / "merged", "cpu"))
    sampler.refresh()
    found = sampler.answer(prompts, greedy)
    assert found == merged.answer(prompts, greedy)
    assert found != Sampler(plain).answer(prompts, greedy)


@pytest.mark.parametrize("value", ["shared", "separate"])
def test_ppo_moves_the_adapter_alone_and_goes_on_from_a_checkpoint(
    speaker_folder: Path, tmp_path: Path, prompts: list[Prompt], make_settings: Make, value: str
) -> None:
    settings = make_settings(steps=2, checkpoint_every=1, rollouts=4, lr=1e-2, value=value)

    def train(folder: Path, steps: int) -> Policy:
        policy = Policy.to_train(speaker_folder, LORA)
        reward = random_reward(Policy.load(speaker_folder, "cpu"))
        trainer = PPO(Inputs(policy, reward, prompts, settings, folder, 3))
        assert trainer.reference.model is policy.model
        trainer.start()
        for step in range(trainer.steps, trainer.steps + steps):
            trainer.one_step(step, {})
            trainer.save()
        return policy

    whole = train(tmp_path / "whole", 2)
    train(tmp_path / "cut", 1)
    [checkpoint] = (tmp_path / "cut" / "checkpoints").iterdir()
    stored = load_file(checkpoint / "tensors.safetensors")
    kept = [name for name in stored if name.startswith("policy/weights/")]
    assert kept and all("lora_" in name for name in kept)
    resumed = train(tmp_path / "cut", 1)
    start = Policy.load(speaker_folder, "cpu").model.state_dict()
    moved = 0.0
    for name, weight in whole.model.state_dict().items():
        assert torch.equal(weight, resumed.model.state_dict()[name]), name
        if "lora_" not in name:
            assert torch.equal(weight, start[name.replace(".base_layer.", ".")])
        elif "lora_B" in name:
            moved = max(moved, weight.abs().max().item())
    assert moved > 0


def test_a_policy_with_an_adapter_learns_a_simple_reward(
    speaker_folder: Path, tmp_path: Path, prompts: list[Prompt], make_settings: Make
) -> None:
    """Shorter answers are better; after some steps they are shorter."""
    settings = make_settings(steps=10, rollouts=12, lr=2e-2, kl_coef=0.0, value="separate")
    policy = Policy.to_train(speaker_folder, LORA)

    inputs = Inputs(policy, shortness, prompts, settings, tmp_path, 3)
    ppo.train(inputs, ignore, ignore)
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    scores = [row["objective/scores"] for row in rows]
    assert sum(scores[-3:]) / 3 > sum(scores[:3]) / 3 + 0.1


def test_lora_without_peft_is_a_users_error(
    tiny_llama: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sys

    from constitutional_ai.errors import SettingsError

    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(SettingsError, match=r"constitutional-ai\[lora\]"):
        Policy.to_train(tiny_llama, LORA)
    assert Policy.load(tiny_llama, "cpu").adapter is None
