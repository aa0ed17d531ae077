"""Harmlessness and helpfulness through RL training (paper, Figures 2, 3 and 8)."""

from collections.abc import Sequence

from constitutional_ai.lab.studies import gold_readings as truth
from constitutional_ai.lab.studies import model_scores as answering
from constitutional_ai.lab.studies.comparison import NOISES, THOUGHTS, noisy
from constitutional_ai.lab.studies.model_scores import GOOD, HARMLESS, HELP
from constitutional_ai.lab.studies.plan import (
    COMMON,
    Axis,
    Base,
    Bench,
    Lines,
    Measurement,
    Plane,
    Study,
    Variant,
)
from constitutional_ai.lab.studies.results import Collected
from constitutional_ai.records import Sample

LINES = {
    "RL-CAI": COMMON,
    "RL-CAI, chain of thought": THOUGHTS.name,
    f"RLHF, {NOISES[-1]:.0%} noise (oracle)": noisy(NOISES[-1]).name,
}
ASKED_HELP = Axis(HELP.metric, "help on benign and borderline requests", (0, 1))
ASKED_REFUSED = Axis("refused", "benign and borderline requests refused", (0, 1))


def variants(base: Base, seed: int) -> Sequence[Variant]:
    return [Variant(COMMON, until="ppo"), THOUGHTS, noisy(NOISES[-1])]


def measurements(base: Base, seed: int) -> Sequence[Measurement]:
    return []


def read(bench: Bench, found: Collected) -> None:
    for line, variant in LINES.items():
        for seed in bench.seeds:
            samples = bench.stage(variant, seed, "ppo").rows("samples.jsonl", Sample)
            for point in truth.through_training(samples, seed):
                x = point["step"]
                if "harm" in point:
                    found.add(line, HARMLESS.metric, seed, answering.turned(point["harm"]), x)
                    found.add(line, GOOD.metric, seed, point["good_refusal"], x)
                if "helpful" in point:
                    found.add(line, HELP.metric, seed, point["helpful"], x)
                    found.add(line, ASKED_REFUSED.metric, seed, point["refused"], x)


STUDY = Study(
    name="training",
    title="Harmlessness and helpfulness through RL training",
    paper="Figures 2, 3 and 8",
    question="Does harmlessness rise through training without costing help?",
    variants=variants,
    measurements=measurements,
    read=read,
    figures={
        "training": Plane(ASKED_HELP, HARMLESS),
        "training-steps": Lines((HARMLESS, GOOD, ASKED_HELP, ASKED_REFUSED), "PPO step"),
    },
    table=(HARMLESS, GOOD, ASKED_HELP, ASKED_REFUSED),
    xname="step",
    caveats=(
        "Read from the rollouts that PPO trained on, at temperature 1, before each recorded step;"
        " the large mark is the end. The paper's axes are Elo scores by crowdworkers.",
    ),
)
