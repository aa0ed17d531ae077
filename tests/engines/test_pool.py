"""Engines are opened once, few are held, and the one that makes room is closed."""

import pytest

from constitutional_ai.engines import pool
from constitutional_ai.engines.pool import EnginePool
from constitutional_ai.engines.scripted import ScriptedEngine
from constitutional_ai.settings import Settings


class Closing(ScriptedEngine):
    def __init__(self, name: str) -> None:
        super().__init__(lambda _: "", name=name)
        self.closed = False

    def close(self) -> None:
        self.closed = True


@pytest.mark.parametrize("size", [2, 3])
def test_the_engine_unused_for_longest_is_closed(
    size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Closing] = []

    def opened(spec: str, settings: Settings) -> Closing:
        made.append(Closing(spec))
        return made[-1]

    monkeypatch.setattr(pool, "open_engine", opened)
    held, settings = EnginePool(size), Settings()
    engines = [held.open(str(n), settings) for n in range(size)]
    assert held.open("0", settings) is engines[0]
    held.open("another", settings)
    assert [engine.closed for engine in made] == [False, True, *[False] * (size - 1)]
    assert held.open("0", settings) is engines[0]
    assert held.open("1", settings) is not engines[1]
