"""The protocol of an engine: conversations in, the same order out.

A conversation that ends with an assistant message is continued from the end of that message.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from constitutional_ai.engines.prefix import PrefixCache
from constitutional_ai.records import Conversation


@dataclass(frozen=True)
class Sampling:
    """How to draw. ``temperature`` 0 is greedy. The same call with the same ``seed`` gives the same
    text. Calls that go on from each other's replies may share ``prefixes``: an engine that can
    keeps there what it has read.
    """

    temperature: float = 1.0
    top_p: float = 1.0
    max_new_tokens: int = 256
    seed: int = 0
    prefixes: PrefixCache | None = None


@dataclass(frozen=True)
class Completion:
    """A model's answer. ``finished`` is false where a limit cut it off before an end token.

    ``failed`` says why there is no answer, and is empty where there is one. A failed completion has
    no text; it is never taken for an empty answer.
    """

    text: str
    tokens: int
    finished: bool
    failed: str = ""


class Engine(Protocol):
    """What every stage asks of a model."""

    name: str

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
