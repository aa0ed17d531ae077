"""``cai study``: several runs, one table."""

from pathlib import Path
from typing import Annotated

import typer

from constitutional_ai.commands.options import Json, RunFile, Set, group, progress
from constitutional_ai.errors import UserError

app = group("Several runs, one table.")


@app.command()
def seeds(
    file: RunFile,
    out: Annotated[Path, typer.Option(metavar="DIR", help="A run folder for each seed goes here.")],
    set_: Set = None,
    seeds: Annotated[str, typer.Option(help="Seeds with commas between.")] = "0,1,2",
    free_steps: Annotated[
        int,
        typer.Option(min=0, help="PPO steps of the runs without KL penalty; 0: leave them out."),
    ] = 160,
    json: Json = False,
) -> None:
    """Run one file under several seeds and print the table."""
    from constitutional_ai.study import seeds as run_seeds

    run_seeds(file, set_ or [], out, _whole_numbers(seeds), progress(json), free_steps)


def _whole_numbers(text: str) -> list[int]:
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() for part in parts):
        raise UserError(f"--seeds {text}: expected numbers with commas between, such as 0,1,2")
    return [int(part) for part in parts]
