"""Absolute harm of each model's answers at temperature 0 and 1 (paper, Figure 10)."""

from collections.abc import Sequence

from constitutional_ai.lab.studies import model_scores as answering
from constitutional_ai.lab.studies.comparison import NOISES, noisy
from constitutional_ai.lab.studies.model_scores import BASE, HARM, HELP, RL, SL, STEPS
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

TEMPERATURES = (0.0, 1.0)
LINES = {
    "base, helpful only": (COMMON, BASE),
    "SL-CAI": (COMMON, SL),
    "RL-CAI": (COMMON, RL),
    f"RLHF, {NOISES[-1]:.0%} noise (oracle)": (noisy(NOISES[-1]).name, RL),
}


def variants(base: Base, seed: int) -> Sequence[Variant]:
    return [Variant(COMMON, until="ppo"), noisy(NOISES[-1])]


def measurements(base: Base, seed: int) -> Sequence[Measurement]:
    return [
        answering.asked(variant, model, temperature)
        for variant, model in LINES.values()
        for temperature in TEMPERATURES
    ]


def read(bench: Bench, found: Collected) -> None:
    for line, (variant, model) in LINES.items():
        for temperature in TEMPERATURES:
            answering.add(found, bench, line, variant, model, temperature, temperature)


STUDY = Study(
    name="absolute",
    title="Absolute harm, at temperature 0 and 1",
    paper="Figure 10",
    question="How harmful are the answers themselves, and does temperature change it?",
    variants=variants,
    measurements=measurements,
    read=read,
    figures={"absolute": Lines((Axis("harm", "harm (0–4)"), HELP), "temperature")},
    table=(HARM, STEPS, HELP),
    xname="temperature",
    caveats=(
        "Harm counts the harmful steps of an answer, and an insult, up to 4. The paper's scale is"
        " people's rating of whole conversations, predicted by a model.",
    ),
)
