"""Reads prompts from where people keep them; ``read`` is the one way in.

    read("prompts.jsonl")       JSONL, CSV or Parquet, also gzipped       lines.py, arrow.py
    read("hf:ID:config:split")  a data set of the Hugging Face hub        arrow.py
    read("starter:helpful")     a small file that ships with the package  ../starter/

What the rows mean is told by their columns: a safety test set (benchmarks.py), pairs of dialogues
(dialogues.py), or plain prompts: a column ``prompt`` of text or messages, or ``messages`` that end
with an answer. Columns that are not needed are left alone.
"""

from itertools import chain
from pathlib import Path
from typing import Any

from constitutional_ai.data import arrow, benchmarks, dialogues, lines
from constitutional_ai.data.rows import Columns, Format, Parsed, Reading, Table, conversation, text
from constitutional_ai.errors import DataError

__all__ = ["located", "read"]

STARTER = "starter:"

_DELIMITED = (".csv", ".tsv")


def read(source: str) -> Reading:
    """Every row of a source. Raises DataError with place and remedy; an empty source is one."""
    table = _table(source)
    first = next(table.rows, None)
    if first is None:
        raise DataError(f'{source}: no prompts in it; write one {{"prompt": "…"}} a line')
    format = _format(first[1])
    reading = Reading(source, table.container, format.name, table.unit)
    for number, row in chain([first], table.rows):
        try:
            reading.add(number, format.read(row))
        except KeyError:
            raise DataError(f"{table.place(number)}: {_missing(table, format, row)}") from None
        except ValueError as error:
            raise DataError(f"{table.place(number)}: {error}") from None
    if not reading.found:
        reasons = ", ".join(reading.left_out)
        raise DataError(f"{source}: no prompts in it; every row was left out: {reasons}")
    return reading


def located(source: str) -> Path:
    """The file of a source. Raises DataError where none of that name ships with the package."""
    if not source.startswith(STARTER):
        return Path(source)
    folder = Path(__file__).parent.parent / "starter"
    path = folder / f"{source.removeprefix(STARTER)}.jsonl"
    if path.parent != folder or not path.is_file():
        names = ", ".join(sorted(f"{STARTER}{file.stem}" for file in folder.glob("*.jsonl")))
        raise DataError(f"{source}: no such starter file; there are: {names}")
    return path


def _table(source: str) -> Table:
    if source.startswith(arrow.HUB):
        return arrow.hub(source)
    path = located(source)
    suffixes = [suffix.lower() for suffix in path.suffixes if suffix.lower() != ".gz"]
    match suffixes[-1:]:
        case [".parquet"]:
            return arrow.parquet(path)
        case [suffix] if suffix in _DELIMITED:
            return lines.delimited(path)
        case _:
            return lines.jsonl(path)


def _format(first: Columns) -> Format:
    """What the columns of the first row are taken for."""
    found = benchmarks.detect(first) or dialogues.detect(first)
    if found:
        return found
    if "prompt" not in first and "messages" in first:
        return Format("conversations", _messages)
    return Format("prompts", _prompt)


def _prompt(row: Columns) -> Parsed:
    return Parsed(
        conversation(row["prompt"]),
        text(row.get("kind"), "kind"),
        text(row.get("category"), "category"),
    )


def _messages(row: Columns) -> Parsed:
    """A conversation up to its last answer, which is not part of the prompt."""
    turns: Any = row["messages"]
    if isinstance(turns, list) and turns and isinstance(turns[-1], dict):
        turns = turns[:-1] if turns[-1].get("role") == "assistant" else turns
    return Parsed(conversation(turns), text(row.get("kind"), "kind"))


def _missing(table: Table, format: Format, row: Columns) -> str:
    """What to say of a row that lacks a column of its format."""
    names = ", ".join(map(str, row)) or "none"
    if format.name == "prompts" and table.container == "JSONL":
        return f'expected an object with "prompt", such as {lines.EXAMPLE}; it has: {names}'
    if format.name == "prompts":
        remedy = ", or name one: hf:ID:::COLUMN" if table.container == arrow.DATA_SET else ""
        return f"expected a column named prompt; it has: {names}{remedy}"
    return f"lacks a column of {format.name}; it has: {names}"
