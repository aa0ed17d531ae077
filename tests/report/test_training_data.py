"""What the page says of revisions that were stopped, by round and by principle."""

from constitutional_ai.judge.gate import COPIES_CRITIQUE, CUT
from constitutional_ai.report.training_data import stopped

COUNTS = {
    "rows": 20,
    "steps_by_principle": {"harm": 30, "tone": 10},
    "rejected_by_round": [{CUT: 5}, {CUT: 1, COPIES_CRITIQUE: 2}],
    "rejected_by_principle": {"harm": {CUT: 6}, "tone": {COPIES_CRITIQUE: 2}},
}


def test_every_reason_stands_there_by_round_and_by_principle() -> None:
    by_round, by_principle = stopped({"1-revise": {"counts": COUNTS}, "3-sample": {"counts": {}}})
    assert list(by_round.rows) == [
        ["1-revise", 1, CUT, 5, "25.0 %"],
        ["1-revise", 2, CUT, 1, "5.0 %"],
        ["1-revise", 2, COPIES_CRITIQUE, 2, "10.0 %"],
    ]
    assert list(by_principle.rows) == [
        ["1-revise", "harm", CUT, "6 of 30"],
        ["1-revise", "tone", COPIES_CRITIQUE, "2 of 10"],
    ]


def test_a_run_that_stopped_nothing_has_no_table() -> None:
    empty = {"rows": 3, "rejected_by_round": [{}], "rejected_by_principle": {}}
    assert stopped({"1-revise": {"counts": empty}, "2-finetune": {}}) == []
