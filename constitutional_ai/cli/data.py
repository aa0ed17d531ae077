"""``cai data``: what a source of prompts holds, before a run is built on it."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from constitutional_ai.data.rows import Reading


def data(
    source: Annotated[
        str, typer.Argument(metavar="FILE", help="JSONL, CSV, Parquet, or hf:ID:CONFIG:SPLIT.")
    ],
    against: Annotated[
        str | None, typer.Option(metavar="FILE", help="Count the requests that are in both.")
    ] = None,
    write: Annotated[
        Path | None, typer.Option(metavar="JSONL", help="Write the prompts, one object a line.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Everything as one JSON object.")] = False,
) -> None:
    """Show what is read of a prompts file: format, kinds, oddities, duplicates, overlap."""
    from constitutional_ai.data.sources import read
    from constitutional_ai.data.survey import survey, told

    reading = read(source)
    figures = survey(reading, read(against) if against else None)
    if write:
        _write(reading, write)
    if as_json:
        print(json.dumps(figures))
        return
    for line in told(figures):
        print(line)
    if write:
        print(f"{'written':<14} {len(reading.prompts):,} prompts to {write}")


def _write(reading: "Reading", target: Path) -> None:
    """The prompts in the form that every ``[prompts]`` setting takes; whole or not at all."""
    from constitutional_ai.store.whole import write_lines

    write_lines(
        target,
        (
            {"prompt": row.prompt, "kind": row.kind, "category": row.category, "row": row.number}
            for row in reading.prompts
        ),
    )
