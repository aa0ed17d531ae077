"""The models in use: each opened once, and few held together."""

from pathlib import Path

from constitutional_ai.engines import open_engine
from constitutional_ai.engines.base import Engine
from constitutional_ai.settings import Settings

HELD = 2  # memory counts with large models: the one that speaks and the one that judges


class EnginePool:
    """Opens models by their spec, and holds the ``size`` that were used last."""

    def __init__(self, size: int = HELD) -> None:
        self.size = size
        self._engines: dict[str, Engine] = {}

    def open(self, model: str | Path, settings: Settings) -> Engine:
        """As ``open_engine``, but once. The engine unused for longest is closed to make room."""
        spec = str(model)
        engine = self._engines.pop(spec, None)
        if engine is None:
            while len(self._engines) >= self.size:
                oldest = self._engines.pop(next(iter(self._engines)))
                close = getattr(oldest, "close", None)
                if close is not None:  # vLLM holds a process of its own
                    close()
            engine = open_engine(spec, settings)
        self._engines[spec] = engine
        return engine
