"""Sampling of many answers at once from a causal language model.

Prompts are sorted by length and cut into batches under a token budget, padded on the left, with
explicit position ids. Answers end at different lengths: finished rows leave the batch, so the
last long answers do not pay for those that are done. Any causal model runs through transformers;
a Llama on a CPU through our own pass (engines/llama.py), which is faster where models are small.

Every call draws from its own generator: the same call on the same machine gives the same tokens.
Not covered: beam search, penalties, models whose state is not keys and values.

Shapes: B rows, T tokens, V vocabulary.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

import torch
from torch import Tensor

from constitutional_ai.engines import llama
from constitutional_ai.engines.base import Sampling, refuse_long
from constitutional_ai.engines.batching import length_batches
from constitutional_ai.engines.causal import Transformers, context_of
from constitutional_ai.engines.prefix import PrefixCache
from constitutional_ai.progress import Done, asking

BATCH_TOKENS = 32_768  # prompt and answer tokens that a batch may hold; bounds its keys and values

# Finished rows leave once no more than this share is alive, because it copies the whole cache.
_COMPACT_AT = 0.75


def sample_tokens(
    model: Any,
    prompts: Sequence[Sequence[int]],
    sampling: Sampling,
    end_id: int,
    pad_id: int,
    batch_tokens: int = BATCH_TOKENS,
) -> list[list[int]]:
    """An answer for each prompt, in order: its ids, with ``end_id`` last where it was reached.

    An answer stops at ``sampling.max_new_tokens``, or earlier if the model's context is full.
    Raises DataError for a prompt that leaves no room in the context.
    """
    limits = [min(sampling.max_new_tokens, room(model, len(prompt))) for prompt in prompts]
    lengths = [len(prompt) + limit for prompt, limit in zip(prompts, limits, strict=True)]
    answers: list[list[int]] = [[] for _ in prompts]
    rng = torch.Generator(device=model.device).manual_seed(sampling.seed)
    done = asking(len(prompts), "answers")
    with torch.no_grad(), evaluating(model):
        if sampling.prefixes:
            sampling.prefixes.begin()
        decoder = decoder_of(model, pad_id, sampling.prefixes)
        for rows in length_batches(lengths, batch_tokens, longest_first=True):
            batch = _Batch(decoder, [prompts[r] for r in rows], [limits[r] for r in rows], done)
            for row, answer in zip(rows, batch.run(sampling, end_id, rng), strict=True):
                answers[row] = answer
    return answers


def room(model: Any, prompt_tokens: int) -> int:
    """How many tokens may follow a prompt. Raises DataError where there is no place for one."""
    context = context_of(model)
    refuse_long(prompt_tokens, context)
    return context - prompt_tokens


@contextmanager
def evaluating(model: Any) -> Iterator[None]:
    """Dropout off, and back as it was afterwards: the weights may be in the midst of training."""
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)


class Cache(Protocol):
    """Keys and values of a batch, and what else a decoder needs to go on."""

    def select(self, rows: Tensor) -> None:
        """Only these rows from now on."""
        ...


class Decoder(Protocol):
    """Reads prompts and goes on from them. Each kind of decoder has its own kind of cache."""

    def read(self, prompts: Sequence[Sequence[int]]) -> tuple[Tensor, Cache]:
        """Logits of the token after each prompt, (B, V), and the cache to go on from."""
        ...

    def step(self, token_B: Tensor, cache: Any) -> Tensor:
        """Logits after one more token of each row, (B, V). A row whose context is full may follow
        along: its logits mean nothing.
        """
        ...

    def last(self, prompts: Sequence[Sequence[int]]) -> Tensor:
        """The logits of ``read``, if nothing is to follow."""
        ...

    def remember(self, prompt: Sequence[int], answer: Sequence[int], cache: Any, row: int) -> None:
        """Called for each row that is done, while the cache still has it."""
        ...


def decoder_of(model: Any, pad_id: int, prefixes: PrefixCache | None = None) -> Decoder:
    """The fastest that computes this model. Make a new one when the weights have moved."""
    if llama.fits(model):
        return llama.Llama(model, prefixes)
    return Transformers(model, pad_id)


class _Batch:
    """Prompts on their way to their answers; rows leave when they are done."""

    def __init__(
        self, decoder: Decoder, prompts: list[Sequence[int]], limits: list[int], done: Done
    ) -> None:
        self.decoder, self.prompts, self.done = decoder, prompts, done
        self.answers: list[list[int]] = [[] for _ in prompts]
        self.limits = limits

    def run(self, sampling: Sampling, end_id: int, rng: torch.Generator) -> list[list[int]]:
        if not any(self.limits):
            return self.answers
        logits_BV, cache = self.decoder.read(self.prompts)
        rows_B = torch.arange(len(self.prompts), device=logits_BV.device)  # whose answer a row is
        limits_B = torch.tensor(self.limits, device=logits_BV.device)
        alive_B = limits_B > 0
        made, alive = 0, len(self.prompts)
        while True:
            token_B = draw(logits_BV, sampling, rng)
            self._note(rows_B[alive_B], token_B[alive_B])
            made += 1
            alive_B &= (token_B != end_id) & (limits_B > made)
            before, alive = alive, int(alive_B.sum())
            self.done(before - alive, before)
            if not alive:
                self._done(rows_B, alive_B, cache)
                return self.answers
            if alive <= _COMPACT_AT * len(alive_B):
                self._done(rows_B, alive_B, cache)
                going_B = alive_B.nonzero().flatten()
                cache.select(going_B)
                rows_B, limits_B, token_B, alive_B = (
                    x[going_B] for x in (rows_B, limits_B, token_B, alive_B)
                )
            logits_BV = self.decoder.step(token_B, cache)

    def _done(self, rows_B: Tensor, alive_B: Tensor, cache: Any) -> None:
        for place, (row, alive) in enumerate(zip(rows_B.tolist(), alive_B.tolist(), strict=True)):
            if not alive:
                self.decoder.remember(self.prompts[row], self.answers[row], cache, place)

    def _note(self, rows_B: Tensor, token_B: Tensor) -> None:
        for row, token in zip(rows_B.tolist(), token_B.tolist(), strict=True):
            self.answers[row].append(token)


def draw(logits_BV: Tensor, sampling: Sampling, rng: torch.Generator) -> Tensor:
    """The next token of each row, (B,). The sampling is silent about nothing."""
    assert sampling.temperature is not None and sampling.top_p is not None
    if sampling.temperature == 0:
        return logits_BV.argmax(dim=-1)
    probs_BV = (logits_BV.float() / sampling.temperature).softmax(dim=-1)
    if sampling.top_p < 1:
        probs_BV = nucleus(probs_BV, sampling.top_p)
    # One uniform number a row against the cumulative distribution: torch.multinomial draws one for
    # each word of the vocabulary, which took an eighth of the time of a small model.
    cumulative_BV = probs_BV.cumsum(dim=-1)
    point_B1 = torch.rand(len(probs_BV), 1, generator=rng, device=probs_BV.device)
    point_B1 *= cumulative_BV[:, -1:]
    token_B1 = torch.searchsorted(cumulative_BV, point_B1, right=True)
    return token_B1[:, 0].clamp(max=probs_BV.shape[1] - 1)


def nucleus(probs_BV: Tensor, top_p: float) -> Tensor:
    """The fewest tokens whose mass reaches ``top_p`` (Holtzman et al. 2020), the rest at 0."""
    sorted_BV, order_BV = probs_BV.sort(dim=-1, descending=True)
    cut_BV = sorted_BV.cumsum(dim=-1) - sorted_BV >= top_p  # the tokens before it suffice
    cut_BV[:, 0] = False
    return probs_BV.masked_fill(torch.zeros_like(cut_BV).scatter(-1, order_BV, cut_BV), 0.0)
