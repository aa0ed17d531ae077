"""``cai judge``: measure a judge, calibrate it, attack it."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from constitutional_ai.cli.options import Json, Set, group, progress
from constitutional_ai.errors import UserError

if TYPE_CHECKING:
    from constitutional_ai.data.labelled import Labelled
    from constitutional_ai.judge.open import Bench
    from constitutional_ai.records import PromptSet

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
Count = Annotated[int, typer.Option(min=0, help="The first so many pairs; 0 takes all.")]


@app.command()
def report(
    file: File,
    engine: Engines = None,
    method: Annotated[
        list[str] | None,
        typer.Option(help="compare, thoughts, vote, score; repeatable. Default: as set."),
    ] = None,
    run: Run = "",
    set_: Set = None,
    constitution: Rules = "",
    prompts: Prompts = "",
    count: Count = 0,
    again: Annotated[int, typer.Option(min=0, help="Pairs to ask again, swapped.")] = 200,
    spoken: Annotated[int, typer.Option(min=0, help="Pairs on which to hear the verdict.")] = 50,
    out: Annotated[
        Path, typer.Option(metavar="DIR", help="For the page, figures and verdicts.")
    ] = Path("out/judge"),
    floors_only: Annotated[
        bool, typer.Option("--floors-only", help="What raters reach that read nothing; no engine.")
    ] = False,
    json: Json = False,
) -> None:
    """Measure judges against labelled pairs."""
    from constitutional_ai.data import labelled
    from constitutional_ai.judge import pages
    from constitutional_ai.judge import report as figures

    rows = labelled.load(file, _set_named(prompts), count)
    found: dict[str, Any] = {"file": str(file), **figures.of_file(rows)}
    if floors_only:
        pages.say(found, json)
        return
    bench = _bench(engine, run, set_, constitution)
    found |= _measure(bench, rows, method or [], (again, spoken), out, json)
    pages.write(found, out)
    pages.say(found, json)
    if not json:
        print(f"\n{out / pages.FILE}")


def _measure(
    bench: "Bench",
    rows: "list[Labelled]",
    methods: list[str],
    more: tuple[int, int],
    out: Path,
    json: bool,
) -> dict[str, Any]:
    """Every judge by every method on the pairs that a judge can be asked about, and their jury."""
    from constitutional_ai.judge import report as figures
    from constitutional_ai.judge.judge_pairs import JURY, Judged, examine, jury, spoken
    from constitutional_ai.judge.open import known_methods

    table, seed = bench.settings.label, bench.settings.seed
    usable = [row for row in rows if not row.flaw]
    if not usable:
        raise UserError("no pair is left that a judge could be asked about")
    judges: dict[str, Any] = {}
    judged: dict[str, list[Judged]] = {}
    named = known_methods(methods or [table.method])
    for way in named:
        by = "" if len(named) == 1 else f", {way}"
        for spec in bench.engines:
            judge, name = bench.judge(spec, way), spec + by
            with progress(json).task(name, total=len(usable), unit="pairs") as tick:
                judged[name] = examine(judge, usable, seed, out, tick, more[0], table.chunk)
            judges[name] = figures.of_judge(usable, judged[name], spec)
            judges[name]["spoken"] = spoken(judge, usable[: more[1]], seed)
            judges[name]["asked"] = {"method": way, "temperature": judge.temperature}
        if len(bench.engines) > 1:
            together = jury([judged[spec + by] for spec in bench.engines])
            judges[JURY + by] = figures.of_judge(usable, together, JURY)
            judges[JURY + by]["asked"] = {"method": way, "judges": list(bench.engines)}
    return {
        "asked_of": len(usable),
        "constitution": f"{bench.constitution.name} {bench.constitution.hash}",
        "judges": judges,
        "between": figures.between(judged),
    }


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
    from constitutional_ai.data import labelled
    from constitutional_ai.judge import certificate as calibration
    from constitutional_ai.judge import pages
    from constitutional_ai.judge.judge_pairs import examine

    rows = [r for r in labelled.load(file, _set_named(prompts), count) if not r.flaw]
    bench = _bench(engine, run, [*(set_ or []), "label.calibration="], constitution)
    table, seed, found = bench.settings.label, bench.settings.seed, {}
    for spec in bench.engines:
        with progress(json).task(spec, total=len(rows), unit="pairs") as tick:
            folder = out.parent / f".{out.stem}"
            judged = examine(bench.judge(spec), rows, seed, folder, tick, 0, table.chunk)
        read = [(j.p, row) for j, row in zip(judged, rows, strict=True) if j.p is not None]
        try:
            temperature, before, after = calibration.fit(
                [p for p, _ in read], [r.p for _, r in read], [r.id for _, r in read]
            )
        except ValueError:
            raise UserError(f"{file}: too few pairs with a verdict; calibrate on more") from None
        found[spec] = {"temperature": temperature, "before": before, "after": after}
    calibration.write(out, table, bench.constitution.hash, found)
    pages.say_calibration(found, json)
    if not json:
        print(f'\n{out}: name it in the run file, calibration = "{out}" under [label]')


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
    from constitutional_ai.judge import pages
    from constitutional_ai.judge.attack import attack as run_attack
    from constitutional_ai.judge.attack import families
    from constitutional_ai.world import is_model

    bench = _bench(engine, run, set_, constitution)
    judges = {spec: bench.judge(spec) for spec in bench.engines}
    in_lab = bench.constitution.name == "lab" or all(map(is_model, judges))
    rows = _attacked_pairs(pairs, in_lab, count, _set_named(prompts))
    attacks = families(in_lab, padding)
    with progress(json).task("attack", total=len(rows) * (len(attacks) + 2), unit="pairs") as tick:
        found = run_attack(judges, rows, attacks, bench.settings.seed, tick)
    pages.say_attacks(found, json)
    if out:
        pages.keep(out, found)


def _attacked_pairs(
    file: Path | None, in_lab: bool, count: int, prompts: "PromptSet | None"
) -> "list[Labelled]":
    from constitutional_ai.data import labelled
    from constitutional_ai.judge import builtin_pairs as everyday

    if file:
        rows = labelled.load(file, prompts)
    elif in_lab:
        from constitutional_ai.world import part

        rows = labelled.rows(part("world.pairs").pairs(count, noise=0.0, split="test"))
    else:
        rows = everyday.pairs()
    return [row for row in rows if not row.flaw][:count]


def _bench(
    engines: list[str] | None, run: str, overrides: list[str] | None, constitution: str
) -> "Bench":
    from constitutional_ai.judge.open import prepare

    if not engines:
        raise UserError("no judge is named; add --engine lab:s, or another model's spec")
    return prepare(list(dict.fromkeys(engines)), run, overrides or [], constitution)


def _set_named(name: str) -> "PromptSet | None":
    if name and name not in ("red-team", "helpful"):
        raise UserError(f"--prompts {name}: expected red-team or helpful")
    return name or None  # type: ignore[return-value]  # checked in the line before
