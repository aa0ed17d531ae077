"""Constitutions from elsewhere: the paper's JSON, a document in Markdown, a plain list.

The paper's release keeps critiques and comparisons apart: a dictionary of critique and revision
requests, and a list of comparison instructions. Either may be given, or both; each entry becomes a
principle of its own phase, word for word but for the layout's markers, which our templates set.

A document has sections with principles, as list items or headings below. A numbered section, or a
line "Priority: 1", ranks its principles; a section or item called a hard constraint binds first;
"Why:" or a quoted paragraph is the rationale. A prohibition ("Never insult the user") becomes a
"dont", turned into what it rules out ("Insulting the user"). ``resolve`` says what ranks do.

Not covered: the few-shot examples of the paper's release.
"""

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from constitutional_ai.constitution.document import read_document
from constitutional_ai.constitution.imported_principle import Entry, unique_names
from constitutional_ai.errors import ConstitutionError
from constitutional_ai.principles import Constitution, Principle

FORMATS = ("auto", "paper", "markdown", "list")


@dataclass
class Imported:
    constitution: Constitution
    notes: dict[str, list[str]] = field(default_factory=dict)  # comments over a principle


def read_foreign(paths: Sequence[Path], format: str, name: str) -> Imported:
    """One constitution from all files together. Raises ConstitutionError with file and line."""
    if format not in FORMATS:
        raise ConstitutionError(f"--format {format}: it is one of: {', '.join(FORMATS)}")
    entries: list[Entry] = []
    described, version = "", ""
    for path in paths:
        text = _read(path)
        kind = _guess(path, text) if format == "auto" else format
        if kind == "markdown":
            document = read_document(text)
            described = described or document.description
            version = version or document.version
            found = document.entries
        else:
            found = _READERS[kind](path, text)
        if not found:
            raise ConstitutionError(f"{path}: no principles found in it, read as {kind}")
        for entry in found:
            entry.origin = f"{path.name}:{entry.line}" if entry.line else path.name
        entries += found
    unique_names(entries)
    principles = tuple(_principle(entry) for entry in entries)
    constitution = Constitution(
        name=name, version=version or "1.0", description=described, principles=principles
    )
    notes = {entry.name: [*entry.notes, f"from {entry.origin}"] for entry in entries}
    return Imported(constitution, notes)


def _principle(entry: Entry) -> Principle:
    try:
        return Principle(**entry.fields)
    except ValidationError as error:
        problem = error.errors()[0]
        where = ".".join(str(part) for part in problem["loc"]) or "principle"
        raise ConstitutionError(f"{entry.origin}: {where}: {problem['msg']}") from None


def _read(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise ConstitutionError(f"{path}: cannot be read ({error.strerror})") from None
    except UnicodeDecodeError:
        raise ConstitutionError(f"{path}:1: not UTF-8 text; save the file as UTF-8") from None


def _guess(path: Path, text: str) -> str:
    if text.lstrip()[:1] in ("{", "["):
        return "paper"
    return "markdown" if path.suffix.lower() in (".md", ".markdown") else "list"


# ---- the paper's JSON ---------------------------------------------------------------------------

_REQUEST = re.compile(r"^\s*(?:Critique|Revision)\s*Request:\s*|\s*(?:Critique|Revision):\s*$")
_OPTIONS = re.compile(r"\s*Options:\s*$")


def _paper(path: Path, text: str) -> list[Entry]:
    try:
        data = json.loads(text)
    except ValueError as error:
        raise ConstitutionError(f"{path}: not valid JSON: {error}") from None
    if isinstance(data, dict):
        return [entry for name, value in data.items() for entry in _critiques(path, name, value)]
    if isinstance(data, list) and all(isinstance(one, str) for one in data):
        return [_preference(number, one) for number, one in enumerate(data)]
    raise ConstitutionError(
        f"{path}: expected critique requests by name, or a list of comparison instructions"
    )


def _critiques(path: Path, name: str, value: Any) -> list[Entry]:
    asked = value.get("prompt") if isinstance(value, dict) else None
    rewrite = value.get("edit_request") if isinstance(value, dict) else None
    asked = [asked] if isinstance(asked, str) else asked
    if not isinstance(asked, list) or not asked or not isinstance(rewrite, str):
        raise ConstitutionError(f"{path}: {name}: expected `prompt` and `edit_request`")
    revision = _REQUEST.sub("", rewrite).strip()
    found = []
    for number, request in enumerate(asked):
        critique = _REQUEST.sub("", str(request)).strip()
        own = name if len(asked) == 1 else f"{name}-{number}"
        fields = {"name": own, "text": critique, "use": ("critique",)}
        fields |= {"critique_prompt": critique, "revision_prompt": revision}
        found.append(Entry(fields))
    return found


def _preference(number: int, instruction: str) -> Entry:
    asked = _OPTIONS.sub("", instruction).strip()
    fields = {"name": f"preference{number}", "text": asked, "use": ("preference",)}
    return Entry({**fields, "preference_prompt": asked})


# ---- a plain list -------------------------------------------------------------------------------

_BULLET = re.compile(r"^\s*(?:[-*•–]|\(?\d+[.)]|\(?[a-z][.)])\s+")
_NAMED = re.compile(r"^([A-Z]?[\w'’ -]{2,40}?):\s+(\S.*)$")


def _list(path: Path, text: str) -> list[Entry]:
    """A principle a line; an indented or unmarked line goes on with a marked one above it."""
    marked = any(_BULLET.match(line) for line in text.splitlines())
    found: list[Entry] = []
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        if marked and found and not _BULLET.match(line):
            found[-1].extend(line.strip())
            continue
        said = _BULLET.sub("", line).strip()
        named = _NAMED.match(said)
        short = named is not None and len(named[1].split()) <= 4
        found.append(
            Entry.of(named[2], named[1], number) if named and short else Entry.of(said, "", number)
        )
    return [entry.settled() for entry in found]


_READERS: dict[str, Callable[[Path, str], list[Entry]]] = {"paper": _paper, "list": _list}
