"""``cai monitor``: signs of reward hacking in samples of a policy."""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from constitutional_ai.errors import UserError

WIDTH = 160  # of the table in a file or a pipe, where no terminal says


def monitor(
    files: Annotated[
        list[str],
        typer.Argument(metavar="FILES", help="JSONL of prompts and answers; FILE#MODEL for one."),
    ],
    reference: Annotated[
        str, typer.Option(metavar="FILE", help="Answers to compare with: of the policy before.")
    ] = "",
    fail: Annotated[
        bool, typer.Option("--fail", help="Exit with 1 where something is flagged.")
    ] = False,
    seed: Annotated[int, typer.Option(min=0, help="Of the bootstrap.")] = 0,
    json: Annotated[bool, typer.Option("--json", help="The figures as one JSON object.")] = False,
) -> None:
    """Look for stock phrases, evasion, monotony and odd lengths in samples of a policy."""
    from constitutional_ai.monitor.samples import load
    from constitutional_ai.monitor.text import alone, compare

    if fail and not reference:
        raise UserError("--fail needs --reference: nothing is flagged without one")
    against = load(reference) if reference else None
    found: dict[str, Any] = {}
    if against:
        found[reference] = alone(against)
    for file in files:
        samples = load(file)
        found[file] = alone(samples) | (compare(samples, against, seed) if against else {})
    if json:
        import json as machine

        print(machine.dumps({"reference": reference or None, "files": found}))
    else:
        _show(found, reference)
    if fail and any(found[file].get("flags") for file in files):
        raise typer.Exit(1)


def _show(found: Mapping[str, Mapping[str, Any]], reference: str) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    head = ("file", "answers", "prompts", "evasive", "distinct-3", "words", "most spread")
    table = Table(box=box.SIMPLE)
    for n, name in enumerate(head):
        table.add_column(name, justify="right" if n else "left", overflow="fold")
    for file, row in found.items():
        cells = (
            Path(file).name, str(row["answers"]), str(row["prompts"]), f"{row['evasive']:.2f}",
            f"{row['distinct_3']:.2f}", f"{row['words']:.0f}", f"{row['most_spread']['share']:.2f}",
        )  # fmt: skip
        table.add_row(*(Text(cell) for cell in cells))
    width = None if sys.stdout.isatty() else WIDTH
    console = Console(width=width, markup=False, highlight=False, soft_wrap=True)
    console.print(table)
    for file, row in found.items():
        note = " (reference)" if file == reference else ""
        console.print(f"{Path(file).name}{note}: most spread: “{row['most_spread']['phrase']}”")
    if not reference:
        console.print("Nothing is flagged without a --reference.")
        return
    for file, row in found.items():
        for what, said in row.get("flags", {}).items():
            console.print(f"{Path(file).name}: {what}: {said}")
    if not any(row.get("flags") for row in found.values()):
        console.print("Nothing is flagged.")
