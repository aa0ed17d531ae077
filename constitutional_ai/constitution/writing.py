"""Constitutions as TOML files that ``load_constitution`` reads back with the same hash."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import tomlkit
from tomlkit.items import Table

from constitutional_ai.constitution.entries import slug
from constitutional_ai.errors import ConstitutionError
from constitutional_ai.principles import (
    PROMPTS,
    Constitution,
    Principle,
    find_constitution,
    load_constitution,
)
from constitutional_ai.store.atomic import write_atomic

KEPT = "constitution.toml"  # in a run folder: what the run was made under


def to_toml(
    constitution: Constitution,
    head: Sequence[str] = (),
    notes: Mapping[str, Sequence[str]] | None = None,
) -> str:
    """The constitution as a file that leaves out what derives and what is usual.

    ``head`` are comments at the top, ``notes`` comments above a principle.
    """
    own = constitution.model_dump(mode="json", exclude={"principles"}, exclude_defaults=True)
    why = constitution.rationale
    if worked := own.pop("exemplars", None):
        own["exemplar"] = worked
    parts = [_comments(head) + "\n" if head else "", tomlkit.dumps(own)]
    for principle in constitution.principles:
        said = _comments((notes or {}).get(principle.name, ()))
        parts.append(f"\n{said}[[principle]]\n{principle_table(principle, why).as_string()}")
    return "".join(parts)


def principle_table(principle: Principle, why: bool = False) -> Table:
    """A principle's own fields; what derives from them or is usual is left out.

    ``why``: it goes into a constitution that puts its rationale behind its prompts.
    """
    table = tomlkit.table()
    name, text, kind = principle.name, principle.text, principle.kind
    bare = Principle(name=name, text=text, kind=kind, rationale=principle.rationale)
    asked = (bare.telling_why() if why else bare).model_dump(include=set(PROMPTS))
    usual = Principle(name=name, text=text).model_dump(mode="json") | asked
    for key, value in principle.model_dump(mode="json").items():
        if key in ("name", "text", "kind") or value != usual[key]:
            table[key] = value
    return table


def write_new(path: Path, text: str, force: bool = False) -> None:
    """Write a file that is not there yet, or any with ``force``. Raises ConstitutionError."""
    refuse_existing(path, force)
    write_atomic(path, text)


def refuse_existing(path: Path, force: bool = False) -> None:
    """Raise ConstitutionError where the file is there and may not be overwritten."""
    if path.exists() and not force:
        raise ConstitutionError(f"{path}: already exists; take another --out, or add --force")


def plain_name(text: str) -> str:
    """A name that a file can carry. Raises ConstitutionError where nothing of it is left."""
    name = slug(text)
    if not name:
        raise ConstitutionError(f"{text!r}: a name needs letters or digits; give it some")
    return name


def new_files(name: str, like: str | None) -> list[str]:
    """The texts of a new constitution and of its test cases, if there are any.

    They come from the template, or from another constitution, ``like``.
    """
    name = plain_name(name)
    if like is None:
        here = Path(__file__).parent
        texts = [(here / file).read_text("utf-8") for file in ("new.toml", "new.tests.toml")]
        return [text.replace("{name}", name) for text in texts]
    path = find_constitution(like)
    load_constitution(path)  # a copy of what does not load would be no help
    document = tomlkit.parse(path.read_text(encoding="utf-8-sig"))
    document["name"] = name
    cases = path.with_suffix(".tests.toml")
    tests = [cases.read_text(encoding="utf-8-sig")] if cases.is_file() else []
    return [tomlkit.dumps(document), *tests]


def keep_copy(folder: Path, constitution: Constitution) -> None:
    """Leave the constitution in a run folder: a hash alone cannot be read."""
    write_atomic(folder / KEPT, to_toml(constitution, [f"hash {constitution.hash}"]))


def _comments(lines: Sequence[str]) -> str:
    """Each on a line of its own; what TOML forbids in a comment becomes a space."""
    plain = ("".join(c if c.isprintable() else " " for c in line) for line in lines)
    return "".join(f"# {line}".rstrip() + "\n" for line in plain)
