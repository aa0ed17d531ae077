"""``cai doctor``: what this machine can run."""

import os
import shutil
import sys
from pathlib import Path

from constitutional_ai.engines import gguf_file
from constitutional_ai.machine import installed
from constitutional_ai.run_file import shipped
from constitutional_ai.settings import load_settings
from constitutional_ai.stages.check import problems
from constitutional_ai.stages.preview import needs_gpu
from constitutional_ai.version import __version__

PACKAGES = ("torch", "transformers", "tokenizers", "safetensors", "pydantic")


def report(out: Path = Path()) -> list[tuple[str, str]]:
    """(what, finding) pairs, for the folder in which runs would be written."""
    return [
        ("constitutional-ai", __version__),
        ("python", sys.version.split()[0]),
        *((name, installed(name) or "not installed") for name in PACKAGES),
        ("cores", f"{usable_cores()} usable of {os.cpu_count()}"),
        ("memory", f"{_memory_gb():.1f} GB"),
        *_accelerators(),
        ("GGUF files", _gguf()),
        ("disk", f"{shutil.disk_usage(out).free / 1e9:.1f} GB free in {out.absolute()}"),
        *(line for name in shipped() for line in _fit(name)),
    ]


def _fit(run_file: str) -> list[tuple[str, str]]:
    """Whether a shipped run file can run here, or all that it lacks."""
    settings = load_settings(run_file)
    lacks = ["the model is too large without a GPU"] if needs_gpu(settings.model) else []
    lacks += [problem.partition(": ")[2] for problem in problems(settings)]
    rest = [("", lack) for lack in lacks[1:]]
    return [(f"run {run_file}", f"not yet: {lacks[0]}" if lacks else "fits this machine"), *rest]


def usable_cores() -> int:
    """Cores that this process may use; a container's limit counts if the kernel knows it."""
    affinity = getattr(os, "sched_getaffinity", None)  # not on macOS
    return len(affinity(0)) if affinity else os.cpu_count() or 1


def _memory_gb() -> float:
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 1e9


def _gguf() -> str:
    """Whether they can be read, and what was unpacked, which may be deleted."""
    if missing := [name for name in gguf_file.EXTRA if not installed(name)]:
        return f"need {' and '.join(missing)}: pip install 'constitutional-ai[gguf]'"
    folders = [path for path in gguf_file.cache().glob("*") if path.is_dir()]
    size = sum(file.stat().st_size for folder in folders for file in folder.iterdir())
    return f"can be read; {len(folders)} unpacked, {size / 1e9:.1f} GB in {gguf_file.cache()}"


def _accelerators() -> list[tuple[str, str]]:
    try:
        import torch
    except ImportError:
        return [("GPU", "unknown, for torch is not installed: pip install constitutional-ai")]
    if not torch.cuda.is_available():
        return [("GPU", "none; the laboratory needs none"), ("bf16", _cpu_bf16())]
    cards = []
    for number in range(torch.cuda.device_count()):
        card = torch.cuda.get_device_properties(number)
        cards.append((f"GPU {number}", f"{card.name}, {card.total_memory / 1e9:.0f} GB"))
    native = torch.cuda.is_bf16_supported(including_emulation=False)
    return [*cards, ("bf16", "native on the GPU" if native else "emulated on the GPU: slow")]


def _cpu_bf16() -> str:
    """By the processor's own list of instructions, which only Linux on x86 gives as text."""
    info = Path("/proc/cpuinfo")
    flags = set(info.read_text().split()) if info.exists() else set()
    if "amx_bf16" in flags:
        return "native on the CPU (AMX)"
    if "avx512_bf16" in flags:
        return "native on the CPU (AVX-512)"
    return "no sign of native support on the CPU; it works, slowly"
