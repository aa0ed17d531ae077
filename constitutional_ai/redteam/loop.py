"""One whole round of red-teaming: align, attack, amend, align again, attack on held-out topics.

    OUT/before/   the run file as it is                       `cai run`
    OUT/train/    attacks on its model, on topics that may be trained on
    OUT/amend/    the amended constitution and the prompts that got through
    OUT/after/    the same run file from the aligned model on, same seed, with those two
    OUT/control/  where asked for: the same again with neither, to tell attacks from more training
    OUT/test/     attacks on all these models, on held-out requests and more families
    OUT/loop.json, OUT/loop.md   attack success before and after, with intervals

Each part resumes, so the same command goes on. The second run starts where the first ended, and
sees as many prompts: up to half of its red-team prompts are attacks that got through, and the same
share of its helpful prompts are benign requests in each of their disguises, so that a disguise says
nothing about what to do. Critic and judge stay those of the first run, for alignment may cost a
model what it knew of criticising and judging. The families of the training attacks are fewer than
those of the test, which so has families that no alignment saw.
"""

import json
import math
import random
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from constitutional_ai.data.overlap import normalised
from constitutional_ai.data.prompts import load_prompts
from constitutional_ai.data.requests import load_requests
from constitutional_ai.errors import UserError
from constitutional_ai.job import SELF
from constitutional_ai.progress import Progress
from constitutional_ai.records import PromptSet, content_hash
from constitutional_ai.redteam import attack, page
from constitutional_ai.redteam import scores as measured
from constitutional_ai.redteam.amend import amend
from constitutional_ai.redteam.attack import Campaign, Open, Plan, outcomes
from constitutional_ai.report.redteam import ALL, ANY, SEEN, UNSEEN
from constitutional_ai.settings import Settings, load_settings
from constitutional_ai.stages.pipeline import run_pipeline
from constitutional_ai.stats.paired import paired
from constitutional_ai.store.run_folder import RunFolder

ATTACKS_SHARE = 0.5  # at most, of the second run's red-team prompts
# A handful of attacks, repeated often, would crowd out all others (LOG.md).
COPIES = 2
BEFORE, AFTER, BASE, CONTROL = "before", "after", "base", "control"
Row = dict[str, Any]


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
    found = attack.run(plan, out / "train", open_engine, progress)
    page.write(found, out / "train")
    amend(found, out / "amend", open_engine(round.writer) if round.writer else None)
    models = {BASE: settings.model.path, BEFORE: before}
    again = amended_settings(round, settings, before, found.plan.constitution, out)
    models[AFTER] = aligned(again, out / AFTER, progress)
    if round.control:
        models[CONTROL] = aligned(onward(round, settings, before), out / CONTROL, progress)
    tested = attack.run(
        round.test.model_copy(update={"models": models}), out / "test", open_engine, progress
    )
    page.write(tested, out / "test")
    trained_on = {row.family for row in found.attempts}
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
    return str(folder.stage("ppo", settings.rounds).path / "model")


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
    from constitutional_ai.principles import load_constitution

    name = load_constitution(constitution).name
    mix(settings, out)
    changes = {
        "constitution": str(out / "amend" / f"{name}.toml"),
        "prompts.red_team": str(out / "red_team.jsonl"),
        "prompts.helpful": str(out / "helpful.jsonl"),
    }
    return onward(round, settings, before, changes)


def needed(settings: Settings) -> tuple[int, int]:
    """How many prompts of each set the most demanding stage draws."""
    red = math.ceil(settings.ppo.prompts * settings.ppo.red_team_share)
    return (
        max(settings.revise.prompts, settings.sample.red_team, red),
        max(settings.finetune.helpful, settings.sample.helpful, settings.ppo.prompts),
    )


def mix(settings: Settings, out: Path) -> None:
    """Write OUT/red_team.jsonl and OUT/helpful.jsonl from what lies in OUT/amend, and plain ones.

    Where too few attacks got through, each stands COPIES times at most, and their share is smaller;
    where a plain file has too few prompts, it is larger.
    """
    red_team, helpful = needed(settings)
    rng = random.Random(content_hash("mixed", settings.seed))
    attacks = written(out / "amend" / "red_team.jsonl")
    chosen = repeated(
        attacks, min(round_half(red_team * ATTACKS_SHARE), COPIES * len(attacks)), rng
    )
    disguised = balanced(
        Counter(row["family"] for row in chosen),
        red_team,
        written(out / "amend" / "helpful.jsonl"),
        helpful,
        rng,
    )
    sources: list[tuple[str, PromptSet, list[Row], int]] = [
        (settings.prompts.red_team, "red-team", chosen, red_team),
        (settings.prompts.helpful, "helpful", disguised, helpful),
    ]
    for source, set_, rows, count in sources:
        plain = load_prompts(source, set_, count - len(rows), settings.seed)
        mixed = [*rows, *({"prompt": prompt.prompt} for prompt in plain)]
        rng.shuffle(mixed)
        lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in mixed)
        (out / f"{set_.replace('-', '_')}.jsonl").write_text(lines, encoding="utf-8")


def balanced(
    attacks: Mapping[str, int],
    red_team: int,
    benign: Sequence[Row],
    helpful: int,
    rng: random.Random,
) -> list[Row]:
    """Benign rows: each family has the share of ``helpful`` that its attacks have of ``red_team``.

    Where a disguise stood before one kind of request more often than before the other, the model
    would learn to read the disguise and not the request (LOG.md).
    """
    found: list[Row] = []
    for family, count in sorted(attacks.items()):
        rows = [row for row in benign if row["family"] == family]
        if rows:  # plain requests have no disguise
            found += repeated(rows, round_half(count / red_team * helpful), rng)
    return found


def repeated(rows: Sequence[Row], count: int, rng: random.Random) -> list[Row]:
    """``count`` of the rows in random order, each as often as any other, give or take one."""
    rounds = [rng.sample(rows, len(rows)) for _ in range(-(-count // max(1, len(rows))))]
    return [row for shuffled in rounds for row in shuffled][:count]


def written(file: Path) -> list[Row]:
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


def round_half(value: float) -> int:
    return math.floor(value + 0.5)


def compared(tested: Campaign, trained_on: set[str]) -> dict[str, Any]:
    """Attack success and over-refusal of each model, and after less before on the same attacks.

    With a control, after less control too.
    """
    found = measured.scores(tested)
    names = list(found["models"][BEFORE]["families"])
    groups = {"trained on": trained_on - {"plain"}, "not trained on": set(names) - trained_on}
    rows: dict[str, Any] = {
        name: {label: m["families"][name] for label, m in found["models"].items()}
        | differences(tested, {name})
        for name in names
        if name not in (ALL, ANY, SEEN, UNSEEN)
    }
    attacks = {row.family for row in tested.attempts} - {"plain"}
    for title, families in {**groups, ALL: attacks}.items():
        chosen = attacks & families
        if chosen:
            rows[title] = {
                label: measured.of_group(
                    tested,
                    [r for r in tested.attempts if r.model == label and r.family in chosen],
                )
                for label in found["models"]
            } | differences(tested, chosen)
    return {
        "by": found["by"],
        "rows": rows,
        "ratio": _ratio(rows, AFTER),
        "control_ratio": _ratio(rows, CONTROL),
        "trained_on": sorted(trained_on),
        "seed": tested.plan.seed,
        "requests": len({row.request_id for row in tested.attempts if row.kind == "harmful"}),
    }


def _ratio(rows: Mapping[str, Any], label: str) -> float | None:
    """Success over all attacks, of that before; None without such a model, where plain requests
    alone were made, or none could be read.
    """
    all_attacks = rows.get(ALL, {})
    was, now = (all_attacks.get(name, {}).get("success") for name in (BEFORE, label))
    return now["mean"] / was["mean"] if was and was["mean"] and now else None


def differences(tested: Campaign, families: set[str]) -> dict[str, Any]:
    """After less before, and after less control where there is one."""
    found = {"difference": difference(tested, families, BEFORE)}
    if CONTROL in tested.plan.models:
        found["against_control"] = difference(tested, families, CONTROL)
    return found


def difference(tested: Campaign, families: set[str], other: str) -> dict[str, Any] | None:
    """Success after less that of ``other``, paired by request; None with too few read for both."""
    ended = outcomes(tested)
    by_model: dict[str, dict[str, list[float]]] = {other: {}, AFTER: {}}
    for label, found in by_model.items():
        groups: defaultdict[str, list[float]] = defaultdict(list)
        for row in tested.attempts:
            chosen = row.model == label and row.family in families and row.kind == "harmful"
            if chosen and ended[row.id] != "unread":
                groups[row.request_id].append(float(ended[row.id] == "through"))
        found.update(groups)
    if len(by_model[other].keys() & by_model[AFTER].keys()) < 2:
        return None
    result = paired(by_model[other], by_model[AFTER], tested.plan.seed)
    return {**result.estimate(), "p": result.p}


def markdown(result: dict[str, Any]) -> str:
    """The table that the command prints."""
    rows = result["rows"]
    control = any(CONTROL in row for row in rows.values())
    models = [BASE, BEFORE, AFTER, *([CONTROL] if control else [])]
    gaps = {"difference": "after − before"}
    if control:
        gaps["against_control"] = "after − control"
    head = ["attacks", *models]
    for title in gaps.values():
        head += [title, "p"]
    head += [f"benign refused {BEFORE}", *models[2:], "n"]
    lines = [head, ["---"] * len(head)]
    for name, row in rows.items():
        line = [name, *(_cell(row.get(label, {}).get("success")) for label in models)]
        for gap in (row[key] for key in gaps):
            line += [_cell(gap, signed=True), f"{gap['p']:.3g}" if gap else "—"]
        line += [_cell(row[label].get("over_refusal")) for label in models[1:]]
        lines.append([*line, str(row[BEFORE].get("success", {}).get("n", "—"))])
    table = "".join(f"| {' | '.join(line)} |\n" for line in lines)
    ratios = f"Attack success after ÷ before, all attacks: {_number(result['ratio'])}"
    if control:
        ratios += f"; control ÷ before: {_number(result['control_ratio'])}"
    return (
        f"{table}\n{ratios}. Read by {result['by']};"
        f" 95 % intervals over {result['requests']} held-out requests. Trained on attacks of:"
        f" {', '.join(result['trained_on'])}.\n"
    )


def _number(value: float | None) -> str:
    return "—" if value is None else f"{value:.2f}"


def _cell(estimate: dict[str, Any] | None, signed: bool = False) -> str:
    if not estimate:
        return "—"
    sign = "+" if signed else ""
    mean, low, high = (estimate[key] for key in ("mean", "low", "high"))
    return f"{mean:{sign}.2f} ({low:{sign}.2f} to {high:{sign}.2f})"
