"""How often a principle is drawn, and for what."""

from collections.abc import Sequence
from typing import get_args

from constitutional_ai.principles import Principle, Use
from constitutional_ai.records import PromptSet

Pool = tuple[Use, PromptSet]

# What a run draws for; it stops where nothing can be drawn.
NEEDED: tuple[Pool, ...] = (
    ("critique", "red-team"),
    ("preference", "red-team"),
    ("preference", "helpful"),
)


def shares(principles: Sequence[Principle]) -> dict[Pool, dict[str, float]]:
    """How often each principle is drawn first, by phase and prompt set."""
    drawn: dict[Pool, dict[str, float]] = {}
    for use in get_args(Use):
        for prompts in get_args(PromptSet):
            pool = [p for p in principles if use in p.use and prompts in p.prompts]
            total = sum(p.weight for p in pool)
            drawn[use, prompts] = {p.name: p.weight / total for p in pool}
    return drawn
