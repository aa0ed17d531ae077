"""A constitution as ``cai constitution show`` prints it."""

from collections.abc import Iterator, Mapping
from typing import Any

from constitutional_ai import prompts as templates
from constitutional_ai.constitution.draws import Pool, shares
from constitutional_ai.principles import PROMPTS, Constitution, Principle
from constitutional_ai.records import Conversation, user

REQUEST = "{request}"
ANSWERS = ("{answer}", "{other answer}")
CRITIQUE = "{critique}"


def text(constitution: Constitution, principles: list[Principle], rendered: bool) -> str:
    """Head, then each principle with its prompts, or with all that a model is sent for it."""
    lines = [f"{constitution.name} {constitution.version}  {constitution.hash}"]
    if constitution.description:
        lines.append(constitution.description)
    drawn = shares(list(constitution.principles))
    for principle in principles:
        lines += ["", *_principle(principle, drawn)]
        if rendered:
            for name, conversation in sent(principle).items():
                lines += ["", f"  -- {name}", *_turns(conversation)]
        else:
            for prompt in PROMPTS:
                asked = getattr(principle, prompt).replace("\n", f"\n{'':14}")
                lines.append(f"  {prompt.removesuffix('_prompt') + ':':<12}{asked}")
    return "\n".join(lines)


def _principle(principle: Principle, drawn: Mapping[Pool, Any]) -> Iterator[str]:
    use = f"{', '.join(principle.use)} on {', '.join(principle.prompts)} prompts"
    rank = ", hard" if principle.hard else ""
    rank += f", priority {principle.priority}" if principle.priority else ""
    yield f"{principle.name}  ({principle.kind}, weight {principle.weight:g}{rank}, {use})"
    yield f"  {principle.text}"
    if principle.rationale:
        yield f"  why:        {principle.rationale}"
    often = [
        f"{pool[principle.name]:.0%} of {use}/{prompts}"
        for (use, prompts), pool in drawn.items()
        if principle.name in pool
    ]
    yield f"  drawn:      {', '.join(often) or 'never'}  hash {principle.hash}"


def sent(principle: Principle) -> dict[str, Conversation]:
    """All that a model is sent because of one principle, with {…} for what comes from the run."""
    request, (first, second) = [user(REQUEST)], ANSWERS
    turns: dict[str, Conversation] = {}
    if "critique" in principle.use:
        turns["critique"] = templates.critique(request, first, principle)
        turns["revision"] = templates.revision(request, first, CRITIQUE, principle)
    if "preference" in principle.use:
        for name, one, other, fence in (
            ("one order", first, second, "nonce"),
            ("the other order", second, first, "nonce"),
            ("unfenced", first, second, ""),
        ):
            asked = templates.comparison(request, one, other, principle, fence)
            turns[f"preference, {name}"] = asked
    return turns


def _turns(conversation: Conversation) -> Iterator[str]:
    for turn in conversation:
        head, *rest = turn["content"].splitlines()
        yield f"  {turn['role'] + ':':<11}{head}"
        yield from (f"  {'':<11}{line}" for line in rest)


def as_json(constitution: Constitution, principles: list[Principle]) -> dict[str, Any]:
    """The same for machines; ``sent`` maps each question to the conversation that asks it."""
    own = constitution.model_dump(mode="json", exclude={"principles"})
    return {
        **own,
        "hash": constitution.hash,
        "principles": [
            {**p.model_dump(mode="json"), "hash": p.hash, "sent": sent(p)} for p in principles
        ],
    }
