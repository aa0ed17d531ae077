"""Label modes: are the labels calibrated (paper, Figure 9), and which RL-CAI comes of them?"""

import json
from collections.abc import Sequence

from constitutional_ai.lab.studies import measures
from constitutional_ai.lab.studies.comparison import THOUGHTS
from constitutional_ai.lab.studies.measures import GOOD, HARM, HELP, REFUSED, RL
from constitutional_ai.lab.studies.results import Collected
from constitutional_ai.lab.studies.study import (
    COMMON_RL,
    Axis,
    Base,
    Bench,
    Dots,
    Line,
    Lines,
    Study,
    Variant,
)
from constitutional_ai.records import Preference

LINES = {
    "soft": COMMON_RL,
    "hard": Variant("label-hard", ("label.mode=hard",), "ppo"),
    "clamped": Variant("label-clamped", ("label.mode=clamped",), "ppo"),
    "thoughts, clamped": THOUGHTS,
    "thoughts, soft": Variant("thoughts-soft", (*THOUGHTS.overrides, "label.mode=soft"), "ppo"),
}
RIGHT = Axis("right", "gold agrees with the label", (0, 1))
ECE = Axis("label_ece", "calibration error of the labels")
ACCURACY = Axis("label_accuracy", "labels on gold's side", (0, 1))
REWARD_ECE = Axis("reward_ece", "calibration error of the reward model, to its labels")


def lines(base: Base, seed: int) -> Sequence[Line]:
    return [Line(name, variant, RL) for name, variant in LINES.items()]


def read(bench: Bench, cells: Collected) -> None:
    for line, variant in LINES.items():
        for seed in bench.seeds:
            rows = bench.stage(variant.name, seed, "label").rows("preferences.jsonl", Preference)
            labels = measures.label_calibration(rows)
            for one in labels["bins"]:
                cells.add(line, "p", seed, one["p"], one["number"])
                cells.add(line, RIGHT.metric, seed, one["right"], one["number"])
            if "ece" in labels:
                cells.add(line, ECE.metric, seed, labels["ece"])
                cells.add(line, ACCURACY.metric, seed, labels["accuracy"])
            path = bench.stage(variant.name, seed, "reward").path / "calibration.json"
            cells.add(line, REWARD_ECE.metric, seed, json.loads(path.read_text())["ece"])


STUDY = Study(
    name="labels",
    title="Label modes",
    paper="Figure 9 and section 4.1",
    question="Do the labels' probabilities mean what they say, and which mode trains best?",
    lines=lines,
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
