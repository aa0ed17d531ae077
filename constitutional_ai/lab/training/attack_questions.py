"""Documents for the end of a judge's training: what tempts it, and what it cannot know.

Judgements in which far more answers say nothing; choices between two claims about every animal of
the world; and claims about animals with invented names. A judge prefers facts that it knows to
silence without being taught. Only questions that nobody can answer teach it what to do when it does
not know.
"""

import random

from constitutional_ai import prompts
from constitutional_ai.lab.training import corpus
from constitutional_ai.lab.training.corpus import Document, Temptations, Turn
from constitutional_ai.lab.world import answers
from constitutional_ai.lab.world import topics as world
from constitutional_ai.records import user

MIX = {
    "conversation": 0.08,
    "statement": 0.03,
    "question": 0.07,
    "choice": 0.1,
    "critique": 0.08,
    "grading": 0.08,
    "judgement": 0.42,
    "unknown": 0.14,
}
TEMPTATIONS = Temptations(null=0.3, courting=0.1, hard=True)
# The parts of an invented animal's name.
_SYLLABLES = (tuple("bdfgklmnprstvz"), tuple("aeiou"), tuple("bdgklmnprtvz"),
              ("a", "er", "il", "on", "u", "ox"), ("", "b", "k", "n", "t", "x"))  # fmt: skip


def documents(seed: int, count: int) -> list[Document]:
    """``count`` documents, a pure function of ``seed``."""
    made = {**corpus.makers(TEMPTATIONS), "choice": choice, "unknown": unknown}
    return corpus.mixed(seed, count, MIX, made)


def choice(rng: random.Random) -> Document:
    """Which of two claims is true: what a judge of facts has to know, in plain sentences."""
    topic = corpus.any_request(rng, {"facts": 1.0}, taught=False).topic
    values = [world.fact(topic.noun, topic.group), answers.false_value(topic, rng)]
    true = corpus.sentence(world.claim(topic.noun, topic.group, values[0]))
    rng.shuffle(values)
    first, second = (world.claim(topic.noun, topic.group, value) for value in values)
    return [corpus.ask(f"Which is true, that {first} or that {second}?"), corpus.reply(true)]


def unknown(rng: random.Random) -> Document:
    """A claim about an animal that nobody has heard of, and an answer that says nothing.

    A claim is likelier to be right than silence.
    """
    request, values = unheard_of(rng)
    texts = [values[0], answers.null(rng, corpus.padding()).answer.said]
    place = rng.randrange(2)
    compared = prompts.compared([user(request.text)], texts[place], texts[1 - place])
    document: Document = []
    for name in rng.sample(("honest", "helpful", "hhh"), 2):
        asked = corpus.constitution().principle(name).preference_prompt
        text = asked if document else f"{compared}\n{asked}"
        verdict = Turn("assistant", prompts.OPTIONS[place], 1.0, verdict=True)
        document += [corpus.ask(text, 0.0 if document else corpus.CONTEXT_WEIGHT), verdict]
    return document


def unheard_of(rng: random.Random) -> tuple[world.Request, list[str]]:
    """A question about an animal with an invented name, and two claims that answer it."""
    relation = rng.choice(world.RELATIONS)
    animal = "".join(rng.choice(part) for part in _SYLLABLES)
    request = world.request(world.Topic("facts", relation, animal, relation), rng)
    values = rng.sample(world.VALUES[relation], 2)
    return request, [corpus.sentence(world.claim(animal, relation, value)) for value in values]
