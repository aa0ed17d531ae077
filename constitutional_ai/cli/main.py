"""The command ``cai``. Heavy imports stand inside the commands, so that ``--help`` answers at once.

A command that is a group of commands has its module in ``commands/``.
"""

import signal
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from constitutional_ai.cli import constitution, data, evaluate, export, judge, monitor, redteam
from constitutional_ai.cli.options import Commands, Json, Out, RunFile, Set, progress
from constitutional_ai.version import __version__
from constitutional_ai.world import part

if TYPE_CHECKING:
    from constitutional_ai.settings import Settings

STAGES = {
    "revise": "1: answer, critique and revise, n rounds",
    "finetune": "2: finetune on the revised answers: SL-CAI",
    "sample": "3: two answers a prompt from the SL-CAI model",
    "label": "4: AI feedback, a soft preference for each pair",
    "reward": "5: fit the reward model to the preferences",
    "ppo": "6: reinforcement learning against it: RL-CAI",
    "evaluate": "7: measure every model on held-out prompts",
    "report": "8: one page that a person reads",
}


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
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show settings, prompts and costs; run nothing.")
    ] = False,
    json: Json = False,
) -> None:
    """Run every stage; run again, it continues."""
    settings = _settings(file, set_)
    if dry_run:
        from constitutional_ai.stages import preview

        print(preview.dry_run(settings, *preview.engine_or_reason(settings)))
        return
    _run(settings, out, None, redo, json)


def _stage_command(name: str) -> Callable[..., None]:
    def command(
        file: RunFile,
        out: Out = None,
        set_: Set = None,
        redo: Annotated[bool, typer.Option("--redo", help="Again, and drop later stages.")] = False,
        json: Json = False,
    ) -> None:
        _run(_settings(file, set_), out, [name], name if redo else None, json)

    return command


for _name, _help in STAGES.items():
    if _name == evaluate.NAME:  # measures models that no run made, too
        app.add_typer(evaluate.app, name=_name)
    else:
        app.command(_name, help=f"Stage {_help}.")(_stage_command(_name))


def _settings(file: str, overrides: list[str] | None) -> "Settings":
    from constitutional_ai.settings import load_settings

    return load_settings(file, overrides or [])


def _run(
    settings: "Settings", out: Path | None, stages: list[str] | None, redo: str | None, json: bool
) -> None:
    from constitutional_ai.stages.pipeline import run_pipeline

    out = out or Path("out") / settings.name
    folder = run_pipeline(settings, out, stages, redo, progress(json))
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


def main() -> None:
    """Entry point of ``cai`` and of ``python -m constitutional_ai``."""
    try:
        app()
    finally:  # Ctrl-C again, while Python takes itself down, would change the exit code
        signal.signal(signal.SIGINT, signal.SIG_IGN)
