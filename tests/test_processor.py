"""The processor's abilities, by the newest torch and by older ones."""

from types import SimpleNamespace

import pytest
import torch

from constitutional_ai import processor


def test_older_torch_tells_the_same_of_bfloat16(monkeypatch: pytest.MonkeyPatch) -> None:
    new = processor.capabilities()
    older = SimpleNamespace(  # the two questions that torch 2.8 answers
        _is_avx512_bf16_supported=torch.cpu._is_avx512_bf16_supported,
        _is_amx_tile_supported=torch.cpu._is_amx_tile_supported,
    )
    monkeypatch.setattr(processor, "torch", SimpleNamespace(cpu=older))
    old = processor.capabilities()
    for name in ("avx512_bf16", "amx_bf16"):
        assert bool(new.get(name)) == old[name]
