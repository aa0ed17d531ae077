"""Stage 7: what the training did, measured on held-out prompts.

Every model of the run answers the same test prompts. In the laboratory an exact oracle reads the
answers; gold.json holds what it says about the rows of the earlier stages. For other test prompts
a judge reads each answer and compares each model with the base, and a lexicon finds refusals. That
judge had better not be the one that labelled what the models were trained on: name another as
``evaluate.judge``. Test prompts that are also training prompts are refused. How:
evaluation/measure.py.
"""

from pathlib import Path
from typing import Any

from constitutional_ai.data.cases import load_cases
from constitutional_ai.data.overlap import refuse_overlap_of_run
from constitutional_ai.evaluation.measure import GOLD, SCORES, Plan, measure, write
from constitutional_ai.evaluation.oracle import oracle
from constitutional_ai.job import Job
from constitutional_ai.judge.open import labelled_by
from constitutional_ai.store.seeds import derive_seed
from constitutional_ai.world import LAB

NAME = "evaluate"
SAME_JUDGE = (
    "the judge that labelled the training data also evaluates what was trained on it, and is blind"
    " to the same faults; name another: evaluate.judge"
)


def run(job: Job) -> dict[str, Any]:
    """Write answers, scores, comparisons, canaries and, in the lab, gold; the manifest's counts."""
    folder, settings = job.stage(NAME), job.settings
    refuse_overlap_of_run(settings)
    seed = derive_seed(settings.seed, NAME, job.round)
    counts = {kind: getattr(settings.evaluate, kind) for kind in oracle().METRICS}
    cases = load_cases(settings.prompts.test, counts)
    plan = Plan(models(job), cases, in_lab=settings.prompts.test == LAB, judged=True)
    itself = not plan.in_lab and labelled_by(job)
    if itself:
        job.progress.note(SAME_JUDGE)
    content, made = measure(job, folder, plan, seed)
    if itself:
        made["judged_by_its_labeller"] = True
    if set(settings.prompts.model_dump().values()) == {LAB}:
        write(folder.path / GOLD, oracle().gold_report(job, seed))
    last = f"sl-cai-{settings.revise.rounds}"
    content["models"][last] = content["models"]["sl-cai"]
    write(folder.path / SCORES, content)
    return made


def models(job: Job) -> dict[str, str | Path]:
    """The models to measure, in the order of training; SL-CAI is this round's."""
    tuned = job.stage("finetune").path
    specs: dict[str, str | Path] = {"base": job.settings.model.path}
    for folder in sorted(tuned.glob("model-*"), key=lambda path: int(path.name.split("-")[1])):
        specs[f"sl-cai-{folder.name.split('-')[1]}"] = folder
    specs["sl-cai"] = tuned / "model"
    for earlier in range(1, job.round):
        specs[f"rl-cai-{earlier}"] = job.aligned_model(earlier)
    specs["rl-cai"] = job.aligned_model()
    return specs
