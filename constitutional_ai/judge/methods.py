"""Four ways to ask a judge which of two answers is better, and to read what it replies.

compare   log-probabilities of (A) and (B), one forward pass an order (paper, section 4.1). Where
          they have less than half of the probability, the judge says its letter, and that is a vote
thoughts  the same after the judge has thought aloud; the mean over several lines of thought
vote      replies are sampled; the share of the readable ones that name an answer
score     one answer at a time: log-probabilities over a scale, and from the two distributions the
          probability that the first scores higher (as direct RLAIF scores, Lee et al. 2023)

All but the last ask in both orders. Each gives an Opinion for every question, in order, or Unread
with the reason.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from statistics import fmean

import numpy as np

from constitutional_ai import prompts as templates
from constitutional_ai.engines.ask import sampling_of
from constitutional_ai.engines.base import Completion, Engine, Sampling
from constitutional_ai.engines.spec import ModelSpec
from constitutional_ai.errors import ModelError
from constitutional_ai.judge.replies import (
    FAILED,
    NO_ANSWER,
    Reply,
    Unread,
    choice,
    option_replies,
)
from constitutional_ai.principles import Constitution, Principle, Scale
from constitutional_ai.records import Conversation, assistant, user
from constitutional_ai.stage_settings import LabelSettings
from constitutional_ai.store.seeds import derive_seed

TEN = Scale(  # one digit each, worth 1 to 10
    prompt="{text}",  # the prompt itself depends on the principle's kind: prompts.SCALES
    options=tuple("0123456789"),
    values=tuple(float(n) for n in range(1, 11)),
)
REPLY_TOKENS = 12  # enough to name an option, or to begin a refusal
LETTERS = ("A", "B")
GREEDY = Sampling(temperature=0.0)


@dataclass(frozen=True)
class Asked:
    """Two answers to a prompt, to be compared under one principle."""

    prompt: Conversation
    first: str
    second: str
    principle: Principle
    fence: str = ""
    examples: tuple[Conversation, ...] = ()  # judged ones, shown before the question

    def swap(self) -> "Asked":
        """The same question with the answers exchanged."""
        return replace(self, first=self.second, second=self.first)

    def question(self) -> Conversation:
        """The comparison, as the judge reads it."""
        asked = templates.comparison(
            self.prompt, self.first, self.second, self.principle, self.fence
        )
        return templates.after_examples(self.examples, asked)


def seen(prompt: Conversation, settings: LabelSettings) -> Conversation:
    """What a judge is shown of a prompt: all, or with ``last_turn`` the last request.

    An attacker can write the turns before that one (few-shot), to sway the model and the judge.
    """
    return prompt[-1:] if settings.last_turn else prompt


@dataclass(frozen=True)
class Opinion:
    """One judge under one principle: P(first better), when shown first and when shown second.

    ``scores`` are the expected scores of both answers, where each was scored alone. ``unread``
    counts replies that were lost beside those that could be read. ``mass`` is the probability of
    all options together, the mean over what was asked; None where it was not measured.
    """

    principle: Principle
    shown_first: float
    shown_second: float
    scores: tuple[float, float] | None = None
    thoughts: tuple[str, ...] = ()
    unread: Counter[str] = field(default_factory=Counter)
    mass: float | None = None

    @property
    def p(self) -> float:
        """The mean of both orders, in which a liking for one place cancels."""
        return (self.shown_first + self.shown_second) / 2


@dataclass
class Order:
    """A question in one order of its answers, and what came back.

    ``replies`` are P(A) by each reply that could be read, ``lost`` the reasons of the others.
    """

    asked: Asked
    replies: list[float] = field(default_factory=list)
    lost: Counter[str] = field(default_factory=Counter)
    thoughts: list[str] = field(default_factory=list)
    masses: list[float] = field(default_factory=list)

    def take(self, reply: Reply | Unread) -> None:
        """Keep one reply's share of (A), or why it has none."""
        if reply.mass is not None:
            self.masses.append(reply.mass)
        if isinstance(reply, Unread):
            self.lost[reply.reason] += 1
        else:
            self.replies.append(reply.shares[0])


def opinions(
    engine: Engine,
    asked: Sequence[Asked],
    constitution: Constitution,
    settings: LabelSettings,
    seed: int,
) -> list[Opinion | Unread]:
    """One for each question, in order. Raises NoLogprobs where the engine has none to give."""
    if settings.method == "score":
        return scored(engine, asked, constitution.scale)
    both = [(Order(one), Order(one.swap())) for one in asked]
    orders = list(chain.from_iterable(both))
    match settings.method:
        case "compare":
            compared(engine, orders, settings.spoken)
        case "thoughts":
            turns = constitution.thoughts or templates.THOUGHTS
            thought_over(engine, orders, turns, settings, seed)
        case "vote":
            voted(engine, orders, settings, seed)
    mean = _laplace if settings.method == "vote" else fmean
    return [_opinion(first, second, mean) for first, second in both]


def _opinion(first: Order, second: Order, mean: Callable[[list[float]], float]) -> Opinion | Unread:
    lost = first.lost + second.lost
    if not (first.replies and second.replies):
        return Unread(lost.most_common(1)[0][0])
    return Opinion(
        first.asked.principle,
        mean(first.replies),
        1 - mean(second.replies),
        thoughts=(*first.thoughts, *second.thoughts),
        unread=lost,
        mass=_mean([*first.masses, *second.masses]),
    )


def _mean(masses: Sequence[float | None]) -> float | None:
    measured = [mass for mass in masses if mass is not None]
    return fmean(measured) if measured else None


def _laplace(votes: list[float]) -> float:
    """The share of A, with one vote added for each option: five votes of five are not certain."""
    return (sum(votes) + 1) / (len(votes) + 2)


def compared(engine: Engine, orders: Sequence[Order], spoken: bool) -> None:
    """One forward an order. With ``spoken`` each verdict is said too, and has to be a letter."""
    for order, reply in zip(
        orders, chosen(engine, [o.asked.question() for o in orders]), strict=True
    ):
        order.take(reply)
    if spoken:
        for order, named in zip(orders, said(engine, orders), strict=True):
            if named not in LETTERS:
                order.replies, order.lost = [], Counter([named])


def chosen(engine: Engine, questions: Sequence[Conversation]) -> list[Reply | Unread]:
    """The shares of (A) and (B). Where both have less than half of the probability together, the
    judge says its letter, greedily, and that is one vote; or there is none.
    """
    replies = option_replies(engine, questions, templates.OPTIONS)
    doubtful = [
        n
        for n, reply in enumerate(replies)
        if isinstance(reply, Unread) and reply.reason == NO_ANSWER
    ]
    spoken = letters(engine, [questions[n] for n in doubtful])
    for n, named in zip(doubtful, spoken, strict=True):
        mass = replies[n].mass
        if named in LETTERS:
            p = _laplace([float(named == "A")])
            replies[n] = Reply([p, 1 - p], mass)
        else:  # the reason says more than NO_ANSWER does
            replies[n] = Unread(named, mass)
    return replies


def said(engine: Engine, orders: Sequence[Order], drawing: Sampling = GREEDY) -> list[str]:
    """What the judge replies to each question: a letter, or why it is none."""
    return letters(engine, [order.asked.question() for order in orders], drawing)


def letters(
    engine: Engine, questions: Sequence[Conversation], drawing: Sampling = GREEDY
) -> list[str]:
    """As ``said``, of whole conversations."""
    sampling = replace(drawing, max_new_tokens=REPLY_TOKENS)
    replies = engine.generate(questions, sampling) if questions else []
    return [FAILED if reply.failed else choice(reply.text) for reply in replies]


def voted(engine: Engine, orders: Sequence[Order], settings: LabelSettings, seed: int) -> None:
    """``samples`` replies in each order; each is a vote for A or B, or lost."""
    for sample in range(settings.samples):
        votes = said(engine, orders, sampling_of(settings, derive_seed(seed, "vote", sample)))
        for order, vote in zip(orders, votes, strict=True):
            order.take(Reply([float(vote == "A")]) if vote in LETTERS else Unread(vote))


def thought_over(
    engine: Engine,
    orders: Sequence[Order],
    turns: Sequence[str],
    settings: LabelSettings,
    seed: int,
) -> None:
    """``samples`` lines of thought in each order, then the options."""
    for sample in range(settings.samples):
        talks = _thinking(engine, orders, turns, settings, derive_seed(seed, "thoughts", sample))
        replies = iter(chosen(engine, [talk for talk in talks if talk]))
        for order, talk in zip(orders, talks, strict=True):
            order.thoughts += [turn["content"] for turn in talk if turn["role"] == "assistant"]
            order.take(next(replies) if talk else Unread(FAILED))


def _thinking(
    engine: Engine,
    orders: Sequence[Order],
    turns: Sequence[str],
    settings: LabelSettings,
    seed: int,
) -> list[Conversation]:
    """Each order's conversation up to where the verdict is due; [] where a thought failed."""
    asked = [order.asked for order in orders]
    talks: list[Conversation] = [
        [user(templates.compared(one.prompt, one.first, one.second, one.fence))] for one in asked
    ]
    for number, turn in enumerate(turns):
        talks = [
            _ask(talk, templates.thought(turn, one.principle))
            for talk, one in zip(talks, asked, strict=True)
        ]
        sampling = sampling_of(settings, derive_seed(seed, number))
        whole = [talk for talk in talks if talk]
        replies = iter(engine.generate(whole, sampling) if whole else [])
        talks = [_answered(talk, next(replies)) if talk else [] for talk in talks]
    return [
        _ask(talk, templates.question(one.principle, one.fence))
        for talk, one in zip(talks, asked, strict=True)
    ]


def _answered(talk: Conversation, reply: Completion) -> Conversation:
    return [] if reply.failed else [*talk, assistant(reply.text)]


def _ask(talk: Conversation, text: str) -> Conversation:
    """A further user turn, joined to the last one where that is the user's too; [] stays []."""
    if not talk:
        return []
    *earlier, last = talk
    if last["role"] == "user":
        return [*earlier, user(f"{last['content']}\n{text}")]
    return [*talk, user(text)]


def scored(engine: Engine, asked: Sequence[Asked], scale: Scale | None) -> list[Opinion | Unread]:
    """P(first scores higher) + ½ P(both score the same), the two scores drawn independently.

    Raises ModelError where the engine cannot tell the scale's options apart.
    """
    own, prompt = scale or TEN, scale.prompt if scale else ""
    values = np.asarray(own.values)
    wins = np.greater.outer(values, values) + 0.5 * np.equal.outer(values, values)
    questions = [
        templates.scoring(one.prompt, answer, one.principle, prompt, one.fence)
        for one in asked
        for answer in (one.first, one.second)
    ]
    replies = _scale_shares(engine, questions, own.options)
    made: list[Opinion | Unread] = []
    for one, first, second in zip(asked, replies[::2], replies[1::2], strict=True):
        if isinstance(first, Unread):
            made.append(first)
        elif isinstance(second, Unread):
            made.append(second)
        else:
            p = float(np.asarray(first.shares) @ wins @ np.asarray(second.shares))
            scores = float(np.dot(first.shares, values)), float(np.dot(second.shares, values))
            mass = _mean([first.mass, second.mass])
            made.append(Opinion(one.principle, p, p, scores, mass=mass))
    return made


def _scale_shares(
    engine: Engine, questions: Sequence[Conversation], options: Sequence[str]
) -> list[Reply | Unread]:
    # A server names the likeliest next tokens and cannot say what would have followed "1": "10".
    begun = any(a != b and b.startswith(a) for a in options for b in options)
    try:
        if not (begun and ModelSpec.parse(engine.name).kind == "server"):
            return option_replies(engine, questions, options)
    except ValueError:
        pass
    raise ModelError(
        f"{engine.name}: cannot tell the scale's options {', '.join(options)} apart by their first"
        " token; choose others in the constitution's [scale]"
    )
