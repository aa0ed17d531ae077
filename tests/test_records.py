"""Rows: strict, immutable, the same after a round trip, in the shapes of Hugging Face."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from constitutional_ai.records import (
    Pair,
    Preference,
    Prompt,
    RevisedAnswer,
    RevisionStep,
    assistant,
    content_hash,
    user,
)

STEP = RevisionStep(principle="p", principle_hash="h", critique="c", revision="r", clean=False)


def revised(text: str) -> RevisedAnswer:
    return RevisedAnswer(
        id="1",
        prompt=[user("q")],
        answers=["a", text],
        steps=[STEP],
        messages=[user("q"), assistant(text)],
        constitution="c",
        model="m",
        seed=0,
    )


def preference(**changes: object) -> Preference:
    row = {
        "id": "1",
        "prompt": [user("q")],
        "set": "red-team",
        "chosen": [assistant("a")],
        "rejected": [assistant("b")],
        "p_chosen": 0.75,
        "by_principle": {"p": 0.75},
        "by_order": [0.7, 0.8],
        "principle_hashes": {"p": "h"},
        "constitution": "c",
        "judge": "m",
        "seed": 0,
    }
    return Preference.model_validate(row | changes)


@given(st.text())
def test_a_row_is_one_line_and_comes_back_equal(text: str) -> None:
    row = revised(text)
    line = row.model_dump_json()
    assert len(line.encode().splitlines()) == 1
    assert RevisedAnswer.model_validate_json(line) == row


def test_rows_have_the_columns_that_trainers_read() -> None:
    sft = json.loads(revised("r").model_dump_json())
    assert sft["messages"] == [
        {"role": "user", "content": "q"},
        {"role": "assistant", "content": "r"},
    ]
    row = json.loads(preference().model_dump_json())
    assert row["chosen"] == [{"role": "assistant", "content": "a"}]
    assert row["prompt"] == [{"role": "user", "content": "q"}]


def test_an_unlabelled_row_has_a_reason_and_no_label() -> None:
    row = preference(p_chosen=None, by_order=None, by_principle={}, unlabelled="no verdict")
    assert Preference.model_validate_json(row.model_dump_json()) == row


def test_unknown_columns_and_sets_are_refused() -> None:
    with pytest.raises(ValidationError):
        preference(extra=1)
    with pytest.raises(ValidationError):
        Prompt(id="1", prompt=[user("q")], set="rude")  # type: ignore[arg-type]


def test_rows_do_not_change() -> None:
    pair = Pair(id="1", prompt=[user("q")], set="helpful", answers=("a", "b"), model="m", seed=0)
    with pytest.raises(ValidationError):
        pair.model = "other"  # type: ignore[misc]


def test_the_hash_depends_on_every_part_and_on_no_order_of_keys() -> None:
    assert content_hash("ab") != content_hash("a", "b")
    assert content_hash(1) != content_hash("1")
    assert content_hash({"a": 1, "b": 2}) == content_hash({"b": 2, "a": 1})
    assert len(content_hash("x")) == 16
