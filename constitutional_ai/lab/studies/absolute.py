"""Absolute harm of each model's answers at temperature 0 and 1 (paper, Figure 10)."""

from collections.abc import Sequence
from dataclasses import replace

from constitutional_ai.lab.studies import comparison
from constitutional_ai.lab.studies.about import ABOUT
from constitutional_ai.lab.studies.comparison import BASELINE, CAI, PEOPLE, TUNED
from constitutional_ai.lab.studies.measures import HARM, HELP, STEPS
from constitutional_ai.lab.studies.study import Axis, Base, Line, Lines, Study

TEMPERATURES = (0.0, 1.0)
COMPARED = (BASELINE, TUNED, CAI, PEOPLE)


def lines(base: Base, seed: int) -> Sequence[Line]:
    by_name = {line.name: line for line in comparison.lines(base, seed)}
    return [replace(by_name[name], x=t, temperature=t) for name in COMPARED for t in TEMPERATURES]


STUDY = Study(
    ABOUT["absolute"],
    lines=lines,
    figures={"absolute": Lines((Axis("harm", "harm (0–4)"), HELP), "temperature")},
    table=(HARM, STEPS, HELP),
    xname="temperature",
)
