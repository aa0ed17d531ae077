"""The one way in: ``rows_of`` opens any source as rows, ``read`` takes prompts out of them.

    read("prompts.jsonl")       JSONL, CSV or Parquet, also gzipped       lines.py, arrow.py
    read("hf:ID:config:split")  a data set of the Hugging Face hub        arrow.py
    read("starter:helpful")     a small file that ships with the package  ../starter/
    read("a.csv#half=1")        about half of a source's prompts, by a hash of their words
    read("a.csv#kind=harmful")  its prompts of one kind; "a.csv#half=1&kind=harmful" is both
    read("a.csv + b.jsonl")     several sources joined: a row of each in turn

A prompt is in the same half of every source, so what is in one half of some sources is in no other
half of any. Of joined sources a prompt is taken once.

The columns of the first row decide the format: a safety test set (benchmarks.py), pairs of
dialogues (dialogues.py), or plain prompts. Plain prompts have a column ``prompt`` of text or
messages, or ``messages`` that end with an answer. Columns that are not needed are left alone.
"""

import re
from collections.abc import Sequence
from dataclasses import replace
from itertools import chain, zip_longest
from pathlib import Path
from typing import Any, NamedTuple

from constitutional_ai.data import arrow, benchmarks, dialogues, lines
from constitutional_ai.data.rows import (
    Columns,
    Format,
    PromptRow,
    Reading,
    Table,
    conversation,
    normalised,
    text,
)
from constitutional_ai.errors import DataError
from constitutional_ai.records import content_hash
from constitutional_ai.world import LAB

STARTER = "starter:"
JOIN = " + "  # between sources that are read as one
ELSEWHERE = "in an earlier one of the joined sources"
_PART = re.compile(r"#((?:half|kind)=[^#/]*)\Z")
_OPTIONAL = ("kind", "slice", "category", "set", "truth")  # columns of our own format


def rows_of(source: str | Path) -> Table:
    """A source's rows, whatever holds them. Raises DataError, some of it while rows are read."""
    source = str(source)
    if source.startswith(arrow.HUB):
        return arrow.hub(source)
    path = located(source)
    suffixes = [suffix.lower() for suffix in path.suffixes if suffix.lower() != ".gz"]
    match suffixes[-1:]:
        case [".parquet"]:
            return arrow.parquet(path)
        case [".csv" | ".tsv"]:
            return lines.delimited(path)
        case _:
            return lines.jsonl(path)


def located(source: str) -> Path:
    """The file of a source. Raises DataError where no starter file has that name."""
    if not source.startswith(STARTER):
        return Path(source)
    folder = Path(__file__).parent.parent / "starter"
    path = folder / f"{source.removeprefix(STARTER)}.jsonl"
    if path.parent != folder or not path.is_file():
        names = ", ".join(sorted(f"{STARTER}{file.stem}" for file in folder.glob("*.jsonl")))
        raise DataError(f"{source}: no such starter file; there are: {names}")
    return path


def joined(source: str) -> list[str]:
    """The sources that are joined in one; a file of that very name is a source.

    Raises DataError for the laboratory among others: its prompts are no rows.
    """
    parts = [source] if Path(source).exists() else source.split(JOIN)
    if len(parts) > 1 and any(part_of(part).source == LAB for part in parts):
        raise DataError(f"{source}: {LAB!r} cannot be joined with others; name files, or it alone")
    return parts


class Part(NamedTuple):
    """A source, and which of its prompts are meant; "" for all. See ``part_of``."""

    source: str
    half: str = ""
    kind: str = ""

    def takes(self, row: PromptRow) -> bool:
        """Whether a prompt is in this part. One that is left out anyway stays to be counted."""
        if row.left_out:
            return True
        return self.half in ("", half_of(row)) and self.kind in ("", row.kind)


def part_of(source: str) -> Part:
    """What a source's name says. A file of that very name is a source. Raises DataError.

    >>> part_of("a.csv#half=2&kind=harmful")
    Part(source='a.csv', half='2', kind='harmful')
    """
    found = None if Path(source).exists() else _PART.search(source)
    if found is None:
        return Part(source)
    named = {name: word for name, _, word in (pair.partition("=") for pair in found[1].split("&"))}
    file = source[: found.start()]
    half, kind = named.pop("half", ""), named.pop("kind", "")
    if named or half not in ("", "1", "2") or not (half or kind) or file == LAB:
        raise DataError(f"{source}: expected FILE#half=1, FILE#half=2 or FILE#kind=KIND")
    return Part(file, half, kind)


def half_of(row: PromptRow) -> str:
    """Which half a prompt is in: by its words alone, so in any source it is the same."""
    return str(1 + int(content_hash("half", normalised(row.prompt)), 16) % 2)


def read(source: str | Path) -> Reading:
    """Every prompt of a source. Raises DataError with place and remedy; an empty source is one."""
    parts = joined(str(source))
    if len(parts) == 1:
        return _read(parts[0])
    return _join(str(source), [_read(part) for part in parts])


def _read(source: str) -> Reading:
    """The prompts of one source, or of a part of it."""
    part = part_of(source)
    table = rows_of(part.source)
    first = next(table.rows, None)
    if first is None:
        raise DataError(f'{source}: no prompts in it; write one {{"prompt": "…"}} a line')
    format = _format(first[1])
    table = replace(table, rows=chain([first], table.rows))
    reading = Reading(table, format.name)

    def parse(number: int, row: Columns) -> PromptRow:
        return replace(format.read(row), number=number, id=text(row.get("id"), "id"))

    for row in table.read(parse, _expected(table, format)):
        if part.takes(row):
            reading.add(row)
    if not reading.prompts:
        reasons = ", ".join(reading.left_out) or "none are in this part"
        raise DataError(f"{source}: no prompts in it; every row was left out: {reasons}")
    return reading


def _join(source: str, readings: Sequence[Reading]) -> Reading:
    """Sources as one: a row of each in turn, so that the first rows are of all of them.

    Rows are numbered anew. Where two sources have one id, the later source's row goes by its text.
    """
    first_in: dict[str, int] = {}
    ids: dict[str, int] = {}
    for number, reading in enumerate(readings):
        for row in reading.prompts:
            first_in.setdefault(normalised(row.prompt), number)
            ids.setdefault(row.id, number)
    containers = dict.fromkeys(reading.table.container for reading in readings)
    formats = dict.fromkeys(reading.format for reading in readings)
    places: dict[int, str] = {}
    whole = Reading(
        Table(source, JOIN.join(containers), "row", iter(())), JOIN.join(formats), places=places
    )
    for turn in zip_longest(*(reading.prompts for reading in readings)):
        for number, row in enumerate(turn):
            if row is not None:
                places[place := len(places) + 1] = readings[number].place(row.number)
                again = first_in[normalised(row.prompt)] != number
                id_ = row.id if ids[row.id] == number else ""
                whole.add(replace(row, number=place, id=id_, left_out=ELSEWHERE if again else ""))
    for reading in readings:
        for reason, numbers in reading.left_out.items():
            for number in numbers:
                places[place := len(places) + 1] = reading.place(number)
                whole.left_out.setdefault(reason, []).append(place)
    return whole


def prompt_of(row: Columns) -> PromptRow:
    """The prompt of a single row. Raises KeyError where no column holds one, and ValueError."""
    prompt = _format(row).read(row)
    if prompt.left_out:
        raise ValueError(prompt.left_out)
    return prompt


def _format(row: Columns) -> Format:
    """What a row's columns are taken for."""
    if known := benchmarks.detect(row) or dialogues.detect(row):
        return known
    if "prompt" not in row and "messages" in row:
        return Format("conversations", _messages)
    return Format("prompts", _plain)


def _plain(row: Columns) -> PromptRow:
    """A row of our own columns."""
    cells = {name: text(row.get(name), name).strip() for name in _OPTIONAL}
    return PromptRow(
        prompt=conversation(row["prompt"]),
        kind=cells["kind"],
        category=cells["slice"] or cells["category"],
        set=cells["set"],
        truth=cells["truth"],
    )


def _messages(row: Columns) -> PromptRow:
    """A conversation up to its last answer, which is not part of the prompt."""
    turns: Any = row["messages"]
    answer = ""
    if isinstance(turns, list) and turns and isinstance(turns[-1], dict):
        last = turns[-1]
        if last.get("role") == "assistant":
            turns, answer = turns[:-1], text(last.get("content"), "messages")
    return replace(_plain({**row, "prompt": turns}), answer=answer)


def _expected(table: Table, format: Format) -> str:
    """What is said of a row that lacks a column of its format."""
    if format.name != "prompts":
        return f"lacks a column of {format.name}"
    if table.container == "JSONL":
        return f'expected an object with "prompt", such as {lines.EXAMPLE}'
    remedy = " (or name one: hf:ID:::COLUMN)" if table.container == arrow.DATA_SET else ""
    return f"expected a column named prompt{remedy}"
