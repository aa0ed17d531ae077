"""The processor's abilities, by the newest torch and by older ones."""

import sys
from types import SimpleNamespace

import pytest
import torch

from constitutional_ai import machine as processor
from constitutional_ai.errors import SettingsError


def test_older_torch_tells_the_same_of_bfloat16(monkeypatch: pytest.MonkeyPatch) -> None:
    new = processor.capabilities()
    older = SimpleNamespace(  # the two questions that torch 2.8 answers
        _is_avx512_bf16_supported=torch.cpu._is_avx512_bf16_supported,
        _is_amx_tile_supported=torch.cpu._is_amx_tile_supported,
    )
    monkeypatch.setitem(sys.modules, "torch", SimpleNamespace(cpu=older))
    old = processor.capabilities()
    for name in ("avx512_bf16", "amx_bf16"):
        assert bool(new.get(name)) == old[name]


def test_a_device_is_found_or_refused_in_one_line() -> None:
    assert processor.device_of("cpu").type == "cpu"
    best = "cuda" if torch.cuda.is_available() else "cpu"
    assert processor.device_of("auto").type == best
    for name in ("cuda:99", "gpu"):
        with pytest.raises(SettingsError, match=f"no device '{name}' here .*use auto") as error:
            processor.device_of(name)
        assert "\n" not in str(error.value)
