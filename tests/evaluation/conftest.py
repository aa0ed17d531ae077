"""Scripted models behind specs, so that a whole evaluation runs without weights."""

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from constitutional_ai.engines import pool
from constitutional_ai.engines.base import Engine
from constitutional_ai.settings import Settings
from constitutional_ai.stats import elo

Script = Callable[[Mapping[str, Engine]], None]


@pytest.fixture(autouse=True)
def few_resamples(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test here looks at Elo's intervals; tests/stats does."""
    monkeypatch.setattr(elo, "_RESAMPLES", 10)


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Script:
    """``script({"good": engine})``: the spec "good" opens that engine, and no other spec is one."""

    def install(engines: Mapping[str, Engine]) -> None:
        def open_engine(spec: str | Path, settings: Settings) -> Engine:
            return engines[str(spec)]

        monkeypatch.setattr(pool, "open_engine", open_engine)

    return install
