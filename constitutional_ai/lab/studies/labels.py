"""Label modes: are the labels calibrated (paper, Figure 9), and which RL-CAI comes of them?"""

import json
from collections.abc import Sequence

from constitutional_ai.lab.studies import measures, study
from constitutional_ai.lab.studies.about import ABOUT
from constitutional_ai.lab.studies.comparison import THOUGHTS
from constitutional_ai.lab.studies.measures import GOOD, HARM, HELP, REFUSED, RL
from constitutional_ai.lab.studies.results import Collected
from constitutional_ai.records import Preference

_SOFT = (*THOUGHTS.overrides, "label.mode=soft")
LINES = {
    "soft": study.COMMON_RL,
    "hard": study.Variant("label-hard", ("label.mode=hard",), "ppo"),
    "clamped": study.Variant("label-clamped", ("label.mode=clamped",), "ppo"),
    "thoughts, clamped": THOUGHTS,
    "thoughts, soft": study.Variant("thoughts-soft", _SOFT, "ppo"),
}
RIGHT = study.Axis("right", "gold agrees with the label", (0, 1))
ECE = study.Axis("label_ece", "calibration error of the labels")
ACCURACY = study.Axis("label_accuracy", "labels on gold's side", (0, 1))
REWARD_ECE = study.Axis("reward_ece", "calibration error of the reward model, to its labels")


def lines(base: study.Base, seed: int) -> Sequence[study.Line]:
    return [study.Line(name, variant, RL) for name, variant in LINES.items()]


def read(bench: study.Bench, cells: Collected) -> None:
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


STUDY = study.Study(
    ABOUT["labels"],
    lines=lines,
    read=read,
    figures={
        "labels": study.Lines((RIGHT,), "label: P(chosen better)", x="p", diagonal=True),
        "labels-outcome": study.Dots((ECE, HARM, GOOD, HELP)),
    },
    table=(ACCURACY, ECE, REWARD_ECE, HARM, GOOD, HELP, REFUSED),
)
