"""What torch knows of this machine's processor."""

from collections.abc import Mapping
from typing import Any

import torch


def capabilities() -> Mapping[str, Any]:
    """Instruction sets by name, true where they are there; older torch tells of two of them only.

    ``torch.cpu.get_capabilities`` came with torch 2.11. A processor with AMX tiles multiplies
    bfloat16 in them.
    """
    told = getattr(torch.cpu, "get_capabilities", None)
    if told is not None:
        found: Mapping[str, Any] = told()
        return found
    return {
        "avx512_bf16": torch.cpu._is_avx512_bf16_supported(),
        "amx_bf16": torch.cpu._is_amx_tile_supported(),
    }


def has_fast_bf16(device: torch.device) -> bool:
    """Whether matrix products in bfloat16 are faster here than in float32."""
    if device.type == "cpu":
        able = capabilities()
        return bool(able.get("avx512_bf16") or able.get("amx_bf16") or able.get("bf16"))
    return device.type != "cuda" or torch.cuda.is_bf16_supported()
