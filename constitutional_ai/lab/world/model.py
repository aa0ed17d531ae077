"""The lab's models: Llama in miniature, made and saved.

All are standard ``LlamaForCausalLM`` folders in bfloat16 safetensors, so anything that reads
Hugging Face models reads them.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path

import torch
from transformers import (
    GenerationConfig,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
)
from transformers.utils import logging

from constitutional_ai.lab.world.sizes import SIZES, known
from constitutional_ai.lab.world.tokenizer import BOS, END, PAD

MAX_TOKENS = 512
EMBEDDING_STD = 0.3  # large enough to tell words apart after the first layer
# Of a head's 16 pairs of dimensions the first turn fast, and those from _SLOW on turn slowly.
_FAST, _SLOW, _AGAINST_ITSELF = 4, 6, -1.7


def new_model(size: str, vocabulary: int, seed: int) -> LlamaForCausalLM:
    """An untrained float32 model of a size in ``SIZES``; equal seeds give equal parameters."""
    width, layers, heads, feed_forward = SIZES[known(size)]
    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=heads,
        intermediate_size=feed_forward,
        max_position_embeddings=MAX_TOKENS,
        rope_parameters={"rope_type": "default", "rope_theta": 10_000.0},
        rms_norm_eps=1e-5,
        tie_word_embeddings=True,
        pad_token_id=PAD,
        bos_token_id=BOS,
        eos_token_id=END,
    )
    model = LlamaForCausalLM(config)
    model.generation_config = GenerationConfig(
        do_sample=False, pad_token_id=PAD, bos_token_id=BOS, eos_token_id=END
    )
    _initialise(model, seed)
    return model


def _initialise(model: LlamaForCausalLM, seed: int) -> None:
    """Unit-variance matrices; those that write to the residual stream start small.

    Half of the heads start as finders of the same word earlier in the text: the key's matrix equals
    the query's (the idea of Trockman and Kolter 2023) in the dimensions that rotary positions turn
    slowly, and opposes it in those that they turn fast. At distance zero the two cancel, so a word
    does not find itself, and one layer can tell whether a word stood there before.
    """
    generator = torch.Generator().manual_seed(seed)
    for name, p in model.named_parameters():
        if p.ndim != 2:
            continue
        std = EMBEDDING_STD if "embed" in name else p.shape[1] ** -0.5
        if "o_proj" in name or "down_proj" in name:
            std *= 0.3
        with torch.no_grad():
            p.normal_(0.0, std, generator=generator)
    heads = model.config.num_attention_heads
    width = model.config.hidden_size // heads
    sign = torch.zeros(width // 2)  # of each pair of dimensions, the fastest first
    sign[:_FAST], sign[_SLOW:] = _AGAINST_ITSELF, 1.0
    finders = sign.repeat(2 * (heads // 2))[:, None]
    for layer in model.model.layers:
        attention = layer.self_attn
        with torch.no_grad():
            attention.k_proj.weight[: len(finders)] = (
                finders * attention.q_proj.weight[: len(finders)]
            )


def save(model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """Write a standard model folder in bfloat16 with its tokenizer. ``model`` is left as it is."""
    folder.mkdir(parents=True, exist_ok=True)
    copy = deepcopy(model)
    torch.nn.Module.to(copy, torch.bfloat16)
    with no_progress_bar():
        copy.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


@contextmanager
def no_progress_bar() -> Iterator[None]:
    """Without the bar that transformers draws for each small file."""
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()
