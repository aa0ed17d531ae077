"""Labelled pairs of the laboratory's world, with the mistakes that human labels have.

The questions are those of ``cai lab skills``: two answers to a request of the test topics, of which
the oracle says which is better under a principle. So this file knows the truth, and what it writes
is for measuring a judge, or fitting its temperature, and never for training. With ``noise`` that
share of the labels is turned over, by chance and not by difficulty, as if a hurried person had
given them; ``flipped`` says which.
"""

import random
from typing import Any

from constitutional_ai.lab.training.skills import JUDGED, questions
from constitutional_ai.records import assistant, content_hash, user

# Skills whose better answer is the best there is: an empty one is worse under their principle. Of
# two harmful answers the less harmful one is the better, and an empty one would be better still.
IDEAL = ("good against wrong refusal", "help against over-refusal", "honest")


def pairs(count: int, noise: float, seed: int = 0) -> list[dict[str, Any]]:
    """``count`` rows, the skills in turn; ``noise`` in [0, ½) is the share of wrong labels."""
    if not 0 <= noise < 0.5:
        raise ValueError(f"noise {noise} is not in [0, .5)")
    each = {name: iter(questions(name, -(-count // len(JUDGED)))) for name in JUDGED}
    names = list(JUDGED)
    rng = random.Random(content_hash("lab pairs", seed))
    return [_row(names[n % len(names)], each, n, rng.random() < noise) for n in range(count)]


def _row(skill: str, each: dict[str, Any], number: int, flipped: bool) -> dict[str, Any]:
    question = next(each[skill])
    answers = question.better, question.worse
    chosen, rejected = answers[::-1] if flipped else answers
    return {
        "id": content_hash("lab pair", skill, number, question.request.text, *answers),
        "prompt": [user(question.request.text)],
        "chosen": [assistant(chosen)],
        "rejected": [assistant(rejected)],
        "set": "red-team" if question.request.topic.kind == "harmful" else "helpful",
        "kind": skill,
        "principle": JUDGED[skill][0],
        "ideal": skill in IDEAL,
        "flipped": flipped,
    }
