"""What the oracle says of rows: counted by hand on a few sentences of the world."""

import random
from dataclasses import dataclass

import pytest

from constitutional_ai.lab.world import answers, gold
from constitutional_ai.lab.world import topics as world
from constitutional_ai.records import Conversation, Preference, RevisedAnswer, assistant, user

RNG = random.Random(0)
HARMFUL = world.request(world.by_kind("test")["harmful"][0], RNG)
BENIGN = world.request(world.by_kind("test")["benign"][0], RNG)
HARM = answers.make(HARMFUL, "steps", RNG).answer.text()
REFUSAL = answers.make(HARMFUL, "refusal", RNG).answer.text()
EVASION = answers.make(HARMFUL, "evasive", RNG).answer.text()
RIGHT = answers.make(BENIGN, "right", RNG).answer.text()
REFUSED = answers.make(BENIGN, "over-refusal", RNG).answer.text()


@dataclass(frozen=True)
class Sample:
    step: int
    prompt: Conversation
    answer: str
    score: float


def preference(id: str, chosen: str, rejected: str, p: float | None) -> Preference:
    return Preference(
        id=id,
        prompt=[user(HARMFUL.text)],
        set="red-team",
        chosen=[assistant(chosen)],
        rejected=[assistant(rejected)],
        p_chosen=p,
        by_principle={} if p is None else {"hhh": p, "somebody's own": p},
        by_order=None,
        principle_hashes={},
        unlabelled="" if p is not None else "no verdict",
        constitution="c",
        judge="j",
        seed=0,
    )


def test_metrics_are_numbers_of_the_reading() -> None:
    read = gold.metrics([user(HARMFUL.text)], HARM)
    assert read["harmful_steps"] == read["harm"] >= 1
    assert "kind" not in read
    assert gold.metrics([user(HARMFUL.text)], REFUSAL)["good_refusal"] == 1.0


def test_agreement_leaves_near_ties_out_and_a_coin_flip_is_no_agreement() -> None:
    found = gold.agreement([(0.9, 2.0), (0.2, 1.0), (0.5, 1.0), (0.4, -1.0), (0.9, 0.1)])
    assert (found["pairs"], found["near_ties"]) == (5, 1)
    assert found["agreement"]["mean"] == pytest.approx(2 / 4)
    assert "agreement" not in gold.agreement([(0.9, 0.0)])


def test_labels_by_principle_know_only_those_with_a_gold_score() -> None:
    rows = [
        preference("1", REFUSAL, HARM, 0.9),
        preference("2", HARM, REFUSAL, 0.6),
        preference("3", HARM, REFUSAL, None),
    ]
    found = gold.labels(rows)
    assert found["overall"]["pairs"] == 2
    assert found["overall"]["agreement"]["mean"] == 0.5
    assert list(found["by_principle"]) == ["hhh"]


def test_reward_counts_held_out_pairs_only() -> None:
    rows = [preference(str(n), REFUSAL, HARM, 0.9) for n in range(4)]
    found = gold.reward(rows, {"1": 0.8, "3": 0.3})
    assert found["pairs"] == 2
    assert found["agreement"]["mean"] == 0.5


def test_helpfulness_is_not_judged_on_harmful_requests() -> None:
    assert gold.gap("helpful", [user(HARMFUL.text)], REFUSAL, HARM) == 0
    assert gold.gap("hhh", [user(HARMFUL.text)], REFUSAL, HARM) > gold.NEAR_TIE


def test_revisions_keep_the_last_answer_of_a_row_that_stopped() -> None:
    def row(id: str, said: list[str]) -> RevisedAnswer:
        prompt = [user(HARMFUL.text)]
        made = {"constitution": "c", "model": "m", "seed": 0}
        return RevisedAnswer(id=id, prompt=prompt, answers=said, steps=[], messages=prompt, **made)

    curve = gold.revisions([row("1", [HARM, EVASION, REFUSAL]), row("2", [HARM])], seed=0)
    assert [point["harmful_steps"]["mean"] for point in curve] == [1.0, 0.5, 0.5]
    assert [point["good_refusal"]["mean"] for point in curve] == [0.0, 0.0, 0.5]
    assert gold.revisions([], seed=0) == []


def test_ppo_measures_help_only_where_it_is_due() -> None:
    samples = [
        Sample(0, [user(HARMFUL.text)], HARM, 0.0),
        Sample(0, [user(BENIGN.text)], RIGHT, 1.0),
        Sample(5, [user(HARMFUL.text)], REFUSAL, 3.0),
        Sample(5, [user(BENIGN.text)], REFUSED, 1.0),
    ]
    first, second = gold.ppo(samples[::-1], seed=0)
    assert (first["step"], first["proxy"], second["step"], second["proxy"]) == (0, 0.5, 5, 2.0)
    assert (first["helpful"]["mean"], second["helpful"]["mean"]) == (1.0, 0.0)
    assert (first["refused"]["mean"], second["refused"]["mean"]) == (0.0, 1.0)
    assert first["helpful"]["n"] == 1
    assert second["good_refusal"]["mean"] == 1.0
