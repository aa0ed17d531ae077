"""Ways to ask a model: one protocol (base), and an engine for each place where a model can run.

local: transformers in this process. http: any OpenAI-compatible server. vllm: vLLM in this process.
scripted: for tests. What a model is called tells which one it takes; see ``open_engine``.
"""

from pathlib import Path
from typing import TYPE_CHECKING

from constitutional_ai.engines.base import Engine
from constitutional_ai.engines.spec import ModelSpec

if TYPE_CHECKING:
    from constitutional_ai.settings import Settings


def open_engine(spec: str | Path, settings: "Settings") -> Engine:
    """The engine of a model spec, loaded or connected.

    ``http://HOST:PORT/v1#MODEL`` is a server's, ``vllm:PATH`` runs in vLLM; a folder, a hub id or
    ``lab:s`` in transformers. Raises ModelError, SettingsError.
    """
    parsed = ModelSpec.parse(spec)
    if parsed.kind == "server":
        from constitutional_ai.engines.http import HttpEngine

        return HttpEngine(parsed.text, settings.http)
    if parsed.kind == "vllm":
        from constitutional_ai.engines.vllm import VllmEngine

        return VllmEngine(parsed.name, settings.model.dtype, settings.vllm)
    from constitutional_ai.engines.local import LocalEngine

    model = settings.model
    return LocalEngine(spec, dtype=model.dtype, device=model.device, threads=settings.threads)
