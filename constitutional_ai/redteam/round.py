"""One whole round of red-teaming: align, attack, amend, align again, attack on held-out topics.

    OUT/before/   the run file as it is                       `cai run`
    OUT/train/    attacks on its model, on topics that may be trained on
    OUT/amend/    the amended constitution and the prompts that got through
    OUT/after/    the same run file from the aligned model on, same seed, with those two
    OUT/control/  where asked for: the same again with neither, to tell attacks from more training
    OUT/test/     attacks on all these models, on held-out requests and more families
    OUT/loop.json, OUT/loop.md    attack success before and after, with intervals

Each part resumes, so the same command goes on. The second run starts where the first ended, and
sees as many prompts: up to half of its red-team prompts are attacks that got through, and the same
share of its helpful prompts are benign requests in each of their disguises, so that a disguise says
nothing about what to do. Critic and judge stay those of the first run, for alignment may cost a
model what it knew of criticising and judging. The families of the training attacks are fewer than
those of the test, which so has families that no alignment saw.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from constitutional_ai.data.requests import TEST, TRAIN, load_requests
from constitutional_ai.data.rows import normalised
from constitutional_ai.errors import UserError
from constitutional_ai.job import SELF
from constitutional_ai.principles import load_constitution
from constitutional_ai.progress import Progress
from constitutional_ai.redteam import campaign, page
from constitutional_ai.redteam.amend import amend
from constitutional_ai.redteam.attack import Open
from constitutional_ai.redteam.comparison import AFTER, BASE, BEFORE, CONTROL, compared, markdown
from constitutional_ai.redteam.mixing import mix
from constitutional_ai.redteam.plan import Plan
from constitutional_ai.settings import Settings, load_settings
from constitutional_ai.stages.pipeline import run_pipeline
from constitutional_ai.store.run_folder import RunFolder


@dataclass(frozen=True)
class Round:
    """What a round is made of. ``plan`` attacks for training, ``test`` for the figures; the models
    of both are filled in here. ``control``: also align again with nothing but more training.
    """

    file: str
    overrides: Sequence[str]
    plan: Plan
    test: Plan
    writer: str = ""
    control: bool = False


def run(round: Round, out: Path, open_engine: Open, progress: Progress) -> dict[str, Any]:
    """The whole round; the content of loop.json. Raises UserError where nothing got through."""
    settings = load_settings(round.file, round.overrides)
    refuse_overlap(round.plan, round.test)
    before = aligned(settings, out / BEFORE, progress)
    plan = round.plan.model_copy(update={"models": {BEFORE: before}})
    trained = campaign.run(plan, out / "train", open_engine, progress)
    page.write(trained, out / "train")
    amend(trained, out / "amend", open_engine(round.writer) if round.writer else None)
    models = {BASE: settings.model.path, BEFORE: before}
    again = amended_settings(round, settings, before, trained.plan.constitution, out)
    models[AFTER] = aligned(again, out / AFTER, progress)
    if round.control:
        models[CONTROL] = aligned(onward(round, settings, before), out / CONTROL, progress)
    tested = campaign.run(
        round.test.model_copy(update={"models": models}), out / "test", open_engine, progress
    )
    page.write(tested, out / "test")
    trained_on = {row.family for row in trained.attempts}
    result = compared(tested, trained_on)
    (out / "loop.json").write_text(json.dumps(result, indent=2, ensure_ascii=False) + "\n")
    (out / "loop.md").write_text(markdown(result), encoding="utf-8")
    return result


def refuse_overlap(plan: Plan, test: Plan) -> None:
    """Raises UserError where a request of the training attacks is one of the test's."""
    asked = [
        {
            normalised(request.prompt)
            for request in load_requests(
                one.prompts, one.benign, one.requests, one.benign_requests, one.seed
            )
        }
        for one in (plan, test)
    ]
    if common := asked[0] & asked[1]:
        raise UserError(
            f"--test {test.prompts}: {len(common)} of its requests stand in {plan.prompts} too,"
            f" such as {min(common)[:60]!r}; take them out of one of the two"
        )


def aligned(settings: Settings, out: Path, progress: Progress) -> str:
    """Run the pipeline, or finish it; where its last model lies."""
    folder: RunFolder = run_pipeline(settings, out, progress=progress)
    return str(folder.stage(settings.learner, settings.rounds).path / "model")


def onward(
    round: Round, settings: Settings, before: str, changes: Mapping[str, Any] | None = None
) -> Settings:
    """The run file from the model ``before`` on, with the first run's critic and judges."""
    base, critic = settings.model.path, settings.revise.critic
    judges = [
        base if spec == "base" else spec for spec in (settings.label.judge, *settings.label.jury)
    ]
    changed = {
        "model.path": before,
        "model.revision": "",  # was that of the first start, on the hub
        "revise.critic": base if critic == SELF else critic,
        "label.judge": judges[0],
        "label.jury": judges[1:],
        **(changes or {}),
    }
    overrides = [f"{key}={json.dumps(value)}" for key, value in changed.items()]
    return load_settings(round.file, [*round.overrides, *overrides])


def amended_settings(
    round: Round, settings: Settings, before: str, constitution: str, out: Path
) -> Settings:
    """Onward with the amended constitution and mixed prompts, which are written here."""
    name = load_constitution(constitution).name
    mix(settings, out)
    changes = {
        "constitution": str(out / "amend" / f"{name}.toml"),
        "prompts.red_team": str(out / "red_team.jsonl"),
        "prompts.helpful": str(out / "helpful.jsonl"),
    }
    return onward(round, settings, before, changes)


def plans(
    settings: Settings, given: Mapping[str, Any], held_out: Mapping[str, Any]
) -> tuple[Plan, Plan]:
    """(attacks to learn from, attacks to measure by), of what the command line gives.

    In the laboratory the families that its models know are learned from, two in a row as well:
    more to learn from, of the same families (docs/log). Raises UserError where requests from a file
    have no held-out requests beside them.
    """
    source = given.get("prompts", TRAIN)
    if held_out["prompts"] is None and source != TRAIN:
        raise UserError(
            "--retrain with a prompts file: give the held-out requests with --test FILE"
        )
    attacks = {"families": ("seen",), "steps": 2} if source == TRAIN else {"families": ("framing",)}
    mine = {
        "models": {BEFORE: ""},
        "prompts": source,
        **attacks,
        "judge": settings.model.path,
        "constitution": settings.constitution,
        "seed": settings.seed,
    }
    table = settings.redteam.model_dump(exclude_unset=True)
    plan = Plan.model_validate({**mine, **table, **given})
    tested = {**plan.model_dump(), **held_out, "prompts": held_out["prompts"] or TEST}
    return plan, Plan.model_validate(tested)
