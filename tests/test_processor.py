"""The processor's abilities, by the newest torch and by older ones."""

import pytest
import torch

from constitutional_ai.processor import capabilities


def test_older_torch_tells_the_same_of_bfloat16(monkeypatch: pytest.MonkeyPatch) -> None:
    new = capabilities()
    monkeypatch.delattr(torch.cpu, "get_capabilities")
    old = capabilities()
    for name in ("avx512_bf16", "amx_bf16"):
        assert bool(new.get(name)) == old[name]
