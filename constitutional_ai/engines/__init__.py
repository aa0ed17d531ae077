"""Ways to ask a model: one protocol (base), and an engine for each place where a model can run.

local: transformers in this process. http: any OpenAI-compatible server. vllm: vLLM in this process.
scripted: for tests. What a model's string means: spec. Which engines are open: pool. unpack makes
folders of GGUF files.
"""

from pathlib import Path
from typing import TYPE_CHECKING

from constitutional_ai.engines.base import Engine
from constitutional_ai.engines.spec import ModelSpec

if TYPE_CHECKING:
    from constitutional_ai.settings import Settings


def open_engine(model: str | Path, settings: "Settings") -> Engine:
    """The engine of a model, loaded or connected. Raises ModelError, SettingsError."""
    spec = ModelSpec.parse(model)
    match spec.kind:
        case "server":
            from constitutional_ai.engines.http import HttpEngine

            return HttpEngine(spec.text, settings.http)
        case "vllm":
            from constitutional_ai.engines.vllm import VllmEngine

            return VllmEngine(spec.name, settings.model.dtype, settings.vllm)
        case _:
            from constitutional_ai.engines.local import LocalEngine

            table = settings.model
            return LocalEngine.load(spec.text, table.dtype, table.device, threads=settings.threads)
