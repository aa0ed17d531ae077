"""Documents for the end of a judge's training: what tempts it, and what it cannot know (LOG.md).

Judgements in which far more answers say nothing, plead or pad; choices between two claims, on every
animal of the world; and claims about animals with invented names. Of taught animals a judge knows
the facts, so it withstands every temptation there without having learnt to: only where nothing can
be known does it learn what to do when it does not know.

What it learns to do there is a taste, and depends on the mix: shown only plain claims that win, it
takes the plainer of two whenever it is in doubt. So there are three mixes, one for a run.
"""

import random
from dataclasses import dataclass
from functools import partial

from constitutional_ai import prompts
from constitutional_ai.lab import answers, corpus, world
from constitutional_ai.lab.corpus import Document, Temptations, Turn
from constitutional_ai.records import user


@dataclass(frozen=True)
class Mix:
    """What a run is shown; all are shares.

    ``unknown``: of documents, those about animals that nobody has heard of. Of these ``silent``
    against an answer that says nothing, where the claim carries a plea or padding in ``carried``;
    in the others, between two claims of which one carries it, the plain one wins in ``plain``.
    ``courting`` of the answers in other judgements carry it, too. ``repeated``: of all that is
    carried, the padding that goes on and on.
    """

    unknown: float
    silent: float
    carried: float
    plain: float
    courting: float
    repeated: float

    @property
    def temptations(self) -> Temptations:
        """Those of its judgements."""
        return Temptations(_NULL, self.courting, self.repeated, hard=True)


_NULL = 0.2
MIXES = (
    Mix(unknown=0.14, silent=0.5, carried=0.0, plain=1.0, courting=0.3, repeated=0.5),
    Mix(unknown=0.07, silent=0.65, carried=0.5, plain=1.0, courting=0.3, repeated=0.5),
    Mix(unknown=0.1, silent=0.5, carried=0.5, plain=0.75, courting=0.4, repeated=0.7),
)
_JUDGING = 0.56  # the share of judgements and of unknown animals together
_OTHERS = {
    "conversation": 0.08,
    "statement": 0.03,
    "question": 0.07,
    "choice": 0.1,
    "critique": 0.08,
    "grading": 0.08,
}
# The parts of an invented animal's name.
_SYLLABLES = (tuple("bdfgklmnprstvz"), tuple("aeiou"), tuple("bdgklmnprtvz"),
              ("a", "er", "il", "on", "u", "ox"), ("", "b", "k", "n", "t", "x"))  # fmt: skip


def documents(seed: int, count: int, mix: Mix = MIXES[0]) -> list[Document]:
    """``count`` documents, a pure function of ``seed``."""
    made: corpus.Makers = {
        **corpus.makers(mix.temptations),
        "choice": choice,
        "unknown": partial(unknown, mix=mix),
    }
    shares = {**_OTHERS, "judgement": _JUDGING - mix.unknown, "unknown": mix.unknown}
    return corpus.mixed(seed, count, shares, made)


def choice(rng: random.Random) -> Document:
    """Which of two claims is true: what a judge of facts has to know, in plain sentences."""
    topic = corpus.any_request(rng, {"facts": 1.0}, taught=False).topic
    values = [world.fact(topic.noun, topic.group), answers.false_value(topic, rng)]
    true = corpus.sentence(world.claim(topic.noun, topic.group, values[0]))
    rng.shuffle(values)
    first, second = (world.claim(topic.noun, topic.group, value) for value in values)
    return [corpus.ask(f"Which is true, that {first} or that {second}?"), corpus.reply(true)]


def unknown(rng: random.Random, mix: Mix) -> Document:
    """A claim about an animal that nobody has heard of, and an answer that says nothing, or another
    claim, one of the two with something added.

    What a judge knows to be true it prefers to either without being taught. Where it does not know,
    a claim is likelier to be right than silence, and none the better for what is added to it.
    """
    relation = rng.choice(world.RELATIONS)
    animal = "".join(rng.choice(part) for part in _SYLLABLES)
    request = world.request(world.Topic("facts", relation, animal, relation), rng)
    better, worse = (
        corpus.sentence(world.claim(animal, relation, value))
        for value in rng.sample(world.VALUES[relation], 2)
    )
    if rng.random() < mix.silent:
        worse = answers.null(rng, corpus.padding()).answer.said
        if rng.random() < mix.carried:
            better = corpus.court(better, rng, mix.repeated)
    elif rng.random() < mix.plain:
        worse = corpus.court(worse, rng, mix.repeated)
    else:
        better = corpus.court(better, rng, mix.repeated)
    place = rng.randrange(2)
    shown = (worse, better) if place else (better, worse)
    compared = prompts.compared([user(request.text)], *shown)
    document: Document = []
    for name in rng.sample(("honest", "helpful", "hhh"), 2):
        asked = corpus.constitution().principle(name).preference_prompt
        text = asked if document else f"{compared}\n{asked}"
        verdict = Turn("assistant", prompts.OPTIONS[place], 1.0, verdict=True)
        document += [corpus.ask(text, 0.0 if document else corpus.CONTEXT_WEIGHT), verdict]
    return document
