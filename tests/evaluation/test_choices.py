"""The 200 questions, and how a model's answer is read off its log-probabilities."""

import math
from collections import Counter

import pytest

from constitutional_ai.engines.base import Engine
from constitutional_ai.engines.scripted import ScriptedEngine
from constitutional_ai.evaluation import choices
from constitutional_ai.evaluation.choices import Choice
from constitutional_ai.records import Conversation

ALL = choices.load()


def test_there_are_200_different_questions_with_four_different_options() -> None:
    assert len(ALL) == len({c.id for c in ALL}) == len({c.question.casefold() for c in ALL}) == 200
    assert Counter(c.category for c in ALL) == dict.fromkeys(
        ("knowledge", "reasoning", "language", "arithmetic"), 50
    )
    for choice in ALL:
        assert len({option.casefold().strip() for option in choice.options}) == 4
        assert all(option == option.strip() and option for option in choice.options)
        assert choice.question.endswith((".", "?", "…?", '."'))


def test_no_letter_is_right_more_often_than_another() -> None:
    assert Counter(choice.answer for choice in ALL) == dict.fromkeys("ABCD", 50)
    for category in {choice.category for choice in ALL}:
        letters = Counter(c.answer for c in ALL if c.category == category)
        assert set(letters.values()) == {12, 13}


def test_the_right_option_is_not_the_longest_one() -> None:
    """A model that reads nothing must not find it by its length."""
    longest = sum(c.correct == max(range(4), key=lambda k: len(c.options[k])) for c in ALL)
    assert longest < 100


def test_sums_are_right() -> None:
    """Every question that is a bare sum, against Python."""
    checked = 0
    for choice in ALL:
        text = choice.question
        if text.startswith("How much is ") and not any(c.isalpha() for c in text[12:]):
            signs = str.maketrans({"×": "*", "÷": "/", "−": "-", ",": "", "?": ""})
            truth = eval(text[12:].translate(signs), {})  # noqa: S307  # digits and signs alone
            given = choice.options[choice.correct].translate(signs)
            assert truth == pytest.approx(eval(given, {})), text  # noqa: S307
            checked += 1
    assert checked == 17


class Knows(ScriptedEngine):
    """Finds the right option's letter, whatever the order; or likes one letter."""

    def __init__(self, letter: str = "") -> None:
        right = {c.question: c.options[c.correct] for c in ALL}

        def prefer(turns: Conversation, option: str) -> float:
            lines = turns[-1]["content"].split("\n")
            if letter:
                return 0.0 if option == letter else -5.0
            return 0.0 if f"{option}. {right[lines[0]]}" in lines else -5.0

        super().__init__(lambda _: "", prefer)


def right_of(engine: Engine) -> list[bool | None]:
    return [row.right for row in choices.ask(engine, "m", ALL)]


def test_who_knows_is_right_and_who_likes_a_letter_is_not() -> None:
    assert all(right_of(Knows()))
    # Both orders together favour A's option and D's alike: a tie, and a tie is not right.
    assert not any(right_of(Knows("A")))


def test_shares_are_means_over_both_orders_in_the_files_order() -> None:
    (row,) = choices.ask(
        ScriptedEngine(lambda _: "", lambda _, o: -1.0 * "ABCD".index(o)), "m", ALL[:1]
    )
    total = sum(math.exp(-k) for k in range(4))
    expected = [(math.exp(-k) + math.exp(k - 3)) / 2 / total for k in range(4)]
    assert row.shares == pytest.approx(expected)
    assert sum(row.shares) == pytest.approx(1)


@pytest.mark.parametrize(
    ("engine", "reason"),
    [
        (ScriptedEngine(lambda _: ""), choices.NO_LOGPROBS),
        (ScriptedEngine(lambda _: "", lambda *_: math.nan), choices.NOT_FINITE),
        (ScriptedEngine(lambda _: "", lambda *_: -math.inf), choices.NOT_FINITE),
    ],
)
def test_what_is_not_answered_is_not_wrong(engine: Engine, reason: str) -> None:
    rows = choices.ask(engine, "m", ALL[:3])
    assert [(row.right, row.unlabelled) for row in rows] == [(None, reason)] * 3
    assert all(not one.values for one in choices.observed(rows))


def test_the_question_as_it_is_asked() -> None:
    choice = Choice(id="x", category="c", question="Two?", options=("1", "2", "3", "4"), answer="B")
    assert choice.asked(True).startswith("Two?\n\nA. 4\nB. 3\nC. 2\nD. 1\n\nReply")
