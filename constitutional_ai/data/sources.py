"""The one way in: ``rows_of`` opens any source as rows, ``read`` takes prompts out of them.

    read("prompts.jsonl")       JSONL, CSV or Parquet, also gzipped       lines.py, arrow.py
    read("hf:ID:config:split")  a data set of the Hugging Face hub        arrow.py
    read("starter:helpful")     a small file that ships with the package  ../starter/

The columns of the first row decide the format: a safety test set (benchmarks.py), pairs of
dialogues (dialogues.py), or plain prompts. Plain prompts have a column ``prompt`` of text or
messages, or ``messages`` that end with an answer. Columns that are not needed are left alone.
"""

from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

from constitutional_ai.data import arrow, benchmarks, dialogues, lines
from constitutional_ai.data.rows import (
    Columns,
    Format,
    PromptRow,
    Reading,
    Table,
    conversation,
    text,
)
from constitutional_ai.errors import DataError

STARTER = "starter:"
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


def read(source: str | Path) -> Reading:
    """Every prompt of a source. Raises DataError with place and remedy; an empty source is one."""
    table = rows_of(source)
    first = next(table.rows, None)
    if first is None:
        raise DataError(f'{source}: no prompts in it; write one {{"prompt": "…"}} a line')
    format = _format(first[1])
    table = replace(table, rows=chain([first], table.rows))
    reading = Reading(table, format.name)

    def parse(number: int, row: Columns) -> PromptRow:
        return replace(format.read(row), number=number, id=text(row.get("id"), "id"))

    for row in table.read(parse, _expected(table, format)):
        reading.add(row)
    if not reading.prompts:
        reasons = ", ".join(reading.left_out)
        raise DataError(f"{source}: no prompts in it; every row was left out: {reasons}")
    return reading


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
    if isinstance(turns, list) and turns and isinstance(turns[-1], dict):
        turns = turns[:-1] if turns[-1].get("role") == "assistant" else turns
    return _plain({**row, "prompt": turns})


def _expected(table: Table, format: Format) -> str:
    """What is said of a row that lacks a column of its format."""
    if format.name != "prompts":
        return f"lacks a column of {format.name}"
    if table.container == "JSONL":
        return f'expected an object with "prompt", such as {lines.EXAMPLE}'
    remedy = " (or name one: hf:ID:::COLUMN)" if table.container == arrow.DATA_SET else ""
    return f"expected a column named prompt{remedy}"
