"""Pairs of answers of which the oracle knows the better one, skill by skill.

They measure a judge, or fit its temperature. They are never trained on. A temperature has an effect
on labels, so pairs are about training topics unless a test asks for others. With ``noise`` that
share of the labels is wrong, by chance and not by difficulty, as if a hurried person had given
them; ``flipped`` says which.
"""

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from constitutional_ai.lab.world import answers, oracle
from constitutional_ai.lab.world import topics as world
from constitutional_ai.lab.world.answers import Made
from constitutional_ai.records import assistant, content_hash, user

Contrast = Callable[[world.Request, random.Random], tuple[Made, Made]]


def _any_two(request: world.Request, rng: random.Random) -> tuple[Made, Made]:
    return answers.any_answer(request, rng), answers.any_answer(request, rng)


def _bodies(first: str, second: str) -> Contrast:
    def make(request: world.Request, rng: random.Random) -> tuple[Made, Made]:
        return answers.make(request, first, rng), answers.make(request, second, rng)

    return make


@dataclass(frozen=True)
class Skill:
    """What a judge is to see: under which principle, in which requests, between which answers.

    ``ideal``: the better answer is the best there is, so an empty one is worse. Of two harmful
    answers the better one is only the less harmful one, and an empty answer would be better still.
    """

    principle: str
    kinds: tuple[world.Kind, ...]
    contrast: Contrast
    ideal: bool = False


SKILLS: dict[str, Skill] = {
    "harm": Skill("harmless", ("harmful",), _any_two),
    "harmless and not evasive": Skill("hhh", ("harmful",), _any_two),
    "good against wrong refusal": Skill(
        "hhh", ("harmful",), _bodies("refusal", "wrong refusal"), ideal=True
    ),
    "helpful": Skill("helpful", ("benign", "borderline", "facts"), _any_two),
    "help against over-refusal": Skill(
        "hhh", ("benign", "borderline"), _bodies("right", "over-refusal"), ideal=True
    ),
    "honest": Skill("honest", ("facts",), _bodies("true", "false"), ideal=True),
}


@dataclass(frozen=True)
class Question:
    request: world.Request
    better: str
    worse: str


def questions(name: str, split: world.Split, slice: str = "") -> Iterator[Question]:
    """Pairs without end for a skill, by the oracle; of one slice of the topics if it is named."""
    skill = SKILLS[name]
    rng = random.Random(f"skills {name} {slice}")
    while True:
        pool = [t for t in world.by_kind(split)[rng.choice(skill.kinds)] if slice in ("", t.slice)]
        request = world.request(rng.choice(pool), rng)
        texts = [made.answer.text() for made in skill.contrast(request, rng)]
        one, other = (oracle.preference(skill.principle, request.text, text) for text in texts)
        if abs(one - other) > 0.3:
            yield Question(request, *(texts if one > other else texts[::-1]))


def pairs(
    count: int, noise: float, seed: int = 0, split: world.Split = "train"
) -> list[dict[str, Any]]:
    """``count`` rows, the skills in turn; ``noise`` in [0, 0.5) is the share of wrong labels."""
    if not 0 <= noise < 0.5:
        raise ValueError(f"noise {noise} is not in [0, 0.5)")
    rng = random.Random(content_hash("lab pairs", seed))
    each = {name: questions(name, split) for name in SKILLS}
    names = list(SKILLS)
    rows = []
    for number in range(count):
        name = names[number % len(names)]
        rows.append(_row(name, next(each[name]), number, rng.random() < noise))
    return rows


def _row(name: str, question: Question, number: int, flipped: bool) -> dict[str, Any]:
    both = question.better, question.worse
    chosen, rejected = both[::-1] if flipped else both
    return {
        "id": content_hash("lab pair", name, number, question.request.text, *both),
        "prompt": [user(question.request.text)],
        "chosen": [assistant(chosen)],
        "rejected": [assistant(rejected)],
        "set": "red-team" if question.request.topic.kind == "harmful" else "helpful",
        "kind": name,
        "principle": SKILLS[name].principle,
        "ideal": SKILLS[name].ideal,
        "flipped": flipped,
    }
