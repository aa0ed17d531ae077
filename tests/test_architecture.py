"""The layers of AGENTS.md hold: every import goes down, and the laboratory is reached by name."""

import pytest

from tests import architecture


def test_every_import_goes_down() -> None:
    assert architecture.out_of_order(architecture.sources()) == []


def test_every_package_has_a_layer() -> None:
    packages = {architecture.package(name) for name in architecture.sources()}
    assert packages - {"__init__", "__main__", "lab"} == set(architecture.layers()) - {"lab"}


@pytest.mark.parametrize(
    "line",
    [
        "from constitutional_ai.stages import revise",
        "from ..stages import revise",
        "import constitutional_ai.stages.revise",
        "def late():\n    from constitutional_ai.stages.revise import run",
    ],
)
def test_an_import_that_goes_up_is_noticed(line: str) -> None:
    modules = architecture.sources()
    modules["judge.judge"] += f"\n{line}\n"
    (problem,) = architecture.out_of_order(modules)
    assert problem.startswith("judge.judge:")


@pytest.mark.parametrize(
    "call", ['importlib.import_module("constitutional_ai.stages")', '__import__("x")', "part(name)"]
)
def test_an_import_that_hides_is_refused(call: str) -> None:
    modules = architecture.sources()
    modules["judge.judge"] += f"\n{call}\n"
    with pytest.raises(ValueError, match=r"judge\.judge"):
        architecture.out_of_order(modules)
