"""Constitutions from elsewhere: the paper's JSON, a document in Markdown, a plain list.

The paper's release is a dictionary of critique and revision requests and a list of comparison
instructions. One file or both may be given. Each entry becomes a principle of its own phase, word
for word but for the markers of the layout, which our templates set.

A document has sections with principles, as list items or as deeper headings. A numbered section, or
a line "Priority: 1", ranks its principles. A section or item that is called a hard constraint binds
first. "Why:" or a quoted paragraph is the rationale. A prohibition ("Never insult the user")
becomes a "dont" that describes what it rules out ("Insulting the user").

Not covered: the few-shot examples of the paper's release.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from constitutional_ai.constitution.document import Document, read_document
from constitutional_ai.constitution.entries import Entry, unique_names
from constitutional_ai.errors import ConstitutionError
from constitutional_ai.principles import Constitution, Principle
from constitutional_ai.toml_file import Report, Table

FORMATS = ("auto", "paper", "markdown", "list")


@dataclass
class Imported:
    constitution: Constitution
    notes: dict[str, list[str]] = field(default_factory=dict)  # comments over a principle


def read_foreign(paths: Sequence[Path], format: str, name: str) -> Imported:
    """One constitution from all files together. Raises ConstitutionError with file and line."""
    if format not in FORMATS:
        raise ConstitutionError(f"--format {format}: it is one of: {', '.join(FORMATS)}")
    documents = [_document(path, format) for path in paths]
    entries = [entry for document in documents for entry in document.entries]
    unique_names(entries)
    constitution = Constitution(
        name=name,
        version=next((one.version for one in documents if one.version), "1.0"),
        description=next((one.description for one in documents if one.description), ""),
        principles=tuple(_principle(entry) for entry in entries),
    )
    notes = {entry.name: [*entry.notes, f"from {entry.place}"] for entry in entries}
    return Imported(constitution, notes)


def _document(path: Path, format: str) -> Document:
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise ConstitutionError(f"{path}: cannot be read ({error.strerror})") from None
    except UnicodeDecodeError:
        raise ConstitutionError(f"{path}:1: not UTF-8 text; save the file as UTF-8") from None
    kind = _guess(path, text) if format == "auto" else format
    match kind:
        case "markdown":
            document = read_document(text)
        case "paper":
            document = Document(entries=_paper(path, text))
        case _:
            document = Document(entries=_list(text))
    if not document.entries:
        raise ConstitutionError(
            f"{path}: no principles in it, read as {kind}; name another --format:"
            f" {', '.join(FORMATS[1:])}"
        )
    for entry in document.entries:
        entry.origin = path.name
    return document


def _guess(path: Path, text: str) -> str:
    if text.lstrip()[:1] in ("{", "["):
        return "paper"
    return "markdown" if path.suffix.lower() in (".md", ".markdown") else "list"


def _principle(entry: Entry) -> Principle:
    report, table = Report(entry.origin), Table(entry.fields, entry.line)
    principle = report.validated(Principle, table, entry.fields, entry.name)
    if principle is None:
        raise ConstitutionError(report.findings[0].sentence())
    return principle


# ---- the paper's JSON ---------------------------------------------------------------------------

_REQUEST = re.compile(r"^\s*(?:Critique|Revision)\s*Request:\s*|\s*(?:Critique|Revision):\s*$")
_OPTIONS = re.compile(r"\s*Options:\s*$")


def _paper(path: Path, text: str) -> list[Entry]:
    try:
        data = json.loads(text)
    except ValueError as error:
        raise ConstitutionError(f"{path}: not valid JSON: {error}; or name its --format") from None
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
    entries = []
    for number, request in enumerate(asked):
        critique = _REQUEST.sub("", str(request)).strip()
        own = name if len(asked) == 1 else f"{name}-{number}"
        fields = {"name": own, "text": critique, "use": ("critique",)}
        fields |= {"critique_prompt": critique, "revision_prompt": revision}
        entries.append(Entry(fields))
    return entries


def _preference(number: int, instruction: str) -> Entry:
    asked = _OPTIONS.sub("", instruction).strip()
    fields = {"name": f"preference{number}", "text": asked, "use": ("preference",)}
    return Entry({**fields, "preference_prompt": asked})


# ---- a plain list -------------------------------------------------------------------------------

_BULLET = re.compile(r"^\s*(?:[-*•–]|\(?\d+[.)]|\(?[a-z][.)])\s+")
_NAMED = re.compile(r"^([A-Z]?[\w'’ -]{2,40}?):\s+(\S.*)$")


def _list(text: str) -> list[Entry]:
    """A principle a line; a line without a mark continues the marked one above it."""
    lines = [line for line in enumerate(text.splitlines(), 1) if line[1].strip()]
    marked = any(_BULLET.match(line) for _, line in lines)
    entries: list[Entry] = []
    for number, line in lines:
        if line.lstrip().startswith("#"):
            continue
        if marked and entries and not _BULLET.match(line):
            entries[-1].extend(line.strip())
            continue
        said = _BULLET.sub("", line).strip()
        named = _NAMED.match(said)
        if named and len(named[1].split()) <= 4:
            entries.append(Entry.of(named[2], named[1], number))
        else:
            entries.append(Entry.of(said, "", number))
    return [entry.settled() for entry in entries]
