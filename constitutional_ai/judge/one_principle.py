"""P(better) of compared answers under single principles: what test, diff and learn stand on.

The judge of the pipeline asks every question in both orders, one principle at a time, so these
figures are those that labelling would see.
"""

from collections.abc import Sequence
from dataclasses import replace

from constitutional_ai.engines.base import Engine
from constitutional_ai.engines.spec import ModelSpec
from constitutional_ai.judge.judge import Comparison, Judge, Unlabelled, Verdict
from constitutional_ai.principles import Constitution, Principle
from constitutional_ai.progress import Tick
from constitutional_ai.records import PromptSet
from constitutional_ai.stage_settings import LabelSettings

CHUNK = 256  # comparisons between two ticks


def fenced(spec: str) -> bool:
    """Whether a judge sees the answers in a fence. The laboratory's were not taught it."""
    return ModelSpec.parse(spec).kind != "lab"


def under(
    engine: Engine,
    principle: Principle,
    questions: Sequence[Comparison],
    fence: bool,
    tick: Tick | None = None,
) -> list[Verdict | Unlabelled]:
    """A verdict on each question under one principle, both orders averaged, in order.

    The principle is asked whatever its ``use`` and ``prompts`` say. Raises NoLogprobs where the
    engine has none.
    """
    alone = Constitution(name="one", version="1", principles=(principle,))
    judge = Judge(engine, alone, LabelSettings(method="compare", mode="soft", fence=fence))
    verdicts: list[Verdict | Unlabelled] = []
    for start in range(0, len(questions), CHUNK):
        part = questions[start : start + CHUNK]
        verdicts += judge.compare([replace(one, principles=(principle,)) for one in part], seed=0)
        if tick:
            tick(len(part))
    return verdicts


def usable(constitution: Constitution, set: PromptSet) -> list[Principle]:
    """The preference principles for a prompt set; none where the constitution has none."""
    return [p for p in constitution.principles if "preference" in p.use and set in p.prompts]
