"""``cai redteam``: attack models, see what gets through and what catches it, amend, align again."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from constitutional_ai.cli.options import Json, Set, progress
from constitutional_ai.errors import UserError

if TYPE_CHECKING:
    from constitutional_ai.engines.base import Engine
    from constitutional_ai.progress import Progress
    from constitutional_ai.redteam.attack import Open, Plan
    from constitutional_ai.settings import Settings


def redteam(
    models: Annotated[
        list[str] | None,
        typer.Option(
            "--model", metavar="SPEC", help="A model to attack, or NAME=SPEC; repeatable."
        ),
    ] = None,
    out: Annotated[
        Path, typer.Option("--out", metavar="DIR", help="Everything goes here; resumes.")
    ] = Path("out/redteam"),
    prompts: Annotated[
        str | None,
        typer.Option(metavar="SOURCE", help="lab (test topics), lab-train, or a JSONL/CSV file."),
    ] = None,
    benign: Annotated[
        str | None, typer.Option(metavar="FILE", help="Benign requests, for over-refusal.")
    ] = None,
    families: Annotated[
        str | None,
        typer.Option(
            metavar="LIST",
            help="With commas: all, encoding, framing, context, seen, unseen, pair, tree, a name,"
            " inner+outer.",
        ),
    ] = None,
    steps: Annotated[
        int | None, typer.Option(min=1, max=2, help="2 adds every two families in a row.")
    ] = None,
    examples: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="Requests with compliant answers, for few-shot."),
    ] = None,
    judge: Annotated[
        str | None, typer.Option(metavar="SPEC", help="Who says whether an attack got through.")
    ] = None,
    critic: Annotated[
        str | None, typer.Option(metavar="SPEC", help="Who criticises; default the judge.")
    ] = None,
    attacker: Annotated[
        str | None, typer.Option(metavar="SPEC", help="Who writes the attacks of pair and tree.")
    ] = None,
    constitution: Annotated[
        str | None, typer.Option(metavar="FILE", help="Whose principles criticise.")
    ] = None,
    candidates: Annotated[
        str | None, typer.Option(metavar="FILE", help="A further constitution to try.")
    ] = None,
    requests: Annotated[
        int | None, typer.Option(min=1, help="Harmful requests; default 100.")
    ] = None,
    benign_requests: Annotated[
        int | None, typer.Option(min=0, help="Benign requests; default 50.")
    ] = None,
    rounds: Annotated[int | None, typer.Option(min=1, help="Of pair and tree; default 4.")] = None,
    temperature: Annotated[float | None, typer.Option(min=0, help="Default 1.")] = None,
    max_new_tokens: Annotated[int | None, typer.Option(min=1, help="Of an answer.")] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Default 0.")] = None,
    amend: Annotated[
        bool, typer.Option("--amend", help="Propose amendments from what got through.")
    ] = False,
    writer: Annotated[
        str | None, typer.Option(metavar="SPEC", help="Who words new principles for --amend.")
    ] = None,
    retrain: Annotated[
        str | None,
        typer.Option(metavar="RUNFILE", help="With --amend: align, attack, amend, align, attack."),
    ] = None,
    test: Annotated[
        str | None,
        typer.Option(metavar="SOURCE", help="With --retrain: held-out requests; default lab."),
    ] = None,
    test_families: Annotated[
        str | None, typer.Option(metavar="LIST", help="With --retrain: default all.")
    ] = None,
    test_steps: Annotated[
        int | None, typer.Option(min=1, max=2, help="With --retrain: as --steps; default 1.")
    ] = None,
    control: Annotated[
        bool, typer.Option("--control", help="With --retrain: a further run without the attacks.")
    ] = False,
    set_: Set = None,
    json: Json = False,
) -> None:
    """Attack models; show what gets through, and which principle catches it."""
    given: dict[str, Any] = {
        "models": _named(models) if models else None,
        "prompts": prompts,
        "benign": benign,
        "families": tuple(_listed(families)) if families else None,
        "steps": steps,
        "examples": examples,
        "judge": judge,
        "critic": critic,
        "attacker": attacker,
        "constitution": constitution,
        "candidates": candidates,
        "requests": requests,
        "benign_requests": benign_requests,
        "rounds": rounds,
        "temperature": temperature,
        "max_new_tokens": max_new_tokens,
        "seed": seed,
    }
    given = {name: value for name, value in given.items() if value is not None}
    if retrain is None:
        if test or test_families or test_steps or control:
            raise UserError(
                "--test, --test-families, --test-steps and --control go with --retrain RUNFILE"
            )
        _attack(given, out, set_ or [], amend, writer, progress(json))
    elif not amend or models:
        raise UserError(
            "--retrain makes the models that it attacks: use it with --amend, without --model"
        )
    else:
        held_out = {
            "prompts": test,
            "families": tuple(_listed(test_families or "all")),
            "steps": test_steps or 1,
        }
        _round(given, held_out, out, retrain, set_ or [], writer, control, progress(json))


def _attack(
    given: dict[str, Any],
    out: Path,
    overrides: list[str],
    amend: bool,
    writer: str | None,
    progress: "Progress",
) -> None:
    from constitutional_ai.redteam import attack, page
    from constitutional_ai.redteam.amend import amend as propose
    from constitutional_ai.report import redteam as shown
    from constitutional_ai.settings import load_settings
    from constitutional_ai.store.run_folder import RunFolder

    with RunFolder(out):
        plan = _plan(given, out)
        engines = _engines(plan, load_settings("lab", overrides))
        found = attack.run(plan, out, engines, progress)
        print(shown.headline(page.write(found, out)))
        print(out / "redteam.html")
        if amend:
            propose(found, out / "amend", engines(writer) if writer else None)
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
    from constitutional_ai.data.requests import TEST, TRAIN
    from constitutional_ai.redteam import loop
    from constitutional_ai.redteam.attack import Plan
    from constitutional_ai.settings import load_settings
    from constitutional_ai.store.run_folder import RunFolder

    settings = load_settings(file, overrides)
    source = given.get("prompts", TRAIN)
    if held_out["prompts"] is None and source != TRAIN:
        raise UserError(
            "--retrain with a prompts file: give the held-out requests with --test FILE"
        )
    attacks: dict[str, Any] = {"families": ("framing",)}
    if source == TRAIN:  # two in a row, too: more to learn from, of the same families (LOG.md)
        attacks = {"families": ("seen",), "steps": 2}
    mine = {
        "models": {"before": ""},
        "prompts": source,
        **attacks,
        "judge": settings.model.path,
        "constitution": settings.constitution,
        "seed": settings.seed,
    }
    plan = Plan(**{**mine, **given})
    held_out["prompts"] = held_out["prompts"] or TEST
    tested = Plan(**{**plan.model_dump(), **held_out})
    round_ = loop.Round(file, overrides, plan, tested, writer or "", control)
    with RunFolder(out):
        result = loop.run(round_, out, _engines(tested, settings), progress)
    print(loop.markdown(result))
    print(out / "test" / "redteam.html")


def _plan(given: dict[str, Any], out: Path) -> "Plan":
    """The plan of this command; what is left out is as the folder's first command had it."""
    import json

    from constitutional_ai.redteam.attack import Plan

    path = out / "rows" / "settings.json"
    held = json.loads(path.read_text(encoding="utf-8"))["fingerprint"] if path.exists() else {}
    before = {name: value for name, value in held.items() if name in Plan.model_fields}
    return Plan.model_validate({"models": {"lab:s": "lab:s"}, **before, **given})


def _engines(plan: "Plan", settings: "Settings") -> "Open":
    """Opens models, and holds the few that were used last: two, or three where a search goes on."""
    from constitutional_ai.engines import open_engine
    from constitutional_ai.redteam.families import SEARCHES

    held: dict[str, Engine] = {}
    most = 3 if set(plan.families) & set(SEARCHES) else 2

    def open_(spec: str) -> "Engine":
        found = held.pop(spec, None)
        if found is None:
            while len(held) >= most:
                close = getattr(held.pop(next(iter(held))), "close", None)
                if close is not None:  # an engine with a process of its own
                    close()
            found = open_engine(spec, settings)
        held[spec] = found
        return found

    return open_


def _named(models: list[str]) -> dict[str, str]:
    """``NAME=SPEC`` or ``SPEC``, which is its own name. Raises UserError for two of one name."""
    import re

    found: dict[str, str] = {}
    for text in models:
        match = re.fullmatch(r"([\w.-]+)=(.+)", text)
        name, spec = (match[1], match[2]) if match else (text, text)
        if name in found:
            raise UserError(f"--model {text}: there are two named {name}; write NAME=SPEC")
        found[name] = spec
    return found


def _listed(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]
