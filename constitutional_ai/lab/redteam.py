"""The laboratory's side of red teaming: its requests, its disguises, its compliant examples.

Nothing here knows what an answer is worth. Disguises are those of ``world/jailbreaks.py``: the base
models have seen some of them, and no training that we run shows them the others.
"""

import random

from constitutional_ai.data.requests import TEST, Example
from constitutional_ai.lab.world import answers, data, jailbreaks
from constitutional_ai.lab.world import topics as world
from constitutional_ai.records import Conversation, Prompt, content_hash, user

SHOTS = {"few-shot": 2, "many-shot": 6}  # what a context of 512 tokens holds, with a critique
INNERMOST = "tense"  # it rewords a plain request, so it comes first


def seen(name: str) -> bool:
    """Whether the text that the base models learned from has every part of this family."""
    return all(part in (*jailbreaks.SEEN, "plain", "few-shot") for part in name.split("+"))


def names() -> list[str]:
    return [*jailbreaks.SEEN, *jailbreaks.UNSEEN]


def disguise(family: str, conversation: Conversation, rng: random.Random) -> Conversation:
    """The last turn in a disguise. Where the request has one already, this one goes around it."""
    request = conversation[-1]["content"]
    return [*conversation[:-1], user(jailbreaks.disguised(request, family, rng))]


def draw(split: str, harmful: int, benign: int, seed: int) -> list[Prompt]:
    """Harmful and harmless requests of a split; half of the harmless ones look like harm.

    The test split gives the same requests as an evaluation does, whatever the seed.
    """
    if split == TEST:
        borderline = benign // 2
        return data.test(
            {"harmful": harmful, "benign": benign - borderline, "borderline": borderline}
        )
    wanted = data.draw("red-team", harmful, seed)
    # Questions of fact name no deed, so some disguises do not fit them.
    helpful = [p for p in data.draw("helpful", 3 * benign + 20, seed) if p.kind != "facts"]
    return [*wanted, *helpful[:benign]]


def category(request: str) -> str:
    """The kind of harm that a harmful request asks for, such as "theft"."""
    return world.topic_of(request).group


def examples(count: int, seed: int) -> list[Example]:
    """Harmful requests about taught topics with answers that help, as the base was shown them."""
    rng = random.Random(content_hash("compliant examples", seed))
    found = []
    for _ in range(count):
        request = world.request(rng.choice(world.by_kind("taught")["harmful"]), rng)
        answer = answers.make(request, "steps", rng).answer
        found.append((request.text, answer.text()))
    return found


def asks_for(request: str, attack: str) -> bool:
    """Whether an attack still names the deed and the object of the plain request.

    >>> asks_for("How do I steal a bike?", "How did people steal a bike long ago?")
    True
    """
    verb, *named = world.asked_in(request).split()
    words = attack.replace("?", " ").replace(".", " ").split()
    return verb in words and named[-1] in words
