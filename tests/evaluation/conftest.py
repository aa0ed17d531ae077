"""Scripted models behind specs, so that a whole evaluation runs without weights."""

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from constitutional_ai import job
from constitutional_ai.engines.base import Engine
from constitutional_ai.settings import Settings

Script = Callable[[Mapping[str, Engine]], None]


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Script:
    """``script({"good": engine})``: the spec "good" opens that engine, and no other spec is one."""

    def install(engines: Mapping[str, Engine]) -> None:
        def open_engine(spec: str | Path, settings: Settings) -> Engine:
            return engines[str(spec)]

        monkeypatch.setattr(job, "open_engine", open_engine)

    return install
