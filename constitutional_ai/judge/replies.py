"""Reads what a judge says: log-probabilities of options, or a reply in words.

What cannot be read is never guessed at. It gets one of the reasons below; they are constants, so
that a stage can count them.
"""

import math
import re
from collections.abc import Sequence

from constitutional_ai.refusal import refuses

NOT_FINITE = "a log-probability of the options is not a finite number"
NO_ANSWER = "the judge gives next to no probability to either option"
REFUSED = "the judge refuses to choose"
EMPTY = "the judge's reply is empty"
BOTH = "the judge's reply names both options"
NEITHER = "the judge's reply is prose that names neither option"
FAILED = "the judge could not be asked: its engine gave no reply"
LEAST_MASS = 1e-4  # of all options together, under which the reply would have been something else

_BRACKETED = re.compile(r"\(([AB])\)")
# A bare letter counts only as the whole of a reply: "A better answer is …" is no vote for A.
_BARE = re.compile(r"(?:(?:the )?(?:answer|verdict|choice)(?: is)?:? )?([AB])", re.IGNORECASE)
_DRESSING = re.compile(r"[*_`\"'.:\s]+")


def unreadable(logprobs: Sequence[float]) -> str:
    """Why these log-probabilities of the options are no answer; "" where they are one."""
    if not all(math.isfinite(value) for value in logprobs):
        return NOT_FINITE
    if sum(math.exp(value) for value in logprobs) < LEAST_MASS:
        return NO_ANSWER
    return ""


def p_option_a(logprobs: Sequence[float]) -> float:
    """P(A), normalised over (A, B): σ(log P(A) − log P(B)), by tanh, which cannot overflow."""
    a, b = logprobs
    return (1 + math.tanh((a - b) / 2)) / 2


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
