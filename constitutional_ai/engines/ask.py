"""A stage asks a model: with the sampling of its settings, and a new seed for every call."""

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from constitutional_ai.engines.base import Completion, Engine, Sampling
from constitutional_ai.engines.prefix import PrefixCache
from constitutional_ai.records import Conversation
from constitutional_ai.store.seeds import derive_seed

SERVERS = "the server's own"  # in place of a figure that only the server knows

Ask = Callable[[Sequence[Conversation]], list[Completion]]


class Drawing(Protocol):
    """The settings of a stage that lets a model speak."""

    temperature: float | None
    top_p: float | None
    max_new_tokens: int


def sampling_of(drawing: Drawing, seed: int = 0, prefixes: PrefixCache | None = None) -> Sampling:
    """As a stage's settings say."""
    return Sampling(drawing.temperature, drawing.top_p, drawing.max_new_tokens, seed, prefixes)


def used(engine: Engine, drawing: Drawing) -> dict[str, Any]:
    """For a manifest: the temperature and top_p that a model answers with, after all."""
    filled = engine.own.fill(sampling_of(drawing))
    figures = {"temperature": filled.temperature, "top_p": filled.top_p}
    return {"sampling": {k: SERVERS if v is None else v for k, v in figures.items()}}


def asker(
    engine: Engine,
    drawing: Drawing,
    seed: int,
    counts: Counter[str],
    prefixes: PrefixCache | None = None,
) -> Ask:
    """``engine.generate`` with the stage's settings and a new seed for each call.

    Give ``prefixes`` if the calls go on from each other's replies. Answers that the token limit cut
    off are counted in ``counts["unfinished"]``. Failures are left to the caller, who knows which
    row each costs.
    """
    calls = 0

    def ask(conversations: Sequence[Conversation]) -> list[Completion]:
        nonlocal calls
        calls += 1
        if not conversations:
            return []
        sampling = sampling_of(drawing, derive_seed(seed, calls), prefixes)
        replies = engine.generate(conversations, sampling)
        counts["unfinished"] += sum(not (reply.finished or reply.failed) for reply in replies)
        return replies

    return ask
