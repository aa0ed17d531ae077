"""Simulated people: do they agree with a run's labels, and with each other?

A person here is the oracle, wrong in a share of pairs by chance. It measures finished labels;
nothing may train on it. Near ties of the oracle are left out, and counted.
"""

import random
from collections.abc import Sequence
from typing import Any

from constitutional_ai.lab.world import gold
from constitutional_ai.records import Preference, content_hash
from constitutional_ai.stats.agreement import agreement, rating


def people(rows: Sequence[Preference], noise: float, seed: int = 0) -> dict[str, Any]:
    """Counts; agreement (raw and Cohen's kappa, 95% intervals) with the truth, with a person who
    errs in the share ``noise`` of pairs, and of two such people with each other.

    Raises ValueError if ``noise`` is not in [0, 0.5) or a prompt is not of the laboratory.
    """
    if not 0 <= noise < 0.5:
        raise ValueError(f"noise {noise} is not in [0, 0.5)")
    read = [row for row in rows if row.p_chosen is not None]
    labels: list[int] = []
    truth: list[int] = []
    persons: tuple[list[int], list[int]] = ([], [])
    for row in read:
        apart = gold.preference_gap(row)
        if abs(apart) <= gold.NEAR_TIE:
            continue
        assert row.p_chosen is not None
        labels.append(rating(row.p_chosen))
        truth.append(1 if apart > 0 else -1)
        for number, person in enumerate(persons):
            wrong = random.Random(content_hash("person", seed, number, row.id)).random() < noise
            person.append(-truth[-1] if wrong else truth[-1])
    return {
        "pairs": len(labels),
        "near_ties": len(read) - len(labels),
        "unlabelled": len(rows) - len(read),
        "the labels and the truth": agreement(labels, truth),
        "the labels and a person": agreement(labels, persons[0]),
        "two people": agreement(*persons),
    }
