"""The command ``cai``. Heavy imports stand inside the commands, so that ``--help`` answers at once.

Exit codes: 0 done, 1 failed, 2 the user's mistake (one line on stderr), 130 interrupted.
"""

import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from constitutional_ai import __version__
from constitutional_ai.errors import TrainingDiverged, UserError

if TYPE_CHECKING:
    from constitutional_ai.progress import Progress
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


class Commands(TyperGroup):
    """Turns what a command raises into exit codes, in this one place."""

    def invoke(self, ctx: Any) -> Any:
        before = signal.signal(signal.SIGTERM, _interrupt)
        try:
            return super().invoke(ctx)
        except UserError as error:
            raise typer.Exit(_say(2, str(error))) from None
        except KeyboardInterrupt:
            text = "interrupted; run the same command again to continue"
            raise typer.Exit(_say(130, text)) from None
        except (TrainingDiverged, OSError) as error:
            raise typer.Exit(_say(1, f"{type(error).__name__}: {error}")) from None
        except Exception as error:
            if type(error).__module__.startswith(("typer", "click")):
                raise  # its own: usage errors and exits
            traceback.print_exc()
            raise typer.Exit(1) from None
        finally:
            signal.signal(signal.SIGTERM, before)


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _say(code: int, text: str) -> int:
    print("cai:", " ".join(text.split("\n")), file=sys.stderr)
    return code


app = typer.Typer(
    cls=Commands,
    help="Write a constitution, align a chat model to it, prove that it worked.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
constitution_app = typer.Typer(help="Look at constitutions.", no_args_is_help=True)
lab_app = typer.Typer(help="The laboratory's models.", no_args_is_help=True)
study_app = typer.Typer(help="Several runs, one table.", no_args_is_help=True)
app.add_typer(constitution_app, name="constitution")
app.add_typer(lab_app, name="lab")
app.add_typer(study_app, name="study")

RunFile = Annotated[str, typer.Argument(metavar="FILE", help="A run file, or a shipped one: lab.")]
Out = Annotated[
    Path | None, typer.Option("--out", metavar="DIR", help="The run folder; default out/NAME.")
]
Set = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Change a setting: ppo.kl_coef=0.2"),
]
Json = Annotated[bool, typer.Option("--json", help="Progress as JSON lines on stdout.")]


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
        from constitutional_ai import preview

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
    app.command(_name, help=f"Stage {_help}.")(_stage_command(_name))


def _settings(file: str, overrides: list[str] | None) -> "Settings":
    from constitutional_ai.settings import load_settings

    return load_settings(file, overrides or [])


def _run(
    settings: "Settings", out: Path | None, stages: list[str] | None, redo: str | None, json: bool
) -> None:
    from constitutional_ai.pipeline import run_pipeline

    out = out or Path("out") / settings.name
    folder = run_pipeline(settings, out, stages, redo, _progress(json))
    page = folder.stage("report").path / "report.html"
    if page.exists() and not json:
        print(page)


def _progress(json: bool) -> "Progress":
    from constitutional_ai.progress import Progress

    return Progress("json" if json else "auto")


@app.command()
def doctor() -> None:
    """Say what this machine can run."""
    from constitutional_ai.doctor import report

    for what, finding in report():
        print(f"{what:<18} {finding}")


@constitution_app.command()
def show(
    file: Annotated[str, typer.Argument(metavar="FILE", help="Or a shipped name.")] = "lab",
) -> None:
    """Print a constitution's principles, and the prompts that derive from them."""
    from constitutional_ai.constitution import load_constitution

    constitution = load_constitution(file)
    print(f"{constitution.name} {constitution.version}  {constitution.hash}")
    if constitution.description:
        print(constitution.description)
    for principle in constitution.principles:
        use = f"{', '.join(principle.use)} on {', '.join(principle.prompts)} prompts"
        print(f"\n{principle.name}  ({principle.kind}, weight {principle.weight:g}, {use})")
        print(f"  {principle.text}")
        print(f"  critique:   {principle.critique_prompt}")
        print(f"  revision:   {principle.revision_prompt}")
        print(f"  preference: {principle.preference_prompt}")


@lab_app.command()
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
    print(train(size, out, steps=steps, progress=_progress(json).note))


@lab_app.command()
def skills(
    model: Annotated[str, typer.Option(help="lab:s, lab:xs, lab:xxs, or a folder.")] = "lab:s",
) -> None:
    """Measure what a laboratory model can critique, revise and judge."""
    from constitutional_ai.lab.skills import main as measure

    measure(model)


@study_app.command()
def seeds(
    file: RunFile,
    out: Annotated[Path, typer.Option(metavar="DIR", help="A run folder for each seed goes here.")],
    set_: Set = None,
    seeds: Annotated[str, typer.Option(help="Seeds with commas between.")] = "0,1,2",
    json: Json = False,
) -> None:
    """Run one file under several seeds and print the table."""
    from constitutional_ai.study import seeds as run_seeds

    run_seeds(file, set_ or [], out, _whole_numbers(seeds), _progress(json))


def _whole_numbers(text: str) -> list[int]:
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() for part in parts):
        raise UserError(f"--seeds {text}: expected numbers with commas between, such as 0,1,2")
    return [int(part) for part in parts]


def main() -> None:
    """Entry point of ``cai`` and of ``python -m constitutional_ai``."""
    app()
