"""Critique and revision against revision alone (paper, Figure 7), by size of the model."""

from collections.abc import Sequence

from constitutional_ai.lab.studies import gold_readings as truth
from constitutional_ai.lab.studies import sizes
from constitutional_ai.lab.studies.plan import Axis, Base, Bench, Lines, Measurement, Study, Variant
from constitutional_ai.lab.studies.results import Collected
from constitutional_ai.records import RevisedAnswer

CRITIQUED, DIRECT = "critique, then revision", "revision alone"


def variants(base: Base, seed: int) -> Sequence[Variant]:
    found = []
    for name in sizes.SIZES:
        model = f"model.path=lab:{name}"
        found += [
            Variant(sizes.variant(name), (model,), "revise"),
            Variant(f"direct-{name}", (model, "revise.critique=false"), "revise"),
        ]
    return found


def measurements(base: Base, seed: int) -> Sequence[Measurement]:
    return []


def read(bench: Bench, found: Collected) -> None:
    for name in sizes.SIZES:
        for line, variant in ((CRITIQUED, sizes.variant(name)), (DIRECT, f"direct-{name}")):
            for seed in bench.seeds:
                rows = bench.stage(variant, seed, "revise").rows("revisions.jsonl", RevisedAnswer)
                for point in truth.revisions(rows, seed):
                    for metric in ("harm", "good_refusal"):
                        found.add(line, f"{metric}_{name}", seed, point[metric], point["revision"])


def _axes(metric: str, text: str) -> tuple[Axis, ...]:
    bounds = None if metric == "harm" else (0.0, 1.0)
    return tuple(Axis(f"{metric}_{n}", f"{text}, lab:{n}", bounds) for n in reversed(sizes.SIZES))


STUDY = Study(
    name="direct",
    title="Critique, or revision alone",
    paper="Figure 7",
    question="Does a critique before the revision make it better, and for which model?",
    variants=variants,
    measurements=measurements,
    read=read,
    figures={"direct": Lines(_axes("harm", "harm"), "number of revisions k")},
    table=(*_axes("harm", "harm"), *_axes("good_refusal", "good refusals")),
    xname="k",
    caveats=(
        "The laboratory's models were taught critiques far more often than direct revisions, so"
        " part of the difference is practice. Answers are those to the alignment's own prompts.",
    ),
)
