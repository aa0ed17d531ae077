"""Puts a question to the judge in one of four ways, and reads what comes back.

compare   log-probabilities of (A) and (B), one forward pass an order (paper, section 4.1)
thoughts  the same after the judge has thought aloud; the mean over several lines of thought
vote      replies are sampled and read; the share of those that could be
score     one answer at a time: log-probabilities over a scale, and from the two distributions the
          probability that the one scores higher (as direct RLAIF scores, Lee et al. 2023)

All but the last ask in both orders. A question that cannot be read is Unread, with its reason.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import TypeVar

import numpy as np

from constitutional_ai import prompts as templates
from constitutional_ai.engines import is_served
from constitutional_ai.engines.base import Engine, Sampling
from constitutional_ai.errors import ModelError
from constitutional_ai.judge.replies import (
    FAILED,
    LEAST_MASS,
    NO_ANSWER,
    NOT_FINITE,
    choice,
    p_option_a,
    unreadable,
)
from constitutional_ai.principles import Constitution, Principle, Scale
from constitutional_ai.records import Conversation, assistant, user
from constitutional_ai.settings import LabelSettings
from constitutional_ai.store.run_folder import derive_seed

TEN = Scale(  # one digit each, worth 1 to 10
    prompt="{text}",  # the prompt itself goes by the principle's kind: prompts.SCALES
    options=tuple("0123456789"),
    values=tuple(float(n) for n in range(1, 11)),
)
REPLY_TOKENS = 12  # enough to name an option, or to begin a refusal

T = TypeVar("T")


@dataclass(frozen=True)
class Asked:
    """Two answers to a prompt, to be compared under one principle."""

    prompt: Conversation
    first: str
    second: str
    principle: Principle
    fence: str = ""
    examples: tuple[Conversation, ...] = ()  # judged ones, to be shown before

    def orders(self) -> tuple[tuple[str, str], tuple[str, str]]:
        return (self.first, self.second), (self.second, self.first)

    def comparisons(self) -> list[Conversation]:
        """The question in both orders."""
        return [
            templates.after_examples(
                self.examples, templates.comparison(self.prompt, *pair, self.principle, self.fence)
            )
            for pair in self.orders()
        ]


def seen(prompt: Conversation, settings: LabelSettings) -> Conversation:
    """What a judge is shown of a prompt: all, or with ``last_turn`` the last request.

    An attacker can write the turns before that one (few-shot), to sway the model and the judge.
    """
    return prompt[-1:] if settings.last_turn else prompt


@dataclass(frozen=True)
class Opinion:
    """P(first better): when shown first, when shown second; ``scores`` where each was scored."""

    shown_first: float
    shown_second: float
    scores: tuple[float, float] | None = None
    thoughts: tuple[str, ...] = ()
    unread: Counter[str] = field(default_factory=Counter)  # replies lost, beside those read

    @property
    def p(self) -> float:
        return (self.shown_first + self.shown_second) / 2


@dataclass(frozen=True)
class Unread:
    reason: str


def opinions(
    engine: Engine,
    asked: Sequence[Asked],
    constitution: Constitution,
    settings: LabelSettings,
    seed: int,
) -> list[Opinion | Unread]:
    """One for each question, in order. Raises NoLogprobs where the engine has none to give."""
    match settings.method:
        case "compare":
            return compared(engine, asked, settings.spoken)
        case "thoughts":
            turns = constitution.thoughts or templates.THOUGHTS
            return thought_over(engine, asked, turns, settings, seed)
        case "vote":
            return voted(engine, asked, settings, seed)
        case "score":
            return scored(engine, asked, constitution.scale)


def compared(engine: Engine, asked: Sequence[Asked], spoken: bool) -> list[Opinion | Unread]:
    """From one forward an order. ``spoken``: each verdict is said too, and has to be a letter."""
    questions = [question for one in asked for question in one.comparisons()]
    replies = _options(engine, questions, templates.OPTIONS)
    reasons = [unreadable(reply) for reply in replies]
    odd = [n for n, reason in enumerate(reasons) if spoken or reason == NO_ANSWER]
    sampling = Sampling(temperature=0.0, max_new_tokens=REPLY_TOKENS)
    for n, named in zip(odd, _said(engine, [questions[n] for n in odd], sampling), strict=True):
        if named not in ("A", "B"):
            reasons[n] = named  # says more than NO_ANSWER
    return [
        Unread(next(filter(None, both)))
        if any(both)
        else Opinion(p_option_a(first), 1 - p_option_a(second))
        for both, (first, second) in zip(_twos(reasons), _twos(replies), strict=True)
    ]


def _said(engine: Engine, questions: Sequence[Conversation], sampling: Sampling) -> list[str]:
    """What each reply comes to: a letter, or why it is none."""
    replies = engine.generate(questions, sampling) if questions else []
    return [FAILED if reply.failed else choice(reply.text) for reply in replies]


def thought_over(
    engine: Engine,
    asked: Sequence[Asked],
    turns: Sequence[str],
    settings: LabelSettings,
    seed: int,
) -> list[Opinion | Unread]:
    """``samples`` lines of thought in each order, then the options; the mean over those read."""
    found: list[list[list[float]]] = [[] for _ in asked for _ in range(2)]
    thoughts: list[list[str]] = [[] for _ in found]
    lost: list[Counter[str]] = [Counter() for _ in found]
    for sample in range(settings.samples):
        talks = _thinking(engine, asked, turns, settings, derive_seed(seed, "thoughts", sample))
        whole = [n for n, talk in enumerate(talks) if talk]
        replies = _options(engine, [talks[n] for n in whole], templates.OPTIONS)
        for n in set(range(len(talks))) - set(whole):
            lost[n][FAILED] += 1
        for n, reply in zip(whole, replies, strict=True):
            thoughts[n] += [turn["content"] for turn in talks[n] if turn["role"] == "assistant"]
            if reason := unreadable(reply):
                lost[n][reason] += 1
            else:
                found[n].append(reply)
    made: list[Opinion | Unread] = []
    for replies_, said, gone in zip(_twos(found), _twos(thoughts), _twos(lost), strict=True):
        if not all(replies_):
            made.append(Unread((gone[0] + gone[1]).most_common(1)[0][0]))
            continue
        as_a, as_b = (fmean(p_option_a(reply) for reply in order) for order in replies_)
        made.append(
            Opinion(as_a, 1 - as_b, thoughts=(*said[0], *said[1]), unread=gone[0] + gone[1])
        )
    return made


def _thinking(
    engine: Engine,
    asked: Sequence[Asked],
    turns: Sequence[str],
    settings: LabelSettings,
    seed: int,
) -> list[Conversation]:
    """The conversations, both orders, up to where the verdict is due; [] where a thought failed."""
    principles = [one.principle for one in asked for _ in range(2)]
    talks: list[Conversation] = [
        [user(templates.compared(one.prompt, *pair, one.fence))]
        for one in asked
        for pair in one.orders()
    ]
    for number, turn in enumerate(turns):
        questions = [templates.thought(turn, principle) for principle in principles]
        talks = [_ask(talk, text) for talk, text in zip(talks, questions, strict=True)]
        sampling = Sampling(
            temperature=settings.temperature,
            max_new_tokens=settings.max_new_tokens,
            seed=derive_seed(seed, number),
        )
        whole = [n for n, talk in enumerate(talks) if talk]
        replies = engine.generate([talks[n] for n in whole], sampling) if whole else []
        for n, reply in zip(whole, replies, strict=True):
            talks[n] = [] if reply.failed else [*talks[n], assistant(reply.text)]
    fences = [one.fence for one in asked for _ in range(2)]
    return [
        _ask(talk, templates.question(principle, fence))
        for talk, principle, fence in zip(talks, principles, fences, strict=True)
    ]


def _ask(talk: Conversation, text: str) -> Conversation:
    """A further user turn, joined to the last one where that is the user's too; [] stays []."""
    if not talk:
        return []
    *earlier, last = talk
    if last["role"] == "user":
        return [*earlier, user(f"{last['content']}\n{text}")]
    return [*talk, user(text)]


def voted(
    engine: Engine, asked: Sequence[Asked], settings: LabelSettings, seed: int
) -> list[Opinion | Unread]:
    """``samples`` replies in each order; P(A) is the share of A among those that name one option.

    One vote for each option is added (Laplace): five votes of five are no certainty.
    """
    questions = [question for one in asked for question in one.comparisons()]
    found: list[list[str]] = [[] for _ in questions]
    for sample in range(settings.samples):
        sampling = Sampling(
            temperature=settings.temperature,
            max_new_tokens=REPLY_TOKENS,
            seed=derive_seed(seed, "vote", sample),
        )
        for n, named in enumerate(_said(engine, questions, sampling)):
            found[n].append(named)
    made: list[Opinion | Unread] = []
    for orders in _twos(found):
        votes = [[vote for vote in order if vote in ("A", "B")] for order in orders]
        lost = Counter(vote for order in orders for vote in order if vote not in ("A", "B"))
        if not all(votes):
            made.append(Unread(lost.most_common(1)[0][0]))
            continue
        a_first, a_second = ((order.count("A") + 1) / (len(order) + 2) for order in votes)
        made.append(Opinion(a_first, 1 - a_second, unread=lost))
    return made


def scored(engine: Engine, asked: Sequence[Asked], scale: Scale | None) -> list[Opinion | Unread]:
    """P(first scores higher) + ½ P(both score the same), the two scores drawn apart."""
    own, prompt = scale or TEN, scale.prompt if scale else ""
    values = np.asarray(own.values)
    wins = np.greater.outer(values, values) + 0.5 * np.equal.outer(values, values)
    questions = [
        templates.scoring(one.prompt, answer, one.principle, prompt, one.fence)
        for one in asked
        for answer in (one.first, one.second)
    ]
    made: list[Opinion | Unread] = []
    for both in _twos(_spelled(engine, questions, own.options)):
        logprobs = np.asarray(both, dtype=float)
        if not (logprobs < np.inf).all():  # −inf is an option that is out of the question
            made.append(Unread(NOT_FINITE))
            continue
        mass = np.exp(logprobs)
        if (mass.sum(axis=1) < LEAST_MASS).any():
            made.append(Unread(NO_ANSWER))
            continue
        first, second = mass / mass.sum(axis=1, keepdims=True)
        p = float(first @ wins @ second)
        made.append(Opinion(p, p, scores=(float(first @ values), float(second @ values))))
    return made


def _spelled(
    engine: Engine, questions: Sequence[Conversation], options: Sequence[str]
) -> list[list[float]]:
    """Log-probabilities of options of which one may begin another, as 1 begins 10.

    Where the engine cannot tell them apart by one token, the chain rule does: P(10) is P(1) times
    P(0 after 1), and what is left of P(1) is 1 alone. It takes single characters to be tokens,
    which they are wherever one token does not tell. A server's likeliest tokens do not say what
    would have followed, so there no option may begin another. Raises ModelError.
    """
    apart = ModelError(
        f"{engine.name}: cannot tell the scale's options {', '.join(options)} apart by their first"
        " token; choose others in the constitution's [scale]"
    )
    if is_served(engine.name) and any(a != b and b.startswith(a) for a in options for b in options):
        raise apart
    heads = sorted({option[0] for option in options})
    longer = [option for option in options if len(option) > 1]
    try:
        return _options(engine, questions, options)
    except ValueError:
        if len(heads) < 2 or any(option[0] not in options for option in longer):
            raise apart from None
    by_head = [dict(zip(heads, row, strict=True)) for row in _options(engine, questions, heads)]
    for option in longer:
        talks = [[*question, assistant(option[0])] for question in questions]
        other = next(head for head in heads if head != option[1])
        for found, (goes_on, _) in zip(
            by_head, _options(engine, talks, (option[1:], other)), strict=True
        ):
            head, p = found[option[0]], float(np.exp(goes_on))
            found[option] = head + goes_on
            found[option[0]] = head + float(np.log1p(-min(p, 1 - 1e-12)))
    return [[found[option] for option in options] for found in by_head]


def _options(
    engine: Engine, questions: Sequence[Conversation], options: Sequence[str]
) -> list[list[float]]:
    if not questions:
        return []
    replies = engine.option_logprobs(questions, options)
    if len(replies) != len(questions):
        raise RuntimeError(f"{engine.name}: {len(replies)} replies, {len(questions)} asked")
    return [list(reply) for reply in replies]


def _twos(items: Sequence[T]) -> Iterator[tuple[T, T]]:
    return zip(items[::2], items[1::2], strict=True)
