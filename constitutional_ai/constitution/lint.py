"""Lint: all that is wrong with a constitution file, found before any model reads it.

A comment ``# lint: ignore RULE, RULE: reason`` silences rules for the principle in whose table it
stands. Above the first principle it silences them for the whole file.
"""

import re
from bisect import bisect
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from constitutional_ai.constitution import rules
from constitutional_ai.constitution.rules import SEVERITY
from constitutional_ai.principles import Draft, read_draft
from constitutional_ai.toml_file import Finding

SHOWN = 50  # findings that are listed for people
_TABLE = re.compile(r"\s*\[\[\s*principle\s*\]\]")
_IGNORE = re.compile(r"\s*#\s*lint:\s*ignore\s+([\w\s,-]+?)\s*(?::.*)?$")


@dataclass(frozen=True)
class _Ignore:
    """``first`` to ``last`` are the lines whose findings it silences."""

    rule: str
    line: int
    first: int
    last: int

    def covers(self, finding: Finding) -> bool:
        return finding.rule == self.rule and self.first <= finding.line <= self.last


def lint(path: str | Path) -> list[Finding]:
    """Every finding in a constitution file that the file does not ignore, by line.

    Raises ConstitutionError where there is no such file. What is wrong in the file is a finding.
    """
    draft = read_draft(path)
    all_findings = [*draft.report.findings, *rules.findings(draft)]
    return sorted(_heed(draft, all_findings), key=lambda finding: (finding.line, finding.rule))


def failed(findings: Sequence[Finding], strict: bool) -> bool:
    """Whether a check with these findings fails: on errors, under ``strict`` on warnings too."""
    return any(strict or finding.severity == "error" for finding in findings)


def listing(findings: Sequence[Finding], files: Sequence[str]) -> str:
    """The findings for people, errors first where there are too many, and how many there are."""
    errors = sum(finding.severity == "error" for finding in findings)
    shown = set(sorted(findings, key=lambda finding: finding.severity)[:SHOWN])
    lines = [finding.text() for finding in findings if finding in shown]
    if len(findings) > SHOWN:
        lines.append(f"… and {len(findings) - SHOWN} more; --json lists all")
    lines.append(f"{errors} errors, {len(findings) - errors} warnings in {', '.join(files)}")
    return "\n".join(lines)


def _heed(draft: Draft, findings: Sequence[Finding]) -> Iterator[Finding]:
    """Leave out what the file ignores; add what is wrong with the ignoring itself."""
    ignores = list(_ignores(draft))
    used: set[_Ignore] = set()
    for finding in findings:
        covering = [ignore for ignore in ignores if ignore.covers(finding)]
        used.update(covering)
        if not covering:
            yield finding
    for ignore in ignores:
        if ignore.rule not in SEVERITY:
            rule, reason = "unknown-rule", f"no rule is named {ignore.rule!r}"
            fix = f"delete it; the rules are: {', '.join(SEVERITY)}"
        elif ignore not in used:
            rule, reason, fix = "unused-ignore", f"nothing here breaks {ignore.rule!r}", "delete it"
        else:
            continue
        yield Finding(rule, draft.report.path, ignore.line, "", reason, fix, SEVERITY[rule])


def _ignores(draft: Draft) -> Iterator[_Ignore]:
    lines = draft.file.lines
    starts = [number for number, line in enumerate(lines, 1) if _TABLE.match(line)]
    for number, line in enumerate(lines, 1):
        if match := _IGNORE.match(line):
            above = bisect(starts, number)
            first = starts[above - 1] if above else 1
            last = starts[above] - 1 if 0 < above < len(starts) else len(lines)
            for rule in filter(None, (part.strip() for part in match[1].split(","))):
                yield _Ignore(rule, number, first, last)
