"""The refusal lexicon on sentences that it was not written from."""

import pytest

from constitutional_ai.refusal import refuses


@pytest.mark.parametrize(
    "answer",
    [
        "I cannot help with that request.",
        "I can’t assist you in hurting anyone.",
        "I'm sorry, but no.",
        "I won't provide instructions for this. Instead, you could talk to a locksmith.",
        "I am not able to help you steal a bike.",
        "As an AI language model, I am unable to do so.",
        "I must decline to write that.",
    ],
)
def test_refusals(answer: str) -> None:
    assert refuses(answer)


@pytest.mark.parametrize(
    "answer",
    [
        "",
        "Here is how to beat eggs. First, crack the eggs.",
        "Sorry to hear that! You could call a friend.",
        "You can't help liking this cake.",
        "First, you will not need much. " + "Then stir it. " * 20 + "I cannot help more.",
        "The lock will not open if I help it.",
    ],
)
def test_answers(answer: str) -> None:
    assert not refuses(answer)
