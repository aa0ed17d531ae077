"""The laboratory's oracle, as evaluation asks it. Nothing that trains or labels may import this.

Where test prompts are the laboratory's, the truth about every answer is known exactly; the oracle
reads it from the text alone. ``tests/test_no_leak.py`` follows every import to see who can.
"""

from collections.abc import Sequence
from typing import Any, Protocol, cast

from constitutional_ai.data.cases import Case
from constitutional_ai.job import Job
from constitutional_ai.records import Conversation
from constitutional_ai.world import part


class Oracle(Protocol):
    """``METRICS``: which readings tell something about which kind of request."""

    METRICS: dict[str, tuple[str, ...]]

    def read(self, prompt: Conversation, answer: str) -> dict[str, float]:
        """What the answer is, as numbers by metric."""

    def known(self, cases: Sequence[Case]) -> bool:
        """Whether all of these prompts are of the laboratory's world."""

    def gold_report(self, job: Job, seed: int) -> dict[str, Any]:
        """What the oracle says of the rows of a run's stages, and of its judge."""


def oracle() -> Oracle:
    """The exact reader of the laboratory's answers."""
    return cast(Oracle, part("evaluation"))
