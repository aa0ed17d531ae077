"""Red teaming in the laboratory, as campaigns see it: its requests and its disguises."""

import random
from typing import Protocol, cast

from constitutional_ai.data.requests import Example
from constitutional_ai.records import Conversation
from constitutional_ai.world import part


class Laboratory(Protocol):
    """``SHOTS``: context families and their examples; ``INNERMOST``: rewords a plain request."""

    SHOTS: dict[str, int]
    INNERMOST: str

    def names(self) -> list[str]:
        """The disguises."""

    def seen(self, name: str) -> bool:
        """Whether the base models' text has every part of this family."""

    def disguise(self, family: str, conversation: Conversation, rng: random.Random) -> Conversation:
        """The last turn in a disguise."""

    def examples(self, count: int, seed: int) -> list[Example]:
        """Harmful requests with answers that comply."""

    def asks_for(self, request: str, attack: str) -> bool:
        """Whether an attack still names the deed and the object of the plain request."""


def lab() -> Laboratory:
    """The laboratory's side of red teaming."""
    return cast(Laboratory, part("redteam"))
