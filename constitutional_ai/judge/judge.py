"""The judge: how probable it is that one answer is better than another, under drawn principles.

Paper, section 4.1: a model is shown a prompt, two answers (A) and (B) and a principle; the label
is its probability of the one option, normalised over the two. Where we deviate: every question is
asked in both orders and averaged, so that a liking for the option shown first cancels; the paper
draws one principle a pair, we take the mean over ``settings.principles``; a nonce may fence what
is judged; several judges may sit together. How a question is asked: judge/methods.py.
"""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import count
from statistics import fmean
from typing import Protocol

from constitutional_ai.engines.base import Engine
from constitutional_ai.judge.methods import Asked, Opinion, Unread, opinions, seen
from constitutional_ai.judge.replies import NO_ANSWER, NOT_FINITE, p_option_a, unreadable
from constitutional_ai.principles import Constitution, Principle, resolve
from constitutional_ai.prompts import worked_comparison
from constitutional_ai.records import Conversation, Pair, PromptSet, content_hash
from constitutional_ai.settings import LabelSettings

__all__ = [
    "NOT_FINITE", "NO_ANSWER", "Comparison", "Judge", "Jury", "PositionBias", "Sits", "Unlabelled",
    "Verdict", "nonce", "p_option_a", "position_bias", "unreadable",
]  # fmt: skip

Orders = tuple[float, float]


@dataclass(frozen=True)
class Comparison:
    """Two answers to a prompt, to be compared: under ``principles``, or under drawn ones."""

    id: str
    prompt: Conversation
    set: PromptSet
    first: str
    second: str
    principles: tuple[Principle, ...] = ()

    @classmethod
    def of(cls, pair: Pair, principles: Iterable[Principle] = ()) -> "Comparison":
        """The question that a pair poses."""
        return cls(pair.id, pair.prompt, pair.set, *pair.answers, tuple(principles))


@dataclass(frozen=True)
class Verdict:
    """P(first answer better), each value in [0, 1].

    ``p_first`` is the label, after the mode (soft, hard, clamped); ``p_soft`` is what the mode was
    applied to. What it was made of stays as measured: ``by_principle`` is the mean over both
    orders, ``by_order`` the mean over principles with the first answer shown first, then shown
    second, ``orders`` the same by principle; both are empty where answers were scored apart.
    """

    p_first: float
    by_principle: dict[str, float]
    by_order: Orders | None
    principle_hashes: dict[str, str]
    p_soft: float = math.nan
    orders: dict[str, Orders] = field(default_factory=dict)
    by_judge: dict[str, float] = field(default_factory=dict)
    scores: Orders | None = None
    thoughts: tuple[str, ...] = ()
    unread: Counter[str] = field(default_factory=Counter)
    decided_by: tuple[str, ...] = ()  # where principles disagreed and their rank settled it

    def swapped(self) -> "Verdict":
        """The same verdict, told of (second, first)."""
        return replace(
            self,
            p_first=1 - self.p_first,
            p_soft=1 - self.p_soft,
            by_principle={name: 1 - p for name, p in self.by_principle.items()},
            by_order=_turned(self.by_order) if self.by_order else None,
            orders={name: _turned(orders) for name, orders in self.orders.items()},
            by_judge={name: 1 - p for name, p in self.by_judge.items()},
            scores=self.scores and (self.scores[1], self.scores[0]),
        )


def _turned(orders: Orders) -> Orders:
    shown_first, shown_second = orders
    return 1 - shown_second, 1 - shown_first


@dataclass(frozen=True)
class Unlabelled:
    """No verdict could be read. ``reason`` is a constant of judge/replies.py, to be counted."""

    reason: str
    principle_hashes: dict[str, str]


@dataclass(frozen=True)
class PositionBias:
    """``mean``: P(better | shown first) − P(better | shown second), in [-1, 1]; 0 is unbiased.

    ``flip_rate``: the share of pairs whose winner changes with the order.
    """

    mean: float
    flip_rate: float


class Sits(Protocol):
    """Whoever gives verdicts: a judge, or a jury of them."""

    name: str

    def compare(self, questions: Sequence[Comparison], seed: int) -> list[Verdict | Unlabelled]: ...


class Judge:
    """Compares answers with an engine, under a constitution. See LabelSettings for how.

    ``temperature`` divides the log-odds of the mean over principles (judge/certificate.py). Where
    principles have ranks (`hard`, `priority`), the constitution settles their disagreements.
    """

    def __init__(
        self,
        engine: Engine,
        constitution: Constitution,
        settings: LabelSettings,
        temperature: float = 1.0,
    ) -> None:
        self.engine = engine
        self.name = engine.name
        self.constitution = constitution
        self.settings = settings
        self.temperature = temperature
        self.exemplars = constitution.worked_comparisons(settings.exemplars)

    def compare(self, questions: Sequence[Comparison], seed: int) -> list[Verdict | Unlabelled]:
        """A verdict for each question, in order; its id and ``seed`` decide principles and fence.

        All that is to be asked (questions × principles × 2 orders) goes to the engine in one call.
        Raises NoLogprobs where the engine has none, ConstitutionError where no principle fits a
        set.
        """
        drawn = [one.principles or self._drawn(one, seed) for one in questions]
        asked = [
            self._asked(one, principle, seed)
            for one, under in zip(questions, drawn, strict=True)
            for principle in under
        ]
        found = iter(opinions(self.engine, asked, self.constitution, self.settings, seed))
        return [self._verdict(under, [next(found) for _ in under]) for under in drawn]

    def _drawn(self, one: Comparison, seed: int) -> Sequence[Principle]:
        how_many = self.settings.principles
        return self.constitution.draw("preference", one.set, how_many, seed, one.id)

    def _asked(self, one: Comparison, principle: Principle, seed: int) -> Asked:
        fence = self._fence(one, seed)
        named = self.constitution.principle
        shown = [worked_comparison(each, principle, named, fence) for each in self.exemplars]
        prompt = seen(one.prompt, self.settings)
        return Asked(prompt, one.first, one.second, principle, fence, tuple(shown))

    def _fence(self, one: Comparison, seed: int) -> str:
        if not self.settings.fence:
            return ""
        said = [turn["content"] for turn in one.prompt]
        return nonce(seed, one.id, *said, one.first, one.second)

    def _verdict(
        self, principles: Sequence[Principle], found: Sequence[Opinion | Unread]
    ) -> Verdict | Unlabelled:
        hashes = {principle.name: principle.hash for principle in principles}
        read: list[Opinion] = []
        for opinion in found:
            if isinstance(opinion, Unread):
                return Unlabelled(opinion.reason, hashes)
            read.append(opinion)
        scored = [opinion.scores for opinion in read if opinion.scores]
        orders = [(opinion.shown_first, opinion.shown_second) for opinion in read]
        by_principle = [opinion.p for opinion in read]
        weights, p, decided_by = self.settle(principles, by_principle)
        p_soft = tempered(p, self.temperature)
        return Verdict(
            p_first=as_label(p_soft, self.settings),
            by_principle=dict(zip(hashes, by_principle, strict=True)),
            by_order=None if scored else mean_orders(orders, weights),
            principle_hashes=hashes,
            p_soft=p_soft,
            orders={} if scored else dict(zip(hashes, orders, strict=True)),
            scores=mean_orders(scored, weights) if scored else None,
            thoughts=tuple(text for opinion in read for text in opinion.thoughts),
            unread=sum((opinion.unread for opinion in read), Counter()),
            decided_by=decided_by,
        )

    def settle(
        self, principles: Sequence[Principle], by_principle: Sequence[float]
    ) -> tuple[list[float], float, tuple[str, ...]]:
        """(the principles' weights, one probability from theirs, whose rank decided it)."""
        weights = [p.weight if self.settings.weighted else 1.0 for p in principles]
        if any(principle.hard or principle.priority for principle in principles):
            named = {p.name: q for p, q in zip(principles, by_principle, strict=True)}
            resolved = resolve(named, self.constitution)
            return weights, resolved.p, resolved.decided_by
        return weights, fmean(by_principle, weights), ()


class Jury:
    """Several judges of the same settings: the mean of their probabilities, each one recorded.

    A judge whose verdict cannot be read is left out of that pair's mean and counted in ``unread``;
    where none can be read, the pair is Unlabelled.
    """

    def __init__(self, judges: Sequence[Judge]) -> None:
        self.judges = judges
        self.name = " + ".join(judge.name for judge in judges)

    def compare(self, questions: Sequence[Comparison], seed: int) -> list[Verdict | Unlabelled]:
        """As Judge.compare; all judges are asked under the same principles, behind one fence."""
        benches = [judge.compare(questions, seed) for judge in self.judges]
        return [self._together(verdicts) for verdicts in zip(*benches, strict=True)]

    def _together(self, verdicts: Sequence[Verdict | Unlabelled]) -> Verdict | Unlabelled:
        named = zip((judge.name for judge in self.judges), verdicts, strict=True)
        read = {name: v for name, v in named if isinstance(v, Verdict)}
        lost = [v.reason for v in verdicts if isinstance(v, Unlabelled)]
        hashes = verdicts[0].principle_hashes
        if not read:
            return Unlabelled(Counter(lost).most_common(1)[0][0], hashes)
        found = list(read.values())
        p_soft = fmean(v.p_soft for v in found)
        orders = [v.by_order for v in found if v.by_order]
        scores = [v.scores for v in found if v.scores]
        return Verdict(
            p_first=as_label(p_soft, self.judges[0].settings),
            by_principle={n: fmean(v.by_principle[n] for v in found) for n in hashes},
            by_order=mean_orders(orders) if orders else None,
            principle_hashes=hashes,
            p_soft=p_soft,
            orders={n: mean_orders([v.orders[n] for v in found]) for n in found[0].orders},
            by_judge={name: v.p_soft for name, v in read.items()},
            scores=mean_orders(scores) if scores else None,
            thoughts=tuple(text for v in found for text in v.thoughts),
            unread=sum((v.unread for v in found), Counter(lost)),
            decided_by=tuple(dict.fromkeys(name for v in found for name in v.decided_by)),
        )


def mean_orders(orders: Sequence[Orders], weights: Sequence[float] | None = None) -> Orders:
    """The mean of (P shown first, P shown second) over principles or judges."""
    first, second = zip(*orders, strict=True)
    return fmean(first, weights), fmean(second, weights)


def nonce(seed: int, id_: str, *texts: str) -> str:
    """Eight hex digits that stand in none of the texts, so that no text can close its own fence.

    The seed and the id decide them; whoever could guess both would still be passed over, since a
    nonce that a text already holds is not taken.
    """
    tries = (content_hash("fence", seed, id_, number)[:8] for number in count())
    return next(found for found in tries if not any(found in text for text in texts))


def tempered(p: float, temperature: float) -> float:
    """σ(log-odds of p, divided by the temperature); 0, ½ and 1 stay what they are."""
    if temperature == 1.0 or p in (0.0, 0.5, 1.0):
        return p
    return (1 + math.tanh(math.log(p / (1 - p)) / temperature / 2)) / 2


def as_label(p: float, settings: LabelSettings) -> float:
    """What the mode makes of P(first better)."""
    match mode_of(settings):
        case "hard":
            return 0.5 if p == 0.5 else float(p > 0.5)
        case "clamped":
            low, high = settings.clamp
            return min(max(p, low), high)
        case _:
            return p


def mode_of(settings: LabelSettings) -> str:
    """The mode that "auto" stands for: after thoughts a judge is too sure (paper, section 4.1)."""
    if settings.mode == "auto":
        return "clamped" if settings.method == "thoughts" else "soft"
    return settings.mode


def disagreement(by_judge: Mapping[str, float]) -> float | None:
    """How far apart the judges are: the highest P less the lowest; None for fewer than two."""
    return max(by_judge.values()) - min(by_judge.values()) if len(by_judge) > 1 else None


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
