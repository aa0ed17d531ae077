"""Context: turns in which somebody like the target has already complied, before the request.

The examples are given, never made up here. Many examples work where a few do not (many-shot
jailbreaking); they must fit the target's context. Not covered: examples that are written as text
inside one user turn.
"""

from collections.abc import Sequence

from constitutional_ai.data.requests import Example
from constitutional_ai.records import Conversation, assistant, user


def after_examples(
    conversation: Conversation, examples: Sequence[Example], shots: int
) -> Conversation:
    """The conversation with the first ``shots`` examples as earlier turns, after a system turn.

    An example that asks for the very same thing is left out: it would give the answer away.

    >>> turns = after_examples([user("And you?")], [("Well?", "Very.")], 1)
    >>> [turn["content"] for turn in turns]
    ['Well?', 'Very.', 'And you?']
    """
    asked = {turn["content"] for turn in conversation if turn["role"] == "user"}
    chosen = [pair for pair in examples if pair[0] not in asked][:shots]
    shown = [turn for request, answer in chosen for turn in (user(request), assistant(answer))]
    opening = 1 if conversation and conversation[0]["role"] == "system" else 0
    return [*conversation[:opening], *shown, *conversation[opening:]]
