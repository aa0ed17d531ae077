"""The protocol of an engine: conversations in, the same order out.

A conversation that ends with an assistant message is continued from the end of that message.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple, Protocol, TypeVar

from constitutional_ai.engines.prefix import PrefixCache
from constitutional_ai.errors import DataError
from constitutional_ai.records import Conversation

R = TypeVar("R")


@dataclass(frozen=True)
class Sampling:
    """How to draw. ``temperature`` 0 is greedy; of None, as of a ``top_p`` of None, the model's own
    is taken. The same call with the same ``seed`` gives the same text. Calls that go on from each
    other's replies may share ``prefixes``: an engine that can keeps there what it has read.
    """

    temperature: float | None = 1.0
    top_p: float | None = 1.0
    max_new_tokens: int = 256
    seed: int = 0
    prefixes: PrefixCache | None = None


@dataclass(frozen=True)
class Completion:
    """A model's answer. ``finished`` is false where a limit cut it off before an end token.

    ``failed`` says why there is no answer, and is empty where there is one. A failed completion has
    no text; it is never taken for an empty answer. ``unfit``: it failed because the prompt leaves
    no room in the model's context or cannot be spelt, so that no further try helps.
    """

    text: str
    tokens: int
    finished: bool
    failed: str = ""
    unfit: bool = False


class Own(NamedTuple):
    """How a model's makers let it draw; None where only its server knows."""

    temperature: float | None = 1.0
    top_p: float | None = 1.0

    def fill(self, sampling: Sampling) -> Sampling:
        """The sampling with these values where it is silent."""
        given = sampling.temperature, sampling.top_p
        temperature, top_p = (b if a is None else a for a, b in zip(given, self, strict=True))
        return replace(sampling, temperature=temperature, top_p=top_p)


class Engine(Protocol):
    """What every stage asks of a model."""

    name: str

    @property
    def own(self) -> Own:
        """What the model draws with where a sampling is silent."""
        ...

    def generate(
        self, conversations: Sequence[Conversation], sampling: Sampling
    ) -> list[Completion]:
        """One completion for each conversation, in order. One that failed does not end the call."""
        ...

    def option_logprobs(
        self, conversations: Sequence[Conversation], options: Sequence[str]
    ) -> list[list[float]]:
        """For each conversation the log-probability of each option as the next assistant text.

        Only the first token in which the options differ is scored, so the values compare options
        and are not full string probabilities. A row that failed has NaN for every option. Raises
        NoLogprobs if the engine cannot tell.
        """
        ...


def read_each(
    conversations: Sequence[Conversation], read: Callable[[Conversation], R]
) -> tuple[dict[int, R], dict[int, str]]:
    """What is read of each conversation, and why nothing can be of the others; both by row.

    ``read`` raises DataError for one that is too long or cannot be spelt: it fails alone.
    """
    found: dict[int, R] = {}
    failed: dict[int, str] = {}
    for row, turns in enumerate(conversations):
        try:
            found[row] = read(turns)
        except DataError as error:
            failed[row] = str(error)
    return found, failed


def refuse_long(tokens: int, context: int) -> None:
    """Raise DataError for a prompt behind which there is no place for one more token."""
    if tokens >= context:
        raise DataError(
            f"a prompt of {tokens} tokens leaves no room for an answer in this model's context of"
            f" {context}; shorten it, or take a model with a longer context"
        )
