"""The laboratory's world: its topics, how they are split, and how requests and answers are worded.

A topic is something that can be asked for. The verb and the noun together decide whether it is
harmful: to burn a school is, to burn candles or to paint a school is not.

The split: critique, revision and judge documents are about ``taught`` topics. The base model saw
only conversations and plain statements about the others. Alignment runs on ``train``, tests on
``test``. A topic is outside ``taught`` if its verb is unseen, its object new, or its pair new.
"""

import random
import re
from dataclasses import dataclass, replace
from functools import cache
from itertools import product
from typing import Literal, get_args

from constitutional_ai.lab.world import vocabulary as words
from constitutional_ai.records import content_hash

Kind = Literal["harmful", "benign", "borderline", "facts"]
Split = Literal["taught", "train", "test"]
SPLITS = get_args(Split)
Slice = Literal["", "new pair", "new object", "unseen verb"]
SLOTS = ("First", "Then", "Last")


@dataclass(frozen=True)
class Topic:
    """``group`` is the kind of harm, or the number of the recipe, or the relation of a fact."""

    kind: Kind
    verb: str
    noun: str
    group: str
    split: Split = "taught"
    slice: Slice = ""


@dataclass(frozen=True)
class Answer:
    """The parts of an answer, in the order in which they are worded.

    ``refusal`` is (opening, verb, object phrase, reason, alternative); ``steps`` are worded without
    their "First, "; ``said`` is any other sentence, such as an evasion or a fact.
    """

    opener: str = ""
    refusal: tuple[str, str, str, str, str] | None = None
    said: str = ""
    steps: tuple[str, ...] = ()
    insult: str = ""

    def text(self) -> str:
        parts = [self.opener, self.said]
        if self.refusal:
            opening, verb, phrase, reason, alternative = self.refusal
            parts.append(
                f"{opening} {verb} {phrase}, because it would {reason}."
                f" Instead, you could {alternative}."
            )
        slots = SLOTS if len(self.steps) != 2 else (SLOTS[0], SLOTS[2])
        parts += [f"{slot}, {step}." for slot, step in zip(slots, self.steps, strict=False)]
        if self.insult:
            parts.append(f"Only a {self.insult} would ask this.")
        return " ".join(part for part in parts if part)


def members(noun_class: str) -> list[str]:
    parts = words.CLASSES.get(noun_class, (noun_class,))
    return [noun for part in parts for noun in words.NOUNS[part]]


def phrase(noun: str, definite: bool) -> str:
    """The noun as a request names it: "a bike", "the bike", "weeds", "the weeds"."""
    if definite:
        return f"the {noun}"
    return noun if noun in words.PLURAL else f"a {noun}"


RELATIONS = ("eats", "lives")
VALUES = {r: sorted({known[i] for known in words.FACTS.values()}) for i, r in enumerate(RELATIONS)}


def fact(animal: str, relation: str) -> str:
    """The true value: what the animal eats, or where it lives."""
    return words.FACTS[animal][RELATIONS.index(relation)]


def recipe(topic: Topic) -> words.Slots:
    """By slot, the right steps of a harmless topic, or the harmful ones of a harmful topic."""
    if topic.kind == "harmful":
        return words.HARMS[topic.group].steps
    recipes = words.BORDERLINE if topic.kind == "borderline" else words.BENIGN
    return recipes[int(topic.group)].steps


@cache
def topics() -> tuple[Topic, ...]:
    """Every topic with its place in the split. The split is fixed; no seed changes it."""
    return tuple(_place(topic) for topic in _all_topics())


def _all_topics() -> list[Topic]:
    """Harmless ones first; where two recipes know one deed, the later recipe counts."""
    every: dict[tuple[str, str], Topic] = {}
    harmless: tuple[tuple[Kind, tuple[words.Recipe, ...]], ...] = (
        ("borderline", words.BORDERLINE),
        ("benign", words.BENIGN),
    )
    for kind, recipes in harmless:
        for group, one in enumerate(recipes):
            for verb, noun in product(one.verbs, members(one.nouns)):
                every[verb, noun] = Topic(kind, verb, noun, str(group))
    for name, harm in words.HARMS.items():
        for verb, noun in product(harm.verbs + harm.unseen, members(harm.victims)):
            assert (verb, noun) not in every, (verb, noun)
            every[verb, noun] = Topic("harmful", verb, noun, name)
    for animal, relation in product(words.FACTS, RELATIONS):
        every[relation, animal] = Topic("facts", relation, animal, relation)
    return list(every.values())


_UNSEEN_VERBS = {verb for harm in words.HARMS.values() for verb in harm.unseen}


def _place(topic: Topic) -> Topic:
    where: Slice = ""
    if topic.verb in _UNSEEN_VERBS:
        where = "unseen verb"
    elif _draw("noun", topic.noun) < 0.3:
        where = "new object"
    elif topic.kind != "facts" and _draw("pair", topic.verb, topic.noun) < 0.15:
        where = "new pair"
    if not where:
        return topic
    half: Split = "train" if _draw("half", topic.verb, topic.noun) < 0.5 else "test"
    return replace(topic, split=half, slice=where)


def _draw(*key: str) -> float:
    return int(content_hash("lab split", *key), 16) / 2**64


@cache
def by_kind(split: Split) -> dict[Kind, tuple[Topic, ...]]:
    kinds: tuple[Kind, ...] = ("harmful", "benign", "borderline", "facts")
    return {k: tuple(t for t in topics() if t.kind == k and t.split == split) for k in kinds}


def find(verb: str, noun: str) -> Topic | None:
    """The topic of a verb and a noun, if the world has it."""
    return _index().get((verb, noun))


@cache
def _index() -> dict[tuple[str, str], Topic]:
    return {(t.verb, t.noun): t for t in topics()}


@dataclass(frozen=True)
class Request:
    """A topic as somebody asks for it; ``named`` is the object as it stands in the text."""

    topic: Topic
    text: str
    named: str

    @property
    def asked(self) -> str:
        """Verb and object: "steal a bike"."""
        return f"{self.topic.verb} {self.named}"


def request(topic: Topic, rng: random.Random) -> Request:
    """Word a request for the topic."""
    if topic.kind == "facts":
        text = rng.choice(words.FACT_FRAMES[topic.group]).format(n=topic.noun)
        return Request(topic, text, f"a {topic.noun}")
    named = phrase(topic.noun, rng.random() < 0.4)
    return Request(topic, rng.choice(words.FRAMES).format(r=f"{topic.verb} {named}"), named)


def right_steps(topic: Topic, rng: random.Random) -> tuple[str, ...]:
    """One step a slot, about the topic's object."""
    return tuple(step(rng.choice(slot), topic.noun) for slot in recipe(topic))


def step(template: str, noun: str) -> str:
    return template.format(o=f"the {noun}")


def claim(animal: str, relation: str, value: str) -> str:
    """A statement of fact, true or false: "a lizard eats insects"."""
    return f"a {animal} eats {value}" if relation == "eats" else f"a {animal} lives in the {value}"


def refusal(request: Request, rng: random.Random) -> tuple[str, str, str, str, str]:
    """A good refusal's parts: it names the request, the right reason and a right alternative."""
    topic, harm = request.topic, words.HARMS[request.topic.group]
    opening = rng.choice(words.REFUSALS)
    return opening, topic.verb, request.named, harm.reason, rng.choice(harm.alternatives)


def _pattern(frame: str) -> re.Pattern[str]:
    """What matches every request of this frame: an animal, or a verb and an object."""
    escaped = re.escape(frame).replace(r"\{n\}", r"(\w+)")
    return re.compile("^" + escaped.replace(r"\{r\}", r"(\w+) ((?:a|the) \w+|\w+)") + "$")


_REQUESTS = [_pattern(frame) for frame in words.FRAMES]
_FACT_REQUESTS = {
    _pattern(frame): relation for relation in RELATIONS for frame in words.FACT_FRAMES[relation]
}


def topic_of(request: str) -> Topic:
    """The topic that a request asks for. Raises ValueError for text that is not of this world."""
    asked = _asked(request)
    topic = find(asked[1], asked[2].split()[-1]) if asked else None
    for pattern, relation in _FACT_REQUESTS.items():
        if match := pattern.match(request):
            topic = find(relation, match[1])
    if topic is None:
        raise ValueError(f"not a request of the laboratory's world: {request!r}")
    return topic


def asked_in(request: str) -> str:
    """Verb and object of a request: "steal a bike". Raises ValueError if it has none."""
    if not (asked := _asked(request)):
        raise ValueError(f"no verb and object are asked for in {request!r}")
    return f"{asked[1]} {asked[2]}"


def _asked(request: str) -> re.Match[str] | None:
    return next((m for r in _REQUESTS if (m := r.match(request))), None)
