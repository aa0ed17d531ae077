"""Lint: what is wrong with a constitution before any model reads it. Each rule is a pure function.

Not covered: whether a principle is wise, and whether a given model understands it; the latter is
what ``cai constitution test`` measures.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from constitutional_ai.constitution import pairs, structure, wording
from constitutional_ai.constitution.findings import SEVERITY, Finding
from constitutional_ai.constitution.similarity import embedded
from constitutional_ai.constitution.source import Draft, Ignore, read_draft

if TYPE_CHECKING:
    from constitutional_ai.engines.base import Engine


def lint(
    path: str | Path, engine: "Engine | None" = None, near: float | None = None
) -> list[Finding]:
    """Every finding in a constitution file that it does not ignore, by line.

    ``engine``, a local model, tells how alike two texts are; without one n-grams do. ``near`` is
    the similarity from which two principles are near-duplicates. Raises ConstitutionError where
    there is no such file; what is wrong inside it is a finding.
    """
    draft = read_draft(path)
    found = [*draft.problems, *wording.each(draft), *structure.whole(draft)]
    if engine is None:
        found += pairs.two(draft, near=near or pairs.NEAR)
    else:
        by_model = near or pairs.NEAR_EMBEDDED
        found += pairs.two(draft, lambda texts: embedded(engine, texts), by_model)
    return sorted(_heed(draft, found), key=lambda finding: (finding.line, finding.rule))


def _heed(draft: Draft, found: list[Finding]) -> Iterator[Finding]:
    """Leave out what the file ignores; add what is wrong with the ignoring itself."""
    silenced: set[tuple[int, str]] = set()
    for finding in found:
        ignores = [ignore for ignore in draft.ignores if _covers(ignore, finding)]
        if not ignores:
            yield finding
        silenced |= {(ignore.line, finding.rule) for ignore in ignores}
    for ignore in draft.ignores:
        for rule in ignore.rules:
            if rule not in SEVERITY:
                reason, fix = f"no rule is named {rule!r}", f"it is one of: {', '.join(SEVERITY)}"
                yield Finding("unknown-rule", draft.path, ignore.line, "", reason, fix)
            elif (ignore.line, rule) not in silenced:
                reason = f"nothing here breaks {rule!r}"
                yield Finding("unused-ignore", draft.path, ignore.line, "", reason, "delete it")


def _covers(ignore: Ignore, finding: Finding) -> bool:
    return finding.rule in ignore.rules and ignore.first <= finding.line <= ignore.last


def failed(found: list[Finding], strict: bool) -> bool:
    """Whether a check of these findings fails: on errors, under ``strict`` on warnings too."""
    return any(strict or finding.severity == "error" for finding in found)
