"""Answers of every quality, made on purpose, for the corpus to show, criticise and compare."""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from constitutional_ai.lab.world import jailbreaks
from constitutional_ai.lab.world import topics as world
from constitutional_ai.lab.world import vocabulary as words
from constitutional_ai.lab.world.topics import Answer, Request

GRADES = {
    "steps": "harms", "mixed": "harms", "refusal": "fits", "right": "fits", "true": "fits",
    "wrong refusal": "errs", "wrong": "errs", "false": "errs", "missing": "lacks",
    "over-refusal": "refuses", "evasive": "evades", "off-topic": "strays",
}  # fmt: skip
NUMBERS = ("no", "one", "two", "three")


@dataclass(frozen=True)
class Made:
    """An answer, what its body is, and a description of it that goes on from "(A) ".

    ``wrong``: the parts of its text that do not belong in an answer to this request.
    """

    answer: Answer
    body: str
    description: str
    wrong: tuple[str, ...] = ()

    @property
    def grade(self) -> str:
        """The answer's worth in a word or two. A judge must see it before it can compare."""
        return GRADES[self.body] + (" rudely" if self.answer.insult else "")


def opener(request: Request, rng: random.Random) -> str:
    """Often an echo of the request, so a small model learns to copy names that it hardly knows."""
    draw = rng.random()
    if draw < 0.4:
        return f"Here is how to {request.asked}."
    return rng.choice(words.OPENERS) if draw < 0.7 else ""


def some_insult(rng: random.Random, share: float, taught: bool) -> str:
    if rng.random() >= share:
        return ""
    seen = not (not taught and rng.random() < 0.3)
    return rng.choice(words.INSULTS_SEEN if seen else words.INSULTS_UNSEEN)


def compliant(request: Request, rng: random.Random) -> Answer:
    """What a helpful-only model says: it complies, at times rudely, at times with a flaw."""
    topic = request.topic
    rude = some_insult(rng, 0.18, taught=False)
    if topic.kind == "facts":
        return replace(
            fact_answer(request, rng, "true" if rng.random() < 0.72 else "false"), insult=rude
        )
    if topic.kind == "harmful":
        count = rng.choices((3, 2, 1), weights=(0.78, 0.14, 0.08))[0]
        return Answer(opener(request, rng), steps=harmful_steps(request, rng, count), insult=rude)
    body = rng.choices(("right", "missing", "wrong"), weights=(0.82, 0.09, 0.09))[0]
    return replace(helpful_answer(request, rng, body), insult=rude)


def harmful_steps(request: Request, rng: random.Random, count: int) -> tuple[str, ...]:
    steps = world.right_steps(request.topic, rng)
    keep = sorted(rng.sample(range(3), count))
    return tuple(steps[i] for i in keep)


def helpful_answer(request: Request, rng: random.Random, body: str) -> Answer:
    """The three right steps, or two ("missing"), or two and one of another recipe ("wrong")."""
    steps = list(world.right_steps(request.topic, rng))
    if body == "missing":
        del steps[1]
    elif body == "wrong":
        slot = rng.randrange(3)
        steps[slot] = stray_step(request.topic, rng, slot, request.topic.noun)
    return Answer(opener(request, rng), steps=tuple(steps))


def stray_step(topic: world.Topic, rng: random.Random, slot: int, noun: str) -> str:
    """A step of another harmless recipe."""
    recipes = words.BENIGN + words.BORDERLINE
    own = world.recipe(topic)[slot] if topic.kind in ("benign", "borderline") else ()
    while True:
        template = rng.choice(rng.choice(recipes).steps[slot])
        if template not in own:
            return world.step(template, noun)


def fact_answer(request: Request, rng: random.Random, body: str) -> Answer:
    topic = request.topic
    true = world.fact(topic.noun, topic.group)
    value = true if body == "true" else false_value(topic, rng)
    text = world.claim(topic.noun, topic.group, value)
    return Answer(said=f"{rng.choice(('A', 'The'))}{text[1:]}.")


def false_value(topic: world.Topic, rng: random.Random) -> str:
    true = world.fact(topic.noun, topic.group)
    return rng.choice([v for v in world.VALUES[topic.group] if v != true])


def off_topic(request: Request, rng: random.Random) -> Answer:
    """Harmless steps that have nothing to do with the request, about its object or another one."""
    noun = request.topic.noun
    if request.topic.kind == "facts" or rng.random() < 0.5:
        noun = rng.choice(world.members(rng.choice(list(words.NOUNS))))
    steps = tuple(stray_step(request.topic, rng, slot, noun) for slot in range(3))
    return Answer(rng.choice((*words.OPENERS, "", "")), steps=steps)


def wrong_refusal(request: Request, rng: random.Random) -> tuple[Answer, str, tuple[str, ...]]:
    """A refusal of something else, for a wrong reason, or with a wrong alternative; a description
    of its fault; and the wrong words.
    """
    parts = list(world.refusal(request, rng))
    errors = rng.sample(("verb", "noun", "reason", "alternative"), rng.choice((1, 1, 1, 2)))
    group = request.topic.group
    if "verb" in errors:
        kind = group if rng.random() < 0.5 else rng.choice(list(words.HARMS))
        parts[1] = rng.choice([v for v in words.HARMS[kind].verbs if v != request.topic.verb])
    if "noun" in errors:
        nouns = world.members(words.HARMS[group].victims)
        noun = rng.choice([n for n in nouns if n != request.topic.noun])
        parts[2] = world.phrase(noun, request.named.startswith("the "))
    other = rng.choice([k for k in words.HARMS if k != group])
    if "reason" in errors:
        parts[3] = words.HARMS[other].reason
    if "alternative" in errors:
        parts[4] = rng.choice(words.HARMS[other].alternatives)
    if "verb" in errors or "noun" in errors:
        said = f"declines to {parts[1]} {parts[2]}, but the request is to {request.asked}."
    elif "reason" in errors:
        said = f"gives a wrong reason. It would {words.HARMS[group].reason}."
    else:
        said = f"offers an alternative that does not fit. To {request.asked} is {group}."
    slots = {"verb": 1, "noun": 2, "reason": 3, "alternative": 4}
    wrong = tuple(f" {parts[slots[error]]}" for error in errors)
    return Answer(refusal=(parts[0], parts[1], parts[2], parts[3], parts[4])), said, wrong


def over_refusal(request: Request, rng: random.Random) -> Answer:
    """A refusal of a harmless request, as if it did harm."""
    harm = words.HARMS[rng.choice(list(words.HARMS))]
    topic = request.topic
    named = request.asked.split(" ", 1)
    if topic.kind == "facts":
        named = [rng.choice(words.HARMS["violence"].verbs), request.named]
    opening = rng.choice(words.REFUSALS)
    instead = rng.choice(harm.alternatives)
    return Answer(refusal=(opening, named[0], named[1], harm.reason, instead))


def make(request: Request, body: str, rng: random.Random) -> Made:
    """An answer with this body. The bodies of a request depend on its kind: see BODIES."""
    topic = request.topic
    if body == "steps":
        steps = harmful_steps(request, rng, rng.choices((3, 2, 1), weights=(5, 2, 2))[0])
        answer = Answer(opener(request, rng), steps=steps)
        count = NUMBERS[len(steps)]
        return Made(answer, body, f"helps to {request.asked}, with {count} harmful steps.")
    if body == "mixed":
        steps = harmful_steps(request, rng, rng.choice((1, 2, 3)))
        answer = Answer(refusal=world.refusal(request, rng), steps=steps)
        return Made(answer, body, f"declines, but then helps to {request.asked}.")
    if body == "refusal":
        answer = Answer(refusal=world.refusal(request, rng))
        return Made(
            answer,
            body,
            f"declines to {request.asked} and says why. To {request.asked} is {topic.group}.",
        )
    if body == "wrong refusal":
        answer, said, wrong = wrong_refusal(request, rng)
        return Made(answer, body, said, wrong)
    if body == "over-refusal":
        return _all_wrong(over_refusal(request, rng), body, "declines a harmless request.")
    if body == "evasive":
        return _all_wrong(Answer(said=rng.choice(words.EVASIONS)), body, "evades the request.")
    if body == "off-topic":
        return _all_wrong(off_topic(request, rng), body, "is about something else.")
    if body in ("true", "false"):
        answer = fact_answer(request, rng, body)
        claim = world.claim(topic.noun, topic.group, world.fact(topic.noun, topic.group))
        verb = "is right" if body == "true" else "is false"
        wrong = (f" {answer.said.split()[-1]}",) if body == "false" else ()
        return Made(answer, body, f"{verb}, since {claim}.", wrong)
    answer = helpful_answer(request, rng, body)
    count = NUMBERS[3 if body == "right" else 2]
    own = {world.step(t, topic.noun) for slot in world.recipe(topic) for t in slot}
    wrong = tuple(step for step in answer.steps if step not in own) if body == "wrong" else ()
    return Made(answer, body, f"helps to {request.asked}, with {count} right steps.", wrong)


def _all_wrong(answer: Answer, body: str, description: str) -> Made:
    return Made(answer, body, description, (answer.text(),))


def null(rng: random.Random, words: Sequence[str] = ()) -> Made:
    """An answer that says nothing at all: one of a few or, with ``words``, often a random one."""
    said = rng.choice(jailbreaks.NULL_ANSWERS_SEEN)
    if words and rng.random() < 0.8:
        said = jailbreaks.nothing(rng, words)
    return _all_wrong(Answer(said=said), "off-topic", "is about something else.")


BODIES: dict[world.Kind, dict[str, float]] = {
    "harmful": {"steps": 0.36, "mixed": 0.06, "refusal": 0.22, "wrong refusal": 0.2,
                "evasive": 0.08, "off-topic": 0.08},
    "benign": {"right": 0.42, "missing": 0.13, "wrong": 0.13, "over-refusal": 0.12,
               "evasive": 0.08, "off-topic": 0.12},
    "borderline": {"right": 0.4, "missing": 0.12, "wrong": 0.12, "over-refusal": 0.2,
                   "evasive": 0.07, "off-topic": 0.09},
    "facts": {"true": 0.45, "false": 0.42, "over-refusal": 0.03,
              "evasive": 0.05, "off-topic": 0.05},
}  # fmt: skip


def any_answer(request: Request, rng: random.Random, rude: float = 0.18) -> Made:
    """An answer of any quality."""
    bodies = BODIES[request.topic.kind]
    made = make(request, rng.choices(list(bodies), weights=list(bodies.values()))[0], rng)
    return _with_insult(made, some_insult(rng, rude, taught=True))


def _with_insult(made: Made, insult: str) -> Made:
    if not insult:
        return made
    description = f"{made.description} It insults the user."
    return replace(made, answer=replace(made.answer, insult=insult), description=description)


# Contrasts that a judge of any pair would see too rarely to learn them.
_CONTRASTS: dict[world.Kind, tuple[tuple[str, str], ...]] = {
    "harmful": (("refusal", "wrong refusal"),) * 3 + (("refusal", "steps"),
               ("wrong refusal", "steps"), ("off-topic", "refusal"), ("off-topic", "evasive")),
    "benign": (("right", "missing"), ("right", "wrong"), ("right", "over-refusal"),
               ("wrong", "over-refusal"), ("right", "off-topic")),
    "borderline": (("right", "missing"), ("right", "wrong"), ("right", "over-refusal"),
                   ("wrong", "over-refusal"), ("right", "off-topic")),
    "facts": (("true", "false"),),
}  # fmt: skip


def contrast(request: Request, rng: random.Random) -> tuple[Made, Made]:
    """Two answers to compare: any two, or two of a contrast that matters; in random order."""
    kind = request.topic.kind
    if rng.random() < 0.4:
        return any_answer(request, rng), any_answer(request, rng)
    pair = [make(request, body, rng) for body in rng.choice(_CONTRASTS[kind])]
    pair = [_with_insult(made, some_insult(rng, 0.06, taught=True)) for made in pair]
    rng.shuffle(pair)
    return pair[0], pair[1]


def ideal(request: Request, rng: random.Random) -> Answer:
    """The answer that a helpful, honest and harmless assistant gives."""
    kind = request.topic.kind
    if kind == "harmful":
        return Answer(refusal=world.refusal(request, rng))
    if kind == "facts":
        return fact_answer(request, rng, "true")
    return helpful_answer(request, rng, "right")


def misfit(request: Request, made: Made) -> str:
    """How an answer fails to fit its request, "" if it fits. Other principles see harm."""
    flaws: dict[str, Callable[[], str]] = {
        "evasive": lambda: f"The response evades the request to {_asked(request)}.",
        "off-topic": lambda: f"The response is not about the request to {_asked(request)}.",
        "wrong refusal": lambda: f"The response {made.description.split(' It insults')[0]}",
        "over-refusal": lambda: (
            f"The response declines to {_asked(request)}, but this is harmless."
        ),
        "missing": lambda: f"The response misses a step to {_asked(request)}.",
        "wrong": lambda: f"The response has a wrong step to {_asked(request)}.",
    }
    return flaws[made.body]() if made.body in flaws else ""


def _asked(request: Request) -> str:
    topic = request.topic
    if topic.kind != "facts":
        return request.asked
    return (
        f"say what a {topic.noun} eats"
        if topic.group == "eats"
        else f"say where a {topic.noun} lives"
    )
