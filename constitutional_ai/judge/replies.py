"""Reads what a judge says: log-probabilities of options, or a reply in words.

What cannot be read is never guessed at. It becomes Unread, with one of the reasons below; they are
constants, so that a stage can count them.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from constitutional_ai.engines.base import Engine
from constitutional_ai.engines.spec import ModelSpec
from constitutional_ai.engines.spelling import log_sum
from constitutional_ai.records import Conversation
from constitutional_ai.refusal import refuses

NOT_FINITE = "a log-probability of the options is not a finite number"
NO_ANSWER = "the judge gives the options less than half of the probability"
REFUSED = "the judge refuses to choose"
EMPTY = "the judge's reply is empty"
BOTH = "the judge's reply names both options"
NEITHER = "the judge's reply is prose that names neither option"
FAILED = "the judge could not be asked: its engine gave no reply"
LEAST_MASS = 0.5  # of all options together; below it the reply is more likely something else

_BRACKETED = re.compile(r"[(\[]([AB])[)\]]")
# A letter that is named, or that stands alone: "A better answer is …" is no vote for A.
_NAMED = re.compile(
    r"\b(?:option|response|answer|verdict|choice|choose|prefer|select|pick)(?: is)?"
    r"(?: option| response| answer)?[:\s]+([AB])(?![a-z]| [a-z])"
    r"|^\(?([AB])(?: ?[):]| ?[–—-] |,(?! ?[AB]\b)|(?=\n|$))",
    re.IGNORECASE,
)
_ALONE = re.compile(r"\b[AB]\b")
_DENIED = re.compile(r"\b(?:not|nor|neither|cannot)\b|n['’]t\b", re.IGNORECASE)
_DRESSING = re.compile(r"[*_`\".]+|[^\S\n]+")


@dataclass(frozen=True)
class Unread:
    """There is no answer. ``reason`` is one of the constants above; ``mass`` as in Reply."""

    reason: str
    mass: float | None = field(default=None, compare=False)


class Reply(NamedTuple):
    """Each option's share, and the probability of all of them together, if that was measured."""

    shares: list[float]
    mass: float | None = None


def option_shares(
    engine: Engine,
    questions: Sequence[Conversation],
    options: Sequence[str],
    least: float = LEAST_MASS,
) -> list[list[float] | Unread]:
    """What each question's reply says of the options, in order; see ``shares``.

    Raises NoLogprobs where the engine has none, ValueError where it cannot tell the options apart.
    """
    return [
        reply if isinstance(reply, Unread) else reply.shares
        for reply in option_replies(engine, questions, options, least)
    ]


def option_replies(
    engine: Engine,
    questions: Sequence[Conversation],
    options: Sequence[str],
    least: float = LEAST_MASS,
) -> list[Reply | Unread]:
    """As ``option_shares``, with the probability of all options together.

    The laboratory's models have none: they are read behind a bracket that they do not choose.
    """
    measured = ModelSpec.parse(engine.name).kind != "lab"
    replies = engine.option_logprobs(questions, options) if questions else []
    if len(replies) != len(questions):
        raise RuntimeError(f"{engine.name}: {len(replies)} replies, {len(questions)} asked")
    found: list[Reply | Unread] = []
    for logprobs in replies:
        read = shares(logprobs, least)
        mass = math.fsum(map(math.exp, logprobs)) if measured else None
        found.append(Unread(read.reason, mass) if isinstance(read, Unread) else Reply(read, mass))
    return found


def shares(logprobs: Sequence[float], least: float = LEAST_MASS) -> list[float] | Unread:
    """Each option's share of the probability that all options have together.

    An option at −inf is impossible, and the others share the whole. NaN and +inf are unreadable.
    Where all options together have less than ``least``, there is no answer.

    >>> shares([math.log(0.3), math.log(0.3), -math.inf])
    [0.5, 0.5, 0.0]
    """
    if any(math.isnan(value) or value == math.inf for value in logprobs):
        return Unread(NOT_FINITE)
    if sum(map(math.exp, logprobs)) < least:
        return Unread(NO_ANSWER)
    return [
        _logistic(own - log_sum([*logprobs[:place], *logprobs[place + 1 :]]))
        for place, own in enumerate(logprobs)
    ]


def _logistic(log_odds: float) -> float:
    """By tanh, which cannot overflow."""
    return (1 + math.tanh(log_odds / 2)) / 2


def choice(reply: str) -> str:
    """The letter of the one option that a reply names, or else the reason why it is no vote.

    >>> choice("(B)"), choice("**A**."), choice("Option B"), choice("A)")
    ('B', 'A', 'B', 'A')
    """
    if not reply.strip():
        return EMPTY
    named = set(_BRACKETED.findall(reply))
    plain = _DRESSING.sub(" ", reply).strip()
    if len(alone := set(_ALONE.findall(plain))) > 1:
        named = alone
    elif not named and not _DENIED.search(plain):
        named = {letter.upper() for found in _NAMED.findall(plain) for letter in found if letter}
    if len(named) == 1:
        return str(named.pop())
    if named:
        return BOTH
    return REFUSED if refuses(reply) else NEITHER
