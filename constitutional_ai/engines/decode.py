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
from dataclasses import dataclass
from itertools import takewhile
from typing import Any, Protocol

import torch
from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from constitutional_ai.engines import llama
from constitutional_ai.engines.base import Sampling, refuse_long
from constitutional_ai.engines.batching import length_batches
from constitutional_ai.engines.prefix import PrefixCache
from constitutional_ai.progress import Done, asking

BATCH_TOKENS = 32_768  # prompt and answer tokens that a batch may hold; bounds its keys and values

# Finished rows leave once no more than this share is alive, because it copies the whole cache.
_COMPACT_AT = 0.75

_WORTH_SHARING = 32  # tokens that all prompts of a batch begin with; fewer are read anew


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


def context_of(model: Any) -> int:
    """How many tokens a model can read; endless where positions have no bound, as with ALiBi."""
    return context_in(model.config)


def context_in(config: Any) -> int:
    """As ``context_of``, by the model's configuration alone."""
    context = getattr(config.get_text_config(), "max_position_embeddings", None)
    return 2**31 if context is None else int(context)


def padded_left(prompts: Sequence[Sequence[int]], pad_id: int, device: Any) -> dict[str, Tensor]:
    """Model inputs ``input_ids``, ``attention_mask`` and ``position_ids``, each (B, T).

    Positions count real tokens only, so that a row's numbers do not depend on its neighbours.
    """
    width = max(map(len, prompts))
    ids_BT = torch.tensor([[pad_id] * (width - len(p)) + list(p) for p in prompts], device=device)
    gaps_B = torch.tensor([width - len(p) for p in prompts], device=device)
    steps_BT = torch.arange(width, device=device) - gaps_B[:, None]
    return {
        "input_ids": ids_BT,
        "attention_mask": (steps_BT >= 0).long(),
        "position_ids": steps_BT.clamp(min=0),
    }


def shared_length(prompts: Sequence[Sequence[int]]) -> int:
    """How many ids all prompts begin with; at least one of each stays to be read.

    >>> shared_length([[5, 6, 7, 8], [5, 6, 9], [5, 6, 7]])
    2
    """
    columns = takewhile(lambda column: len(set(column)) == 1, zip(*prompts, strict=False))
    return min(sum(1 for _ in columns), min(map(len, prompts)) - 1)


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


class Transformers:
    """Decodes through the model's own forward and its growing cache; remembers no answers.

    What all prompts of a batch begin with, such as worked examples, is read once.
    """

    def __init__(self, model: Any, pad_id: int) -> None:
        self.model, self.pad_id = model, pad_id
        self.last_place = context_of(model) - 1
        self.opening = _Opening()
        # Layers that keep a window, or a state, cannot be cut to a length.
        layers = DynamicCache(config=model.config).layers
        self.can_share = all(type(layer) is DynamicLayer for layer in layers)

    def read(self, prompts: Sequence[Sequence[int]]) -> tuple[Tensor, "_Grown"]:
        cache = self._opened(prompts)
        return self._forward(cache), cache

    def step(self, token_B: Tensor, cache: "_Grown") -> Tensor:
        mask_BT = cache.inputs["attention_mask"]
        cache.inputs = {
            "input_ids": token_B[:, None],
            "attention_mask": torch.cat([mask_BT, mask_BT.new_ones(len(mask_BT), 1)], dim=1),
            # A row that is done may still be here when its context is full.
            "position_ids": (cache.inputs["position_ids"][:, -1:] + 1).clamp(max=self.last_place),
        }
        return self._forward(cache)

    def last(self, prompts: Sequence[Sequence[int]]) -> Tensor:
        return self._forward(self._opened(prompts))

    def remember(self, prompt: Sequence[int], answer: Sequence[int], cache: Any, row: int) -> None:
        pass

    def _opened(self, prompts: Sequence[Sequence[int]]) -> "_Grown":
        """Inputs and cache to read the prompts with; what they share is in the cache already."""
        shared = shared_length(prompts) if self.can_share and len(prompts) > 1 else 0
        if shared < _WORTH_SHARING:
            inputs = padded_left(prompts, self.pad_id, self.model.device)
            return _Grown(inputs, DynamicCache(config=self.model.config))
        past = self._read_opening(prompts[0][:shared], rows=len(prompts))
        inputs = padded_left(
            [prompt[shared:] for prompt in prompts], self.pad_id, self.model.device
        )
        mask_BT = inputs["attention_mask"]
        inputs["attention_mask"] = torch.cat(
            [mask_BT.new_ones(len(prompts), shared), mask_BT], dim=1
        )
        inputs["position_ids"] = inputs["position_ids"] + shared
        return _Grown(inputs, past)

    def _read_opening(self, ids: Sequence[int], rows: int) -> DynamicCache:
        """A cache whose rows have all read ``ids``."""
        if list(self.opening.ids[: len(ids)]) != list(ids):
            past = DynamicCache(config=self.model.config)
            self._forward(_Grown(padded_left([ids], self.pad_id, self.model.device), past))
            self.opening = _Opening(tuple(ids), past)
        shared = DynamicCache(config=self.model.config)
        layers: list[Any] = self.opening.past.layers if self.opening.past else []
        for number, layer in enumerate(layers):
            keys, values = (
                tensor[:, :, : len(ids)].expand(rows, -1, -1, -1)
                for tensor in (layer.keys, layer.values)
            )
            shared.update(keys, values, number)
        return shared

    def _forward(self, cache: "_Grown") -> Tensor:
        output = self.model(
            **cache.inputs, past_key_values=cache.past, use_cache=True, logits_to_keep=1
        )
        logits_BV: Tensor = output.logits[:, -1]
        return logits_BV


@dataclass(frozen=True)
class _Opening:
    """What the prompts of a batch began with, read once."""

    ids: tuple[int, ...] = ()
    past: DynamicCache | None = None


@dataclass
class _Grown:
    inputs: dict[str, Tensor]  # of the next forward, or of the last one
    past: DynamicCache

    def select(self, rows: Tensor) -> None:
        self.inputs = {name: value[rows] for name, value in self.inputs.items()}
        self.past.batch_select_indices(rows)


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
