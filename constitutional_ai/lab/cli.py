"""``cai lab``: the laboratory's models."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from constitutional_ai.cli.options import Json, group, progress
from constitutional_ai.errors import UserError

if TYPE_CHECKING:
    from constitutional_ai.lab.world import topics as world

app = group("The laboratory's models.")

Device = Annotated[str, typer.Option(help="cpu or cuda; the two round sums differently.")]


@app.command()
def pretrain(
    size: Annotated[str, typer.Option(help="xxs, xs or s.")],
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="The model's folder; default out/lab-SIZE.")
    ] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Fewer steps, for a trial.")] = None,
    tokens: Annotated[
        int | None, typer.Option(min=1, help="Length of the corpus; default by size.")
    ] = None,
    batch_tokens: Annotated[
        int | None, typer.Option(min=512, help="Tokens of a step; more on a GPU.")
    ] = None,
    device: Device = "cpu",
    json: Json = False,
) -> None:
    """Train a laboratory model from nothing, by the recipe in the repository."""
    from constitutional_ai.lab.training import pretrain as recipe

    out = out or Path("out") / f"lab-{size}"
    print(
        recipe.pretrain(
            size,
            out,
            steps=steps,
            tokens=tokens,
            batch_tokens=batch_tokens or recipe.BATCH_TOKENS,
            device=device,
            progress=progress(json).note,
        )
    )


@app.command()
def harden(
    model: Annotated[str, typer.Argument(help="lab:s, or a folder of `cai lab pretrain`.")],
    out: Annotated[Path, typer.Option(metavar="DIR", help="The new model's folder.")],
    tokens: Annotated[int | None, typer.Option(min=1, help="Fewer tokens, for a trial.")] = None,
    device: Device = "cpu",
    json: Json = False,
) -> None:
    """Train a model on, so that pleas, padding and silence move the judge less."""
    from constitutional_ai.lab.training import harden as hardening

    note = progress(json).note
    print(hardening.harden(model, out, tokens or hardening.TOKENS, note, device))


Split = Annotated[
    str, typer.Option(metavar="SPLIT", help="Topics: test, train, or taught (known to the base).")
]


@app.command()
def skills(
    model: Annotated[str, typer.Option(help="lab:s, lab:xs, lab:xxs, or a folder.")] = "lab:s",
    pairs: Annotated[int, typer.Option(min=1, help="For each skill.")] = 300,
    split: Split = "test",
) -> None:
    """Measure what a laboratory model can critique, revise and judge."""
    from constitutional_ai.engines.local import LocalEngine
    from constitutional_ai.lab.training.skills import report

    print(report(LocalEngine.load(model), pairs, _split(split)))


@app.command()
def pairs(
    out: Annotated[Path, typer.Option(metavar="FILE", help="Where to write; JSONL.")],
    count: Annotated[int, typer.Option(min=1, help="How many pairs.")] = 600,
    noise: Annotated[
        float, typer.Option(min=0, max=0.49, help="The share of labels that are wrong.")
    ] = 0.0,
    seed: Annotated[int, typer.Option(min=0, help="Decides which labels are wrong.")] = 0,
    split: Split = "train",
) -> None:
    """Write labelled pairs to measure or calibrate a judge; never train on them."""
    import json

    from constitutional_ai.lab.world.pairs import pairs as make

    rows = make(count, noise, seed, _split(split))
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
    wrong = sum(row["flipped"] for row in rows)
    print(f"{out}: {count} pairs about {split} topics, {wrong} with the wrong label")


def _split(name: str) -> "world.Split":
    from constitutional_ai.lab.world import topics as world

    if name not in world.SPLITS:
        raise UserError(f"--split {name}: expected {', '.join(world.SPLITS)}")
    return name  # type: ignore[return-value]  # checked in the line before


@app.command()
def people(
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="preferences.jsonl of a run in the laboratory.")
    ],
    noise: Annotated[
        float, typer.Option(min=0, max=0.49, help="The share of pairs that a person gets wrong.")
    ] = 0.2,
    seed: Annotated[int, typer.Option(min=0, help="Which pairs a person gets wrong.")] = 0,
) -> None:
    """Compare a run's labels with the truth, and with people who err; never train on it."""
    from constitutional_ai.drawing.tables import shown, table
    from constitutional_ai.errors import DataError
    from constitutional_ai.lab.world.people import people as ask
    from constitutional_ai.records import Preference
    from constitutional_ai.store.rows import read_rows

    try:
        answers = ask(read_rows(file, Preference), noise, seed)
    except ValueError as error:
        raise DataError(f"{file}: not of the laboratory ({error})") from None
    print(
        f"{answers['pairs']} pairs with a winner, {answers['near_ties']} near ties and"
        f" {answers['unlabelled']} without a label left out"
    )
    agreed = {name: value for name, value in answers.items() if isinstance(value, dict)}
    rows = [[name, shown(a.get("raw")), shown(a.get("kappa"))] for name, a in agreed.items()]
    print(table(["", "agree", "kappa"], rows))
