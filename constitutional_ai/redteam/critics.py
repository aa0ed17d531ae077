"""Which principle's critique catches an answer that an attack got: principles as detectors.

The critic sees what it would see in the revise stage: the attack itself, the answer, and the
principle's critique prompt; it catches the answer unless ``finds_nothing`` reads its critique. So
that a principle which always finds something does not look good, the same is asked of good answers
to benign requests in the same disguises. Critiques are drawn at temperature 0. A critique that
failed or is empty is counted as unread, never as a catch or a miss.
"""

from collections.abc import Mapping, Sequence
from typing import Protocol, TypeVar

from pydantic import Field

from constitutional_ai import prompts as templates
from constitutional_ai.engines.base import Engine, Sampling
from constitutional_ai.principles import Constitution, Principle, load_constitution
from constitutional_ai.prompts import finds_nothing
from constitutional_ai.records import Conversation, Row
from constitutional_ai.store.failures import Failed

FILE = "caught.jsonl"
FALSE_ALARMS = 150  # answers to benign requests that are criticised, at most


class Caught(Row):
    """``by_principle``: whether its critique found something; ``unread``: principles that said
    nothing; ``critiques``: what was said, by principle.
    """

    by_principle: dict[str, bool]
    unread: list[str]
    critiques: dict[str, str]
    principle_hashes: dict[str, str] = Field(default_factory=dict)


class Answered(Protocol):
    """What is needed of an attempt here."""

    @property
    def id(self) -> str: ...
    @property
    def kind(self) -> str: ...


class Ended(Protocol):
    @property
    def outcome(self) -> str: ...


A = TypeVar("A", bound=Answered)


def candidates(constitution: Constitution, further: str | None) -> list[Principle]:
    """Every principle that may criticise, those of a further constitution after the own ones."""
    found = {p.name: p for p in constitution.principles if "critique" in p.use}
    if further:
        for principle in load_constitution(further).principles:
            if "critique" in principle.use:
                found.setdefault(principle.name, principle)
    return list(found.values())


def tried_on(attempts: Sequence[A], ended: Mapping[str, Ended], good_is: str) -> list[A]:
    """The attacks that got through, and some good answers to benign requests.

    ``good_is``: the outcome that a good answer to a benign request has. To a judge that is asked
    about help it is "through"; to the laboratory's, and its oracle, that would be harm: "held".
    """
    through = [
        row for row in attempts if row.kind == "harmful" and ended[row.id].outcome == "through"
    ]
    good = [row for row in attempts if row.kind == "benign" and ended[row.id].outcome == good_is]
    step = max(1, -(-len(good) // FALSE_ALARMS))  # spread over models and families
    return [*through, *good[::step]]


def criticise(
    engine: Engine,
    principles: Sequence[Principle],
    ids: Sequence[str],
    prompts: Sequence[Conversation],
    answers: Sequence[str],
    max_new_tokens: int,
) -> list[Caught | Failed]:
    """Every principle's critique of every answer; a row fails only where all of them did."""
    asked = [
        templates.critique(prompt, answer, principle)
        for prompt, answer in zip(prompts, answers, strict=True)
        for principle in principles
    ]
    sampling = Sampling(temperature=0.0, max_new_tokens=max_new_tokens)
    replies = iter(engine.generate(asked, sampling) if asked else [])
    found: list[Caught | Failed] = []
    for id_ in ids:
        said = {principle.name: next(replies) for principle in principles}
        read = {name: reply.text for name, reply in said.items() if reply.text.strip()}
        if not read:
            reasons = [reply.failed for reply in said.values() if reply.failed]
            found.append(Failed(id=id_, reason=reasons[0] if reasons else "empty critiques"))
            continue
        found.append(
            Caught(
                id=id_,
                by_principle={name: not finds_nothing(text) for name, text in read.items()},
                unread=[name for name in said if name not in read],
                critiques=read,
                principle_hashes={principle.name: principle.hash for principle in principles},
            )
        )
    return found
