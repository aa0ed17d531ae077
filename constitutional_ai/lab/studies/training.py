"""Harmlessness and helpfulness through RL training (paper, Figures 2, 3 and 8)."""

from collections.abc import Sequence

from constitutional_ai.lab.studies import study
from constitutional_ai.lab.studies.about import ABOUT
from constitutional_ai.lab.studies.comparison import CAI, COT, NOISES, PEOPLE, THOUGHTS, noisy
from constitutional_ai.lab.studies.measures import GOOD, HARMLESS, HELP, harmlessness
from constitutional_ai.lab.studies.results import Collected
from constitutional_ai.lab.world import gold
from constitutional_ai.records import Sample

LINES = {CAI: study.COMMON_RL, COT: THOUGHTS, PEOPLE: noisy(NOISES[-1])}
ASKED_HELP = study.Axis(HELP.metric, "help on benign and borderline requests", (0, 1))
ASKED_REFUSED = study.Axis("refused", "benign and borderline requests refused", (0, 1))


def runs(base: study.Base, seed: int) -> Sequence[study.Variant]:
    return list(LINES.values())


def read(bench: study.Bench, cells: Collected) -> None:
    for line, variant in LINES.items():
        for seed in bench.seeds:
            samples = bench.stage(variant.name, seed, "ppo").rows("samples.jsonl", Sample)
            for point in gold.ppo(samples, seed):
                x = point["step"]
                if "harm" in point:
                    cells.add(line, HARMLESS.metric, seed, harmlessness(point["harm"]), x)
                    cells.add(line, GOOD.metric, seed, point["good_refusal"], x)
                if "helpful" in point:
                    cells.add(line, HELP.metric, seed, point["helpful"], x)
                    cells.add(line, ASKED_REFUSED.metric, seed, point["refused"], x)


STUDY = study.Study(
    ABOUT["training"],
    runs=runs,
    read=read,
    figures={
        "training": study.Plane(ASKED_HELP, HARMLESS),
        "training-steps": study.Lines((HARMLESS, GOOD, ASKED_HELP, ASKED_REFUSED), "PPO step"),
    },
    table=(HARMLESS, GOOD, ASKED_HELP, ASKED_REFUSED),
    xname="step",
)
