"""Label modes: are the labels calibrated (paper, Figure 9), and which RL-CAI comes of them?"""

import json
from collections.abc import Sequence

from constitutional_ai.lab.studies import gold_readings as truth
from constitutional_ai.lab.studies import model_scores as answering
from constitutional_ai.lab.studies.comparison import THOUGHTS
from constitutional_ai.lab.studies.model_scores import GOOD, HARM, HELP, REFUSED, RL
from constitutional_ai.lab.studies.plan import (
    COMMON,
    Axis,
    Base,
    Bench,
    Dots,
    Lines,
    Measurement,
    Study,
    Variant,
)
from constitutional_ai.lab.studies.results import Collected
from constitutional_ai.records import Preference

LINES = {
    "soft": COMMON,
    "hard": "label-hard",
    "clamped": "label-clamped",
    "thoughts, clamped": THOUGHTS.name,
    "thoughts, soft": "thoughts-soft",
}
RIGHT = Axis("right", "gold agrees with the label", (0, 1))
ECE = Axis("label_ece", "calibration error of the labels")
ACCURACY = Axis("label_accuracy", "labels on gold's side", (0, 1))
REWARD_ECE = Axis("reward_ece", "calibration error of the reward model, to its labels")


def variants(base: Base, seed: int) -> Sequence[Variant]:
    return [
        Variant(COMMON, until="ppo"),
        Variant("label-hard", ("label.mode=hard",), "ppo"),
        Variant("label-clamped", ("label.mode=clamped",), "ppo"),
        THOUGHTS,
        Variant("thoughts-soft", (*THOUGHTS.overrides, "label.mode=soft"), "ppo"),
    ]


def measurements(base: Base, seed: int) -> Sequence[Measurement]:
    return [answering.asked(variant, RL) for variant in LINES.values()]


def read(bench: Bench, found: Collected) -> None:
    for line, variant in LINES.items():
        answering.add(found, bench, line, variant, RL)
        for seed in bench.seeds:
            rows = bench.stage(variant, seed, "label").rows("preferences.jsonl", Preference)
            labels = truth.label_calibration(rows)
            for bin_ in labels["bins"]:
                found.add(line, "p", seed, bin_["p"], bin_["number"])
                found.add(line, RIGHT.metric, seed, bin_["right"], bin_["number"])
            if "ece" in labels:
                found.add(line, ECE.metric, seed, labels["ece"])
                found.add(line, ACCURACY.metric, seed, labels["accuracy"])
            path = bench.stage(variant, seed, "reward").path / "calibration.json"
            found.add(line, REWARD_ECE.metric, seed, json.loads(path.read_text())["ece"])


STUDY = Study(
    name="labels",
    title="Label modes",
    paper="Figure 9 and section 4.1",
    question="Do the labels' probabilities mean what they say, and which mode trains best?",
    variants=variants,
    measurements=measurements,
    read=read,
    figures={
        "labels": Lines((RIGHT,), "label: P(chosen better)", x="p", diagonal=True),
        "labels-outcome": Dots((ECE, HARM, GOOD, HELP)),
    },
    table=(ACCURACY, ECE, REWARD_ECE, HARM, GOOD, HELP, REFUSED),
    caveats=(
        "Calibration is against the oracle's overall preference, on pairs that have a clear winner;"
        " on the diagonal a label of p is right in a share p. Labels of one value make one point.",
    ),
)
