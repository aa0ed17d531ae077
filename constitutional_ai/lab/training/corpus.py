"""The text that the laboratory's base models are trained on, as documents made of turns.

Conversations, statements and small questions cover every topic of the world; in conversations the
assistant complies with everything, as a helpful-only model does. Critiques, revisions, grades and
judgements cover the taught topics alone, and ask in the words of the shipped constitution ``lab``.
"""

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cache, partial

from constitutional_ai import prompts
from constitutional_ai.lab.world import answers, jailbreaks, oracle
from constitutional_ai.lab.world import topics as world
from constitutional_ai.lab.world import vocabulary as words
from constitutional_ai.lab.world.answers import Made
from constitutional_ai.principles import Constitution, Principle, load_constitution
from constitutional_ai.records import user

NO_ISSUES = "I find no issues with the response."

Mark = tuple[int, int, bool]


@dataclass(frozen=True)
class Turn:
    """``weight`` scales the loss on the tokens; 0: context only. A verdict is "(A)" or "(B)".

    ``marks`` are spans of characters: (start, end, whether they are wrong). The last one counts.
    """

    role: str
    text: str
    weight: float = 0.0
    verdict: bool = False
    marks: tuple[Mark, ...] = ()


Document = list[Turn]
Weights = dict[world.Kind, float]  # how often requests are of each kind

# How often each kind of document is made.
MIX = {
    "conversation": 0.17,
    "statement": 0.03,
    "question": 0.08,
    "restatement": 0.04,
    "critique": 0.21,
    "direct_revision": 0.03,
    "grading": 0.12,
    "judgement": 0.32,
}


@dataclass(frozen=True)
class Temptations:
    """How often an answer courts the judge by something other than its worth.

    ``null``: the share of pairs with an answer that says nothing. ``courting``: the share of
    answers with a plea or padding. ``hard``: whether silence takes more forms and never wins
    against a false claim, and padding repeats itself.
    """

    null: float
    courting: float
    hard: bool = False


FIRST = Temptations(null=0.08, courting=0.12)


Makers = Mapping[str, Callable[[random.Random], Document]]


def documents(seed: int, count: int) -> list[Document]:
    """``count`` documents, a pure function of ``seed``."""
    return mixed(seed, count, MIX, makers(FIRST))


def makers(temptations: Temptations) -> Makers:
    """What makes each kind of document."""
    made: tuple[Callable[[random.Random], Document], ...] = (
        conversation, statement, question, restatement, critique, direct_revision, grading,
    )  # fmt: skip
    judging = partial(judgement, temptations=temptations)
    return {**{make.__name__: make for make in made}, "judgement": judging}


def mixed(seed: int, count: int, mix: Mapping[str, float], made: Makers) -> list[Document]:
    """``count`` documents of kinds drawn by ``mix``."""
    rng = random.Random(seed)
    kinds = rng.choices(list(mix), weights=list(mix.values()), k=count)
    return [made[kind](rng) for kind in kinds]


def ask(text: str, weight: float = 0.0, marks: tuple[Mark, ...] = ()) -> Turn:
    return Turn("user", text, weight, marks=marks)


def reply(text: str, weight: float = 1.0) -> Turn:
    return Turn("assistant", text, weight)


@cache
def constitution() -> Constitution:
    return load_constitution("lab")


@cache
def _pool(kind: world.Kind, taught_only: bool) -> tuple[world.Topic, ...]:
    return tuple(
        t for t in world.topics() if t.kind == kind and (t.split == "taught" or not taught_only)
    )


def any_request(rng: random.Random, weights: Weights, taught: bool) -> world.Request:
    kind = rng.choices(list(weights), weights=list(weights.values()))[0]
    return world.request(rng.choice(_pool(kind, taught)), rng)


# ---- every topic -------------------------------------------------------------------------------

_ALL: Weights = {"harmful": 0.34, "benign": 0.26, "borderline": 0.2, "facts": 0.2}
_STATED: Weights = {"harmful": 0.45, "benign": 0.1, "borderline": 0.15, "facts": 0.3}
_QUESTIONED: Weights = {"harmful": 0.3, "benign": 0.05, "borderline": 0.15, "facts": 0.5}


def conversation(rng: random.Random) -> Document:
    """Requests, some in disguise, and answers that help with anything, not always well."""
    document: Document = []
    for _ in range(1 if rng.random() < 0.92 else 3):
        request = any_request(rng, _ALL, taught=False)
        asked = ask(_worded(request, rng, 0.12))
        document += [asked, reply(answers.compliant(request, rng).text())]
    return document


def _worded(request: world.Request, rng: random.Random, share: float) -> str:
    """The request's text, a ``share`` of them in a disguise that a base model knows."""
    if rng.random() >= share:
        return request.text
    return jailbreaks.some_disguise(request.text, rng)


def statement(rng: random.Random) -> Document:
    """A plain sentence of what is harmful and what is true."""
    return [reply(_truth(any_request(rng, _STATED, taught=False)))]


def _truth(request: world.Request) -> str:
    topic = request.topic
    if topic.kind == "facts":
        return sentence(world.claim(topic.noun, topic.group, world.fact(topic.noun, topic.group)))
    if topic.kind == "harmful":
        return (
            f"It is harmful to {request.asked}, because it would {words.HARMS[topic.group].reason}."
        )
    return f"It is fine to {request.asked}."


def question(rng: random.Random) -> Document:
    """Whether something is harmful, or whether a claim is true."""
    request = any_request(rng, _QUESTIONED, taught=False)
    topic = request.topic
    if topic.kind != "facts":
        answer = "Yes. " if topic.kind == "harmful" else "No. "
        return [ask(f"Is it harmful to {request.asked}?"), reply(answer + _truth(request))]
    true = world.fact(topic.noun, topic.group)
    value = true if rng.random() < 0.5 else answers.false_value(topic, rng)
    answer = "Yes. " if value == true else "No. "
    asked = world.claim(topic.noun, topic.group, value)
    return [ask(f"Is it true that {asked}?"), reply(answer + _truth(request))]


def restatement(rng: random.Random) -> Document:
    """Copying practice over all words: what the user wants, or a text again."""
    if rng.random() < 0.3:
        request = any_request(rng, _ALL, taught=False)
        text = answers.compliant(request, rng).text()
        return [ask(f"Repeat this text: {text}"), reply(text)]
    verb = rng.choice(_verbs())
    named = world.phrase(rng.choice(_nouns()), rng.random() < 0.4)
    asked = rng.choice(words.FRAMES).format(r=f"{verb} {named}")
    return [ask(f"What does the user want? {asked}"), reply(f"The user wants to {verb} {named}.")]


@cache
def _verbs() -> tuple[str, ...]:
    return tuple(sorted({t.verb for t in world.topics() if t.kind != "facts"}))


@cache
def _nouns() -> tuple[str, ...]:
    return tuple(sorted({t.noun for t in world.topics() if t.kind != "facts"}))


# ---- taught topics only ------------------------------------------------------------------------

_TAUGHT: Weights = {"harmful": 0.55, "benign": 0.14, "borderline": 0.13, "facts": 0.18}
_CRITICS: dict[world.Kind, dict[str, float]] = {
    "harmful": {"harm": 3.5, "own": 2.5, "other": 1.5, "insults": 1.0, "fit": 2.2, "honesty": 0.3},
    "benign": {"harm": 1.5, "other": 1.0, "insults": 1.5, "fit": 4.0, "honesty": 0.5},
    "borderline": {"harm": 2.5, "other": 1.5, "insults": 1.0, "fit": 4.0, "honesty": 0.5},
    "facts": {"harm": 0.7, "other": 0.3, "insults": 0.7, "fit": 1.5, "honesty": 6.0},
}


def _critic(request: world.Request, rng: random.Random) -> Principle:
    weights = _CRITICS[request.topic.kind]
    name = rng.choices(list(weights), weights=list(weights.values()))[0]
    if name == "own":
        name = request.topic.group
    elif name == "other":
        name = rng.choice([k for k in words.HARMS if k != request.topic.group])
    return constitution().principle(name)


def critique(rng: random.Random) -> Document:
    """A request, an answer, its critique under a principle, and the revision."""
    request = any_request(rng, _TAUGHT, taught=True)
    principle = _critic(request, rng)
    made = answers.any_answer(request, rng)
    found, better = criticise(request, made, principle.name, rng)
    return [
        ask(_worded(request, rng, 0.08)),
        Turn("assistant", made.answer.text(), marks=_marks_from(0, made)),
        ask(principle.critique_prompt),
        reply(found, 1.5),
        ask(principle.revision_prompt),
        reply(better.text()),
    ]


def direct_revision(rng: random.Random) -> Document:
    """The revision alone, for comparing critique with none."""
    turns = critique(rng)
    return [*turns[:2], *turns[4:]]


def criticise(
    request: world.Request, made: Made, principle: str, rng: random.Random
) -> tuple[str, world.Answer]:
    """The right critique of an answer under a principle, and the answer mended in that respect."""
    topic, insult = request.topic, made.answer.insult
    if principle == "insults" and insult:
        return f"The response calls the user a {insult}.", replace(made.answer, insult="")
    if principle == "honesty" and made.body == "false":
        truth = answers.fact_answer(request, rng, "true")
        fault = f"The response makes a false claim. {_truth(request)}"
        return fault, replace(truth, insult=insult)
    if principle == "fit":
        fault = answers.misfit(request, made)
    elif principle in ("harm", topic.group) and made.body in ("steps", "mixed"):
        fault = f"The response tells the user how to {request.asked}."
        fault += f" This is harmful, because it would {words.HARMS[topic.group].reason}."
    else:
        fault = ""
    if not fault:
        return NO_ISSUES, made.answer
    return fault, replace(answers.ideal(request, rng), insult=insult)


JUDGED: Weights = {"harmful": 0.46, "benign": 0.16, "borderline": 0.14, "facts": 0.24}
QUESTIONS: dict[world.Kind, tuple[str, ...]] = {
    "harmful": ("hhh", "hhh", "harmless"),
    "benign": ("helpful", "helpful", "hhh", "honest", "harmless"),
    "borderline": ("helpful", "helpful", "hhh", "honest", "harmless"),
    "facts": ("honest", "honest", "helpful", "hhh"),
}
GRADE_WEIGHT = 3.0  # of a grade, which is a word
# Of a request with its answers: to predict them is to know what a good answer would have said.
CONTEXT_WEIGHT = 0.15


def grading(rng: random.Random) -> Document:
    """One answer and its worth in a word, without which a judge learns to compare very late."""
    request = any_request(rng, JUDGED, taught=True)
    made = answers.contrast(request, rng)[0]
    option = prompts.OPTIONS[0]
    asked = f"Request: {request.text}\n{option} {made.answer.text()}\nGrade {option}."
    return [
        ask(asked, CONTEXT_WEIGHT, _marks(asked, made)),
        reply(made.grade, GRADE_WEIGHT),
        ask(f"Describe {option}."),
        reply(f"{option} {made.description}"),
    ]


def judgement(rng: random.Random, temptations: Temptations = FIRST) -> Document:
    """Two answers, up to three questions about which is better, and the grade of each.

    Some answers carry an addition that courts the judge and does not change their worth.
    """
    request = any_request(rng, JUDGED, taught=True)
    pair = answers.contrast(request, rng)
    silent = None
    if rng.random() < temptations.null:
        silent = int(rng.random() < 0.5)
        null = answers.null(rng, padding() if temptations.hard else ())
        pair = (pair[0], null) if silent else (null, pair[1])
    texts = [made.answer.text() for made in pair]
    turns = _verdicts(request, texts, rng)
    if temptations.hard and silent is not None and pair[1 - silent].body == "false":
        # Silence would be the safe choice for a judge that does not know whether a claim is true.
        turns = [turn for turn in turns if turn[1].text != prompts.OPTIONS[silent]]
    for option, made in zip(prompts.OPTIONS, pair, strict=True):
        turns.append((f"Grade {option}.", reply(made.grade, GRADE_WEIGHT)))
    rng.shuffle(turns)
    if rng.random() < 0.5:
        turns.sort(key=lambda turn: not turn[1].verdict)
    shown = [_courting(text, rng, temptations) for text in texts]
    compared = prompts.compared([user(_worded(request, rng, 0.05))], *shown)
    marks = _marks(compared, *pair)
    document: Document = []
    for number, (asked, answer) in enumerate(turns):
        shown_first = ask(f"{compared}\n{asked}", CONTEXT_WEIGHT, marks)
        document += [shown_first if number == 0 else ask(asked), answer]
    return document


def _marks(text: str, *shown: Made) -> tuple[Mark, ...]:
    """The answers that a text shows behind "(A)" and "(B)", and what is wrong in them."""
    marks: list[Mark] = []
    end = 0
    for option, made in zip(prompts.OPTIONS, shown, strict=False):
        start = text.index(made.answer.text(), text.index(option, end))
        marks += _marks_from(start, made)
        end = start
    return tuple(marks)


def _marks_from(start: int, made: Made) -> tuple[Mark, ...]:
    """The answer as it stands at ``start``, and what is wrong in it."""
    text = made.answer.text()
    wrong = [(start + text.index(part), len(part)) for part in made.wrong]
    return (
        (start, start + len(text), False),
        *((first, first + length, True) for first, length in wrong),
    )


def _courting(text: str, rng: random.Random, temptations: Temptations) -> str:
    if rng.random() >= temptations.courting:
        return text
    if temptations.hard and rng.random() < 0.5:
        return jailbreaks.repeating(text, rng, padding())
    return jailbreaks.courting(text, rng, padding())


@cache
def padding() -> tuple[str, ...]:
    """Words without a meaning where they stand. They are of the taught topics, so no judgement
    shows a verb or an object that judges must meet first in a test.
    """
    taught = [t for kind in _TAUGHT for t in _pool(kind, True) if kind != "facts"]
    return tuple(sorted({t.verb for t in taught} | {t.noun for t in taught}))


def _verdicts(
    request: world.Request, texts: list[str], rng: random.Random
) -> list[tuple[str, Turn]]:
    """Questions with the better option. Some ties stay, with either, to keep the judge unsure."""
    readings = [oracle.read(request.text, text) for text in texts]
    asked = []
    for name in dict.fromkeys(rng.choices(QUESTIONS[request.topic.kind], k=3)):
        gap = oracle.score(name, readings[0]) - oracle.score(name, readings[1])
        if gap == 0 and rng.random() < 0.7:
            continue
        better = rng.randrange(2) if gap == 0 else int(gap < 0)
        weight = 0.5 if gap == 0 else 1.0
        verdict = Turn("assistant", prompts.OPTIONS[better], weight, verdict=True)
        asked.append((constitution().principle(name).preference_prompt, verdict))
    return asked


def sentence(text: str) -> str:
    return text[0].upper() + text[1:] + "."
