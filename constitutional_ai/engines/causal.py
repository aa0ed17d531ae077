"""Any causal language model, read through transformers' own forward and its growing cache.

What prompts begin with in common is read once. All prompts of a batch may begin with the same
worked examples; and a judge is asked several questions about one answer, in both orders, under
several principles: those begin with the same request and answer.

Shapes: B rows, T tokens, V vocabulary, G groups of prompts that begin alike.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import Cache, DynamicLayer

from constitutional_ai.engines.batching import alike

WORTH_SHARING = 32  # tokens that prompts begin with in common; fewer are read anew
ROOM = 64  # places that a cache grows by: a copy of it every 64 tokens in place of each one


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


class RoomyLayer(DynamicLayer):
    """Keys and values with room for more, so that a new token is written beside them.

    The layer of transformers copies all of them at every token. ``keys`` and ``values`` are views
    of the first places of what is held, (B, heads, T, width).
    """

    held: tuple[Tensor, Tensor] | None = None

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        assert self.keys is not None and self.values is not None
        start = self.get_seq_length()
        end = start + key_states.shape[-2]
        if not self._has_room(len(key_states), end):
            self.held = (
                _roomier(self.keys, key_states, start, end),
                _roomier(self.values, value_states, start, end),
            )
        assert self.held is not None
        keys, values = self.held
        keys[:, :, start:end], values[:, :, start:end] = key_states, value_states
        self.keys, self.values = keys[:, :, :end], values[:, :, :end]
        return self.keys, self.values

    def _has_room(self, rows: int, end: int) -> bool:
        """Whether ``keys`` is a view of what is held, and there are ``end`` places."""
        if self.held is None or self.keys is None:
            return False
        if self.keys.data_ptr() != self.held[0].data_ptr():
            return False
        return len(self.held[0]) == rows and end <= self.held[0].shape[2]


def _roomier(before: Tensor, states: Tensor, start: int, end: int) -> Tensor:
    rows, heads, _, width = states.shape
    held = states.new_empty(rows, heads, end if start == 0 else end + ROOM, width)
    if start:
        held[:, :, :start] = before
    return held


class Transformers:
    """Decodes through the model's own forward and its growing cache; remembers no answers."""

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
        if shared < WORTH_SHARING:
            shared = 0
        rests = [prompt[shared:] for prompt in prompts]
        groups = alike(rests, WORTH_SHARING) if self.can_share and min(map(len, rests)) > 1 else []
        if len(groups) in (0, len(prompts)):
            opened = self._after_all(prompts[0][:shared], len(prompts))
            return self._after(opened, rests)
        lengths = opening_lengths(rests, groups)
        opened = self._after_all(prompts[0][:shared], len(groups))
        firsts = [rests[group[0]] for group in groups]
        heads = [first[:length] for first, length in zip(firsts, lengths, strict=True)]
        grown = self._after(opened, heads)
        self._forward(grown)
        group_of = {row: n for n, group in enumerate(groups) for row in group}
        owner_B = torch.tensor([group_of[row] for row in range(len(prompts))])
        grown.select(owner_B.to(self.model.device))
        return self._after(grown, [rest[lengths[group_of[n]] :] for n, rest in enumerate(rests)])

    def _after(self, grown: "_Grown", rests: Sequence[Sequence[int]]) -> "_Grown":
        """Inputs that go on from what each row has read, with padding between the two."""
        inputs = padded_left(rests, self.pad_id, self.model.device)
        mask_BT = grown.inputs["attention_mask"]
        starts_B1 = mask_BT.sum(dim=1, keepdim=True)
        inputs["attention_mask"] = torch.cat([mask_BT, inputs["attention_mask"]], dim=1)
        inputs["position_ids"] = inputs["position_ids"] + starts_B1
        return _Grown(inputs, grown.past)

    def _after_all(self, ids: Sequence[int], rows: int) -> "_Grown":
        """A cache whose rows have all read ``ids``."""
        mask_BT = torch.ones(rows, len(ids), dtype=torch.long, device=self.model.device)
        shared = _Grown({"attention_mask": mask_BT}, self._cache())
        if not ids:
            return shared
        if list(self.opening.ids[: len(ids)]) != list(ids):
            past = self._cache()
            self._forward(_Grown(padded_left([ids], self.pad_id, self.model.device), past))
            self.opening = _Opening(tuple(ids), past)
        layers: list[Any] = self.opening.past.layers if self.opening.past else []
        for number, layer in enumerate(layers):
            keys, values = (
                tensor[:, :, : len(ids)].expand(rows, -1, -1, -1)
                for tensor in (layer.keys, layer.values)
            )
            shared.past.update(keys, values, number)
        return shared

    def _cache(self) -> Cache:
        if self.can_share:
            return Cache(layer_class_to_replicate=RoomyLayer)
        return DynamicCache(config=self.model.config)

    def _forward(self, cache: "_Grown") -> Tensor:
        output = self.model(
            **cache.inputs, past_key_values=cache.past, use_cache=True, logits_to_keep=1
        )
        logits_BV: Tensor = output.logits[:, -1]
        return logits_BV


def opening_lengths(rests: Sequence[Sequence[int]], groups: Sequence[Sequence[int]]) -> list[int]:
    """How much of each group's rows is read once; at least one token, and one is left.

    A row on its own is cut so that what is left is no longer than the others' rows have left.

    >>> opening_lengths([[1, 2, 3, 4], [1, 2, 3, 5], [9, 9, 9]], [[0, 1], [2]])
    [3, 2]
    """
    shared = [shared_length([rests[row] for row in group]) for group in groups]
    left = max(
        len(rests[row]) - length
        for group, length in zip(groups, shared, strict=True)
        for row in group
        if len(group) > 1
    )
    return [
        length if len(group) > 1 else min(max(1, len(rests[group[0]]) - left), length)
        for group, length in zip(groups, shared, strict=True)
    ]


@dataclass(frozen=True)
class _Opening:
    """What the prompts of a batch began with, read once."""

    ids: tuple[int, ...] = ()
    past: Cache | None = None


@dataclass
class _Grown:
    inputs: dict[str, Tensor]  # of the next forward, or of the last one
    past: Cache

    def select(self, rows: Tensor) -> None:
        self.inputs = {name: value[rows] for name, value in self.inputs.items()}
        self.past.batch_select_indices(rows)
