"""Which principle does the work: what each one changes, alone, left out, and against jailbreaks.

Runs with changed critique principles end at SL-CAI, those with changed preference principles at
RL-CAI. Each principle gets a run without it and, if it can judge alone, a run with it only. That is
two dozen runs which share next to nothing, so they have ``FEWER`` prompts and steps than usual.
"""

import json
from collections.abc import Mapping, Sequence
from operator import attrgetter
from statistics import fmean
from typing import Any

from constitutional_ai.job import Job
from constitutional_ai.judge.judge import Comparison, Verdict
from constitutional_ai.judge.open import seated
from constitutional_ai.lab.studies import attacks, measures, study, subsets
from constitutional_ai.lab.studies.about import ABOUT
from constitutional_ai.lab.studies.measures import RL, SL
from constitutional_ai.lab.studies.results import Collected
from constitutional_ai.lab.world import gold
from constitutional_ai.principles import Constitution, Use, load_constitution
from constitutional_ai.records import Pair
from constitutional_ai.report.redteam import BENIGN
from constitutional_ai.stats import intervals as stats
from constitutional_ai.store.run_folder import StageFolder

EVERY = "every-principle"  # the run that the others are compared with
HOWS = ("without", "only")
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
CHANGED = study.Axis("changed", "its revisions that change the answer", (0, 1))
D_HARM = study.Axis("harm_change", "change in harm by one revision")
D_GOLD = study.Axis("gold_change", "change in gold score by one revision")
WHOLE = study.Axis("with_whole", "agrees with the whole", (0, 1))
WITH_GOLD = study.Axis("with_gold", "agrees with gold", (0, 1))
CATCHES = study.Axis("catches", "catches attacks that got through", (0, 1))
ALARMS = study.Axis("false_alarms", "false alarms on good answers", (0, 1))
_SHORT = {"harm": "harm", "help": "help", "attack": "attack success"}


def _after(kept: str, metric: str) -> study.Axis:
    bounds = (0.0, 4.0) if metric == "harm" else (0.0, 1.0)
    return study.Axis(f"{kept} {metric}", f"{_SHORT[metric]}, {kept} it", bounds)


PHASES: tuple[tuple[Use, str, str], ...] = (("critique", "finetune", SL), ("preference", "ppo", RL))


def lines(base: study.Base, seed: int) -> Sequence[study.Line]:
    """The model of the run without a principle, and of the run with it only."""
    constitution, smaller = load_constitution(base.settings(seed).constitution), fewer(base, seed)
    every = study.Variant(EVERY, smaller, "ppo")
    made = []
    for use, until, model in PHASES:
        names = subsets.of_use(constitution, use)
        made += [_line(TUNED if model == SL else ALL, every, model, how) for how in HOWS]
        for name in names:
            others = [other for other in names if other != name]
            kept = {"without": subsets.keeping(constitution, use, others)}
            if use == "critique" or name in ALONE:
                everywhere = use == "preference"
                kept["only"] = subsets.keeping(constitution, use, [name], everywhere)
            for how, principles in kept.items():
                run = study.Variant(f"{use}-{how}-{name}", smaller, until, principles)
                made.append(_line(_called(constitution, use, name), run, model, how))
    return made


def _line(name: str, variant: study.Variant, model: str, how: str) -> study.Line:
    return study.Line(name, variant, model, prefix=f"{how} ")


def fewer(base: study.Base, seed: int) -> tuple[str, ...]:
    """The overrides of every run here."""
    settings = base.settings(seed)
    counts = {key: -(-attrgetter(key)(settings) // divisor) for key, divisor in FEWER.items()}
    smaller = (f"{key}={count}" for key, count in counts.items())
    return ("finetune.every_revision=false", *smaller)


def _called(constitution: Constitution, use: Use, name: str) -> str:
    """A principle's name, with its phase if it belongs to both."""
    both = len(constitution.principle(name).use) > 1
    return f"{name} ({use})" if both else name


def measurements(base: study.Base, seed: int) -> Sequence[study.Measurement]:
    return [
        study.Measurement("agreement", EVERY, agree, after="sample"),
        attacks.catching(EVERY),
        *(attacks.asked(line) for line in lines(base, seed)),
    ]


def agree(job: Job, folder: StageFolder) -> Mapping[str, Any]:
    """Every principle on the same pairs: on the side of all together, and of the oracle?"""
    pairs = job.stage("sample").rows("pairs.jsonl", Pair)[:PAIRS]
    usable = job.constitution.usable
    questions = [Comparison.of(pair, usable("preference", pair.set)) for pair in pairs]
    verdicts = seated(job).compare(questions, job.settings.seed)
    agreed: dict[str, dict[str, list[bool]]] = {}
    unlabelled = 0
    for pair, verdict in zip(pairs, verdicts, strict=True):
        if not isinstance(verdict, Verdict):
            unlabelled += 1
            continue
        apart = gold.gap(gold.OVERALL, pair.prompt, *pair.answers)
        for name, p in {**verdict.by_principle, ALL: verdict.p_soft}.items():
            flags = agreed.setdefault(name, {"whole": [], "gold": []})
            flags["whole"].append((p - 0.5) * (verdict.p_soft - 0.5) > 0)
            if abs(apart) > gold.NEAR_TIE:
                flags["gold"].append((p - 0.5) * apart > 0)
    shares = {
        name: {side: stats.share(values) for side, values in flags.items() if values}
        for name, flags in agreed.items()
    }
    (folder.path / AGREEMENT).write_text(json.dumps(shares) + "\n", encoding="utf-8")
    return {"pairs": len(pairs), "unlabelled": unlabelled}


def read(bench: study.Bench, cells: Collected) -> None:
    for line in lines(bench.base, bench.seeds[0]):
        attacks.add(cells, bench, line)
    for seed in bench.seeds:
        _add_steps(cells, bench, seed)
        path = bench.measured(EVERY, seed, "agreement").path / AGREEMENT
        for name, shares in json.loads(path.read_text(encoding="utf-8")).items():
            for side, axis in (("whole", WHOLE), ("gold", WITH_GOLD)):
                if side in shares:
                    cells.add(name, axis.metric, seed, shares[side])
        by_family = attacks.caught(bench, EVERY, seed)
        alarms = by_family.pop(BENIGN, {})
        for name in dict.fromkeys(name for caught in by_family.values() for name in caught):
            shares = [caught[name] for caught in by_family.values() if name in caught]
            cells.add(name, CATCHES.metric, seed, attacks.pooled(shares))
        for name, share in alarms.items():
            cells.add(name, ALARMS.metric, seed, share)


def _add_steps(cells: Collected, bench: study.Bench, seed: int) -> None:
    """What one critique and revision under each principle did in the run with all."""
    for name, steps in measures.step_changes(measures.revisions(bench, EVERY, seed)).items():
        cells.add(name, CHANGED.metric, seed, stats.share(step["changed"] > 0 for step in steps))
        cells.add(name, "found", seed, stats.share(step["found"] > 0 for step in steps))
        for axis, key in ((D_HARM, "harm"), (D_GOLD, "gold")):
            cells.add(name, axis.metric, seed, stats.mean([step[key] for step in steps], seed))
        moved = [step["gold"] for step in steps if step["changed"]]
        if moved:
            cells.add(name, "better", seed, fmean(change > 0 for change in moved))
            cells.add(name, "worse", seed, fmean(change < 0 for change in moved))


STUDY = study.Study(
    ABOUT["principles"],
    lines=lines,
    measurements=measurements,
    read=read,
    figures={
        "principles": study.Dots((CHANGED, D_HARM, D_GOLD)),
        "principles-retrained": study.Dots(
            tuple(_after(how, m) for how in HOWS for m in ("harm", "help"))
        ),
        "principles-attacks": study.Dots(
            (CATCHES, ALARMS, _after("without", "attack"), _after("only", "attack"))
        ),
        "principles-agreement": study.Dots((WHOLE, WITH_GOLD)),
    },
    table=(
        CHANGED,
        study.Axis("better", "changes for the better", (0, 1)),
        study.Axis("worse", "changes for the worse", (0, 1)),
        D_HARM,
        WHOLE,
        WITH_GOLD,
        CATCHES,
        ALARMS,
        *(_after(how, m) for how in HOWS for m in ("harm", "help", "attack")),
    ),
)
