"""A constitution's TOML file with some lines changed, so that its comments stay and a diff reads.

Only what is named is touched: a key is replaced where it stands on one line of its own, or written
under the principle's name; new principles go to the end. What was written is read back and compared
before anybody sees it. Not covered: keys that are spread over several lines.
"""

import difflib
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from constitutional_ai.errors import ConstitutionError
from constitutional_ai.principles import Constitution, Principle, load_constitution

Value = float | list[str]
Changes = Mapping[str, Mapping[str, Value]]  # {principle: {key: value}}

_HEADER = re.compile(r"\s*\[")
_PRINCIPLE = re.compile(r"\s*\[\[\s*principle\s*\]\]")
_VERSION = re.compile(r"^(?P<own>.*?)(?:\+amended(?P<n>\d*))?$")


def edited(source: str, changes: Changes, additions: Sequence[Principle], version: str) -> str:
    """The file's text with the changes, the additions and the version in it."""
    lines = source.splitlines()
    for start, end in reversed(_blocks(lines)):
        block = lines[start:end]
        for key, value in changes.get(_value(block, "name"), {}).items():
            block = _set(block, key, value, after="name")
        lines[start:end] = block
    first = next((n for n, line in enumerate(lines) if _HEADER.match(line)), len(lines))
    lines[:first] = _set(lines[:first], "version", version, after="name")
    text = "\n".join(lines).rstrip() + "\n"
    return text + "".join(f"\n{principle_toml(principle)}" for principle in additions)


def principle_toml(principle: Principle) -> str:
    """A principle as a table of a constitution file; prompts that derive from it are left out."""
    plain = Principle(name=principle.name, text=principle.text, kind=principle.kind).model_dump()
    always = ("name", "text", "kind", "weight", "use", "prompts")
    held = principle.model_dump()
    rows = {key: held[key] for key in always}
    rows |= {key: value for key, value in held.items() if value != plain[key]}
    return "[[principle]]\n" + "".join(f"{key} = {spelled(v)}\n" for key, v in rows.items())


def next_version(version: str) -> str:
    """
    >>> next_version("1.0"), next_version("1.0+amended"), next_version("1.0+amended2")
    ('1.0+amended', '1.0+amended2', '1.0+amended3')
    """
    found = _VERSION.match(version)
    assert found is not None
    if version == found["own"]:
        return f"{version}+amended"
    return f"{found['own']}+amended{int(found['n'] or 1) + 1}"


def check(path: Path, before: Constitution, changes: Changes, added: Sequence[Principle]) -> None:
    """Read the edited file and compare it with what was meant. Raises ConstitutionError."""
    after = load_constitution(path)
    expected = []
    for principle in before.principles:
        update = {k: _as_held(v) for k, v in changes.get(principle.name, {}).items()}
        expected.append(principle.model_copy(update=update))
    if list(after.principles) != [*expected, *added]:
        raise ConstitutionError(
            f"{path}: could not be edited line by line; write each weight and each list of prompts"
            " of the original on a line of its own"
        )


def diff(before: str, after: str, name_before: str, name_after: str) -> str:
    """A unified diff."""
    return "".join(
        difflib.unified_diff(
            before.splitlines(keepends=True),
            after.splitlines(keepends=True),
            name_before,
            name_after,
        )
    )


def _blocks(lines: Sequence[str]) -> list[tuple[int, int]]:
    """(first line, line after the last) of every ``[[principle]]`` table."""
    headers = [n for n, line in enumerate(lines) if _HEADER.match(line) and _opens(lines, n)]
    ends = [*headers[1:], len(lines)]
    return [(n, end) for n, end in zip(headers, ends, strict=True) if _PRINCIPLE.match(lines[n])]


def _opens(lines: Sequence[str], number: int) -> bool:
    """A table's header, and not the item of a list that spans lines."""
    return re.fullmatch(r"\s*\[{1,2}[^\[\],\"']+\]{1,2}\s*(#.*)?", lines[number]) is not None


def _set(lines: Sequence[str], key: str, value: object, after: str) -> list[str]:
    """The lines with ``key = value`` in them, a comment behind it kept."""
    new = f"{key} = {spelled(value)}"
    where = re.compile(rf"\s*{key}\s*=")
    for n, line in enumerate(lines):
        if where.match(line):
            comment = re.search(r"\s+#[^\"\]]*$", line)
            return [*lines[:n], new + (comment[0] if comment else ""), *lines[n + 1 :]]
    place = next((n for n, line in enumerate(lines) if re.match(rf"\s*{after}\s*=", line)), 0)
    return [*lines[: place + 1], new, *lines[place + 1 :]]


def _value(lines: Sequence[str], key: str) -> str:
    """A text value that stands on one line; "" where there is none."""
    found = (re.match(rf"\s*{key}\s*=\s*([\"'])(.*)\1", line) for line in lines)
    return next((match[2] for match in found if match), "")


def spelled(value: object) -> str:
    """JSON spells text, numbers and lists as TOML does, once 0x7f is escaped."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def _as_held(value: Value) -> object:
    return tuple(value) if isinstance(value, list) else value
