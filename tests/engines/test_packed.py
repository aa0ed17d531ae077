"""Packed linear layers compute what the plain ones do, for every shape that a model asks for."""

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, Qwen2Config

from constitutional_ai.engines.local import LocalEngine
from constitutional_ai.engines.packed import Packed, pack


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(1, 24), (7, 24), (3, 50, 24), (2, 1, 24), (300, 24)])
def test_a_packed_layer_is_its_linear_layer(bias: bool, shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    linear = torch.nn.Linear(24, 40, bias=bias)
    with torch.no_grad():
        states = torch.randn(shape)
        torch.testing.assert_close(Packed(linear)(states), linear(states), rtol=1e-5, atol=1e-6)


def test_a_packed_model_says_the_same_and_keeps_its_embeddings() -> None:
    torch.manual_seed(0)
    config: Any = Qwen2Config(
        vocab_size=320,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        tie_word_embeddings=True,
    )
    model = AutoModelForCausalLM.from_config(config).eval()
    ids = torch.randint(5, 300, (3, 20))
    with torch.no_grad():
        before = model(ids).logits
        embedded = model.get_input_embeddings().weight.clone()
        pack(model)
        assert not any(type(layer) is torch.nn.Linear for layer in model.modules())
        torch.testing.assert_close(model(ids).logits, before, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(model.get_input_embeddings().weight, embedded)


def test_only_float32_is_packed() -> None:
    model = torch.nn.Sequential(torch.nn.Linear(4, 4).bfloat16(), torch.nn.Linear(4, 4))
    pack(model)
    assert [type(layer) for layer in model] == [torch.nn.Linear, Packed]


def test_an_engine_on_the_cpu_is_packed(tiny_llama: Path) -> None:
    layers = list(LocalEngine.load(tiny_llama, dtype="float32", device="cpu").model.modules())
    assert any(isinstance(layer, Packed) for layer in layers)
