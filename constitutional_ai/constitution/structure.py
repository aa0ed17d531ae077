"""Lint rules about a constitution as a whole: phases, prompt sets, weights, names, kinds."""

from collections.abc import Iterator
from typing import get_args

from constitutional_ai.constitution.findings import Finding
from constitutional_ai.constitution.source import Draft, Drafted
from constitutional_ai.constitution.wording import names_alike
from constitutional_ai.principles import Principle, Use
from constitutional_ai.records import PromptSet

RARE, OFTEN = 0.005, 0.8  # of the draws of a phase and prompt set
ONE_SIDED_FROM = 4  # principles; fewer may well be of one kind

# The phases and prompt sets that a run draws for; a run stops where nothing can be drawn.
NEEDED: tuple[tuple[Use, PromptSet], ...] = (
    ("critique", "red-team"),
    ("preference", "red-team"),
    ("preference", "helpful"),
)


def shares(principles: list[Principle]) -> dict[tuple[Use, PromptSet], dict[str, float]]:
    """How often each principle is drawn first, by phase and prompt set."""
    found: dict[tuple[Use, PromptSet], dict[str, float]] = {}
    for use in get_args(Use):
        for prompts in get_args(PromptSet):
            pool = [p for p in principles if use in p.use and prompts in p.prompts]
            total = sum(p.weight for p in pool)
            found[use, prompts] = {p.name: p.weight / total for p in pool}
    return found


def whole(draft: Draft) -> Iterator[Finding]:
    """Every finding about the constitution as a whole."""
    if not draft.drafted:
        return
    yield from _names(draft)
    yield from _phases(draft)
    yield from _draws(draft)
    yield from _kinds(draft)


def _names(draft: Draft) -> Iterator[Finding]:
    for first, second in names_alike(draft.drafted):
        yield Finding(
            "name-collision",
            draft.path,
            second.at("name"),
            second.name,
            f"rows name principles, and line {first.at('name')} has {first.name!r} already",
            "rename one; case, hyphens, underscores and spaces do not tell names apart",
        )


def _phases(draft: Draft) -> Iterator[Finding]:
    principles = [drafted.principle for drafted in draft.drafted]
    pools = shares(principles)
    for use, prompts in NEEDED:
        if not pools[use, prompts]:
            yield Finding(
                f"no-{use}",
                draft.path,
                1,
                "",
                f"nothing can be drawn for {use} of {prompts} prompts, so a run stops there",
                f'give a principle use = ["{use}", …] and prompts = ["{prompts}", …]',
            )
    for drafted in draft.drafted:
        if len(set(drafted.principle.use)) == 1:
            (only,) = set(drafted.principle.use)
            other = "preference" if only == "critique" else "critique"
            yield Finding(
                "one-phase",
                draft.path,
                drafted.at("use"),
                drafted.name,
                f"is used for {only} alone: what the {_who(only)} looks for, no {_who(other)} does",
                f'add "{other}" to use; or say why: # lint: ignore one-phase: reason',
            )


def _who(use: str) -> str:
    return "critic" if use == "critique" else "judge"


def _draws(draft: Draft) -> Iterator[Finding]:
    pools = shares([drafted.principle for drafted in draft.drafted])
    for drafted in draft.drafted:
        drawn = {key: pool[drafted.name] for key, pool in pools.items() if drafted.name in pool}
        if not drawn:
            yield _of(
                draft,
                drafted,
                "never-drawn",
                "prompts" if drafted.principle.use else "use",
                "an empty `use` or `prompts` means that it is never drawn",
                "name a phase and a prompt set, or delete the principle",
            )
        elif max(drawn.values()) < RARE:
            most = max(drawn.values())
            yield _of(
                draft,
                drafted,
                "never-drawn",
                "weight",
                f"weight {drafted.principle.weight:g} gives it {most:.2%} of the draws",
                "raise its weight, or delete it",
            )
        for (use, prompts), share in drawn.items():
            if share > OFTEN and len(pools[use, prompts]) >= 3:
                yield _of(
                    draft,
                    drafted,
                    "drowns-others",
                    "weight",
                    f"takes {share:.0%} of the draws for {use} of {prompts} prompts",
                    "lower its weight, or delete those that hardly count",
                )
                break


def _kinds(draft: Draft) -> Iterator[Finding]:
    kinds = {drafted.principle.kind for drafted in draft.drafted}
    if len(draft.drafted) >= ONE_SIDED_FROM and len(kinds) == 1:
        (kind,) = kinds
        text = (
            "says only what to do: nothing rules out the faults that training finds"
            if kind == "do"
            else "says only what is ruled out: an answer that says nothing satisfies it"
        )
        other = "dont" if kind == "do" else "do"
        fix = f'add a principle of kind "{other}"'
        yield Finding(
            "one-sided",
            draft.path,
            1,
            "",
            f'all {len(draft.drafted)} principles are of kind "{kind}"; it {text}',
            fix,
        )


def _of(draft: Draft, drafted: Drafted, rule: str, field: str, reason: str, fix: str) -> Finding:
    return Finding(rule, draft.path, drafted.at(field), drafted.name, reason, fix)
