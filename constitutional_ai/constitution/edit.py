"""A constitution's TOML file with some values changed, so that its comments stay and a diff reads.

Only what is named is touched: a key is replaced where it stands, or written below the principle's
name. New principles go to the end.
"""

import difflib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import tomlkit
from tomlkit.items import AoT, Table

from constitutional_ai.constitution.writing import principle_table
from constitutional_ai.principles import Constitution, Principle, load_constitution

Value = float | list[str]
Changes = Mapping[str, Mapping[str, Value]]  # {principle: {key: value}}

_VERSION = re.compile(r"^(?P<own>.*?)(?:\+amended(?P<n>\d*))?$")


def edited(source: str, changes: Changes, additions: Sequence[Principle], version: str) -> str:
    """The file's text with the changes, the additions and the version in it."""
    document = tomlkit.parse(source)
    document["version"] = version
    principles = document["principle"]
    for number, table in enumerate(principles):
        for key, value in changes.get(table["name"], {}).items():
            table = principles[number] = _with(table, key, value)
    for principle in additions:
        table = principle_table(principle)
        if isinstance(principles, AoT):
            principles[-1].add(tomlkit.nl())  # an empty line between the two
            principles.append(table)
        else:  # a list of inline tables
            principles.append(table.unwrap())
    return tomlkit.dumps(document)


def _with(table: Table, key: str, value: Value) -> Table:
    """The table with the key changed, or written below the name."""
    if key in table or not isinstance(table, Table):
        table[key] = value
        return table
    changed = tomlkit.table()
    for own, item in table.value.body:
        changed.value.append(own, item)
        if own is not None and own.key == "name":
            changed.value.append(key, tomlkit.item(value))
    return changed


def next_version(version: str) -> str:
    """
    >>> next_version("1.0"), next_version("1.0+amended"), next_version("1.0+amended2")
    ('1.0+amended', '1.0+amended2', '1.0+amended3')
    """
    match = _VERSION.match(version)
    assert match is not None
    if version == match["own"]:
        return f"{version}+amended"
    return f"{match['own']}+amended{int(match['n'] or 1) + 1}"


def check(path: Path, before: Constitution, changes: Changes, added: Sequence[Principle]) -> None:
    """The edited file, read back, is what was meant; checked before anybody uses it."""
    after = load_constitution(path)
    expected = []
    for principle in before.principles:
        update = {k: _as_held(v) for k, v in changes.get(principle.name, {}).items()}
        expected.append(principle.model_copy(update=update))
    assert list(after.principles) == [*expected, *added], f"{path}: edited wrongly"


def diff(before: str, after: str, name_before: str, name_after: str) -> str:
    """A unified diff."""
    old, new = before.splitlines(keepends=True), after.splitlines(keepends=True)
    return "".join(difflib.unified_diff(old, new, name_before, name_after))


def _as_held(value: Value) -> object:
    return tuple(value) if isinstance(value, list) else value
