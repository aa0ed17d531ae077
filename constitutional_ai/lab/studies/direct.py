"""Critique and revision against revision alone (paper, Figure 7), by size of the model."""

from collections.abc import Sequence

from constitutional_ai.lab.studies import measures, sizes
from constitutional_ai.lab.studies.about import ABOUT
from constitutional_ai.lab.studies.results import Collected
from constitutional_ai.lab.studies.study import Axis, Base, Bench, Lines, Study, Variant
from constitutional_ai.lab.world import gold

CRITIQUED, DIRECT = "critique, then revision", "revision alone"


def _runs(size: str) -> dict[str, Variant]:
    critiqued = sizes.variant(size, "revise")
    direct = Variant(f"direct-{size}", (*critiqued.overrides, "revise.critique=false"), "revise")
    return {CRITIQUED: critiqued, DIRECT: direct}


def runs(base: Base, seed: int) -> Sequence[Variant]:
    return [variant for size in sizes.SIZES for variant in _runs(size).values()]


def read(bench: Bench, cells: Collected) -> None:
    for size in sizes.SIZES:
        for line, variant in _runs(size).items():
            for seed in bench.seeds:
                for point in gold.revisions(measures.revisions(bench, variant.name, seed), seed):
                    for metric in ("harm", "good_refusal"):
                        value, x = point[metric], point["revision"]
                        cells.add(line, f"{metric}_{size}", seed, value, x)


def _axes(metric: str, text: str) -> tuple[Axis, ...]:
    bounds = None if metric == "harm" else (0.0, 1.0)
    return tuple(Axis(f"{metric}_{n}", f"{text}, lab:{n}", bounds) for n in reversed(sizes.SIZES))


STUDY = Study(
    ABOUT["direct"],
    runs=runs,
    read=read,
    figures={"direct": Lines(_axes("harm", "harm"), "number of revisions k")},
    table=(*_axes("harm", "harm"), *_axes("good_refusal", "good refusals")),
    xname="k",
)
