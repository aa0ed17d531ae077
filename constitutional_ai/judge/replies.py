"""Reads what a judge says: log-probabilities of options, or a reply in words.

What cannot be read is never guessed at. It becomes Unread, with one of the reasons below; they are
constants, so that a stage can count them.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

from constitutional_ai.engines.base import Engine
from constitutional_ai.records import Conversation
from constitutional_ai.refusal import refuses

NOT_FINITE = "a log-probability of the options is not a finite number"
NO_ANSWER = "the judge gives next to no probability to either option"
REFUSED = "the judge refuses to choose"
EMPTY = "the judge's reply is empty"
BOTH = "the judge's reply names both options"
NEITHER = "the judge's reply is prose that names neither option"
FAILED = "the judge could not be asked: its engine gave no reply"
LEAST_MASS = 1e-4  # of all options together; below it the reply would have been something else

_BRACKETED = re.compile(r"\(([AB])\)")
# A bare letter counts only as the whole of a reply: "A better answer is …" is no vote for A.
_BARE = re.compile(r"(?:(?:the )?(?:answer|verdict|choice)(?: is)?:? )?([AB])", re.IGNORECASE)
_DRESSING = re.compile(r"[*_`\"'.:\s]+")


@dataclass(frozen=True)
class Unread:
    """There is no answer. ``reason`` is one of the constants above."""

    reason: str


def option_shares(
    engine: Engine, questions: Sequence[Conversation], options: Sequence[str]
) -> list[list[float] | Unread]:
    """What each question's reply says of the options, in order; see ``shares``.

    Raises NoLogprobs where the engine has none, ValueError where it cannot tell the options apart.
    """
    replies = engine.option_logprobs(questions, options) if questions else []
    if len(replies) != len(questions):
        raise RuntimeError(f"{engine.name}: {len(replies)} replies, {len(questions)} asked")
    return [shares(reply) for reply in replies]


def shares(logprobs: Sequence[float]) -> list[float] | Unread:
    """Each option's share of the probability that all options have together.

    An option at −inf is impossible, and the others share the whole. NaN and +inf are unreadable.
    Where all options together have less than LEAST_MASS, there is no answer.

    >>> shares([math.log(0.25), math.log(0.25), -math.inf])
    [0.5, 0.5, 0.0]
    """
    if any(math.isnan(value) or value == math.inf for value in logprobs):
        return Unread(NOT_FINITE)
    if sum(map(math.exp, logprobs)) < LEAST_MASS:
        return Unread(NO_ANSWER)
    return [
        _logistic(own - _log_sum([*logprobs[:place], *logprobs[place + 1 :]]))
        for place, own in enumerate(logprobs)
    ]


def _log_sum(logprobs: Sequence[float]) -> float:
    highest = max(logprobs)
    if highest == -math.inf:
        return highest
    return highest + math.log(math.fsum(math.exp(value - highest) for value in logprobs))


def _logistic(log_odds: float) -> float:
    """By tanh, which cannot overflow."""
    return (1 + math.tanh(log_odds / 2)) / 2


def choice(reply: str) -> str:
    """The letter of the one option that a reply names, or else the reason why it is no vote.

    >>> choice("(B)"), choice("**A**."), choice("Answer: B")
    ('B', 'A', 'B')
    """
    if not reply.strip():
        return EMPTY
    named = set(_BRACKETED.findall(reply))
    if not named:
        bare = _BARE.fullmatch(_DRESSING.sub(" ", reply).strip())
        named = {bare[1].upper()} if bare else set()
    if len(named) == 1:
        return str(named.pop())
    if named:
        return BOTH
    return REFUSED if refuses(reply) else NEITHER
