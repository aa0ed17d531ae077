"""Pages of studies: Markdown with pictures for the documentation, one HTML page for all of them.

All numbers on them come from result files.
"""

import math
from collections.abc import Sequence
from pathlib import Path

from constitutional_ai.drawing import figures
from constitutional_ai.drawing.page import Drawing, Page, Section, Table, render
from constitutional_ai.lab.studies.drawing import draw
from constitutional_ai.lab.studies.results import Result
from constitutional_ai.lab.studies.study import Study
from constitutional_ai.stats.intervals import Estimate

HTML = "studies.html"
CANNOT = (
    "A synthetic laboratory: a world of simple English in which every truth is known, and models of"
    " a few million parameters that were taught to criticise and to judge. It shows how the method"
    " works and when it fails; no number here is a forecast for a real language model."
)


def intervals(result: Result) -> str:
    """What the intervals are over."""
    if len(result.seeds) == 1:
        return (
            f"One seed ({result.seeds[0]}): the 95% intervals are over the prompts of this run and"
            " say nothing about the seed."
        )
    named = ", ".join(map(str, result.seeds))
    same = " If all seeds agree, they are over prompts." * any(c.seedless for c in result.cells)
    over = f"over {len(result.seeds)} seeds (Student's t)"
    return f"Seeds {named}: the 95% intervals are {over}.{same}"


def _measured(study: Study, result: Result) -> str:
    """The intervals, and the smallest and the largest n of a value in one seed."""
    wanted = {axis.metric for axis in study.table}
    sizes = [cell.n for cell in result.cells if cell.metric in wanted]
    if not sizes:
        return f"{intervals(result)} n: nothing was measured."
    low, high = min(sizes), max(sizes)
    n = f"{low} to {high}" if high > low else f"{low}"
    return f"{intervals(result)} n in each seed: {n}."


def markdown(study: Study, result: Result, pictures: Sequence[str]) -> str:
    """The documentation's page; ``pictures`` are files beside it."""
    runs = [
        [f"`{made.variant}`", str(made.seed), f"`{made.stage}`", f"`{made.hash}`",
         f"{made.seconds:.0f}"]
        for made in result.runs
    ]  # fmt: skip
    parts = [
        f"# {study.about.title}",
        f"{study.about.question} The paper's place: {study.about.paper}.",
        *(f"![{study.about.title}: {name}]({name})" for name in pictures),
        table(study, result),
        _measured(study, result),
        *study.about.caveats,
        *result.notes,
        CANNOT,
        "## How it was made",
        f"```\n{result.command}\n```",
        f"Run file `{result.file}`{_overridden(result)}, model `{result.model}`,"
        f" constitutional-ai {result.version}. A hash names all that a run's last stage depends"
        " on. Seconds are those of all its stages; shared stages count in every run.",
        grid(["run", "seed", "last stage", "hash", "seconds"], runs),
    ]
    return "\n\n".join(parts) + "\n"


def table(study: Study, result: Result) -> str:
    """The study's table alone, in Markdown."""
    return grid(*_columns(study, result))


def _columns(study: Study, result: Result) -> tuple[list[str], list[list[str]]]:
    """The table's head, and a row for each line and x that has any of its columns."""
    head = ["", *([study.xname] if study.xname else []), *(axis.label for axis in study.table)]
    metrics = [axis.metric for axis in study.table]
    places = dict.fromkeys((c.line, c.x) for c in result.cells if c.metric in metrics)
    body = []
    for line, x in places:
        cells = [(result.cell(line, axis.metric, x), axis.bounds) for axis in study.table]
        values = [shown(cell.within(bounds) if cell else None) for cell, bounds in cells]
        body.append([line, *([f"{x:g}"] if study.xname else []), *values])
    return head, body


def _overridden(result: Result) -> str:
    return f" with `{'`, `'.join(result.overrides)}`" if result.overrides else ""


def grid(head: Sequence[str], body: Sequence[Sequence[str]]) -> str:
    """A Markdown table; a bar in a cell does not end it."""
    lines = [head, ["---"] * len(head), *body]
    return "\n".join(f"| {' | '.join(c.replace('|', '¦') for c in line)} |" for line in lines)


def shown(value: Estimate | None) -> str:
    """An estimate as text.

    >>> shown({"mean": 0.5, "low": 0.25, "high": 0.75, "n": 8}), shown(None)
    ('0.50 (0.25 to 0.75)', '—')
    """
    if value is None:
        return "—"
    digits = 0 if abs(value["mean"]) >= 100 else 2
    text = f"{value['mean']:.{digits}f}"
    if not math.isfinite(value["low"]) or value["low"] == value["high"] == value["mean"]:
        return text
    return f"{text} ({value['low']:.{digits}f} to {value['high']:.{digits}f})"


def write(study: Study, result: Result, folder: Path) -> Path:
    """FOLDER/NAME.md with its pictures as .svg and .png; returns the page."""
    folder.mkdir(parents=True, exist_ok=True)
    pictures = []
    for name, figure in draw(study, result).items():
        (folder / f"{name}.svg").write_text(figures.svg(figure, name), encoding="utf-8")
        figures.png(figure, folder / f"{name}.png")
        pictures.append(f"{name}.png")
    page = folder / f"{study.name}.md"
    page.write_text(markdown(study, result, pictures), encoding="utf-8")
    return page


def html(pairs: Sequence[tuple[Study, Result]]) -> str:
    """All studies on one self-contained page."""
    sections = [section(study, result) for study, result in pairs]
    what_not = Section("What this can and cannot show", words=[CANNOT], boxed=True)
    seeds = sorted({seed for _, result in pairs for seed in result.seeds})
    return render(
        Page(
            title="constitutional-ai: studies in the laboratory",
            headline=f"{len(pairs)} studies of Constitutional AI on models whose world is known.",
            note=f"Seeds {', '.join(map(str, seeds))}. Bars and bands are 95% intervals; each"
            " study says over what.",
            sections=[*sections, what_not],
        )
    )


def section(study: Study, result: Result) -> Section:
    """A study on a page of several."""
    drawings = []
    for name, figure in draw(study, result).items():
        alt = f"{study.about.title}: {name}. {study.about.question}"
        inlined = figures.inline(figures.svg(figure, name), alt)
        drawings.append(Drawing("", f"{study.about.question} ({study.about.paper})", inlined))
    head, body = _columns(study, result)
    runs = "\n".join(f"{m.variant}  seed {m.seed}  {m.stage}  {m.hash}" for m in result.runs)
    return Section(
        study.about.title,
        words=[
            _measured(study, result),
            *study.about.caveats,
            *result.notes,
        ],
        drawings=drawings,
        tables=[Table(study.about.question, head, body)],
        details={"command": result.command, "runs": runs},
    )
