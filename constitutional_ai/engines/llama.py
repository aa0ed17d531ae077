"""A Llama's forward pass in few large operations, for generating with small models on a CPU.

At two million parameters most of a decoding step of transformers goes to Python, to the copy of the
whole cache that each new token costs, and to norms and softmax in float32. Here the projections are
fused, the cache has room ahead, and everything stays in the precision of the weights. The weights
are read once, at construction: make a new one when they have moved.

Not covered: grouped heads, biases, scaled rotary tables; ``fits`` says whether a model can be read.

Shapes: B rows, T tokens, C places of the cache, H heads, D width of a head, d = H·D, V vocabulary.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from constitutional_ai.engines.prefix import PrefixCache, Row

ROOM = 16  # places that a cache grows by: a copy of it every 16 tokens in place of each one
READ_TOKENS = 4_096  # prompt tokens read at once; more fall out of a CPU's cache


class _Layer(NamedTuple):
    norm: Tensor
    qkv: Tensor
    out: Tensor
    norm_mlp: Tensor
    gate_up: Tensor
    down: Tensor


def fits(model: Any) -> bool:
    """Whether ``Llama`` computes what this model does."""
    config = model.config
    if config.model_type != "llama" or model.device.type != "cpu":
        return False
    if type(model).__name__ != "LlamaForCausalLM":
        return False
    projections = [m for name, m in model.named_modules() if name.endswith("_proj")]
    if any(type(m) is not torch.nn.Linear for m in projections):  # such as an adapter's
        return False
    return bool(
        config.num_key_value_heads == config.num_attention_heads
        and config.rope_parameters.get("rope_type") == "default"
        and config.hidden_act == "silu"
        and not config.attention_bias
        and not config.mlp_bias
    )


@dataclass
class Cache:
    """Keys and values of the tokens so far, padded on the left and, as room, on the right.

    ``mask_B11C`` is 0 where a row may look and minus infinity elsewhere.
    """

    keys: list[Tensor]  # a layer each: (B, H, C, D)
    values: list[Tensor]
    mask_B11C: Tensor
    filled: int
    positions_B: Tensor  # of the next token
    starts_B: Tensor  # the place of each row's first token

    def grow(self) -> None:
        """Room for ``ROOM`` more tokens. Whole blocks, since a slice would cost a copy a step."""
        self.keys = [F.pad(block, (0, 0, 0, ROOM)) for block in self.keys]
        self.values = [F.pad(block, (0, 0, 0, ROOM)) for block in self.values]
        self.mask_B11C = F.pad(self.mask_B11C, (0, ROOM), value=float("-inf"))

    def select(self, rows: Tensor) -> None:
        """Only these rows from now on."""
        self.keys = [block[rows] for block in self.keys]
        self.values = [block[rows] for block in self.values]
        self.mask_B11C, self.starts_B = self.mask_B11C[rows], self.starts_B[rows]
        self.positions_B = self.positions_B[rows]


class Llama:
    """A snapshot of a ``LlamaForCausalLM``'s weights that can read prompts and go on from them."""

    def __init__(self, model: Any, prefixes: PrefixCache | None = None) -> None:
        self.prefixes = prefixes
        config = model.config
        self.heads = config.num_attention_heads
        self.width = config.head_dim or config.hidden_size // self.heads
        self.eps = config.rms_norm_eps
        self.embedding, self.head = model.model.embed_tokens.weight, model.lm_head.weight
        self.norm = model.model.norm.weight
        self.layers = [_fused(layer) for layer in model.model.layers]
        places = torch.arange(config.max_position_embeddings, device=model.device)[None]
        cos, sin = model.model.rotary_emb(self.embedding, places)
        self.rotary_P2D = torch.stack([cos[0], sin[0]], dim=1).to(self.embedding.dtype)

    def read(self, prompts: Sequence[Sequence[int]]) -> tuple[Tensor, Cache]:
        """Logits of the token after each prompt, (B, V), and the cache to go on from."""
        longest = max(map(len, prompts))
        cache = self._empty(prompts, longest)
        unread = self._known(prompts, cache)
        size = max(1, READ_TOKENS // max(unread))
        last = [
            self._read_some(
                prompts[start : start + size], max(unread[start : start + size]), cache, start
            )
            for start in range(0, len(prompts), size)
        ]
        return F.linear(torch.cat(last), self.head), cache

    def remember(
        self, prompt: Sequence[int], answer: Sequence[int], cache: Cache, row: int
    ) -> None:
        """Leave a row that is done to the next call, if there will be one."""
        if self.prefixes is None:
            return
        ids = (*prompt, *answer[:-1])  # the last token was drawn and not read
        start = int(cache.starts_B[row])
        places = slice(start, start + len(ids))
        keys, values = (
            [block[row, :, places].clone() for block in blocks]
            for blocks in (cache.keys, cache.values)
        )
        self.prefixes.remember(prompt, Row(ids, keys, values))

    def _known(self, prompts: Sequence[Sequence[int]], cache: Cache) -> list[int]:
        """Put into the cache what is known of the prompts; how many tokens of each are not."""
        unread = [len(prompt) for prompt in prompts]
        for row, prefix in enumerate(self.prefixes.take(prompts) if self.prefixes else ()):
            if prefix is None:
                continue
            count, known = prefix
            unread[row] -= count
            start = int(cache.starts_B[row])
            blocks = zip((*cache.keys, *cache.values), (*known.keys, *known.values), strict=True)
            for block, part in blocks:
                block[row, :, start : start + count] = part[:, :count]
        return unread

    def last(self, prompts: Sequence[Sequence[int]]) -> Tensor:
        """The logits of ``read``, if nothing is to follow."""
        return self.read(prompts)[0]

    def step(self, token_B: Tensor, cache: Cache) -> Tensor:
        """Logits after one more token of each row, (B, V); nonsense for a row past its context."""
        if cache.filled == cache.mask_B11C.shape[-1]:
            cache.grow()
        cache.mask_B11C[..., cache.filled] = 0
        x_B1d = F.embedding(token_B[:, None], self.embedding)
        positions_B = cache.positions_B.clamp(max=len(self.rotary_P2D) - 1)
        rotary_B12D = self.rotary_P2D[positions_B][:, None]
        here = slice(cache.filled, cache.filled + 1)
        for layer, keys, values in zip(self.layers, cache.keys, cache.values, strict=True):
            query, key, value = self._projected(layer, x_B1d, rotary_B12D)
            keys[:, :, here], values[:, :, here] = key, value
            x_B1d = self._mixed(layer, x_B1d, query, keys, values, cache.mask_B11C)
        cache.filled += 1
        cache.positions_B = cache.positions_B + 1
        return F.linear(self._normed(x_B1d[:, 0], self.norm), self.head)

    def _empty(self, prompts: Sequence[Sequence[int]], longest: int) -> Cache:
        lengths_B = torch.tensor([len(prompt) for prompt in prompts])
        places_C = torch.arange(longest + ROOM)
        seen_BC = (places_C >= longest - lengths_B[:, None]) & (places_C < longest)
        mask_BC = torch.zeros(seen_BC.shape, dtype=self.head.dtype)
        mask_BC.masked_fill_(~seen_BC, float("-inf"))
        shape = (len(prompts), self.heads, longest + ROOM, self.width)
        blocks = [self.head.new_zeros(shape) for _ in range(2 * len(self.layers))]
        count = len(self.layers)
        masks, starts_B = mask_BC[:, None, None], longest - lengths_B
        return Cache(blocks[:count], blocks[count:], masks, longest, lengths_B, starts_B)

    def _read_some(
        self, prompts: Sequence[Sequence[int]], unread: int, cache: Cache, start: int
    ) -> Tensor:
        """Fill the last ``unread`` places of the cache's rows from ``start``, the others being
        known; the normed last states of these prompts, (B, d).
        """
        rows, seen, new = (
            slice(start, start + len(prompts)),
            slice(cache.filled),
            slice(cache.filled - unread, cache.filled),
        )
        ids_BT = torch.tensor([[0] * (unread - len(p)) + list(p[-unread:]) for p in prompts])
        places_BT = torch.arange(cache.filled)[new] - cache.starts_B[rows, None]
        rotary_BT2D = self.rotary_P2D[places_BT.clamp(min=0)]
        mask_B1TC = cache.mask_B11C[rows, :, :, seen] + _causal(cache.filled, self.head.dtype)[new]
        # A padding position may look at nothing; let it look at itself, or its softmax is NaN.
        mask_B1TC.diagonal(cache.filled - unread, dim1=-2, dim2=-1).zero_()
        x_BTd = F.embedding(ids_BT, self.embedding)
        for layer, keys, values in zip(self.layers, cache.keys, cache.values, strict=True):
            query, key, value = self._projected(layer, x_BTd, rotary_BT2D)
            keys[rows, :, new], values[rows, :, new] = key, value
            x_BTd = self._mixed(
                layer, x_BTd, query, keys[rows, :, seen], values[rows, :, seen], mask_B1TC
            )
        return self._normed(x_BTd[:, -1], self.norm)

    def _projected(
        self, layer: _Layer, x_BTd: Tensor, rotary_BT2D: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Query, key and value, each (B, H, T, D), the first two rotated to their positions."""
        rows, time, _ = x_BTd.shape
        qkv = F.linear(self._normed(x_BTd, layer.norm), layer.qkv)
        both, value = qkv.view(rows, time, 3, self.heads, self.width).split((2, 1), dim=2)
        cos, sin = rotary_BT2D[:, :, :1, None], rotary_BT2D[:, :, 1:, None]
        left, right = both.chunk(2, dim=-1)
        both = both * cos + torch.cat([-right, left], dim=-1) * sin
        query, key = both.unbind(dim=2)
        return query.transpose(1, 2), key.transpose(1, 2), value[:, :, 0].transpose(1, 2)

    def _mixed(
        self,
        layer: _Layer,
        x_BTd: Tensor,
        query: Tensor,
        keys: Tensor,
        values: Tensor,
        mask: Tensor,
    ) -> Tensor:
        """The rest of the layer: attention over ``keys``, the residual stream, the MLP."""
        scores = (query * self.width**-0.5) @ keys.mT + mask
        mixed = (scores.softmax(-1) @ values).transpose(1, 2).flatten(2)
        x_BTd = x_BTd + F.linear(mixed, layer.out)
        gate, up = F.linear(self._normed(x_BTd, layer.norm_mlp), layer.gate_up).chunk(2, dim=-1)
        return x_BTd + F.linear(F.silu(gate) * up, layer.down)

    def _normed(self, x: Tensor, weight: Tensor) -> Tensor:
        return F.rms_norm(x, weight.shape, weight, self.eps)


def _fused(layer: Any) -> _Layer:
    attention, mlp = layer.self_attn, layer.mlp
    projections = (attention.q_proj, attention.k_proj, attention.v_proj)
    return _Layer(
        layer.input_layernorm.weight,
        torch.cat([p.weight for p in projections]),
        attention.o_proj.weight,
        layer.post_attention_layernorm.weight,
        torch.cat([mlp.gate_proj.weight, mlp.up_proj.weight]),
        mlp.down_proj.weight,
    )


def _causal(length: int, dtype: torch.dtype) -> Tensor:
    return torch.full((length, length), float("-inf"), dtype=dtype).triu_(1)
