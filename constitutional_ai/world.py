"""A synthetic world whose truth is known, as the pipeline sees it: one protocol and one look-up.

``lab`` names the laboratory's prompts and ``lab:NAME`` a model of its own. Everything else about
it lies in ``lab/``. Nothing imports that package: ``part`` loads a module of it by name, so a look
at the calls of ``part`` shows all that the product knows of the laboratory. What an answer is worth
is no part of this protocol; evaluation alone asks for it (``evaluation/oracle.py``).
"""

from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:  # `cai --help` imports this module, and none of the heavy ones
    from constitutional_ai.records import Prompt, PromptSet

LAB = "lab"


class World(Protocol):
    """What alignment may know of a world: its models and its prompts."""

    def model_path(self, name: str) -> Path:
        """The folder of a model, as in ``model_path("lab:s")``. Raises ModelError."""

    def draw(self, prompts: "PromptSet", count: int, seed: int) -> "list[Prompt]":
        """Prompts to train on, none of them about a topic of the test."""

    def test(self, counts: Mapping[str, int]) -> "list[Prompt]":
        """``counts[kind]`` test prompts of each kind; the same ones in every run."""

    def slice_of(self, request: str) -> str:
        """Why the topic of a harmful request is new to the base model."""

    def split_summary(self) -> dict[str, Any]:
        """How many topics each part of the split has, by kind and by what makes them new."""


def part(name: str) -> Any:
    """The module ``lab/NAME.py``. The only way into the laboratory."""
    return import_module(f"constitutional_ai.lab.{name}")


def world() -> World:
    """The laboratory."""
    laboratory: World = part("laboratory")
    return laboratory
