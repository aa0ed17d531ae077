"""Constitutions as TOML text that ``load_constitution`` reads back with the same hash."""

import json
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from constitutional_ai.errors import ConstitutionError
from constitutional_ai.principles import (
    Constitution,
    Principle,
    derived_prompts,
    find_constitution,
    load_constitution,
)

_USUAL = {
    "weight": 1.0,
    "use": ("critique", "preference"),
    "prompts": ("red-team", "helpful"),
    "priority": 0,
    "hard": False,
    "rationale": "",
}


def to_toml(
    constitution: Constitution,
    head: Sequence[str] = (),
    notes: Mapping[str, Sequence[str]] | None = None,
) -> str:
    """The constitution as a file. ``head`` are comments on top, ``notes`` those over a principle.

    What derives or is as usual is left out.
    """
    own = constitution.model_dump(mode="json", exclude={"principles"})
    lines = [*_comments(head), "", *_fields({k: v for k, v in own.items() if v})]
    for principle in constitution.principles:
        lines += ["", *_comments((notes or {}).get(principle.name, ())), "[[principle]]"]
        lines += _fields(_said(principle))
    return "\n".join(lines).lstrip("\n") + "\n"


def write_new(path: Path, text: str, force: bool = False) -> None:
    """Write a file that is not there yet, or any with ``force``. Raises ConstitutionError."""
    if path.exists() and not force:
        raise ConstitutionError(f"{path}: already exists; take another --out, or add --force")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def template(file: str, name: str) -> str:
    """The text of ``new.toml`` or ``new.tests.toml``, for a constitution of that name."""
    text = (Path(__file__).parent / file).read_text(encoding="utf-8")
    return text.replace("{name}", name)


def copied(constitution: str, name: str) -> tuple[str, ...]:
    """A constitution's file, and its test cases' where it has them, under another name."""
    path = find_constitution(constitution)
    load_constitution(path)  # a copy of what does not load would be no help
    text = path.read_text(encoding="utf-8-sig")
    named = re.sub(r"^name\s*=.*$", f'name = "{name}"', text, count=1, flags=re.MULTILINE)
    cases = path.with_suffix(".tests.toml")
    return (named, cases.read_text(encoding="utf-8-sig")) if cases.is_file() else (named,)


KEPT = "constitution.toml"  # in a run folder: what the run was made under


def keep_copy(folder: Path, constitution: Constitution) -> None:
    """Leave the constitution in a run folder, whole or not at all: a hash alone cannot be read."""
    draft = folder / f".{KEPT}.part"
    draft.write_text(to_toml(constitution, [f"hash {constitution.hash}"]), encoding="utf-8")
    os.replace(draft, folder / KEPT)


def _said(principle: Principle) -> dict[str, Any]:
    """The fields that a reader of the file needs, in the order of the class."""
    derived = derived_prompts(principle.text, principle.kind)
    return {
        name: value
        for name, value in principle.model_dump().items()
        if derived.get(name) != value and _USUAL.get(name) != value
    }


def _fields(values: Mapping[str, Any]) -> list[str]:
    return [f"{name} = {_toml(value)}" for name, value in values.items()]


def _toml(value: Any) -> str:
    """JSON spells text, numbers and flags as TOML does, save DEL; tables are written inline."""
    if isinstance(value, Mapping):
        inner = ", ".join(f"{key} = {_toml(part)}" for key, part in value.items())
        return f"{{ {inner} }}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(_toml(part) for part in value)}]"
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def _comments(lines: Sequence[str]) -> list[str]:
    """Each on a line of its own; characters that TOML forbids in a comment become spaces."""
    plain = ["".join(c if c.isprintable() else " " for c in line) for line in lines]
    return [f"# {line}".rstrip() for line in plain]
