"""The model in training: log-probabilities of answers, and its standard folder.

Shapes: B rows, T tokens, S = T − 1 predicted positions, N answer tokens of all rows, V vocabulary,
d width. Positions count from 0 in every row. Dropout is always off: the model stays in evaluation
mode.

With an adapter (learning/lora.py) the saved folder holds the merged weights, so it is a folder like
any other. The adapter alone is saved beside it.
"""

import copy
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import torch
from torch import Tensor

from constitutional_ai.engines import local
from constitutional_ai.engines.causal import context_of
from constitutional_ai.engines.tokens import ChatTokens
from constitutional_ai.learning import lora, losses
from constitutional_ai.learning.attention import can_speed_up, speed_up
from constitutional_ai.learning.batch import Batch, Tokens, spread
from constitutional_ai.learning.fitting import check_fits
from constitutional_ai.learning.recompute import recomputing, switch_on
from constitutional_ai.machine import autocast
from constitutional_ai.records import Conversation
from constitutional_ai.settings import ModelSettings
from constitutional_ai.store.atomic import write_folder

if TYPE_CHECKING:
    from peft import PeftModel


class Policy:
    """A causal language model and its tokens. The weights that are trained are float32 masters."""

    def __init__(self, model: Any, tokens: ChatTokens) -> None:
        self.model = model.eval()
        self.tokens = tokens
        self.device: torch.device = model.device
        self.context = context_of(model)
        self.options = ModelSettings()
        self.adapter: PeftModel | None = None
        self._short_cut = _head_follows_base(model)
        self._switched_off: PeftModel | None = None

    @classmethod
    def load(cls, path: str | Path, device: str = "auto", dtype: str = "float32") -> Self:
        """Raises ModelError where the folder holds no causal language model."""
        model, tokenizer = local.load(path, dtype=dtype, device=device)
        set_training_attention(model)
        return cls(model, ChatTokens(tokenizer))

    @classmethod
    def to_train(cls, path: str | Path, options: ModelSettings) -> Self:
        """Loaded as ``[model]`` says: with an adapter or without, with little memory or much."""
        policy = cls.load(path, options.device, lora.training_dtype(options))
        policy.prepare(options)
        return policy

    def prepare(self, options: ModelSettings) -> None:
        """Put in an adapter, and switch gradient checkpointing on, if the run asks for them."""
        self.options = options
        if options.lora_rank:
            self.adapter = lora.add(self.model, options, "CAUSAL_LM")
        if options.gradient_checkpointing:
            switch_on(self.model)

    def copy(self) -> Self:
        """The same weights, free to go another way."""
        return copy.deepcopy(self, {id(self.tokens): self.tokens})

    def reference(self) -> "Policy":
        """This policy as it is now, for good. With a fresh adapter: the same weights without it.

        The latter costs no memory; take it before the adapter has been trained.
        """
        if self.adapter is None:
            frozen = self.copy()
            frozen.model.requires_grad_(False)
            return frozen
        bare = copy.copy(self)
        bare._switched_off = self.adapter
        return bare

    def merge(self) -> None:
        """Add the adapter to the weights for good; the policy is a plain model afterwards."""
        if self.adapter is not None:
            self.adapter.merge_and_unload()
            self.adapter = None

    def logprobs(self, batch: Batch, temperature: float = 1.0) -> Tensor:
        """log P of each answer token, in nats, [B, S]; 0 outside the answers. Has a gradient."""
        targets_N = batch.ids_BT[:, 1:][batch.mask_BS]
        logprobs_N = losses.token_logprobs(self._logits(batch) / temperature, targets_N)
        return spread(logprobs_N, batch.mask_BS)

    @torch.no_grad()
    def logprobs_and_entropy(self, batch: Batch, temperature: float) -> tuple[Tensor, Tensor]:
        """As ``logprobs``, and the entropy of each answer position's distribution; both [B, S]."""
        targets_N = batch.ids_BT[:, 1:][batch.mask_BS]
        logits_NV = self._logits(batch) / temperature
        logprobs_N = losses.token_logprobs(logits_NV, targets_N)
        return spread(logprobs_N, batch.mask_BS), spread(losses.entropy(logits_NV), batch.mask_BS)

    def encode(self, prompt: Conversation, answer: str) -> Tokens:
        """Ids of a conversation and of an answer to it, end token included.

        Raises DataError for a row that is longer than the model's context.
        """
        row = self.tokens.prompt(prompt), self.tokens.answer(answer)
        check_fits(sum(map(len, row)), self.context)
        return row

    def save_adapter(self, folder: Path, base: str) -> None:
        """The adapter alone, as peft reads it, if there is one; ``base`` is the model it is for."""
        if (adapter := self.adapter) is not None:
            write_folder(folder, lambda draft: lora.save(adapter, draft, base))

    def save_pretrained(self, folder: Path) -> None:
        """A standard folder, whole or not at all: safetensors, tokenizer, chat template."""
        assert self.adapter is None, "merge() comes first"
        write_folder(folder, self._write)

    @contextmanager
    def generating(self) -> Iterator[Any]:
        """The model with its adapter, ready to sample: with attention that knows caches."""
        trained_with = self.model.config._attn_implementation
        if self.device.type == "cpu":
            self.model.set_attn_implementation("eager")
        try:
            with autocast(self.device):
                yield self.model
        finally:
            self.model.set_attn_implementation(trained_with)

    def _write(self, folder: Path) -> None:
        drawing = self.model.generation_config
        if drawing.temperature is not None or drawing.top_p is not None:
            drawing.do_sample = True  # transformers refuses to save one without the other
        self.model.save_pretrained(folder)
        self.tokens.tokenizer.save_pretrained(folder)

    def _logits(self, batch: Batch) -> Tensor:
        """Logits at the answers' positions only, [N, V]: a small model's head is half its work."""
        off = self._switched_off.disable_adapter() if self._switched_off else nullcontext()
        with autocast(self.device), off, recomputing(self.model):
            if not self._short_cut:
                full_BTV: Tensor = self.model(batch.ids_BT, use_cache=False).logits
                return full_BTV[:, :-1][batch.mask_BS].float()
            states_BTd = self.model.base_model(batch.ids_BT, use_cache=False).last_hidden_state
            logits_NV: Tensor = self.model.get_output_embeddings()(
                states_BTd[:, :-1][batch.mask_BS]
            )
        return logits_NV.float()


def set_training_attention(model: Any) -> None:
    """On a CPU, replace fused attention, whose backward pass is slow there.

    Measured in bfloat16, with heads of 32 and 4,096 tokens a batch: fused 8.5k tokens a second,
    eager 11.6k, ``attention.speed_up`` 14.8k.
    """
    if model.device.type != "cpu":
        return
    if can_speed_up(model):
        speed_up(model)
    else:
        model.set_attn_implementation("eager")


@torch.no_grad()
def _head_follows_base(model: Any) -> bool:
    """Whether logits are just head(base(ids)); some models scale or cap them afterwards.

    The head's output is made larger for this, because a cap does not show in small logits.
    """
    head = model.get_output_embeddings()
    louder = head.register_forward_hook(lambda module, inputs, output: output * 1000)
    try:
        ids = torch.arange(4, device=model.device)[None] % model.config.get_text_config().vocab_size
        states = getattr(model.base_model(ids, use_cache=False), "last_hidden_state", None)
        if states is None:  # a model that is its own base, head included
            return False
        short, full = head(states), model(ids, use_cache=False).logits
    finally:
        louder.remove()
    return short.shape == full.shape and torch.allclose(short, full, rtol=1e-3, atol=1e-2)
