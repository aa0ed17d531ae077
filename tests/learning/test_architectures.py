"""Every step of the job on the families that people bring, each in small and made on the spot.

Tied and untied heads, grouped keys, scaled embeddings, capped logits, learned positions, partly
rotated heads, one matrix for query, key and value.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from constitutional_ai.engines.base import Sampling
from constitutional_ai.engines.local import LocalEngine
from constitutional_ai.errors import ModelError
from constitutional_ai.learning import recompute, reward_model, sft
from constitutional_ai.learning.batch import Batch
from constitutional_ai.learning.policy import Policy
from constitutional_ai.learning.ppo import PPO, Inputs
from constitutional_ai.learning.reward_model import LabelledPair, RewardModel
from constitutional_ai.records import Conversation, Prompt, assistant, user
from constitutional_ai.settings import ModelSettings
from constitutional_ai.stage_settings import FinetuneSettings, RewardSettings
from tests.engines.slow_options import option_logprobs
from tests.learning.conftest import ROWS, ignore, random_reward

SMALL = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 256,
    "initializer_range": 0.3,
}
GROUPED = {**SMALL, "num_key_value_heads": 2, "head_dim": 8}
FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("Llama", {**GROUPED, "tie_word_embeddings": False}),
    "llama-plain-heads": ("Llama", {**SMALL, "tie_word_embeddings": True}),
    "qwen2": ("Qwen2", {**GROUPED, "tie_word_embeddings": True}),
    "qwen3": ("Qwen3", {**GROUPED, "tie_word_embeddings": False}),
    "gemma": ("Gemma", {**GROUPED, "tie_word_embeddings": True}),
    "gemma2": ("Gemma2", {**GROUPED, "sliding_window": 64, "final_logit_softcapping": 5.0}),
    "gpt-neox": ("GPTNeoX", {**SMALL, "tie_word_embeddings": False}),
}
TALKS: list[Conversation] = [
    [user("Hello.")],
    [
        user("Tell me a joke about a locksmith who cannot open the door."),
        assistant("No."),
        user("?"),
    ],
    [user("Which is better?"), assistant("The better one is ")],
]
ADAPTED = ModelSettings(device="cpu", lora_rank=2)
pytestmark = pytest.mark.usefixtures("exact")


@pytest.fixture(scope="session")
def build(
    tmp_path_factory: pytest.TempPathFactory, make_chat_tokenizer: Any, tiny_gpt2: Path
) -> Callable[[str], Path]:
    made = {"gpt2": tiny_gpt2}

    def folder(name: str) -> Path:
        if name not in made:
            family, options = FAMILIES[name]
            tokenizer = make_chat_tokenizer()
            torch.manual_seed(0)
            config = getattr(transformers, f"{family}Config")(
                vocab_size=len(tokenizer),
                bos_token_id=None,
                eos_token_id=tokenizer.eos_token_id,
                pad_token_id=tokenizer.pad_token_id,
                **options,
            )
            made[name] = tmp_path_factory.mktemp(name)
            getattr(transformers, f"{family}ForCausalLM")(config).save_pretrained(made[name])
            tokenizer.save_pretrained(made[name])
        return made[name]

    return folder


@pytest.fixture(params=["gpt2", *FAMILIES])
def folder(request: pytest.FixtureRequest, build: Callable[[str], Path]) -> Path:
    return build(request.param)


def test_answers_and_options_do_not_depend_on_the_company(folder: Path) -> None:
    engine = LocalEngine.load(folder, dtype="float32", device="cpu")
    greedy = Sampling(temperature=0, max_new_tokens=8)
    assert engine.generate(TALKS, greedy) == [engine.generate([t], greedy)[0] for t in TALKS]
    found = engine.option_logprobs(TALKS, ["(A)", "(B)"])
    for talk, scores in zip(TALKS, found, strict=True):
        assert scores == pytest.approx(option_logprobs(engine, talk, ["(A)", "(B)"]), abs=1e-3)


@pytest.mark.parametrize("name", ["qwen2", "gemma2"])
def test_in_half_precision_a_head_is_read_in_float32_unless_more_follows_it(
    name: str, build: Callable[[str], Path]
) -> None:
    half = LocalEngine.load(build(name), dtype="bfloat16", device="cpu")
    entered: list[torch.Tensor] = []
    head = half.model.get_output_embeddings()
    head.register_forward_pre_hook(lambda _, inputs: entered.append(inputs[0][0, -1].double()))
    found = half.option_logprobs([[user("Hello.")]], ["No", "Yes"])[0]
    logits = entered[0] @ head.weight.detach().double().T
    if name == "gemma2":
        logits = (5 * (logits.bfloat16() / 5).tanh()).double()  # its cap, in its own precision
    tokens = half.tokens.question([user("Hello.")], ["No", "Yes"])[1].places[0]
    expected = [float(logits[list(of)].logsumexp(0) - logits.logsumexp(0)) for of in tokens]
    assert found == pytest.approx(expected, abs=1e-4 if name == "qwen2" else 0.02)


def test_training_logprobs_are_the_whole_models(folder: Path) -> None:
    policy = Policy.load(folder, "cpu")
    batch = Batch.of(ROWS, pad_id=policy.tokens.pad_id, device=policy.device)
    untouched = transformers.AutoModelForCausalLM.from_pretrained(folder).eval()
    with torch.no_grad():
        found = policy.logprobs(batch)
    for (prompt, answer), values, mask in zip(ROWS, found, batch.mask_BS, strict=True):
        with torch.no_grad():
            logits = untouched(torch.tensor([prompt + answer])).logits[0].log_softmax(-1)
        expected = [logits[len(prompt) - 1 + n, token].item() for n, token in enumerate(answer)]
        assert values[mask].tolist() == pytest.approx(expected, abs=1e-3)


@pytest.mark.parametrize("options", [ModelSettings(device="cpu"), ADAPTED], ids=["whole", "lora"])
def test_finetuning_learns_its_answer_and_the_folder_keeps_it(
    folder: Path, tmp_path: Path, options: ModelSettings
) -> None:
    policy = Policy.to_train(folder, options)
    examples = [([user("Hello")], "Knock knock.")] * 2
    losses: list[float] = []
    settings = FinetuneSettings(epochs=4, lr=1e-2, warmup_steps=1)
    sft.train(policy, examples, settings, 0, lambda row: losses.append(row["loss/sft"]), ignore)
    assert losses[-1] < losses[0]
    batch = Batch.of(ROWS, policy.tokens.pad_id, policy.device)
    with torch.no_grad():
        expected = policy.logprobs(batch)
    policy.merge()
    policy.save_pretrained(tmp_path / "model")
    with torch.no_grad():
        again = Policy.load(tmp_path / "model", "cpu").logprobs(batch)
        assert torch.allclose(again, expected, atol=2e-3)
    config = transformers.AutoConfig.from_pretrained(folder)
    saved = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "model")
    tied = saved.get_input_embeddings().weight is saved.get_output_embeddings().weight
    assert tied == config.tie_word_embeddings


@pytest.mark.parametrize("options", [ModelSettings(device="cpu"), ADAPTED], ids=["whole", "lora"])
def test_the_reward_model_takes_a_side(folder: Path, options: ModelSettings) -> None:
    reward = RewardModel.from_policy(Policy.load(folder, "cpu"))
    reward.prepare(options)
    pairs = [LabelledPair([user(f"Request {n}")], "Knock.", "Harmful!", 0.9) for n in range(8)]
    settings = RewardSettings(epochs=6, lr=1e-2, batch_pairs=4, warmup_steps=1)
    reward_model.train(reward, pairs, settings, 0, ignore, ignore)
    good, bad = reward([[user("Request 1")]] * 2, ["Knock.", "Harmful!"])
    assert good > bad


@pytest.mark.parametrize("options", [ModelSettings(device="cpu"), ADAPTED], ids=["whole", "lora"])
def test_a_step_of_ppo(
    folder: Path,
    tmp_path: Path,
    options: ModelSettings,
    prompts: list[Prompt],
    make_settings: Callable[..., Any],
) -> None:
    policy = Policy.to_train(folder, options)
    reward = random_reward(Policy.load(folder, "cpu"))
    trainer = PPO(Inputs(policy, reward, prompts, make_settings(rollouts=4), tmp_path, 3))
    batch = Batch.of(ROWS, policy.tokens.pad_id, policy.device)
    with torch.no_grad():
        start = policy.logprobs(batch)
        assert torch.equal(trainer.reference.logprobs(batch), start)
    trainer.one_step(0, {})
    with torch.no_grad():
        assert torch.equal(trainer.reference.logprobs(batch), start)
        assert not torch.equal(policy.logprobs(batch), start)


@pytest.mark.parametrize("options", [ModelSettings(device="cpu"), ADAPTED], ids=["whole", "lora"])
def test_checkpointing_gives_the_same_gradients_for_more_work(
    folder: Path, options: ModelSettings
) -> None:
    def gradients(checkpointing: bool) -> tuple[list[torch.Tensor], int]:
        changed = options.model_copy(update={"gradient_checkpointing": checkpointing})
        policy = Policy.to_train(folder, changed)
        batch = Batch.of(ROWS, policy.tokens.pad_id, policy.device)
        passes = 0

        def counted(*_: Any) -> None:
            nonlocal passes
            passes += 1

        inner = next(
            module
            for name, module in policy.model.base_model.named_modules()
            if name.endswith(("mlp", "attn", "attention"))
        )
        inner.register_forward_hook(counted)
        policy.logprobs(batch).sum().backward()
        assert not any(module.training for module in policy.model.modules())
        return [p.grad for p in policy.model.parameters() if p.grad is not None], passes

    plain, once = gradients(False)
    kept, twice = gradients(True)
    assert (once, twice) == (1, 2)
    for one, other in zip(plain, kept, strict=True):
        assert torch.allclose(one, other, atol=1e-5)


def test_a_model_without_layers_to_compute_twice_is_told() -> None:
    with pytest.raises(ModelError, match="gradient_checkpointing = false"):
        recompute.switch_on(torch.nn.Linear(2, 2))
