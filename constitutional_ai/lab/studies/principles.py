"""Which principle does the work: what each one changes, alone, left out, and against jailbreaks.

Principles of the critique are followed to the SL-CAI model, those of the comparison to RL-CAI; for
each a run without it and, where it can be, a run with it alone. The two phases of the laboratory's
constitution have principles of their own. That is two dozen runs which share next to nothing, so
they take ``FEWER`` prompts and steps than the run file says.
"""

import json
from collections.abc import Mapping, Sequence
from operator import attrgetter
from statistics import fmean
from typing import Any

from constitutional_ai.job import Job
from constitutional_ai.judge.judge import Comparison, Verdict
from constitutional_ai.judge.open import seated
from constitutional_ai.lab.studies import attacks, subsets
from constitutional_ai.lab.studies import gold_readings as truth
from constitutional_ai.lab.studies import model_scores as answering
from constitutional_ai.lab.studies.model_scores import RL, SL
from constitutional_ai.lab.studies.plan import Axis, Base, Bench, Dots, Measurement, Study, Variant
from constitutional_ai.lab.studies.results import Collected
from constitutional_ai.principles import Constitution, Use, load_constitution
from constitutional_ai.records import Pair, RevisedAnswer
from constitutional_ai.report.redteam import BENIGN
from constitutional_ai.stats import intervals as stats
from constitutional_ai.store.run_folder import StageFolder

EVERY = "every-principle"  # the run that the others are compared with
FEWER = {  # what the run file's counts are divided by
    "revise.prompts": 3,
    "finetune.helpful": 3,
    "sample.red_team": 3,
    "sample.helpful": 3,
    "ppo.steps": 2,
    "ppo.rollouts": 2,
}
TUNED, ALL = "(all, to SL-CAI)", "(all, to RL-CAI)"
AGREEMENT = "agreement.json"
PAIRS = 300  # that every principle judges
# Judged alone it must say something about every request; "helpful" and "honest" do not of harm.
ALONE = {"hhh", "harmless"}
CHANGED = Axis("changed", "its revisions that change the answer", (0, 1))
D_HARM = Axis("harm_change", "change in harm by one revision")
D_GOLD = Axis("gold_change", "change in gold score by one revision")
WHOLE = Axis("with_whole", "agrees with the whole", (0, 1))
WITH_GOLD = Axis("with_gold", "agrees with gold", (0, 1))
CATCHES = Axis("catches", "catches attacks that got through", (0, 1))
ALARMS = Axis("false_alarms", "false alarms on good answers", (0, 1))
_SHORT = {"harm": "harm", "help": "help", "attack": "attack success", "good_refusal": "refusals"}


def _after(kept: str, metric: str) -> Axis:
    bounds = (0.0, 4.0) if metric == "harm" else (0.0, 1.0)
    return Axis(f"{kept} {metric}", f"{_SHORT[metric]}, {kept} it", bounds)


PHASES: tuple[tuple[Use, str], ...] = (("critique", "finetune"), ("preference", "ppo"))


def _runs(base: Base, seed: int) -> dict[tuple[str, str], Variant]:
    """{(line, "without" or "only"): the run}, of both phases."""
    constitution, smaller = load_constitution(base.settings(seed).constitution), fewer(base, seed)
    found: dict[tuple[str, str], Variant] = {}
    for use, until in PHASES:
        names = subsets.of_use(constitution, use)
        for name in names:
            others = [other for other in names if other != name]
            kept = {"without": subsets.keeping(constitution, use, others)}
            if use == "critique" or name in ALONE:
                everywhere = use == "preference"
                kept["only"] = subsets.keeping(constitution, use, [name], everywhere)
            for how, principles in kept.items():
                run = Variant(f"{use}-{how}-{name}", smaller, until, principles)
                found[_line(constitution, use, name), how] = run
    return found


def fewer(base: Base, seed: int) -> tuple[str, ...]:
    """The overrides of every run here."""
    settings = base.settings(seed)
    counts = {key: -(-attrgetter(key)(settings) // divisor) for key, divisor in FEWER.items()}
    smaller = (f"{key}={count}" for key, count in counts.items())
    return ("finetune.every_revision=false", *smaller)


def _line(constitution: Constitution, use: Use, name: str) -> str:
    """A principle's name, with its phase where it is of both."""
    both = len(constitution.principle(name).use) > 1
    return f"{name} ({use})" if both else name


def variants(base: Base, seed: int) -> Sequence[Variant]:
    every = Variant(EVERY, fewer(base, seed), until="ppo")
    return [every, *_runs(base, seed).values()]


def measurements(base: Base, seed: int) -> Sequence[Measurement]:
    found = [
        Measurement("agreement", EVERY, agree, after="sample"),
        attacks.catching(EVERY),
        *_asked(EVERY, SL),
        *_asked(EVERY, RL),
    ]
    for variant in _runs(base, seed).values():
        found += _asked(variant.name, RL if variant.until == "ppo" else SL)
    return found


def _asked(variant: str, model: str) -> tuple[Measurement, Measurement]:
    return answering.asked(variant, model), attacks.asked(variant, model)


def agree(job: Job, folder: StageFolder) -> Mapping[str, Any]:
    """Every principle on the same pairs: on the side of all together, and of the oracle?"""
    pairs = job.stage("sample").rows("pairs.jsonl", Pair)[:PAIRS]
    usable = job.constitution.usable
    questions = [Comparison.of(pair, usable("preference", pair.set)) for pair in pairs]
    verdicts = seated(job).compare(questions, job.settings.seed)
    found: dict[str, dict[str, list[bool]]] = {}
    unlabelled = 0
    for pair, verdict in zip(pairs, verdicts, strict=True):
        if not isinstance(verdict, Verdict):
            unlabelled += 1
            continue
        apart = truth.gap("hhh", pair.prompt, *pair.answers)
        for name, p in {**verdict.by_principle, ALL: verdict.p_soft}.items():
            flags = found.setdefault(name, {"whole": [], "gold": []})
            flags["whole"].append((p - 0.5) * (verdict.p_soft - 0.5) > 0)
            if abs(apart) > truth.TIE:
                flags["gold"].append((p - 0.5) * apart > 0)
    shares = {
        name: {side: stats.share(values) for side, values in flags.items() if values}
        for name, flags in found.items()
    }
    (folder.path / AGREEMENT).write_text(json.dumps(shares) + "\n", encoding="utf-8")
    return {"pairs": len(pairs), "unlabelled": unlabelled}


def read(bench: Bench, found: Collected) -> None:
    for (name, how), variant in _runs(bench.base, bench.seeds[0]).items():
        model = RL if variant.until == "ppo" else SL
        _add_retrained(found, bench, name, how, variant.name, model)
    for how in ("without", "only"):
        _add_retrained(found, bench, TUNED, how, EVERY, SL)
        _add_retrained(found, bench, ALL, how, EVERY, RL)
    for seed in bench.seeds:
        _add_steps(found, bench, seed)
        path = bench.measured(EVERY, seed, "agreement").path / AGREEMENT
        for name, shares in json.loads(path.read_text(encoding="utf-8")).items():
            for side, axis in (("whole", WHOLE), ("gold", WITH_GOLD)):
                if side in shares:
                    found.add(name, axis.metric, seed, shares[side])
        by_family = attacks.caught(bench, EVERY, seed)
        alarms = by_family.pop(BENIGN, {})
        for name in dict.fromkeys(name for found_by in by_family.values() for name in found_by):
            shares = [found_by[name] for found_by in by_family.values() if name in found_by]
            found.add(name, CATCHES.metric, seed, attacks.pooled(shares))
        for name, share in alarms.items():
            found.add(name, ALARMS.metric, seed, share)


def _add_steps(found: Collected, bench: Bench, seed: int) -> None:
    """What one critique and revision under each principle did in the run with all."""
    rows = bench.stage(EVERY, seed, "revise").rows("revisions.jsonl", RevisedAnswer)
    for name, steps in truth.step_changes(rows).items():
        found.add(name, CHANGED.metric, seed, stats.share(step["changed"] > 0 for step in steps))
        found.add(name, "found", seed, stats.share(step["found"] > 0 for step in steps))
        for axis, key in ((D_HARM, "harm"), (D_GOLD, "gold")):
            found.add(name, axis.metric, seed, stats.mean([step[key] for step in steps], seed))
        moved = [step["gold"] for step in steps if step["changed"]]
        if moved:
            found.add(name, "better", seed, fmean(change > 0 for change in moved))
            found.add(name, "worse", seed, fmean(change < 0 for change in moved))


def _add_retrained(
    found: Collected, bench: Bench, name: str, how: str, variant: str, model: str
) -> None:
    """The retrained model's scores, under names that say which phase was changed."""
    scored = Collected()
    answering.add(scored, bench, name, variant, model)
    for cell in scored.cells():
        if cell.metric in ("harm", "good_refusal", "help"):
            for seed, estimate in cell.by_seed.items():
                found.add(name, f"{how} {cell.metric}", int(seed), estimate)
    attacks.add(found, bench, name, variant, f"{how} attack", model)


STUDY = Study(
    name="principles",
    title="Which principle does the work",
    paper="Beyond the paper; Figure 6 has only their number",
    question="What does each principle change, and what is missing without it?",
    variants=variants,
    measurements=measurements,
    read=read,
    figures={
        "principles": Dots((CHANGED, D_HARM, D_GOLD)),
        "principles-retrained": Dots(
            tuple(_after(how, m) for how in ("without", "only") for m in ("harm", "help"))
        ),
        "principles-attacks": Dots(
            (CATCHES, ALARMS, _after("without", "attack"), _after("only", "attack"))
        ),
        "principles-agreement": Dots((WHOLE, WITH_GOLD)),
    },
    table=(
        CHANGED,
        Axis("better", "changes for the better", (0, 1)),
        Axis("worse", "changes for the worse", (0, 1)),
        D_HARM,
        WHOLE,
        WITH_GOLD,
        CATCHES,
        ALARMS,
        *(_after(how, m) for how in ("without", "only") for m in ("harm", "help", "attack")),
    ),
    caveats=(
        "Every run has a third of the run file's prompts, and half of its steps and rollouts.",
        "Principles that critiques draw from were retrained to SL-CAI: compare them with “(all, to"
        " SL-CAI)”; those of the comparison to RL-CAI: compare them with “(all, to RL-CAI)”."
        " “helpful” and “honest” cannot judge alone: they say nothing of harm.",
        "Change in gold: the oracle's overall score of the answer after less before one revision."
        " Attack success: harmful requests in every disguise of the laboratory that got a harmful"
        " step. What a critique catches: attacks that got through to the base model; its false"
        " alarms are on the base's good answers to benign requests in the same disguises.",
    ),
)
