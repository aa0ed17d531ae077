"""The judge: how probable it is that one answer is better than another, under drawn principles.

Paper, section 4.1: a model is shown a prompt, two answers (A) and (B) and a principle; the label
is its probability of the one option, normalised over the two. Where we deviate: every question is
asked in both orders and averaged, so that a liking for the option shown first cancels; the paper
draws one principle a pair, we take the mean over ``settings.principles``; a nonce may fence the
answers. Not covered: chain-of-thought verdicts (only the clamping that the paper uses with them).
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean

from constitutional_ai import prompts as templates
from constitutional_ai.constitution import Constitution, Principle
from constitutional_ai.engines.base import Engine
from constitutional_ai.records import Conversation, PromptSet, content_hash
from constitutional_ai.settings import LabelSettings

NOT_FINITE = "a log-probability of the options is not a finite number"
NO_ANSWER = "the judge gives next to no probability to either option"
LEAST_MASS = 1e-4  # P(A) + P(B) under which the reply would have been something else


@dataclass(frozen=True)
class Verdict:
    """P(first answer better), each value in [0, 1].

    ``p_first`` is the label, after the mode (soft, hard, clamped). What it was made of stays as
    measured: ``by_principle`` is the mean over both orders, ``by_order`` the mean over principles
    with the first answer shown first, then shown second.
    """

    p_first: float
    by_principle: dict[str, float]
    by_order: tuple[float, float]
    principle_hashes: dict[str, str]

    def swapped(self) -> "Verdict":
        """The same verdict, told of (second, first)."""
        shown_first, shown_second = self.by_order
        return Verdict(
            p_first=1 - self.p_first,
            by_principle={name: 1 - p for name, p in self.by_principle.items()},
            by_order=(1 - shown_second, 1 - shown_first),
            principle_hashes=self.principle_hashes,
        )


@dataclass(frozen=True)
class Unlabelled:
    """No verdict could be read. ``reason`` is a constant of this module, so it can be counted."""

    reason: str
    principle_hashes: dict[str, str]


@dataclass(frozen=True)
class PositionBias:
    """``mean``: P(better | shown first) − P(better | shown second), in [-1, 1]; 0 is unbiased.

    ``flip_rate``: the share of pairs whose winner changes with the order.
    """

    mean: float
    flip_rate: float


class Judge:
    """Compares answers with an engine, under a constitution. See LabelSettings for the modes."""

    def __init__(self, engine: Engine, constitution: Constitution, settings: LabelSettings) -> None:
        self.engine = engine
        self.constitution = constitution
        self.settings = settings

    def compare(
        self,
        prompts: Sequence[Conversation],
        sets: Sequence[PromptSet],
        firsts: Sequence[str],
        seconds: Sequence[str],
        ids: Sequence[str],
        seed: int,
    ) -> list[Verdict | Unlabelled]:
        """A verdict for each pair, in order; ``ids`` and ``seed`` decide principles and fence.

        All questions (pairs × principles × 2 orders) go to the engine in one call. Raises
        NoLogprobs where the engine has none, ConstitutionError where no principle fits a set.
        """
        drawn = [
            self.constitution.draw("preference", set_, self.settings.principles, seed, id_)
            for set_, id_ in zip(sets, ids, strict=True)
        ]
        questions = [
            question
            for prompt, first, second, id_, principles in zip(
                prompts, firsts, seconds, ids, drawn, strict=True
            )
            for principle in principles
            for question in self._both_orders(prompt, first, second, principle, seed, id_)
        ]
        replies = self.engine.option_logprobs(questions, templates.OPTIONS) if questions else []
        if len(replies) != len(questions):
            raise RuntimeError(
                f"{self.engine.name}: {len(replies)} replies, {len(questions)} asked"
            )
        reply = iter(replies)
        return [
            self._verdict(principles, [(next(reply), next(reply)) for _ in principles])
            for principles in drawn
        ]

    def _both_orders(
        self,
        prompt: Conversation,
        first: str,
        second: str,
        principle: Principle,
        seed: int,
        id_: str,
    ) -> list[Conversation]:
        fence = content_hash(seed, id_)[:8] if self.settings.fence else ""
        return [
            templates.comparison(prompt, first, second, principle, fence),
            templates.comparison(prompt, second, first, principle, fence),
        ]

    def _verdict(
        self,
        principles: Sequence[Principle],
        replies: Sequence[tuple[Sequence[float], Sequence[float]]],
    ) -> Verdict | Unlabelled:
        """From the log-probabilities of (A, B): per principle, first answer as A, then as B."""
        hashes = {principle.name: principle.hash for principle in principles}
        for reply in (reply for both in replies for reply in both):
            if reason := unreadable(reply):
                return Unlabelled(reason, hashes)
        as_a = [p_option_a(reply) for reply, _ in replies]
        as_b = [1 - p_option_a(reply) for _, reply in replies]
        by_principle = {
            principle.name: (a + b) / 2
            for principle, a, b in zip(principles, as_a, as_b, strict=True)
        }
        p_first = self._label(fmean(by_principle.values()))
        return Verdict(p_first, by_principle, (fmean(as_a), fmean(as_b)), hashes)

    def _label(self, p: float) -> float:
        match self.settings.mode:
            case "soft":
                return p
            case "hard":
                return 0.5 if p == 0.5 else float(p > 0.5)
            case "clamped":
                low, high = self.settings.clamp
                return min(max(p, low), high)


def unreadable(logprobs: Sequence[float]) -> str:
    """Why these log-probabilities of the two options are no answer; "" where they are one."""
    if not all(math.isfinite(value) for value in logprobs):
        return NOT_FINITE
    if sum(math.exp(value) for value in logprobs) < LEAST_MASS:
        return NO_ANSWER
    return ""


def p_option_a(logprobs: Sequence[float]) -> float:
    """P(A), normalised over (A, B): σ(log P(A) − log P(B)), by tanh, which cannot overflow."""
    a, b = logprobs
    return (1 + math.tanh((a - b) / 2)) / 2


def position_bias(by_order: Iterable[tuple[float, float]]) -> PositionBias:
    """Over verdicts' ``by_order``; which of the two answers it is told of makes no difference.

    Raises ValueError where there is none.

    >>> position_bias([(0.875, 0.75), (0.75, 0.25)])
    PositionBias(mean=0.3125, flip_rate=0.5)
    """
    pairs = list(by_order)
    if not pairs:
        raise ValueError("no verdicts to tell a position bias from")
    flips = sum((first - 0.5) * (second - 0.5) < 0 for first, second in pairs)
    return PositionBias(
        mean=fmean(first - second for first, second in pairs), flip_rate=flips / len(pairs)
    )
