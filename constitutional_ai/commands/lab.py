"""``cai lab``: the laboratory's models."""

from pathlib import Path
from typing import Annotated

import typer

from constitutional_ai.commands.options import Json, group, progress

app = group("The laboratory's models.")


@app.command()
def pretrain(
    size: Annotated[str, typer.Option(help="xxs, xs or s.")],
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="The model's folder; default out/lab-SIZE.")
    ] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Fewer steps, for a trial.")] = None,
    json: Json = False,
) -> None:
    """Train a laboratory model from nothing, by the recipe in the repository."""
    from constitutional_ai.lab.pretrain import pretrain as train

    out = out or Path("out") / f"lab-{size}"
    print(train(size, out, steps=steps, progress=progress(json).note))


@app.command()
def skills(
    model: Annotated[str, typer.Option(help="lab:s, lab:xs, lab:xxs, or a folder.")] = "lab:s",
) -> None:
    """Measure what a laboratory model can critique, revise and judge."""
    from constitutional_ai.lab.skills import main as measure

    measure(model)
