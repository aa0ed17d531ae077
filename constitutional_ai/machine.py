"""What torch knows of this machine's processors."""

from collections.abc import Mapping
from typing import Any

import torch

from constitutional_ai.errors import SettingsError


def device_of(name: str) -> torch.device:
    """The device of a setting; "auto" is a CUDA device, if there is one, else the CPU.

    Raises SettingsError where it is not here.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        why = str(error).strip().split("\n")[0][:120]
        raise SettingsError(
            f"no device {name!r} here ({why}); use auto or cpu; `cai doctor` shows what there is"
        ) from None
    return device


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
