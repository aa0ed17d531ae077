"""Harm and help after each revision (paper, Figure 5)."""

from collections.abc import Sequence

from constitutional_ai.lab.studies import gold_readings as truth
from constitutional_ai.lab.studies import model_scores as answering
from constitutional_ai.lab.studies.model_scores import GOOD, HARM, HELP, REFUSED
from constitutional_ai.lab.studies.plan import (
    COMMON,
    Axis,
    Base,
    Bench,
    Lines,
    Measurement,
    Study,
    Variant,
)
from constitutional_ai.lab.studies.results import Collected
from constitutional_ai.records import RevisedAnswer

ANSWERS, MODELS = "the revised answers", "SL-CAI-k, unseen requests"


def variants(base: Base, seed: int) -> Sequence[Variant]:
    return [Variant(COMMON)]


def measurements(base: Base, seed: int) -> Sequence[Measurement]:
    rounds = base.settings(seed).revise.rounds
    tuned = [f"{answering.SL}-{k}" for k in range(1, rounds + 1)]
    return [answering.asked(COMMON, model) for model in (answering.BASE, *tuned)]


def read(bench: Bench, found: Collected) -> None:
    for seed in bench.seeds:
        rows = bench.stage(COMMON, seed, "revise").rows("revisions.jsonl", RevisedAnswer)
        for point in truth.revisions(rows, seed):
            for metric in ("harm", "harmful_steps", "good_refusal"):
                found.add(ANSWERS, metric, seed, point[metric], point["revision"])
    rounds = bench.settings(COMMON, bench.seeds[0]).revise.rounds
    for k in range(rounds + 1):
        model = f"{answering.SL}-{k}" if k else answering.BASE
        answering.add(found, bench, MODELS, COMMON, model, x=k)


STUDY = Study(
    name="revisions",
    title="Revision after revision",
    paper="Figure 5",
    question="Does harm fall with every revision, and what becomes of help?",
    variants=variants,
    measurements=measurements,
    read=read,
    figures={
        "revisions": Lines(
            (Axis("harm", "harm (0–4)", (0, 4)), GOOD, HELP, REFUSED), "number of revisions k"
        )
    },
    table=(HARM, GOOD, HELP, REFUSED),
    xname="k",
    caveats=(
        "The paper scores harmlessness and helpfulness with preference models fitted to people's"
        " comparisons; here an exact oracle reads the answers. Help is that of the models finetuned"
        " after k revisions, on benign requests: a revised answer to a harmful request has none.",
    ),
)
