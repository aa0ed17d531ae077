"""Constitution files written on the spot, and the command line."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from constitutional_ai import engines
from constitutional_ai.cli.main import app
from constitutional_ai.engines.scripted import ScriptedEngine

HEAD = 'name = "mine"\nversion = "1"\n'


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """Writes a constitution of [[principle]] tables, given as their lines."""

    def make(*principles: str, name: str = "mine", head: str = HEAD) -> Path:
        path = tmp_path / f"{name}.toml"
        tables = "".join(f"\n[[principle]]\n{lines.strip()}\n" for lines in principles)
        path.write_text(head + tables, encoding="utf-8")
        return path

    return make


@pytest.fixture
def cai() -> Callable[..., Any]:
    def run(*args: object, code: int = 0) -> Any:
        result = CliRunner().invoke(app, ["constitution", *map(str, args)])
        assert result.exit_code == code, result.output
        return result

    return run


@pytest.fixture
def speaks(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[str]]:
    """Has every model spec answered by a scripted engine; returns the specs that were opened."""
    opened: list[str] = []

    def use(engine: ScriptedEngine) -> list[str]:
        def opens(spec: str, settings: object) -> ScriptedEngine:
            opened.append(spec)
            return engine

        monkeypatch.setattr(engines, "open_engine", opens)
        return opened

    return use


def judged(conversation: Any) -> tuple[str, str, str]:
    """(first answer, second answer, question) of an unfenced comparison."""
    lines = conversation[-1]["content"].split("\n")
    first = next(line for line in lines if line.startswith("(A) "))
    second = next(line for line in lines if line.startswith("(B) "))
    return first[4:], second[4:], lines[-1]


def preferring(score: Callable[[str, str], float]) -> Callable[[Any, str], float]:
    """Log-probabilities of an engine that prefers by ``score(question, answer)``.

    Asked whether a critique names a fault, it says no where the critique says "no issues".
    """
    import math

    def prefer(conversation: Any, option: str) -> float:
        text = conversation[-1]["content"]
        if "A reviewer says" in text:
            yes = text.split(f"\n{option} ")[1].startswith("Yes")
            return math.log(0.9 if yes != ("no issues" in text.lower()) else 0.1)
        first, second, question = judged(conversation)
        gap = score(question, first) - score(question, second)
        p = 1 / (1 + math.exp(-gap))
        return math.log(p if option == "(A)" else 1 - p)

    return prefer
