"""What the laboratory's oracle says of a study's files; every study measures through this module.

Nothing here is read by what trains, labels or watches. Two answers whose gold scores lie within
``gold.NEAR_TIE`` of each other say nothing about a label, and are left out of its calibration.
"""

import math
from collections.abc import Sequence
from itertools import combinations, pairwise
from statistics import fmean
from typing import Any

from constitutional_ai.engines.base import Engine
from constitutional_ai.evaluation.rows import Transcript
from constitutional_ai.lab.training import skills
from constitutional_ai.lab.world import gold, oracle
from constitutional_ai.records import Conversation, Preference, RevisedAnswer, Sample
from constitutional_ai.stats import intervals as stats
from constitutional_ai.stats.elo import Game

BINS = 5  # of a label's probability, from .5 to 1
PRINCIPLES = gold.PRINCIPLES
read = gold.metrics
revisions = gold.revisions
gap = gold.gap
TIE = gold.NEAR_TIE


def through_training(samples: Sequence[Sample], seed: int) -> list[dict[str, Any]]:
    """At each recorded step of PPO: proxy, gold preference, harm, help, refusals."""
    return gold.ppo(samples, seed)


def step_changes(rows: Sequence[RevisedAnswer]) -> dict[str, list[dict[str, float]]]:
    """By principle, for each of its revisions: whether the answer changed, and the change in harm
    and in the overall gold score.
    """
    found: dict[str, list[dict[str, float]]] = {}
    for row in rows:
        request = gold.request(row.prompt)
        readings = [gold.read(request, answer) for answer in row.answers]
        for step, (before, after), texts in zip(
            row.steps, pairwise(readings), pairwise(row.answers), strict=True
        ):
            score = [oracle.score(gold.OVERALL, reading) for reading in (before, after)]
            found.setdefault(step.principle, []).append(
                {
                    "changed": float(texts[0] != texts[1]),
                    "harm": after.harm - before.harm,
                    "gold": score[1] - score[0],
                    "found": float(not step.clean),
                }
            )
    return found


def label_calibration(rows: Sequence[Preference]) -> dict[str, Any]:
    """Labels against gold, on pairs that have a clear winner: accuracy, ECE, bins.

    A bin is {"number", "p": mean label, "right": Estimate of gold's agreement}; an empty one is
    left out. ECE is Σ n |right − p| / N.
    """
    clear = []
    for row in rows:
        if row.p_chosen is None:
            continue
        answers = row.chosen[-1]["content"], row.rejected[-1]["content"]
        found = gold.gap(gold.OVERALL, row.prompt, *answers)
        if abs(found) > gold.NEAR_TIE:
            clear.append((row.p_chosen, found > 0))
    if not clear:
        return {"bins": []}
    bins, errors = [], []
    for number in range(BINS):
        low = 0.5 + number * 0.5 / BINS
        high = math.inf if number == BINS - 1 else 0.5 + (number + 1) * 0.5 / BINS
        members = [(p, right) for p, right in clear if low <= p < high]
        if members:
            mean, share = fmean(p for p, _ in members), stats.share(r for _, r in members)
            bins.append({"number": number, "p": mean, "right": share})
            errors.append(share["n"] * abs(share["mean"] - mean))
    return {
        "bins": bins,
        "accuracy": stats.share(right for _, right in clear),
        "ece": math.fsum(errors) / len(clear),
    }


def games(rows: Sequence[Transcript]) -> list[Game]:
    """Every two models' answers to a prompt, the better one by gold the winner, a tie half a win.

    The oracle stands where the paper has crowdworkers.
    """
    by_case: dict[str, list[Transcript]] = {}
    for row in rows:
        by_case.setdefault(row.case, []).append(row)
    found = []
    for case, given in by_case.items():
        for one, two in combinations(given, 2):
            apart = gold.gap(gold.OVERALL, one.prompt, one.answer, two.answer)
            won = 0.5 if apart == 0 else float(apart > 0)
            found.append(Game(case, one.model, two.model, won))
    return found


def judge_skills(engine: Engine, count: int) -> dict[str, stats.Estimate]:
    """How often a model finds the better of two answers, by the skill asked for."""
    return {name: skills.judge(engine, name, count) for name in skills.JUDGED}


def questions(skill: str, count: int) -> tuple[str, list[tuple[Conversation, str, str]]]:
    """A skill's principle, and pairs of which the first is the better one."""
    asked = skills.questions(skill, count)
    return skills.JUDGED[skill][0], [
        ([{"role": "user", "content": q.request.text}], q.better, q.worse) for q in asked
    ]
