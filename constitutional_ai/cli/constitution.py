"""``cai constitution``: write a constitution, check, test, compare, import and learn it.

Exit code 1 also means that lint finds errors (with ``--strict``, warnings too) or that a test case
fails.
"""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from constitutional_ai.cli.options import group, progress

if TYPE_CHECKING:
    from constitutional_ai.engines.base import Engine
    from constitutional_ai.records import PromptSet

app = group("Write a constitution like code: show, new, lint, test, diff, import, learn.")

File = Annotated[str, typer.Argument(metavar="FILE", help="A constitution, or a shipped name.")]
_SPEC = typer.Option("--engine", metavar="SPEC", help="lab:s, a folder, a hub id, http://…#MODEL.")
Spec = Annotated[str, _SPEC]
MaybeSpec = Annotated[str | None, _SPEC]
Fence = Annotated[
    bool | None,
    typer.Option(help="Fence the answers that a judge reads; default: all but lab models."),
]
Out = Annotated[Path, typer.Option("--out", metavar="FILE", help="The constitution to write.")]
Force = Annotated[bool, typer.Option("--force", help="Overwrite what is there.")]
AsJson = Annotated[bool, typer.Option("--json", help="The result as JSON.")]
DEFAULT_ENGINE = "lab:s"


@app.command()
def show(
    file: File = "lab",
    principle: Annotated[str | None, typer.Option(metavar="NAME", help="Only this one.")] = None,
    rendered: Annotated[bool, typer.Option("--rendered", help="All that a model sees.")] = False,
    json: AsJson = False,
) -> None:
    """Print a constitution's principles, and the prompts that derive from them."""
    from constitutional_ai.constitution import show as shown
    from constitutional_ai.principles import load_constitution

    constitution = load_constitution(file)
    chosen = [constitution.principle(principle)] if principle else list(constitution.principles)
    if json:
        _print_json(shown.as_json(constitution, chosen))
    else:
        _say(shown.text(constitution, chosen, rendered))


@app.command()
def new(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Its name, such as support-bot.")],
    out: Annotated[Path | None, typer.Option(metavar="FILE", help="Default NAME.toml.")] = None,
    like: Annotated[str | None, typer.Option("--from", metavar="FILE", help="Copy it.")] = None,
    force: Force = False,
) -> None:
    """Write a commented template, or a copy to edit, and test cases beside it."""
    from constitutional_ai.constitution import writing

    texts = writing.new_files(name, like)
    path = out or Path(f"{writing.plain_name(name)}.toml")
    for place, text in zip((path, path.with_suffix(".tests.toml")), texts, strict=False):
        writing.write_new(place, text, force)
        print(place)


@app.command()
def lint(
    files: Annotated[
        list[str], typer.Argument(metavar="FILE…", help="Constitutions, or shipped names.")
    ],
    strict: Annotated[bool, typer.Option("--strict", help="Fail on warnings too.")] = False,
    json: AsJson = False,
) -> None:
    """Find what is broken in a file: keys, names, duplicates, phases, placeholders; for CI."""
    from constitutional_ai.constitution import lint as linter

    findings = [finding for file in files for finding in linter.lint(file)]
    if json:
        _print_json([asdict(finding) for finding in findings])
    else:
        _say(linter.listing(findings, files))
    if linter.failed(findings, strict):
        raise typer.Exit(1)


@app.command("test")
def run_cases(
    file: File,
    cases: Annotated[Path | None, typer.Option(metavar="FILE", help="Default beside it.")] = None,
    engine: MaybeSpec = None,
    junit: Annotated[Path | None, typer.Option(metavar="FILE", help="Write JUnit XML.")] = None,
    fence: Fence = None,
    temperature: Annotated[float, typer.Option(min=0, help="Of the critic; 0 is greedy.")] = 0.0,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Of a critique.")] = 256,
    json: AsJson = False,
) -> None:
    """Run its test cases: does the critic notice, does the judge prefer. Fails where one fails."""
    from constitutional_ai.constitution import case_results, suite
    from constitutional_ai.constitution.cases import run_suite
    from constitutional_ai.engines.base import Sampling
    from constitutional_ai.judge.faults import is_laboratorys
    from constitutional_ai.principles import load_constitution

    constitution = load_constitution(file)
    tried = suite.load_suite(cases or suite.beside(file), constitution)
    spec = engine or tried.engine or DEFAULT_ENGINE
    model, fenced = _judge(spec, fence)
    sampling = Sampling(temperature=temperature, max_new_tokens=max_new_tokens)
    checks = run_suite(
        *(tried, constitution, model, fenced, sampling, progress(False)),
        by_phrase=is_laboratorys(spec),
    )
    if junit:
        junit.write_text(case_results.junit(tried, checks, constitution.name), encoding="utf-8")
    if json:
        _print_json(case_results.as_json(tried, checks, spec, constitution.hash))
    else:
        _say(f"{constitution.name} {constitution.version}  {constitution.hash}  by {spec}\n")
        _say(case_results.text(tried, checks))
    if any(check.failed for check in checks):
        raise typer.Exit(1)


@app.command()
def diff(
    before: Annotated[str, typer.Argument(metavar="A", help="A constitution, or a shipped name.")],
    after: Annotated[str, typer.Argument(metavar="B", help="Another.")],
    pairs: Annotated[Path | None, typer.Option(metavar="FILE", help="Judge under both.")] = None,
    engine: Spec = DEFAULT_ENGINE,
    limit: Annotated[int, typer.Option(min=1, help="Pairs to judge, drawn.")] = 500,
    examples: Annotated[int, typer.Option(min=0, help="Flipped pairs to show.")] = 5,
    fence: Fence = None,
    seed: int = 0,
    json: AsJson = False,
) -> None:
    """What changed: the words by principle and, with --pairs, which labels flip."""
    from constitutional_ai.constitution import diff as differ
    from constitutional_ai.data.pairs import load_usable, sample
    from constitutional_ai.principles import load_constitution

    one, other = load_constitution(before), load_constitution(after)
    result: dict[str, Any] = {"before": one.hash, "after": other.hash}
    result["changes"] = [asdict(change) for change in differ.changes(one, other)]
    if not json:
        _say(differ.described(one, other))
    if pairs:
        usable, flaws = load_usable(pairs, compared=False)
        rows = sample(usable, limit, "diff", seed)
        flips = differ.flips(one, other, rows, *_judge(engine, fence), progress(False))
        labels = {"skipped": flaws, "engine": engine}
        result["labels"] = differ.as_json(flips) | labels
        if not json:
            _say(differ.told_flips(flips, pairs, flaws, engine, examples))
    if json:
        _print_json(result)


@app.command(name="import")
def import_(
    files: Annotated[
        list[Path], typer.Argument(metavar="FILE…", help="The paper's JSON, Markdown, or a list.")
    ],
    out: Out,
    name: Annotated[str | None, typer.Option(help="Default: the name of --out.")] = None,
    format: Annotated[str, typer.Option(help="auto, paper, markdown or list.")] = "auto",
    force: Force = False,
) -> None:
    """Make a constitution of the paper's JSON, of a document with headings, or of a list."""
    from constitutional_ai.constitution import foreign, lint, writing

    imported = foreign.read_foreign(files, format, name or out.stem)
    head = [f"Imported from {', '.join(path.name for path in files)}."]
    text = writing.to_toml(imported.constitution, head, imported.notes)
    writing.write_new(out, text, force)
    print(f"{out}: {len(imported.constitution.principles)} principles")
    if findings := lint.lint(out):
        print(f"{len(findings)} findings: see `cai constitution lint {out}`")


@app.command()
def learn(
    preferences: Annotated[
        Path, typer.Argument(metavar="FILE", help="preferences.jsonl, TRL rows, or HH-RLHF.")
    ],
    out: Out,
    engine: Spec = DEFAULT_ENGINE,
    candidates: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="Try this constitution's principles; propose none."),
    ] = None,
    propose: Annotated[int, typer.Option(min=1, help="Pairs to ask about for proposals.")] = 40,
    limit: Annotated[int, typer.Option(min=2, help="Pairs to judge; half are held out.")] = 400,
    most: Annotated[int, typer.Option(min=1, help="Principles at most.")] = 8,
    min_gain: Annotated[float, typer.Option(min=0, help="Share one more must explain.")] = 0.01,
    set_: Annotated[str, typer.Option("--set", help="Of rows that name none.")] = "red-team",
    fence: Fence = None,
    temperature: Annotated[float, typer.Option(min=0, help="Of the proposals.")] = 1.0,
    seed: int = 0,
    force: Force = False,
    json: AsJson = False,
) -> None:
    """Propose principles that explain given preferences, and write them as a constitution."""
    from constitutional_ai.constitution import learn as learner
    from constitutional_ai.constitution import learned, writing
    from constitutional_ai.engines.base import Sampling

    writing.refuse_existing(out, force)  # before the work, not after it
    set_of_rows, (model, fenced) = _set(set_), _judge(engine, fence)
    sampling = Sampling(temperature=temperature, max_new_tokens=96, seed=seed)
    asking = learner.Asking(model, fenced, sampling, candidates, propose, limit, most, min_gain)
    result = learner.learn(preferences, set_of_rows, asking, progress(False))
    writing.write_new(out, learned.to_toml(result, out.stem), force)
    if json:
        _print_json(learned.as_json(result, str(out)))
    else:
        _say(learned.table(result))
        print(out)


def _judge(spec: str, fence: bool | None) -> tuple["Engine", bool]:
    """The model, and whether it is shown answers in a fence."""
    from constitutional_ai.engines import open_engine
    from constitutional_ai.judge.one_principle import fenced
    from constitutional_ai.settings import Settings

    return open_engine(spec, Settings()), fenced(spec) if fence is None else fence


def _set(text: str) -> "PromptSet":
    from constitutional_ai.errors import UserError

    match text:
        case "red-team" | "helpful":
            return text
        case _:
            raise UserError(f"--set {text}: it is one of: red-team, helpful")


def _print_json(value: object) -> None:
    import json

    print(json.dumps(value, ensure_ascii=False, indent=1))


def _say(text: str) -> None:
    from constitutional_ai.toml_file import visible

    print(visible(text))
