"""A constitution file as its author wrote it: principles with their lines, and what lint ignores.

Reads files that ``load_constitution`` refuses, as far as they are TOML, so that all that is wrong
can be told at once. Lines are known where principles stand under ``[[principle]]``; in any other
spelling of TOML everything is said of line 1.

A comment ``# lint: ignore RULE, RULE: reason`` holds for the principle in whose table it stands;
above the first principle it holds for the whole file.
"""

import re
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from constitutional_ai.constitution.findings import Finding
from constitutional_ai.principles import Constitution, Principle, find_constitution

_IGNORE = re.compile(r"^\s*#\s*lint:\s*ignore\s+([\w\s,-]+?)\s*(?::.*)?$")
_TABLE = re.compile(r"\s*\[\[\s*principle\s*\]\]")
_KEY = re.compile(r"\s*([A-Za-z_]+)\s*=")


@dataclass(frozen=True)
class Drafted:
    """A principle with the lines that it came from. ``written`` are the fields that stand there."""

    principle: Principle
    line: int
    lines: dict[str, int]
    written: frozenset[str]

    @property
    def name(self) -> str:
        return self.principle.name

    def at(self, field: str) -> int:
        """The line of a field; of the ``text`` for a prompt that derives from it."""
        return self.lines.get(field, self.lines.get("text", self.line))


@dataclass(frozen=True)
class Ignore:
    """``first`` to ``last``: the lines whose findings it silences; the whole file, or one table."""

    rules: tuple[str, ...]
    line: int
    first: int
    last: int


@dataclass
class Draft:
    """A constitution file. ``problems`` are what kept parts of it from being read."""

    path: str
    name: str = ""
    version: str = ""
    drafted: list[Drafted] = field(default_factory=list)
    ignores: list[Ignore] = field(default_factory=list)
    problems: list[Finding] = field(default_factory=list)


def read_draft(path: str | Path) -> Draft:
    """Read a file, or a shipped constitution by its name. Raises ConstitutionError if not there."""
    found = find_constitution(path)
    draft = Draft(str(found))
    try:
        source = found.read_bytes().decode("utf-8-sig")
        data = tomllib.loads(source)
    except UnicodeDecodeError:
        draft.problems.append(_problem(draft, 1, "", "not UTF-8 text", "save the file as UTF-8"))
        return draft
    except tomllib.TOMLDecodeError as error:
        line = re.search(r"at line (\d+)", str(error))
        number = int(line[1]) if line else source.count("\n") + 1
        draft.problems.append(
            _problem(draft, number, "", f"not valid TOML: {error}", "mend the line's syntax")
        )
        return draft
    lines = source.splitlines()
    tables = [number for number, line in enumerate(lines, 1) if _TABLE.match(line)]
    draft.ignores = list(_ignores(lines, tables))
    rows = data.pop("principle", [])
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        text = "principle: expected tables, each under [[principle]]"
        draft.problems.append(_problem(draft, 1, "", text, "write [[principle]] above each"))
        return draft
    if len(tables) != len(rows):
        tables = [1] * len(rows)
    for row, start, end in zip(rows, tables, [*tables, len(lines) + 1][1:], strict=True):
        _read_principle(draft, row, start, _keys(lines, start, end))
    _read_head(draft, data, lines)
    return draft


def _read_head(draft: Draft, data: dict[str, Any], lines: list[str]) -> None:
    draft.name, draft.version = str(data.get("name", "")), str(data.get("version", ""))
    principles = tuple(drafted.principle for drafted in draft.drafted)
    if not principles:
        if not draft.problems:
            text = "it has no principles"
            draft.problems.append(_problem(draft, 1, "", text, "write a [[principle]]"))
        return
    try:
        Constitution.model_validate({**data, "principles": principles})
    except ValidationError as error:
        keys = _keys(lines, 0, len(lines) + 1)
        for problem in error.errors():
            key = str(problem["loc"][0]) if problem["loc"] else ""
            text = f"{key}: {problem['msg']}"
            draft.problems.append(_problem(draft, keys.get(key, 1), "", text, _FIX))


def _read_principle(draft: Draft, row: dict[str, Any], line: int, keys: dict[str, int]) -> None:
    name = str(row.get("name", "?"))
    if not str(row.get("text", "")).strip():
        place, fix = keys.get("text", line), "write what it asks for, or delete the principle"
        draft.problems.append(Finding("empty-text", draft.path, place, name, "it has no text", fix))
        return
    try:
        principle = Principle(**row)
    except ValidationError as error:
        for problem in error.errors():
            key = str(problem["loc"][0]) if problem["loc"] else ""
            text = f"{key}: {problem['msg']}"
            draft.problems.append(_problem(draft, keys.get(key, line), name, text, _FIX))
        return
    draft.drafted.append(Drafted(principle, line, keys, frozenset(row)))


_FIX = "see the fields in docs/constitutions.md"


def _problem(draft: Draft, line: int, name: str, reason: str, fix: str) -> Finding:
    return Finding("invalid", draft.path, line, name, reason, fix)


def _keys(lines: list[str], start: int, end: int) -> dict[str, int]:
    """The line of each key between the lines ``start`` and ``end``, which count from 1."""
    found: dict[str, int] = {}
    if start == 1 and not (lines and _TABLE.match(lines[0])):
        return found  # spelled in another way: no line is known
    for number in range(start + 1, end):
        if match := _KEY.match(lines[number - 1]):
            found.setdefault(match[1], number)
    return found


def _ignores(lines: list[str], tables: list[int]) -> Iterator[Ignore]:
    for number, line in enumerate(lines, 1):
        if match := _IGNORE.match(line):
            rules = tuple(part.strip() for part in match[1].split(",") if part.strip())
            starts = [start for start in tables if start < number]
            first = starts[-1] if starts else 1
            ends = [start - 1 for start in tables if start > first] if starts else []
            yield Ignore(rules, number, first, ends[0] if ends else len(lines))
