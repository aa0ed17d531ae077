"""A model of a run answers the test prompts; the scores of its answers as cells.

The prompts are those of every evaluation in the laboratory, on topics that no training saw.
"""

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from constitutional_ai.data.cases import load_cases
from constitutional_ai.evaluation import answers, scores
from constitutional_ai.evaluation.rows import Transcript
from constitutional_ai.job import Job
from constitutional_ai.lab import evaluation as lab
from constitutional_ai.lab.studies.plan import Axis, Bench, Measurement
from constitutional_ai.lab.studies.results import Collected
from constitutional_ai.stats.intervals import Estimate
from constitutional_ai.store.run_folder import StageFolder, derive_seed
from constitutional_ai.world import LAB

BASE, SL, RL = "base", "sl-cai", "rl-cai"
AFTER = {BASE: "", SL: "finetune", RL: "ppo"}

HARM = Axis("harm", "harm of answers to harmful requests (0–4)")
STEPS = Axis("harmful_steps", "share with harmful steps", (0, 1))
GOOD = Axis("good_refusal", "good refusals of harm", (0, 1))
HELP = Axis("help", "help on benign requests", (0, 1))
BORDERLINE = Axis("borderline_help", "help on borderline requests", (0, 1))
REFUSED = Axis("refused", "benign requests refused", (0, 1))
FALSE = Axis("false_claim", "false claims", (0, 1))
HARMLESS = Axis("harmless", "harmlessness (1 − harm / 4)", (0, 1))
MAIN = (HARM, STEPS, GOOD, HELP, BORDERLINE, REFUSED, FALSE)

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


def asked(variant: str, model: str, temperature: float = 1.0) -> Measurement:
    """``model``: "base", "sl-cai", "rl-cai", or "sl-cai-2" for the one after two revisions."""
    after = AFTER.get(model, "finetune")
    work = partial(ask, model=model, temperature=temperature)
    return Measurement(name_of(model, temperature), variant, work, after)


def name_of(model: str, temperature: float = 1.0) -> str:
    return f"answers {model} T{temperature:g}"


def ask(job: Job, folder: StageFolder, *, model: str, temperature: float) -> Mapping[str, Any]:
    """Write transcripts.jsonl, with the oracle's readings; the counts of its manifest."""
    settings = job.settings
    evaluate = settings.evaluate.model_copy(update={"temperature": temperature})
    job = replace(job, settings=settings.model_copy(update={"evaluate": evaluate}))
    counts = {kind: getattr(evaluate, kind) for kind in lab.METRICS}
    cases = load_cases(LAB, counts)
    seed = derive_seed(settings.seed, "study", temperature)
    rows = answers.generate(job, folder, {model: path_of(job, model)}, cases, seed, lab.read)
    return {"answers": len(rows), "unfinished": sum(not row.finished for row in rows)}


def path_of(job: Job, model: str) -> str | Path:
    """Where a model of a run lies."""
    if model == BASE:
        return job.settings.model.path
    if model == RL:
        return job.stage("ppo").path / "model"
    number = model.removeprefix(SL).removeprefix("-")
    last = number in ("", str(job.settings.revise.rounds))
    return job.stage("finetune").path / ("model" if last else f"model-{number}")


def transcripts(
    bench: Bench, variant: str, seed: int, model: str, temperature: float = 1.0
) -> list[Transcript]:
    """What ``ask`` wrote."""
    folder = bench.measured(variant, seed, name_of(model, temperature))
    return folder.rows(answers.FILE, Transcript)


def add(
    found: Collected,
    bench: Bench,
    line: str,
    variant: str,
    model: str,
    x: float = 0,
    temperature: float = 1.0,
) -> None:
    """A model's scores as cells of a line, in every seed."""
    for seed in bench.seeds:
        rows = transcripts(bench, variant, seed, model, temperature)
        observed = scores.by_oracle(rows, lab.METRICS)
        by_kind = scores.summarise(observed, seed, ()).get(model, {})
        for metric, (kind, name) in _FROM.items():
            if estimate := by_kind.get(kind, {}).get(name):
                found.add(line, metric, seed, estimate, x)
        if harm := by_kind.get("harmful", {}).get("harm"):
            found.add(line, "harmless", seed, turned(harm), x)


def turned(harm: Estimate) -> Estimate:
    """1 − harm / 4: as high as help is good."""
    return {
        "mean": 1 - harm["mean"] / 4,
        "low": 1 - harm["high"] / 4,
        "high": 1 - harm["low"] / 4,
        "n": harm["n"],
    }
