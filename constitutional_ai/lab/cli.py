"""``cai lab``: the laboratory's models."""

from pathlib import Path
from typing import Annotated

import typer

from constitutional_ai.cli.options import Json, group, progress

app = group("The laboratory's models.")

Device = Annotated[str, typer.Option(help="cpu or cuda; sums differ by the device.")]


@app.command()
def pretrain(
    size: Annotated[str, typer.Option(help="xxs, xs or s.")],
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="The model's folder; default out/lab-SIZE.")
    ] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Fewer steps, for a trial.")] = None,
    tokens: Annotated[
        int | None, typer.Option(min=1, help="Of the corpus, in place of the size's own.")
    ] = None,
    batch_tokens: Annotated[
        int | None, typer.Option(min=512, help="Of a step; more where the device is a GPU.")
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
    """Go on, so that pleas, padding and silence move the judge less."""
    from constitutional_ai.lab.training import harden as hardening

    note = progress(json).note
    print(hardening.harden(model, out, tokens or hardening.TOKENS, note, device))


@app.command()
def skills(
    model: Annotated[str, typer.Option(help="lab:s, lab:xs, lab:xxs, or a folder.")] = "lab:s",
    pairs: Annotated[int, typer.Option(min=1, help="For each skill.")] = 300,
) -> None:
    """Measure what a laboratory model can critique, revise and judge."""
    from constitutional_ai.lab.training.skills import main as measure

    measure(model, pairs)


@app.command()
def pairs(
    out: Annotated[Path, typer.Option(metavar="FILE", help="Where to write; JSONL.")],
    count: Annotated[int, typer.Option(min=1, help="How many pairs.")] = 600,
    noise: Annotated[
        float, typer.Option(min=0, max=0.49, help="The share of labels that are wrong.")
    ] = 0.0,
    seed: Annotated[int, typer.Option(min=0, help="Which labels are wrong.")] = 0,
) -> None:
    """Write labelled pairs that a judge can be measured on; never train on them."""
    import json

    from constitutional_ai.lab.world.pairs import pairs as make

    rows = make(count, noise, seed)
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
    print(f"{out}: {count} pairs, {sum(row['flipped'] for row in rows)} with the wrong label")


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
    """Hold a run's labels against the truth, and against people who err; never train on it."""
    from constitutional_ai.drawing.tables import shown, table
    from constitutional_ai.errors import DataError
    from constitutional_ai.lab.world.people import people as ask
    from constitutional_ai.records import Preference
    from constitutional_ai.store.run_folder import read_rows

    try:
        found = ask(read_rows(file, Preference), noise, seed)
    except ValueError as error:
        raise DataError(f"{file}: not of the laboratory ({error})") from None
    print(
        f"{found['pairs']} pairs with a winner, {found['near_ties']} near ties and"
        f" {found['unlabelled']} without a label left out"
    )
    agreed = {name: value for name, value in found.items() if isinstance(value, dict)}
    rows = [[name, shown(a.get("raw")), shown(a.get("kappa"))] for name, a in agreed.items()]
    print(table(["", "agree", "kappa"], rows))
