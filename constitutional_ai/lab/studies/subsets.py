"""Constitutions with some of a constitution's principles."""

from collections.abc import Iterable

from constitutional_ai.principles import Constitution, Principle, Use


def of_use(constitution: Constitution, use: Use) -> list[str]:
    """The names of the principles that are drawn in this phase."""
    return [p.name for p in constitution.principles if use in p.use]


def keeping(
    constitution: Constitution, use: Use, names: Iterable[str], everywhere: bool = False
) -> Constitution:
    """Of the principles of this phase only ``names``; the other phase keeps all of its own.

    ``everywhere``: they are drawn for every set of prompts. A principle of both phases that is not
    named stays in the other one. Exemplars and all else in the file stay.
    """
    kept = set(names)
    principles = [_kept(p, use, p.name in kept, everywhere) for p in constitution.principles]
    return constitution.model_copy(update={"principles": tuple(p for p in principles if p)})


def _kept(principle: Principle, use: Use, named: bool, everywhere: bool) -> Principle | None:
    if use not in principle.use:
        return principle
    if named:
        sets = ("red-team", "helpful") if everywhere else principle.prompts
        return principle.model_copy(update={"prompts": sets})
    others = tuple(one for one in principle.use if one != use)
    return principle.model_copy(update={"use": others}) if others else None
