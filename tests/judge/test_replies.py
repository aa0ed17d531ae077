"""What a judge may reply, and what each reply comes to."""

import math

import pytest

from constitutional_ai.judge import replies


@pytest.mark.parametrize(
    "text", ["({})", " ({}).", "{}", "**{}**", "{}.", "Answer: {}", "I choose ({})."]
)
@pytest.mark.parametrize("letter", ["A", "B"])
def test_a_reply_that_names_one_option_is_a_vote(text: str, letter: str) -> None:
    assert replies.choice(text.format(letter)) == letter


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", replies.EMPTY),
        (" \n", replies.EMPTY),
        ("(A) is better than (B)", replies.BOTH),
        ("I'm sorry, but I can't help with that.", replies.REFUSED),
        ("A better answer would be longer.", replies.NEITHER),
        ("Both answers have merits.", replies.NEITHER),
        ("AB", replies.NEITHER),
    ],
)
def test_any_other_reply_is_no_vote_and_says_why(text: str, reason: str) -> None:
    assert replies.choice(text) == reason


def test_log_probabilities_that_are_no_answer() -> None:
    assert replies.unreadable([math.log(0.5)] * 2) == ""
    assert replies.unreadable([math.nan, -1.0]) == replies.NOT_FINITE
    assert replies.unreadable([-20.0, -20.0]) == replies.NO_ANSWER
