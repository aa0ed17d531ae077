"""Writes a small model of transformers as a GGUF file, the way llama.cpp's converter does.

The layout follows convert_hf_to_gguf.py of llama.cpp: the query and key rows of a Llama are
permuted, because ggml turns neighbours where transformers turns halves. Names of tensors are
written out here, as an oracle that does not ask the library under test.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

gguf = pytest.importorskip("gguf")

LAYER = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
}
TOP = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}
NORMAL, CONTROL, USER_DEFINED = 1, 3, 4  # types of tokens


def name_of(parameter: str) -> str:
    """``model.layers.0.mlp.up_proj.weight`` → ``blk.0.ffn_up.weight``."""
    stem, _, kind = parameter.rpartition(".")
    if not stem.startswith("model.layers."):
        return f"{TOP[stem]}.{kind}"
    _, _, number, inner = stem.split(".", 3)
    return f"blk.{number}.{LAYER[inner]}.{kind}"


def neighbours(weight: Tensor, heads: int) -> Tensor:
    """The rows of each head with its halves interleaved."""
    rows = weight.shape[0] // heads // 2
    split = weight.reshape(heads, 2, rows, *weight.shape[1:])
    return split.transpose(1, 2).reshape(weight.shape)


def write(
    path: Path,
    model: Any,
    tokenizer: Any,
    kind: str = "F32",
    extra: dict[str, Any] | None = None,
    tensors: dict[str, np.ndarray] | None = None,
    architecture: str = "",
) -> None:
    """``kind`` is what matrices are stored as: F32, F16 or Q8_0; vectors stay F32.

    ``extra`` are further settings, ``tensors`` further tensors.
    """
    config = model.config
    writer = gguf.GGUFWriter(str(path), architecture or config.model_type)
    writer.add_name("Tiny")
    writer.add_context_length(config.max_position_embeddings)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    if config.model_type == "llama":
        writer.add_rope_dimension_count(config.hidden_size // config.num_attention_heads)
        writer.add_vocab_size(config.vocab_size)
    if config.model_type == "qwen3":
        writer.add_key_length(config.head_dim)
    for key, value in (extra or {}).items():
        add = writer.add_uint16 if isinstance(value, int) else writer.add_string
        add(key, value)
    _add_tokenizer(writer, tokenizer)
    _add_weights(writer, model, gguf.GGMLQuantizationType[kind])
    for name, array in (tensors or {}).items():
        writer.add_tensor(name, array)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _add_weights(writer: Any, model: Any, kind: Any) -> None:
    heads = {"q": model.config.num_attention_heads, "k": model.config.num_key_value_heads}
    for name, weight in model.named_parameters():  # tied weights come once
        weight = weight.detach().float()
        letter = name.split("_proj")[0][-1]
        if model.config.model_type == "llama" and name.endswith(f"{letter}_proj.weight"):
            weight = neighbours(weight, heads[letter]) if letter in heads else weight
        array = weight.numpy()
        if weight.dim() == 1:
            writer.add_tensor(name_of(name), array)
        else:
            packed = gguf.quants.quantize(array, kind)
            writer.add_tensor(name_of(name), packed, raw_dtype=kind)


def _add_tokenizer(writer: Any, tokenizer: Any) -> None:
    parts = json.loads(tokenizer.backend_tokenizer.to_str())
    added = {token["id"]: token["special"] for token in parts["added_tokens"]}
    ids = range(len(tokenizer))
    types = {True: CONTROL, False: USER_DEFINED}
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokenizer.convert_ids_to_tokens(ids))
    writer.add_token_types([types[added[i]] if i in added else NORMAL for i in ids])
    writer.add_token_merges([" ".join(pair) for pair in parts["model"]["merges"]])
    writer.add_eos_token_id(tokenizer.eos_token_id)
    writer.add_pad_token_id(tokenizer.pad_token_id)
    writer.add_add_bos_token(False)
    if tokenizer.chat_template:
        writer.add_chat_template(tokenizer.chat_template)


def unquantised(weight: Tensor) -> Tensor:
    """What is left of a matrix when it has been stored as Q8_0."""
    kind = gguf.GGMLQuantizationType.Q8_0
    packed = gguf.quants.quantize(weight.detach().float().numpy(), kind)
    return torch.from_numpy(gguf.quants.dequantize(packed, kind).reshape(weight.shape))
