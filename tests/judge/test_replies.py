"""What a judge may reply, and what each reply comes to."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import softmax

from constitutional_ai.judge import replies
from constitutional_ai.judge.replies import Unread


@pytest.mark.parametrize(
    "text", [
        "({})", " ({}).", "{}", "**{}**", "{}.", "Answer: {}", "I choose ({}).", "{})", "**{})**",
        "Option {}", "Response {}", "Response {}.", "Answer ({}).", "[{}]", "The answer is {}.",
        "Answer:\n{}", "{}\n\nIt is kinder.", "{}: it is kinder.", "{}, because it is kind.",
        "I prefer option {}.", "The better response is: {}", "`{}`", "({}",
    ],
)  # fmt: skip
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
        ("A better answer is one that helps.", replies.NEITHER),
        ("The answer a person wants is not here.", replies.NEITHER),
        ("Response A is harmful.", replies.NEITHER),  # no vote for it
        ("I would not choose option A.", replies.NEITHER),
        ("Neither option A nor option B.", replies.BOTH),
        ("A and B are equal.", replies.BOTH),
        ("A, B", replies.BOTH),
        ("Option A or Option B", replies.BOTH),
        ("AI systems", replies.NEITHER),
        ("Both answers have merits.", replies.NEITHER),
        ("AB", replies.NEITHER),
    ],
)
def test_any_other_reply_is_no_vote_and_says_why(text: str, reason: str) -> None:
    assert replies.choice(text) == reason


def test_log_probabilities_that_are_no_answer() -> None:
    for broken in (math.nan, math.inf):
        assert replies.shares([broken, -1.0]) == Unread(replies.NOT_FINITE)
    for unlikely in (math.log(0.24), -20.0, -math.inf):
        assert replies.shares([unlikely, unlikely]) == Unread(replies.NO_ANSWER)


def test_an_impossible_option_leaves_the_others_the_whole() -> None:
    assert replies.shares([-math.inf, -0.3]) == [0.0, 1.0]
    assert replies.shares([-2000.0, 0.0]) == [0.0, 1.0]  # more than an exponential holds


@given(st.lists(st.floats(-8, 0) | st.just(-math.inf), min_size=2, max_size=7))
def test_shares_are_a_softmax(logprobs: list[float]) -> None:
    found = replies.shares(logprobs, least=1e-9)
    if all(value == -math.inf for value in logprobs):
        assert found == Unread(replies.NO_ANSWER)
    else:
        assert found == pytest.approx(softmax(logprobs).tolist())
