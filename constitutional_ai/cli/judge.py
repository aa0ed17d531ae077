"""``cai judge``: measure a judge, calibrate it, attack it."""

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from constitutional_ai.cli.options import Json, Set, group, progress
from constitutional_ai.errors import UserError

if TYPE_CHECKING:
    from constitutional_ai.data.pairs import Labelled
    from constitutional_ai.judge.open import Bench
    from constitutional_ai.progress import Progress
    from constitutional_ai.records import PromptSet


class Method(StrEnum):
    """As ``label.method``."""

    compare = "compare"
    thoughts = "thoughts"
    vote = "vote"
    score = "score"


app = group("Measure a judge, calibrate it, attack it.")

File = Annotated[Path, typer.Argument(metavar="FILE", help="Labelled pairs; JSONL.")]
Engines = Annotated[
    list[str] | None,
    typer.Option(
        "--engine", metavar="SPEC", help="A judge: lab:s, a folder, http://…; repeatable."
    ),
]
Run = Annotated[
    str, typer.Option("--run", metavar="FILE", help="Take the settings of this run file.")
]
Rules = Annotated[
    str, typer.Option("--constitution", metavar="NAME", help="A file, or a shipped one's name.")
]
Prompts = Annotated[
    str, typer.Option(metavar="SET", help="What all prompts are: red-team or helpful.")
]
Count = Annotated[int, typer.Option(min=0, help="How many pairs, from the first; 0 takes all.")]


@app.command()
def report(
    file: File,
    engine: Engines = None,
    method: Annotated[
        list[Method] | None, typer.Option(help="How to ask; repeatable. Default: as set.")
    ] = None,
    run: Run = "",
    set_: Set = None,
    constitution: Rules = "",
    prompts: Prompts = "",
    count: Count = 0,
    again: Annotated[int, typer.Option(min=0, help="Pairs to ask again, swapped.")] = 200,
    spoken: Annotated[int, typer.Option(min=0, help="Pairs on which to hear the verdict.")] = 50,
    principles: Annotated[
        int, typer.Option(min=1, help="Principles to ask each pair under, at least.")
    ] = 4,
    all_principles: Annotated[
        bool, typer.Option("--all-principles", help="Ask each pair under every principle.")
    ] = False,
    out: Annotated[
        Path, typer.Option(metavar="DIR", help="For the page, figures and verdicts.")
    ] = Path("out/judge"),
    floors_only: Annotated[
        bool, typer.Option("--floors-only", help="What raters reach that read nothing; no engine.")
    ] = False,
    json: Json = False,
) -> None:
    """Measure judges against labelled pairs."""
    from constitutional_ai.data.pairs import load
    from constitutional_ai.judge import pages
    from constitutional_ai.judge import report as measured
    from constitutional_ai.judge.open import prepare
    from constitutional_ai.judge.report import Asking

    rows = load(file, _set_named(prompts), count)
    figures: dict[str, Any] = {"file": str(file), **measured.of_file(rows)}
    if not floors_only:
        bench = prepare(engine or [], run, set_ or [], constitution)
        asking = Asking(out, again, spoken, 0 if all_principles else principles, progress(json))
        figures |= measured.measure(bench, rows, method or [], asking)
        pages.write(figures, out)
    if json:
        pages.say_json(figures)
        return
    pages.say(figures)
    if not floors_only:
        print(f"\n{out / pages.FILE}")


@app.command()
def calibrate(
    file: File,
    out: Annotated[Path, typer.Option(metavar="FILE", help="What label.calibration will name.")],
    engine: Engines = None,
    run: Run = "",
    set_: Set = None,
    constitution: Rules = "",
    prompts: Prompts = "",
    count: Count = 0,
    json: Json = False,
) -> None:
    """Fit each judge's temperature to half of the pairs, and measure it on the other half."""
    from constitutional_ai.data.pairs import load
    from constitutional_ai.judge import certificate, pages
    from constitutional_ai.judge.open import prepare

    rows = [row for row in load(file, _set_named(prompts), count) if not row.flaw]
    bench = prepare(engine or [], run, [*(set_ or []), "label.calibration="], constitution)
    fitted = {spec: _fitted(bench, spec, rows, file, out, progress(json)) for spec in bench.engines}
    certificate.write(out, bench.settings.label, bench.constitution.hash, fitted)
    if json:
        pages.say_json(fitted)
        return
    pages.say_calibration(fitted)
    print(f'\n{out}: name it in the run file, calibration = "{out}" under [label]')


def _fitted(
    bench: "Bench", spec: str, rows: "list[Labelled]", file: Path, out: Path, shown: "Progress"
) -> dict[str, Any]:
    from constitutional_ai.judge.certificate import fit
    from constitutional_ai.judge.judge_pairs import examine

    folder = out.parent / f".{out.stem}"  # so that an interrupted call goes on
    with shown.task(spec, total=len(rows), unit="pairs") as tick:
        judged = examine(bench.judge(spec), rows, bench.settings.seed, folder, tick)
    read = [(j.p, row) for j, row in zip(judged, rows, strict=True) if j.p is not None]
    try:
        temperature, before, after = fit(
            [p for p, _ in read], [row.p for _, row in read], [row.id for _, row in read]
        )
    except ValueError:
        raise UserError(f"{file}: too few pairs with a verdict; calibrate on more") from None
    return {"temperature": temperature, "before": before, "after": after}


@app.command()
def attack(
    engine: Engines = None,
    pairs: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Labelled pairs; default: our own.")
    ] = None,
    run: Run = "",
    set_: Set = None,
    constitution: Rules = "",
    prompts: Prompts = "",
    count: Annotated[int, typer.Option(min=1, help="Pairs, at most.")] = 200,
    padding: Annotated[int, typer.Option(min=1, help="Sentences of padding.")] = 150,
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="Figures as JSON.")] = None,
    json: Json = False,
) -> None:
    """Write into the worse answer what might make it win, and count how often it does."""
    from constitutional_ai.data.pairs import labelled, load
    from constitutional_ai.engines.spec import ModelSpec
    from constitutional_ai.judge import attack as attacks
    from constitutional_ai.judge import pages
    from constitutional_ai.judge.open import prepare
    from constitutional_ai.world import part

    bench = prepare(engine or [], run, set_ or [], constitution)
    judges = {spec: bench.judge(spec) for spec in bench.engines}
    in_lab = bench.constitution.name == "lab" or all(
        ModelSpec.parse(spec).kind == "lab" for spec in judges
    )
    if in_lab and not pairs:
        rows = labelled(part("world.pairs").pairs(count, noise=0.0, split="test"))
    else:
        rows = load(pairs or attacks.BUILTIN_PAIRS, _set_named(prompts))
    rows = [row for row in rows if not row.flaw][:count]
    tried = attacks.families(in_lab, padding)
    with progress(json).task("attack", total=len(rows) * (len(tried) + 2), unit="pairs") as tick:
        figures = attacks.attack(judges, rows, tried, bench.settings.seed, tick)
    if out:
        pages.keep(out, figures)
    if json:
        pages.say_json(figures)
    else:
        pages.say_attacks(figures)


def _set_named(name: str) -> "PromptSet | None":
    if name and name not in ("red-team", "helpful"):
        raise UserError(f"--prompts {name}: expected red-team or helpful")
    return name or None  # type: ignore[return-value]  # checked in the line before
