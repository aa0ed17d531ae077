"""An engine that says what a function tells it to: for tests and for dry runs of a pipeline."""

from collections.abc import Callable, Sequence

from constitutional_ai.engines.base import Completion, Own, Sampling
from constitutional_ai.errors import NoLogprobs
from constitutional_ai.records import Conversation


class ScriptedEngine:
    """``reply`` gives the next assistant text; ``prefer`` the log-probability of one option.

    >>> engine = ScriptedEngine(reply=lambda conversation: "no: " + conversation[-1]["content"])
    >>> engine.generate([[{"role": "user", "content": "Sing."}]], Sampling())[0].text
    'no: Sing.'

    A token is a word here: a reply with more than ``max_new_tokens`` of them is cut, unfinished.
    """

    def __init__(
        self,
        reply: Callable[[Conversation], str],
        prefer: Callable[[Conversation, str], float] | None = None,
        name: str = "scripted",
    ) -> None:
        self.name, self.own = name, Own()
        self._reply = reply
        self._prefer = prefer

    def generate(
        self, conversations: Sequence[Conversation], sampling: Sampling
    ) -> list[Completion]:
        return [_cut(self._reply(turns), sampling.max_new_tokens) for turns in conversations]

    def option_logprobs(
        self, conversations: Sequence[Conversation], options: Sequence[str]
    ) -> list[list[float]]:
        prefer = self._prefer
        if prefer is None:
            raise NoLogprobs(f"{self.name}: was made without `prefer`; pass one to score options")
        return [[prefer(turns, option) for option in options] for turns in conversations]


def _cut(text: str, limit: int) -> Completion:
    words = text.split(" ")
    return Completion(" ".join(words[:limit]), min(len(words), limit), len(words) <= limit)
