"""The command ``cai``. Heavy imports are inside the commands, so that ``--help`` answers at once.

Each of the other modules here is one command, or a group of commands.
"""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from constitutional_ai.cli import constitution, data, evaluate, export, judge, monitor, redteam
from constitutional_ai.cli.options import Commands, Json, Out, RunFile, Set, progress
from constitutional_ai.errors import Problems, SettingsError, UserError
from constitutional_ai.stage_list import STAGES
from constitutional_ai.version import __version__
from constitutional_ai.world import part

if TYPE_CHECKING:
    from constitutional_ai.settings import Settings

app = typer.Typer(
    cls=Commands,
    help="Write a constitution, align a chat model to it, prove that it worked.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
for _name, _group in {
    "constitution": constitution,
    "export": export,
    "judge": judge,
    "lab": part("cli"),
    "study": part("studies.cli"),
}.items():
    app.add_typer(_group.app, name=_name)
app.command()(redteam.redteam)
app.command()(monitor.monitor)


def _version(wanted: bool) -> None:
    if wanted:
        print(f"cai {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show it and exit.")
    ] = False,
) -> None:
    """The options of ``cai`` itself."""


@app.command()
def run(
    file: RunFile,
    out: Out = None,
    set_: Set = None,
    redo: Annotated[
        str | None,
        typer.Option(metavar="STAGE", help="Redo this stage and all later ones: label, r2/label."),
    ] = None,
    check: Annotated[
        bool, typer.Option("--check", help="Say what would stop this run; run nothing.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show costs, prompts and settings; run nothing.")
    ] = False,
    json: Json = False,
) -> None:
    """Run every stage; run again, it continues."""
    if check or dry_run:
        _look(file, set_, dry_run)
    else:
        _run(file, set_, out, None, redo, json)


def _look(file: str, overrides: list[str] | None, dry_run: bool) -> None:
    """Say what would stop the run, after a preview if wanted; exit code 2 if anything would."""
    from constitutional_ai.stages.check import problems, remarks

    settings, place = _load(file, overrides)
    complaints = list(problems(settings, place=place))
    if dry_run:
        from constitutional_ai.stages import preview

        try:
            print(preview.dry_run(settings, *preview.engine_or_reason(settings)))
        except UserError:
            if not complaints:
                raise
    if complaints:
        raise Problems(complaints)
    for remark in remarks(settings):
        print(remark)
    if not dry_run:
        print(f"{file}: nothing is seen that would stop this run")


def _load(file: str, overrides: list[str] | None) -> tuple["Settings", Callable[[str], str]]:
    from constitutional_ai.settings import load_run_file

    settings, place = load_run_file(file, overrides or [])
    if not settings.model_fields_set:
        default = settings.model.path
        print(f"cai: {file} sets nothing, so this is the default run of {default}", file=sys.stderr)
    return settings, place


def _stage_command(name: str) -> Callable[..., None]:
    def command(
        file: RunFile,
        out: Out = None,
        set_: Set = None,
        redo: Annotated[bool, typer.Option("--redo", help="Again, and drop later stages.")] = False,
        json: Json = False,
    ) -> None:
        _run(file, set_, out, [name], name if redo else None, json)

    return command


for _stage in STAGES:
    if _stage.word == evaluate.NAME:  # measures models that no run made, too
        app.add_typer(evaluate.app, name=_stage.word)
    else:
        _help = f"Stage {_stage.number}: {_stage.help}."
        app.command(_stage.word, help=_help)(_stage_command(_stage.word))


def _run(
    file: str,
    overrides: list[str] | None,
    out: Path | None,
    stages: list[str] | None,
    redo: str | None,
    json: bool,
) -> None:
    from constitutional_ai.stages.pipeline import run_pipeline

    settings, place = _load(file, overrides)
    out = out or Path("out") / settings.name
    if out == Path():
        raise SettingsError("--out: a run needs a folder of its own; name one")
    folder = run_pipeline(settings, out, stages, redo, progress(json), place)
    page = folder.stage("report").path / "report.html"
    if page.exists() and not json:
        print(page)


app.command("data")(data.data)


@app.command()
def doctor() -> None:
    """Say what this machine can run."""
    from constitutional_ai.cli.doctor import report

    for what, finding in report():
        print(f"{what:<18} {finding}")
