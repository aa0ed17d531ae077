"""A stage asks a model: the sampling of its settings, and a new seed with every call."""

from collections import Counter
from collections.abc import Sequence
from typing import Protocol

from constitutional_ai.engines.base import Completion, Engine, Sampling
from constitutional_ai.records import Conversation
from constitutional_ai.store.seeds import derive_seed


class Ask(Protocol):
    """Asks a model; ``goes_on`` where the next call goes on from these replies."""

    def __call__(
        self, conversations: Sequence[Conversation], goes_on: bool = False
    ) -> list[Completion]: ...


class Drawing(Protocol):
    """The settings of a stage that lets a model speak."""

    temperature: float
    max_new_tokens: int


def asker(engine: Engine, drawing: Drawing, seed: int, counts: Counter[str]) -> Ask:
    """``engine.generate`` with the stage's settings and a new seed each call.

    Answers that the token limit cut off are counted in ``counts["unfinished"]``. What failed is
    left to the caller, who knows which row it costs.
    """
    calls = 0

    def ask(conversations: Sequence[Conversation], goes_on: bool = False) -> list[Completion]:
        nonlocal calls
        calls += 1
        if not conversations:
            return []
        sampling = Sampling(
            temperature=drawing.temperature,
            max_new_tokens=drawing.max_new_tokens,
            seed=derive_seed(seed, calls),
            goes_on=goes_on,
        )
        replies = engine.generate(conversations, sampling)
        counts["unfinished"] += sum(not (reply.finished or reply.failed) for reply in replies)
        return replies

    return ask
