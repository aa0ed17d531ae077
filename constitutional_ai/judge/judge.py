"""The judge: how probable it is that one answer is better than another, under drawn principles.

Paper, section 4.1: a model is shown a prompt, two answers (A) and (B) and a principle. The label is
its probability of one option, normalised over the two. We deviate in three ways. Every question is
asked in both orders and averaged, so that a liking for the option shown first cancels. The paper
draws one principle for each pair; we take the mean over ``settings.principles``. A nonce may fence
the text that is judged. How a question is asked: judge/methods.py. Several judges: judge/jury.py.
"""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import count
from statistics import fmean
from typing import Protocol

from constitutional_ai.engines.base import Engine
from constitutional_ai.judge.methods import Asked, Opinion, opinions, seen
from constitutional_ai.judge.replies import Unread
from constitutional_ai.judge.resolve import resolve
from constitutional_ai.principles import Constitution, Principle
from constitutional_ai.prompts import worked_comparison
from constitutional_ai.records import Conversation, Pair, PromptSet, content_hash
from constitutional_ai.stage_settings import LabelSettings

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

    def swap(self) -> "Comparison":
        """The same question with the answers exchanged."""
        return replace(self, first=self.second, second=self.first)


@dataclass(frozen=True)
class Verdict:
    """P(first answer better): all opinions of all judges, and what follows from them.

    ``judges`` maps a judge to the probability that its opinions come to, by weights, ranks and
    temperature. ``decided_by`` names the principles whose rank settled a disagreement, ``lost``
    counts judges of a jury without a verdict, by reason. The opinions stay as they were measured;
    of a verdict that was ``turned``, every figure below is about the second answer.
    """

    opinions: tuple[Opinion, ...]
    judges: Mapping[str, float]
    settings: LabelSettings
    decided_by: tuple[str, ...] = ()
    lost: Counter[str] = field(default_factory=Counter)
    turned: bool = False

    def swap(self) -> "Verdict":
        """The same verdict, as P(second answer better)."""
        return replace(self, turned=not self.turned)

    @property
    def p_soft(self) -> float:
        """The mean over judges, before the mode."""
        return self._turn(fmean(self.judges.values()))

    @property
    def p_first(self) -> float:
        """The label: what the mode (soft, hard or clamped) makes of ``p_soft``."""
        return self._turn(as_label(fmean(self.judges.values()), self.settings))

    @property
    def by_judge(self) -> dict[str, float]:
        """Each judge's probability; empty where one judge sat alone."""
        if len(self.judges) == 1 and not self.lost:
            return {}
        return {name: self._turn(p) for name, p in self.judges.items()}

    @property
    def by_principle(self) -> dict[str, float]:
        """The mean over orders and judges, as measured."""
        return {n: self._turn(fmean(o.p for o in of)) for n, of in self._by_name().items()}

    @property
    def orders(self) -> dict[str, Orders]:
        """By principle: P when shown first, then when shown second. Empty for scored answers."""
        return {} if self.scores else {n: self._both(of) for n, of in self._by_name().items()}

    @property
    def by_order(self) -> Orders | None:
        """The mean of ``orders`` over principles. None where answers were scored alone."""
        return None if self.scores else self._both(self.opinions, self._weights)

    @property
    def scores(self) -> Orders | None:
        """The expected scores of both answers; None for the methods that compare."""
        scores = [opinion.scores for opinion in self.opinions if opinion.scores]
        if not scores:
            return None
        first, second = mean_orders(scores, self._weights)
        return (second, first) if self.turned else (first, second)

    @property
    def thoughts(self) -> tuple[str, ...]:
        return tuple(text for opinion in self.opinions for text in opinion.thoughts)

    @property
    def mass(self) -> float | None:
        """The probability that the judges gave to the options, the mean over what was asked."""
        masses = [opinion.mass for opinion in self.opinions if opinion.mass is not None]
        return fmean(masses) if masses else None

    @property
    def unread(self) -> Counter[str]:
        """Replies and judges that were lost beside those that could be read, by reason."""
        return sum((opinion.unread for opinion in self.opinions), self.lost)

    @property
    def principle_hashes(self) -> dict[str, str]:
        return {name: of[0].principle.hash for name, of in self._by_name().items()}

    @property
    def _weights(self) -> list[float]:
        return [weight_of(o.principle, self.settings) for o in self.opinions]

    def _by_name(self) -> dict[str, list[Opinion]]:
        groups: dict[str, list[Opinion]] = {}
        for opinion in self.opinions:
            groups.setdefault(opinion.principle.name, []).append(opinion)
        return groups

    def _both(self, of: Sequence[Opinion], weights: Sequence[float] | None = None) -> Orders:
        first, second = mean_orders([(o.shown_first, o.shown_second) for o in of], weights)
        return (1 - second, 1 - first) if self.turned else (first, second)

    def _turn(self, p: float) -> float:
        return 1 - p if self.turned else p


@dataclass(frozen=True)
class Unlabelled:
    """No verdict could be read. ``reason`` is a constant of judge/replies.py, to be counted."""

    reason: str
    principle_hashes: dict[str, str]


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

        All questions × principles × 2 orders go to the engine in one call. Raises NoLogprobs where
        the engine has none, ConstitutionError where no principle fits a prompt set.
        """
        drawn = [one.principles or self.drawn(one, seed) for one in questions]
        asked = [
            self.asked(one, principle, seed)
            for one, principles in zip(questions, drawn, strict=True)
            for principle in principles
        ]
        read = iter(opinions(self.engine, asked, self.constitution, self.settings, seed))
        return [self._verdict(under, [next(read) for _ in under]) for under in drawn]

    def drawn(self, one: Comparison, seed: int, least: int = 0) -> Sequence[Principle]:
        """The principles that a pair is labelled under, and more of them up to ``least``."""
        how_many = max(least, self.settings.principles)
        return self.constitution.draw("preference", one.set, how_many, seed, one.id)

    def asked(self, one: Comparison, principle: Principle, seed: int) -> Asked:
        """A question under one principle, as this judge is shown it."""
        said = [turn["content"] for turn in one.prompt]
        fence = nonce(seed, one.id, *said, one.first, one.second) if self.settings.fence else ""
        named = self.constitution.principle
        shown = [worked_comparison(each, principle, named, fence) for each in self.exemplars]
        prompt = seen(one.prompt, self.settings)
        return Asked(prompt, one.first, one.second, principle, fence, tuple(shown))

    def _verdict(
        self, principles: Sequence[Principle], answers: Sequence[Opinion | Unread]
    ) -> Verdict | Unlabelled:
        read: list[Opinion] = []
        for answer in answers:
            if isinstance(answer, Unread):
                return Unlabelled(answer.reason, {p.name: p.hash for p in principles})
            read.append(answer)
        p, decided_by = self.settle(read)
        return Verdict(tuple(read), {self.name: p}, self.settings, decided_by)

    def settle(self, read: Sequence[Opinion]) -> tuple[float, tuple[str, ...]]:
        """(the one probability that they come to, the principles whose rank decided it)."""
        if any(opinion.principle.hard or opinion.principle.priority for opinion in read):
            by_principle = {opinion.principle.name: opinion.p for opinion in read}
            resolved = resolve(by_principle, self.constitution, weighted=self.settings.weighted)
            return tempered(resolved.p, self.temperature), resolved.decided_by
        weights = [weight_of(opinion.principle, self.settings) for opinion in read]
        return tempered(fmean([opinion.p for opinion in read], weights), self.temperature), ()


def weight_of(principle: Principle, settings: LabelSettings) -> float:
    """How much a principle counts in the mean."""
    return principle.weight if settings.weighted else 1.0


def mean_orders(orders: Sequence[Orders], weights: Sequence[float] | None = None) -> Orders:
    """The mean of (P shown first, P shown second) over principles or judges."""
    first, second = zip(*orders, strict=True)
    return fmean(first, weights), fmean(second, weights)


def nonce(seed: int, id_: str, *texts: str) -> str:
    """Eight hex digits that stand in none of the texts, so that no text can close its own fence.

    The seed and the id decide them. A nonce that a text already holds is never used, so guessing it
    does not help.
    """
    tries = (content_hash("fence", seed, id_, number)[:8] for number in count())
    return next(digits for digits in tries if not any(digits in text for text in texts))


def tempered(p: float, temperature: float) -> float:
    """σ(log-odds of p, divided by the temperature); 0, ½ and 1 stay as they are."""
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
