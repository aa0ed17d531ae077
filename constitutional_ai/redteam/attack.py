"""The attacks of a campaign: what is sent to which model, and what it answers."""

from collections.abc import Callable, Sequence
from itertools import groupby

from constitutional_ai.data.requests import Kind
from constitutional_ai.engines.base import Engine
from constitutional_ai.records import Conversation, Row
from constitutional_ai.redteam.plan import Item, Plan, disguised
from constitutional_ai.redteam.search import Hunt, Search
from constitutional_ai.store.failures import Failed
from constitutional_ai.store.seeds import derive_seed

Open = Callable[[str], Engine]
Hunter = Callable[[str], Search]  # a search by its name


class Attempt(Row):
    """One attack and the answer. ``request`` is the plain request, ``prompt`` what was sent.

    ``tries`` counts the messages of a search, of which this is the best by the judge; ``note`` says
    why a search sent none, and such a row is unread.
    """

    model: str
    family: str
    category: str
    kind: Kind
    request_id: str
    request: Conversation
    prompt: Conversation
    answer: str
    finished: bool
    tries: int = 1
    note: str = ""


def answers(
    plan: Plan, items: Sequence[Item], open_engine: Open, hunter: Hunter | None, seed: int
) -> list[Attempt | Failed]:
    """Every item's answer, in order; Failed where the target could not be asked."""
    made: list[Attempt | Failed] = []
    for (model, family), group in groupby(items, lambda item: (item.model, item.family)):
        engine, asked = open_engine(plan.models[model]), list(group)
        own = derive_seed(seed, model, family.name)
        if family.kind == "search":
            assert hunter is not None
            made += _hunted(plan, engine, asked, hunter(family.name), own)
        else:
            made += _answered(plan, engine, asked, own)
    return made


def _answered(
    plan: Plan, engine: Engine, items: Sequence[Item], seed: int
) -> list[Attempt | Failed]:
    prompts = [disguised(item, plan.seed) for item in items]
    replies = engine.generate(prompts, plan.sampling(seed))
    return [
        Failed(id=item.id, reason=reply.failed, unfit=reply.unfit)
        if reply.failed
        else _attempt(item, prompt, reply.text, reply.finished)
        for item, prompt, reply in zip(items, prompts, replies, strict=True)
    ]


def _hunted(
    plan: Plan, engine: Engine, items: Sequence[Item], hunter: Search, seed: int
) -> list[Attempt | Failed]:
    def ask(conversations: Sequence[Conversation], turn: int) -> list[str | None]:
        replies = engine.generate(conversations, plan.sampling(turn)) if conversations else []
        return [None if reply.failed else reply.text for reply in replies]

    hunts = hunter.run([item.request.prompt for item in items], ask, seed)
    return [_of_hunt(item, hunt) for item, hunt in zip(items, hunts, strict=True)]


def _of_hunt(item: Item, hunt: Hunt) -> Attempt | Failed:
    best = hunt.best
    if best is None and hunt.failed:
        return Failed(id=item.id, reason="the target failed")
    if best is None:
        nothing = _attempt(item, hunt.request, "", True, 0)
        return nothing.model_copy(update={"note": "no usable message from the attacker"})
    prompt: Conversation = [*hunt.request[:-1], {"role": "user", "content": best.attack}]
    return _attempt(item, prompt, best.answer, True, len(hunt.tries))


def _attempt(
    item: Item, prompt: Conversation, answer: str, finished: bool, tries: int = 1
) -> Attempt:
    return Attempt(
        id=item.id,
        model=item.model,
        family=item.family.name,
        category=item.request.category,
        kind=item.request.kind,
        request_id=item.request.id,
        request=item.request.prompt,
        prompt=prompt,
        answer=answer,
        finished=finished,
        tries=tries,
    )
