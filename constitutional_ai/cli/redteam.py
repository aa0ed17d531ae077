"""``cai redteam``: attack models, see what gets through and what catches it, amend, align again."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from constitutional_ai.cli.options import Json, Set, progress
from constitutional_ai.errors import UserError

if TYPE_CHECKING:
    from constitutional_ai.progress import Progress
    from constitutional_ai.redteam.attack import Open
    from constitutional_ai.redteam.plan import Plan
    from constitutional_ai.settings import Settings


def _listed(text: str | None) -> tuple[str, ...] | None:
    return tuple(part.strip() for part in (text or "").split(",") if part.strip()) or None


Models = Annotated[
    list[str] | None,
    typer.Option("--model", metavar="SPEC", help="A model, or NAME=SPEC; repeatable."),
]
Out = Annotated[Path, typer.Option("--out", metavar="DIR", help="Everything goes here; resumes.")]
Run = Annotated[
    str, typer.Option(metavar="FILE", help="A run file; its [redteam] table is the default.")
]
Prompts = Annotated[
    str | None,
    typer.Option(metavar="SOURCE", help="lab (test topics), lab-train, or a JSONL/CSV file."),
]
Benign = Annotated[
    str | None, typer.Option(metavar="FILE", help="Benign requests, for over-refusal.")
]
Families = Annotated[
    str | None,
    typer.Option(
        metavar="LIST",
        help="With commas: all, encoding, framing, context, seen, unseen, pair, tree, a name,"
        " inner+outer.",
    ),
]
Steps = Annotated[
    int | None, typer.Option(min=1, max=2, help="2 adds every two families in a row.")
]
Examples = Annotated[
    str | None,
    typer.Option(metavar="FILE", help="Requests with compliant answers, for few-shot."),
]
Judge = Annotated[
    str | None, typer.Option(metavar="SPEC", help="Who says whether an attack got through.")
]
Critic = Annotated[
    str | None, typer.Option(metavar="SPEC", help="Who criticises; default the judge.")
]
Attacker = Annotated[
    str | None, typer.Option(metavar="SPEC", help="Who writes the attacks of pair and tree.")
]
Constitution = Annotated[
    str | None, typer.Option(metavar="FILE", help="Whose principles criticise.")
]
Candidates = Annotated[
    str | None, typer.Option(metavar="FILE", help="A further constitution to try.")
]
Requests = Annotated[int | None, typer.Option(min=1, help="Harmful requests; default 100.")]
BenignRequests = Annotated[int | None, typer.Option(min=0, help="Benign requests; default 50.")]
Rounds = Annotated[int | None, typer.Option(min=1, help="Of pair and tree; default 4.")]
Temperature = Annotated[float | None, typer.Option(min=0, help="Default 1.")]
MaxNewTokens = Annotated[int | None, typer.Option(min=1, help="Of an answer.")]
Seed = Annotated[int | None, typer.Option(min=0, help="Default 0.")]
Amend = Annotated[bool, typer.Option("--amend", help="Propose amendments from what got through.")]
Writer = Annotated[
    str | None, typer.Option(metavar="SPEC", help="Who words new principles for --amend.")
]
Retrain = Annotated[
    str | None,
    typer.Option(metavar="RUNFILE", help="With --amend: align, attack, amend, align, attack."),
]
Test = Annotated[
    str | None,
    typer.Option(metavar="SOURCE", help="With --retrain: held-out requests; default lab."),
]
TestFamilies = Annotated[
    str | None, typer.Option(metavar="LIST", help="With --retrain: default all.")
]
TestSteps = Annotated[
    int | None, typer.Option(min=1, max=2, help="With --retrain: as --steps; default 1.")
]
Control = Annotated[
    bool, typer.Option("--control", help="With --retrain: a further run without the attacks.")
]


def redteam(
    context: typer.Context,
    models: Models = None,
    out: Out = Path("out/redteam"),
    run: Run = "lab",
    prompts: Prompts = None,
    benign: Benign = None,
    families: Families = None,
    steps: Steps = None,
    examples: Examples = None,
    judge: Judge = None,
    critic: Critic = None,
    attacker: Attacker = None,
    constitution: Constitution = None,
    candidates: Candidates = None,
    requests: Requests = None,
    benign_requests: BenignRequests = None,
    rounds: Rounds = None,
    temperature: Temperature = None,
    max_new_tokens: MaxNewTokens = None,
    seed: Seed = None,
    amend: Amend = False,
    writer: Writer = None,
    retrain: Retrain = None,
    test: Test = None,
    test_families: TestFamilies = None,
    test_steps: TestSteps = None,
    control: Control = False,
    set_: Set = None,
    json: Json = False,
) -> None:
    """Attack models; show what gets through, and which principle catches it."""
    from constitutional_ai.engines.spec import named_specs
    from constitutional_ai.settings import RedteamSettings, load_settings

    options = context.params | {"families": _listed(families)}
    given = {name: options[name] for name in RedteamSettings.model_fields if name in options}
    given |= {"models": named_specs(models or ()) or None, "seed": seed}
    given = {name: value for name, value in given.items() if value is not None}
    if retrain is None:
        if test or test_families or test_steps or control:
            raise UserError(
                "--test, --test-families, --test-steps and --control go with --retrain RUNFILE"
            )
        _attack(given, out, load_settings(run, set_ or []), amend, writer, progress(json))
    elif not amend or models:
        raise UserError(
            "--retrain makes the models that it attacks: use it with --amend, without --model"
        )
    else:
        held_out = {
            "prompts": test,
            "families": _listed(test_families) or ("all",),
            "steps": test_steps or 1,
        }
        _round(given, held_out, out, retrain, set_ or [], writer, control, progress(json))


def _attack(
    given: dict[str, Any],
    out: Path,
    settings: "Settings",
    amend: bool,
    writer: str | None,
    progress: "Progress",
) -> None:
    from constitutional_ai.redteam import campaign, page
    from constitutional_ai.redteam.amend import amend as propose
    from constitutional_ai.redteam.plan import plan_in
    from constitutional_ai.report import redteam as shown
    from constitutional_ai.store.run_folder import RunFolder

    with RunFolder(out).locked():
        plan = plan_in(out / "rows", settings.redteam, given)
        engines = _engines(plan, settings)
        attacked = campaign.run(plan, out, engines, progress)
        print(shown.headline(page.write(attacked, out)))
        print(out / "redteam.html")
        if amend:
            propose(attacked, out / "amend", engines(writer) if writer else None)
            print((out / "amend" / "proposal.md").read_text(encoding="utf-8"))


def _round(
    given: dict[str, Any],
    held_out: dict[str, Any],
    out: Path,
    file: str,
    overrides: list[str],
    writer: str | None,
    control: bool,
    progress: "Progress",
) -> None:
    from constitutional_ai.redteam import round as rounds
    from constitutional_ai.redteam.comparison import markdown
    from constitutional_ai.settings import load_settings
    from constitutional_ai.store.run_folder import RunFolder

    settings = load_settings(file, overrides)
    plan, tested = rounds.plans(settings, given, held_out)
    wanted = rounds.Round(file, overrides, plan, tested, writer or "", control)
    with RunFolder(out).locked():
        result = rounds.run(wanted, out, _engines(tested, settings), progress)
    print(markdown(result))
    print(out / "test" / "redteam.html")


def _engines(plan: "Plan", settings: "Settings") -> "Open":
    """Opens models, and holds the last two that were used, or three if the plan searches."""
    from constitutional_ai.engines.pool import EnginePool
    from constitutional_ai.redteam.families import SEARCHES

    pool = EnginePool(3 if set(plan.families) & set(SEARCHES) else 2)
    return lambda spec: pool.open(spec, settings)
