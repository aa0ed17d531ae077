"""``cai evaluate``: the stage of a run, or any models on any prompts; its further commands.

Without one of the commands' names the first word is a run file, or an option of the evaluation.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from constitutional_ai.cli.options import Json, Out, Set, progress
from constitutional_ai.errors import SettingsError

if TYPE_CHECKING:
    from constitutional_ai.settings import Settings

NAME, DEFAULT = "evaluate", "models"
HELP = "Stage 7: measure every model on held-out prompts; or any models, without a run."


class WithDefault(TyperGroup):
    """``cai evaluate FILE`` and ``cai evaluate --model …`` are ``cai evaluate models …``."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if args and args[0] not in self.commands:
            args = [DEFAULT, *args]
        return super().parse_args(ctx, args)


app = typer.Typer(cls=WithDefault, help=HELP, no_args_is_help=True, rich_markup_mode=None)

Models = Annotated[
    list[str] | None,
    typer.Option(
        "--model",
        metavar="[NAME=]SPEC",
        help="lab:s, a folder, a hub id, http://HOST:PORT/v1#MODEL. Again for more; the first is"
        " what the others are compared with.",
    ),
]
Seed = Annotated[int, typer.Option(min=0, help="Of sampling and of resampled intervals.")]


File = Annotated[
    str | None,
    typer.Argument(metavar="[FILE]", help="A run file: its stage; with --model its settings."),
]
Prompts = Annotated[
    str | None, typer.Option(metavar="FILE", help="Test prompts: JSONL, CSV, hf:ID, or lab.")
]
Answers = Annotated[
    list[Path] | None,
    typer.Option(metavar="FILE", help="Answers made elsewhere: rows of prompt, answer, model."),
]
Judge = Annotated[
    str | None, typer.Option(metavar="SPEC", help="The model that reads the answers.")
]
Constitution = Annotated[
    str | None, typer.Option(metavar="FILE", help="What the judge compares under.")
]
Train = Annotated[
    list[str] | None,
    typer.Option(metavar="FILE", help="Training prompts or a run; the test may hold none."),
]
Samples = Annotated[int | None, typer.Option(min=1, help="Answers to each prompt.")]
Temperature = Annotated[float | None, typer.Option(min=0, help="0 is greedy.")]
MaxNewTokens = Annotated[int | None, typer.Option(min=1, help="Of an answer.")]
Limit = Annotated[int | None, typer.Option(min=1, help="Prompts of each kind.")]
Pairs = Annotated[
    str | None, typer.Option(help="Which models the judge compares: first, all, off.")
]
Difference = Annotated[
    float | None, typer.Option(help="The difference of shares that you want to find.")
]
Oracle = Annotated[
    bool, typer.Option(help="In the laboratory the oracle reads the answers, else the judge.")
]
Capability = Annotated[
    bool | None,
    typer.Option(help="Ask each model 200 questions of general knowledge, too; default: yes."),
]
Dialogues = Annotated[
    str | None,
    typer.Option(metavar="FILE", help="Helpful dialogues of people, for the log-likelihood."),
]
People = Annotated[
    int | None,
    typer.Option(
        "--sample-for-people",
        min=1,
        metavar="N",
        help="Write N answers to people/sheet.csv, for a person to judge blind.",
    ),
]
Redo = Annotated[bool, typer.Option("--redo", help="Again, and drop later stages.")]


@app.command(DEFAULT, epilog="Also: cai evaluate hhh --help, cai evaluate agreement --help.")
def models(
    file: File = None,
    out: Out = None,
    set_: Set = None,
    model: Models = None,
    prompts: Prompts = None,
    answers: Answers = None,
    judge: Judge = None,
    constitution: Constitution = None,
    train: Train = None,
    samples: Samples = None,
    temperature: Temperature = None,
    max_new_tokens: MaxNewTokens = None,
    limit: Limit = None,
    pairs: Pairs = None,
    difference: Difference = None,
    oracle: Oracle = True,
    capability: Capability = None,
    dialogues: Dialogues = None,
    people: People = None,
    seed: Seed = 0,
    redo: Redo = False,
    json: Json = False,
) -> None:
    """Measure the models of a run, or those that --model and --answers name."""
    if not model and not answers:
        _stage(file, out, set_, redo, json, people)
        return
    from constitutional_ai.evaluation.command import Wanted, evaluate

    if max_new_tokens is None and file is None and prompts != "lab":
        max_new_tokens = 512  # the settings' default is the laboratory's
    changes = {
        "samples": samples,
        "temperature": temperature,
        "max_new_tokens": max_new_tokens,
        "pairs": pairs,
        "difference": difference,
        "capability": capability,
        "dialogues": dialogues,
        **dict.fromkeys(("harmful", "benign", "borderline", "facts"), limit),
    }
    settings = _settings(file, set_, seed, constitution or _constitution_for(file, judge), changes)
    named = model or (), prompts, answers or (), judge, train or ()
    wanted = Wanted(*named, oracle=oracle, redo=redo, limit=limit)
    folder = out or Path("out") / "evaluate"
    tables = evaluate(wanted, settings, folder, progress(json))
    if not json:
        print(f"{tables}\n\n{folder}")
    _sheet(folder, people, settings.seed, json)


@app.command()
def hhh(
    data: Annotated[Path, typer.Option(metavar="FILE", help="In the shape of the paper's 438.")],
    model: Models = None,
    out: Out = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Questions, the first.")] = None,
    seed: Seed = 0,
    json: Json = False,
) -> None:
    """Multiple choice by log-probabilities: the paper's helpful, honest, harmless comparisons."""
    from constitutional_ai.engines.spec import named_specs
    from constitutional_ai.evaluation import hhh as choices

    if not model:
        raise SettingsError("name a model to ask: --model SPEC")
    settings = _settings(None, None, seed, "harmless", {})
    folder = out or Path("out") / "hhh"
    result = choices.evaluate(named_specs(model), data, settings, folder, progress(json), limit)
    if not json:
        print(f"{choices.as_text(result)}\n\n{folder}")


@app.command()
def agreement(
    sheet: Annotated[Path, typer.Argument(metavar="SHEET", help="A sheet that was filled in.")],
    key: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Its key; default: key.json beside it.")
    ] = None,
    seed: Seed = 0,
    json: Annotated[bool, typer.Option("--json", help="As one JSON object.")] = False,
) -> None:
    """How far a person agrees with the judge, on a sheet of --sample-for-people."""
    from json import dumps

    from constitutional_ai.evaluation import people

    found = people.agreed(sheet, key or sheet.parent / people.KEY, seed)
    print(dumps(found) if json else people.as_text(found))


def _sheet(evaluated: Path, count: int | None, seed: int, quiet: bool) -> None:
    """``--sample-for-people``: a sheet of an evaluation that is done."""
    if count is None:
        return
    from constitutional_ai.evaluation import people

    folder = evaluated / "people"
    rows = people.write_sheet(evaluated, count, seed, folder)
    if not quiet:
        sheet, key = folder / people.SHEET, folder / people.KEY
        print(f"\n{rows} answers to judge: {sheet}; keep {key} from whoever fills it in")


def _stage(
    file: str | None,
    out: Path | None,
    overrides: list[str] | None,
    redo: bool,
    json: bool,
    people: int | None,
) -> None:
    if file is None:
        raise SettingsError("name a run file, or models to evaluate: --model SPEC --prompts FILE")
    from constitutional_ai.evaluation.measure import show_scores
    from constitutional_ai.settings import load_settings
    from constitutional_ai.stages.pipeline import run_pipeline

    settings = load_settings(file, overrides or [])
    out, again = out or Path("out") / settings.name, "evaluate" if redo else None
    folder = run_pipeline(settings, out, ["evaluate"], again, progress(json))
    evaluated = folder.stage("evaluate").path
    if not json:
        print(show_scores(evaluated))
    _sheet(evaluated, people, settings.seed, json)


def _settings(
    file: str | None,
    overrides: list[str] | None,
    seed: int,
    constitution: str | None,
    changes: dict[str, Any],
) -> "Settings":
    """The run file's settings, or the defaults, with what the options change."""
    from pydantic import ValidationError

    from constitutional_ai.settings import Settings, load_settings
    from constitutional_ai.stage_settings import EvaluateSettings

    if overrides and file is None:
        raise SettingsError("--set changes a run file's settings; name the file before it")
    start = load_settings(file, overrides or []) if file else Settings()
    given = {name: value for name, value in changes.items() if value is not None}
    try:
        evaluate = EvaluateSettings.model_validate(start.evaluate.model_dump() | given)
    except ValidationError as error:
        problem = error.errors()[0]
        option = "-".join(str(part) for part in problem["loc"]).replace("_", "-")
        raise SettingsError(f"--{option or 'samples'}: {problem['msg']}") from None
    update: dict[str, Any] = {"evaluate": evaluate, "seed": seed or start.seed}
    if constitution:
        update["constitution"] = constitution
    return start.model_copy(update=update)


def _constitution_for(file: str | None, judge: str | None) -> str | None:
    """The laboratory's for its own judges, the general one for others; a run file names its own."""
    from constitutional_ai.engines.spec import ModelSpec

    if file:
        return None
    in_lab = judge and ModelSpec.parse(judge).kind == "lab"
    return "lab" if in_lab else "harmless"
