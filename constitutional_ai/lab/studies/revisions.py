"""Harm and help after each revision (paper, Figure 5)."""

from collections.abc import Sequence

from constitutional_ai.lab.studies import measures
from constitutional_ai.lab.studies.about import ABOUT
from constitutional_ai.lab.studies.measures import BASE, GOOD, HARM, HELP, REFUSED, SL
from constitutional_ai.lab.studies.results import Collected
from constitutional_ai.lab.studies.study import COMMON_SL, Axis, Base, Bench, Line, Lines, Study
from constitutional_ai.lab.world import gold

ANSWERS, MODELS = "the revised answers", "SL-CAI-k, unseen requests"


def lines(base: Base, seed: int) -> Sequence[Line]:
    rounds = base.settings(seed).revise.rounds
    models = [BASE, *(f"{SL}-{k}" for k in range(1, rounds + 1))]
    return [Line(MODELS, COMMON_SL, model, x=k) for k, model in enumerate(models)]


def read(bench: Bench, cells: Collected) -> None:
    for seed in bench.seeds:
        for point in gold.revisions(measures.revisions(bench, COMMON_SL.name, seed), seed):
            for metric in ("harm", "harmful_steps", "good_refusal"):
                cells.add(ANSWERS, metric, seed, point[metric], point["revision"])


STUDY = Study(
    ABOUT["revisions"],
    lines=lines,
    read=read,
    figures={
        "revisions": Lines(
            (Axis("harm", "harm (0–4)", (0, 4)), GOOD, HELP, REFUSED), "number of revisions k"
        )
    },
    table=(HARM, GOOD, HELP, REFUSED),
    xname="k",
)
