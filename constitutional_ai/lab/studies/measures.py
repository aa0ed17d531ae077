"""How studies measure: a run's model answers the test prompts, and the oracle reads the files.

The prompts are those of every evaluation in the laboratory, on topics that no training saw. Nothing
here is read by what trains, labels or watches.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import combinations, pairwise
from pathlib import Path
from typing import Any

from constitutional_ai.data.cases import load_cases
from constitutional_ai.evaluation import answers, scores
from constitutional_ai.evaluation.rows import Transcript
from constitutional_ai.job import Job
from constitutional_ai.lab import evaluation as lab
from constitutional_ai.lab.studies.results import Collected
from constitutional_ai.lab.studies.study import Axis, Bench, Line, Measurement
from constitutional_ai.lab.world import gold, oracle
from constitutional_ai.records import Preference, RevisedAnswer
from constitutional_ai.stats import intervals as stats
from constitutional_ai.stats.calibration import reliability
from constitutional_ai.stats.elo import Game
from constitutional_ai.stats.intervals import Estimate
from constitutional_ai.store.run_folder import StageFolder
from constitutional_ai.store.seeds import derive_seed
from constitutional_ai.world import LAB

BASE, SL, RL = "base", "sl-cai", "rl-cai"
AFTER = {BASE: "", SL: "finetune", RL: "ppo"}  # the stage that makes each model

HARM = Axis("harm", "harm of answers to harmful requests (0–4)")
STEPS = Axis("harmful_steps", "share with harmful steps", (0, 1))
GOOD = Axis("good_refusal", "good refusals of harm", (0, 1))
HELP = Axis("help", "help on benign requests", (0, 1))
BORDERLINE = Axis("borderline_help", "help on borderline requests", (0, 1))
REFUSED = Axis("refused", "benign requests refused", (0, 1))
FALSE = Axis("false_claim", "false claims", (0, 1))
HARMLESS = Axis("harmless", "harmlessness (1 − harm / 4)", (0, 1))

# A study's metric → the kind of request, and the evaluation's metric.
_FROM = {
    "harm": ("harmful", "harm"),
    "harmful_steps": ("harmful", "harmful_steps"),
    "good_refusal": ("harmful", "good_refusal"),
    "evasive": ("harmful", "evasive"),
    "help": ("benign", "helpful"),
    "borderline_help": ("borderline", "helpful"),
    "refused": ("benign", "refused"),
    "false_claim": ("facts", "false_claim"),
}

# ----------------------------------------------------------------- answers to the test prompts


def answering(line: Line) -> Measurement:
    """The line's model answers the test prompts."""
    work = partial(answer, model=line.model, temperature=line.temperature)
    # A run's RL-CAI is made by its learner's stage, which is the last that a study runs.
    after = line.variant.until if line.model == RL else AFTER.get(line.model, "finetune")
    return Measurement(_name(line), line.variant.name, work, after)


def _name(line: Line) -> str:
    return f"answers {line.model} T{line.temperature:g}"


def answer(job: Job, folder: StageFolder, *, model: str, temperature: float) -> Mapping[str, Any]:
    """Write transcripts.jsonl with the oracle's readings. Returns the counts of its manifest."""
    settings = job.settings
    evaluate = settings.evaluate.model_copy(update={"temperature": temperature})
    job = replace(job, settings=settings.model_copy(update={"evaluate": evaluate}))
    cases = load_cases(LAB, {kind: getattr(evaluate, kind) for kind in lab.METRICS})
    seed = derive_seed(settings.seed, "study", temperature)
    rows = answers.generate(job, folder, {model: path_of(job, model)}, cases, seed, lab.read)
    return {"answers": len(rows), "unfinished": sum(not row.finished for row in rows)}


def path_of(job: Job, model: str) -> str | Path:
    """Where a model of a run lies."""
    if model == BASE:
        return job.settings.model.path
    if model == RL:
        return job.aligned_model()
    number = model.removeprefix(SL).removeprefix("-")
    last = number in ("", str(job.settings.revise.rounds))
    return job.stage("finetune").path / ("model" if last else f"model-{number}")


def transcripts(bench: Bench, line: Line, seed: int) -> list[Transcript]:
    """What ``answer`` wrote."""
    return bench.measured(line.variant.name, seed, _name(line)).rows(answers.FILE, Transcript)


def add_scores(cells: Collected, bench: Bench, line: Line) -> None:
    """The scores of the line's answers, in every seed."""
    for seed in bench.seeds:
        observed = scores.by_oracle(transcripts(bench, line, seed), lab.METRICS)
        by_kind = scores.summarise(observed, seed, ()).get(line.model, {})
        for metric, (kind, name) in _FROM.items():
            if estimate := by_kind.get(kind, {}).get(name):
                cells.add(line.name, line.prefix + metric, seed, estimate, line.x)
                if metric == HARM.metric:
                    harmless = line.prefix + HARMLESS.metric
                    cells.add(line.name, harmless, seed, harmlessness(estimate), line.x)


def harmlessness(harm: Estimate) -> Estimate:
    """1 − harm / 4, so that more is better, as for help."""
    low, mean, high = (1 - harm[key] / 4 for key in ("high", "mean", "low"))
    return {"mean": mean, "low": low, "high": high, "n": harm["n"]}


# -------------------------------------------------------------------- what the oracle reads


def revisions(bench: Bench, variant: str, seed: int) -> list[RevisedAnswer]:
    """The rows of a variant's revise stage."""
    return bench.stage(variant, seed, "revise").rows("revisions.jsonl", RevisedAnswer)


def step_changes(rows: Sequence[RevisedAnswer]) -> dict[str, list[dict[str, float]]]:
    """By principle, for each of its revisions: whether a fault was found and the answer changed,
    and the change in harm and in the overall gold score.
    """
    changes: dict[str, list[dict[str, float]]] = {}
    for row in rows:
        readings = [gold.read(gold.request(row.prompt), text) for text in row.answers]
        scored = [oracle.score(gold.OVERALL, reading) for reading in readings]
        for k, (step, (before, after)) in enumerate(
            zip(row.steps, pairwise(readings), strict=True)
        ):
            changes.setdefault(step.principle, []).append(
                {
                    "found": float(not step.clean),
                    "changed": float(row.answers[k] != row.answers[k + 1]),
                    "harm": after.harm - before.harm,
                    "gold": scored[k + 1] - scored[k],
                }
            )
    return changes


BINS = 5  # of a label's probability, from 0.5 to 1


def label_calibration(rows: Sequence[Preference]) -> dict[str, Any]:
    """Labels against gold, on pairs with a clear winner: accuracy, calibration error, bins.

    A bin is {"number", "p": mean label, "right": Estimate of gold's agreement}; an empty one is
    left out. Near ties (``gold.NEAR_TIE``) say nothing about a label.
    """
    labelled = [(row.p_chosen, gold.preference_gap(row)) for row in rows]
    clear = [(p, gap > 0) for p, gap in labelled if p is not None and abs(gap) > gold.NEAR_TIE]
    if not clear:
        return {"bins": []}
    error, bins = reliability([p for p, _ in clear], [right for _, right in clear], 2 * BINS)
    return {
        "bins": [
            {
                "number": one.number - BINS,
                "p": one.predicted,
                "right": stats.share_of(round(one.observed * one.n), one.n),
            }
            for one in bins
        ],
        "accuracy": stats.share(right for _, right in clear),
        "ece": error,
    }


def games(rows: Sequence[Transcript]) -> list[Game]:
    """Every two models' answers to a prompt. The better one by gold wins; a tie is half a win.

    The oracle takes the place of the paper's crowdworkers.
    """
    by_case: dict[str, list[Transcript]] = {}
    for row in rows:
        by_case.setdefault(row.case, []).append(row)
    played = []
    for case, given in by_case.items():
        for one, two in combinations(given, 2):
            apart = gold.gap(gold.OVERALL, one.prompt, one.answer, two.answer)
            played.append(Game(case, one.model, two.model, (apart > 0) + 0.5 * (apart == 0)))
    return played
