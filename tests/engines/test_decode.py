"""Sampling: equal to transformers' own greedy search, and to the distributions it draws from."""

import random
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, Gemma2Config, Qwen2Config

from constitutional_ai.engines.base import Sampling
from constitutional_ai.engines.causal import Transformers, padded_left
from constitutional_ai.engines.decode import draw, nucleus, sample_tokens
from constitutional_ai.errors import DataError

PAD = 1


@pytest.fixture(scope="module")
def llama(tiny_llama: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(tiny_llama).eval()


@pytest.fixture(scope="module")
def gpt2(tiny_gpt2: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(tiny_gpt2).eval()


def some_prompts(count: int = 12) -> list[list[int]]:
    rng = random.Random(0)
    return [[rng.randrange(5, 300) for _ in range(rng.randrange(1, 40))] for _ in range(count)]


def searched(model: Any, prompt: list[int], count: int, end: int) -> list[int]:
    """Greedy search by transformers, one prompt at a time: no padding, no batch."""
    ids = torch.tensor([prompt])
    output = model.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        max_new_tokens=count,
        do_sample=False,
        eos_token_id=end,
        pad_token_id=PAD,
    )
    return output[0, len(prompt) :].tolist()


@pytest.mark.parametrize("name", ["llama", "gpt2"])
@pytest.mark.parametrize("batch_tokens", [1, 150, 10_000])
def test_greedy_is_transformers_greedy(
    name: str, batch_tokens: int, request: pytest.FixtureRequest
) -> None:
    model, prompts = request.getfixturevalue(name), some_prompts()
    free = [searched(model, prompt, 24, end=-1) for prompt in prompts]
    # The likeliest end: a token that comes up at different times in different answers.
    end = max(
        {token for answer in free for token in answer},
        key=lambda token: sum(token in answer for answer in free),
    )
    expected = [searched(model, prompt, 24, end) for prompt in prompts]
    assert len({len(answer) for answer in expected}) > 2
    greedy = Sampling(temperature=0, max_new_tokens=24)
    assert sample_tokens(model, prompts, greedy, end, PAD, batch_tokens) == expected


def test_the_seed_decides(llama: Any) -> None:
    prompts = some_prompts(6)

    def answers(seed: int) -> list[list[int]]:
        return sample_tokens(llama, prompts, Sampling(max_new_tokens=8, seed=seed), 2, PAD, 100)

    torch.manual_seed(1)
    first, state = answers(5), torch.get_rng_state()
    assert answers(5) == first != answers(6)
    assert torch.equal(torch.get_rng_state(), state)  # the global generator is left alone


def test_dropout_is_off_while_sampling_and_back_on_after(gpt2: Any) -> None:
    prompts, greedy = some_prompts(4), Sampling(temperature=0, max_new_tokens=8)
    expected = sample_tokens(gpt2, prompts, greedy, 0, PAD)
    gpt2.train()
    try:
        assert sample_tokens(gpt2, prompts, greedy, 0, PAD) == expected
        assert gpt2.training
    finally:
        gpt2.eval()


def test_an_answer_ends_with_the_context(gpt2: Any) -> None:
    prompts = [[7] * 1016, [7] * 3]
    greedy = Sampling(temperature=0, max_new_tokens=20)
    assert [len(a) for a in sample_tokens(gpt2, prompts, greedy, -1, PAD)] == [8, 20]
    with pytest.raises(DataError, match=r"1024 tokens leaves no room .* context of 1024"):
        sample_tokens(gpt2, [[7] * 1024], greedy, 0, PAD)


def test_a_row_that_is_done_at_the_contexts_end_waits_for_the_others(gpt2: Any) -> None:
    prompts = [[7] * 1022, *([row] * 3 for row in range(5, 11))]
    greedy = Sampling(temperature=0, max_new_tokens=12)
    together = sample_tokens(gpt2, prompts, greedy, -1, PAD)
    assert [len(answer) for answer in together] == [2, *[12] * 6]
    assert together[1:] == sample_tokens(gpt2, prompts[1:], greedy, -1, PAD)


def test_nothing_asked_nothing_said(llama: Any) -> None:
    assert sample_tokens(llama, [], Sampling(), 2, PAD) == []
    assert sample_tokens(llama, [[5]], Sampling(max_new_tokens=0), 2, PAD) == [[]]


def test_padding_is_masked_and_positions_count_real_tokens() -> None:
    inputs = padded_left([[5, 6, 7], [8]], 0, "cpu")
    assert inputs["input_ids"].tolist() == [[5, 6, 7], [0, 0, 8]]
    assert inputs["attention_mask"].tolist() == [[1, 1, 1], [0, 0, 1]]
    assert inputs["position_ids"].tolist() == [[0, 1, 2], [0, 0, 0]]


@pytest.mark.parametrize(
    ("top_p", "kept"), [(0.0, 1), (0.4, 1), (0.5, 1), (0.6, 2), (0.85, 3), (1.0, 4)]
)
def test_nucleus_keeps_the_fewest_tokens_that_reach_the_mass(top_p: float, kept: int) -> None:
    probs = torch.tensor([[0.125, 0.5, 0.125, 0.25]], dtype=torch.float64)
    left = nucleus(probs, top_p)[0]
    assert int((left > 0).sum()) == kept
    assert torch.equal(left[left > 0], probs[0][left > 0])
    assert left[left > 0].min() >= probs[0][left == 0].max() if kept < 4 else True


def test_draws_follow_the_tempered_distribution() -> None:
    logits = torch.tensor([2.0, 1.0, 0.0, -9.0])
    expected = torch.exp(logits / 0.5) / torch.exp(logits / 0.5).sum()
    rng = torch.Generator().manual_seed(0)
    drawn = draw(logits.expand(20_000, 4), Sampling(temperature=0.5), rng)
    shares = torch.bincount(drawn, minlength=4) / 20_000
    assert torch.allclose(shares, expected, atol=0.015)  # four standard errors
    narrow = draw(logits.expand(2_000, 4), Sampling(temperature=0.5, top_p=0.5), rng)
    assert set(narrow.tolist()) == {0}


def shapes() -> dict[str, Any]:
    """A model that keeps all keys, and one whose every second layer keeps a window of them."""
    size: dict[str, Any] = {
        "vocab_size": 300, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 256,
    }  # fmt: skip
    return {
        "qwen2": Qwen2Config(**size),
        "gemma2": Gemma2Config(**size, head_dim=8, sliding_window=16),
    }


def counted(model: Any, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many tokens, padding included, each forward from now on reads."""
    read: list[int] = []
    forward = model.forward
    monkeypatch.setattr(
        model,
        "forward",
        lambda *args, **given: (read.append(given["input_ids"].numel()), forward(*args, **given))[
            1
        ],
    )
    return read


@pytest.mark.parametrize("name", ["qwen2", "gemma2"])
@pytest.mark.parametrize("opening", [0, 50])
def test_what_a_group_of_prompts_begins_with_is_read_once_and_changes_nothing(
    name: str, opening: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(shapes()[name]).float().eval()
    rng = random.Random(2)
    all_begin = [rng.randrange(5, 300) for _ in range(opening)]
    answers = [[rng.randrange(5, 300) for _ in range(rng.randrange(60, 90))] for _ in range(3)]
    prompts = [
        [*all_begin, *answer, *(rng.randrange(5, 300) for _ in range(rng.randrange(2, 12)))]
        for answer in answers
        for _ in range(4)
    ]
    prompts += [[*all_begin, *answers[0][:9]], [*all_begin, *answers[1]], prompts[5]]
    rng.shuffle(prompts)
    each = torch.cat([Transformers(model, PAD).last([prompt]) for prompt in prompts])
    alone = [searched(model, prompt, 9, end=2) for prompt in prompts]
    read = counted(model, monkeypatch)
    together = Transformers(model, PAD).last(prompts)
    torch.testing.assert_close(together, each, rtol=1e-4, atol=1e-5)
    if name == "qwen2":
        assert sum(read) < 0.5 * sum(map(len, prompts))
    greedy = Sampling(temperature=0, max_new_tokens=9)
    assert sample_tokens(model, prompts, greedy, 2, PAD) == alone


@pytest.mark.parametrize("name", ["qwen2", "gemma2"])
@pytest.mark.parametrize("batch_tokens", [400, 10_000])
def test_an_opening_that_prompts_share_is_read_once_and_changes_nothing(
    name: str, batch_tokens: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(shapes()[name]).float().eval()
    opening = [random.Random(1).randrange(5, 300) for _ in range(60)]
    prompts = [opening + prompt for prompt in some_prompts(8)]
    alone = [searched(model, prompt, 9, end=2) for prompt in prompts]
    read = counted(model, monkeypatch)
    greedy = Sampling(temperature=0, max_new_tokens=9)
    assert sample_tokens(model, prompts, greedy, 2, PAD, batch_tokens) == alone
    once = Transformers(model, PAD).last(prompts)
    each = torch.cat([Transformers(model, PAD).last([prompt]) for prompt in prompts])
    torch.testing.assert_close(once, each, rtol=1e-4, atol=1e-5)
    if name == "qwen2":
        assert read.count(60) == 2  # by sampling, whatever its batches, and by last
