"""Our own Llama pass: transformers' logits, whatever the padding, the growth and the rows left."""

import copy
import random
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

from constitutional_ai.engines import llama, prefix
from constitutional_ai.engines.base import Sampling
from constitutional_ai.engines.decode import sample_tokens
from constitutional_ai.engines.llama import ROOM, Llama
from constitutional_ai.engines.prefix import PrefixCache

HEADS, VOCABULARY = 2, 50


@pytest.fixture(scope="module")
def model() -> LlamaForCausalLM:
    return made(num_key_value_heads=HEADS).eval()


def made(**changes: Any) -> LlamaForCausalLM:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=HEADS,
        max_position_embeddings=128,
        initializer_range=0.5,
        **changes,
    )
    return LlamaForCausalLM(config)


def some_prompts() -> list[list[int]]:
    rng = random.Random(1)
    return [[rng.randrange(VOCABULARY) for _ in range(length)] for length in (7, 1, 23, 7, 12)]


def expected(model: Any, ids: list[int]) -> torch.Tensor:
    """One row alone, without cache or padding."""
    with torch.no_grad():
        logits: torch.Tensor = model(torch.tensor([ids])).logits[0, -1]
    return logits


def close(found: torch.Tensor, wanted: list[torch.Tensor]) -> None:
    torch.testing.assert_close(found, torch.stack(wanted), rtol=1e-4, atol=1e-4)


@torch.no_grad()
def test_reading_and_going_on_is_transformers_forward(model: LlamaForCausalLM) -> None:
    rows = some_prompts()
    decoder, rng = Llama(model), random.Random(2)
    logits, cache = decoder.read(rows)
    close(logits, [expected(model, row) for row in rows])
    for step in range(2 * ROOM + 3):  # past two growths of the cache
        if step == 5:  # a row in the middle is done
            keep = [0, 1, 3, 4]
            cache.select(torch.tensor(keep))
            rows = [rows[place] for place in keep]
        tokens = [rng.randrange(VOCABULARY) for _ in rows]
        rows = [[*row, token] for row, token in zip(rows, tokens, strict=True)]
        logits = decoder.step(torch.tensor(tokens), cache)
        close(logits, [expected(model, row) for row in rows])


@torch.no_grad()
def test_many_prompts_are_read_in_parts(
    model: LlamaForCausalLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = Llama(model).last(some_prompts())
    monkeypatch.setattr(llama, "READ_TOKENS", 30)
    torch.testing.assert_close(Llama(model).last(some_prompts()), whole, rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_bfloat16_stays_near_float32(model: LlamaForCausalLM) -> None:
    half = copy.deepcopy(model).to(torch.bfloat16)
    found = Llama(half).last(some_prompts()).float().log_softmax(-1)
    wanted = Llama(model).last(some_prompts()).log_softmax(-1)
    assert (found - wanted).abs().max() < 0.5
    assert (found.exp() - wanted.exp()).abs().max() < 0.05


def test_only_what_it_computes_fits(model: LlamaForCausalLM, tiny_gpt2: Path) -> None:
    assert llama.fits(model)
    assert not llama.fits(made(num_key_value_heads=1))
    assert not llama.fits(made(num_key_value_heads=HEADS, attention_bias=True))
    assert not llama.fits(AutoModelForCausalLM.from_pretrained(tiny_gpt2))
    adapted = copy.deepcopy(model)

    class Adapted(nn.Linear):
        """As peft puts one in a projection's place."""

    adapted.model.layers[0].self_attn.q_proj = Adapted(16, 16, bias=False)
    assert not llama.fits(adapted)


def test_a_row_that_is_done_at_the_contexts_end_waits_for_the_others(
    model: LlamaForCausalLM,
) -> None:
    prompts = [[7] * 126, *([row] * 3 for row in range(5, 11))]
    greedy = Sampling(temperature=0.0, max_new_tokens=12)
    together = sample_tokens(model, prompts, greedy, -1, 0)
    assert [len(answer) for answer in together] == [2, *[12] * 6]
    assert together[1:] == sample_tokens(model, prompts[1:], greedy, -1, 0)


# ---- what a call leaves for the next one --------------------------------------------------------


@pytest.fixture
def read_tokens(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many tokens of each row every reading of prompts went through."""
    seen: list[int] = []
    plain = Llama._read_some

    def counted(self: Llama, prompts: Any, unread: int, *rest: Any) -> torch.Tensor:
        seen.extend([unread] * len(prompts))
        return plain(self, prompts, unread, *rest)

    monkeypatch.setattr(Llama, "_read_some", counted)
    return seen


def answered(model: Any, prompts: list[list[int]], prefixes: PrefixCache) -> list[list[int]]:
    greedy = Sampling(temperature=0.0, max_new_tokens=9, prefixes=prefixes)
    return sample_tokens(model, prompts, greedy, -1, 0, 60)


def test_a_prompt_that_goes_on_is_read_from_where_it_was_left(
    model: LlamaForCausalLM, read_tokens: list[int]
) -> None:
    prompts, prefixes = some_prompts(), PrefixCache()
    answers = answered(model, prompts, prefixes)
    rng = random.Random(3)
    more = [[rng.randrange(VOCABULARY) for _ in range(length)] for length in (4, 2, 5, 1, 3)]
    longer = [p + a + m for p, a, m in zip(prompts, answers, more, strict=True)]
    longer[3] = prompts[3] + answers[3][:2] + [1, 2, 3]  # goes another way in the answer
    longer.reverse()
    wanted = answered(model, longer, PrefixCache())
    assert sum(read_tokens) >= sum(map(len, longer))
    read_tokens.clear()
    assert answered(model, longer, prefixes) == wanted
    assert max(read_tokens) <= 1 + 5 and len(read_tokens) == 5


@torch.no_grad()
def test_known_and_unknown_rows_stand_in_one_batch(model: LlamaForCausalLM) -> None:
    prompts, prefixes = some_prompts(), PrefixCache()
    answers = answered(model, prompts, prefixes)
    prefixes.begin()
    rows = [[*p, *a, 7] for p, a in zip(prompts, answers, strict=True)] + [[5] * 11, prompts[0]]
    random.Random(4).shuffle(rows)
    logits, cache = Llama(model, prefixes).read(rows)
    close(logits, [expected(model, row) for row in rows])
    rows = [[*row, 3] for row in rows]
    close(
        Llama(model).step(torch.tensor([3] * len(rows)), cache),
        [expected(model, row) for row in rows],
    )


def test_only_a_whole_prompt_is_gone_on_from_and_only_once(model: LlamaForCausalLM) -> None:
    prefixes = PrefixCache()
    (answer,) = answered(model, [[3, 1, 4]], prefixes)
    known = [3, 1, 4, *answer[:-1]]
    assert prefixes.take([[*known, 8]]) == [None]  # the call is still going on
    prefixes.begin()
    assert prefixes.take([[3, 1, 9, 9], [3, 1, 4]]) == [None, None]
    first, again = prefixes.take([[*known, 8, 8], [*known, 8, 8]])
    assert first is not None and first[0] == len(known) and again is None
    prefixes.begin()
    assert prefixes.take([[*known, 8]]) == [None]  # it was the call before the last


def test_no_more_is_kept_than_may_be(
    model: LlamaForCausalLM, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, half = PrefixCache(), PrefixCache()
    answered(model, some_prompts(), whole)
    monkeypatch.setattr(prefix, "LIMIT", whole.bytes // 2)
    answered(model, some_prompts(), half)
    assert 0 < half.bytes <= whole.bytes // 2
    assert 0 < len(half.read) < len(whole.read)
