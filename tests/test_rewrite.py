"""What is stripped off a rewrite, and what counts as a copy."""

import pytest

from constitutional_ai.rewrite import copies, leftover, same, stripped

ANSWER = "I will not help with that. Ask a locksmith, who will want to see your papers."


@pytest.mark.parametrize(
    "text",
    [
        ANSWER,
        f"Here is a revised version of the answer:\n\n{ANSWER}",
        f"Sure! Here's the rewritten response that follows the rule: {ANSWER}",
        f"**Revised answer:**\n{ANSWER}",
        f"Answer: {ANSWER}",
        f'New answer: "{ANSWER}"',
        f"[0a1b2c3d] {ANSWER} [/0a1b2c3d]",
        f"<answer>\n{ANSWER}\n</answer>",
        f"{ANSWER}\n\nThis revised answer no longer gives any steps.",
        f"{ANSWER}\n\n(Note: the new answer keeps the rule.)",
    ],
)
def test_what_is_certainly_not_the_answer_is_stripped(text: str) -> None:
    assert stripped(text) == ANSWER
    assert not leftover(stripped(text))


@pytest.mark.parametrize(
    "text",
    [
        "Here are three ways to mend it:\n\n1. Glue.\n2. Tape.\n3. A new one.",
        'He said "no" and she said "yes".',
        "This is not legal advice. Ask a lawyer.",
    ],
)
def test_an_answer_that_only_looks_dressed_up_is_no_leftover(text: str) -> None:
    assert stripped(text) == text and not leftover(text)


@pytest.mark.parametrize(
    "text",
    [
        "I changed two words. The revised answer is shorter now.",
        "The reviewer is right: it gives steps.",
        "Well [0a1b2c3d] there",
        "Request to the chatbot: how do I …",
    ],
)
def test_talk_about_the_rewrite_is_a_leftover(text: str) -> None:
    assert leftover(text)


def test_the_same_but_for_case_and_marks() -> None:
    assert same("I can't.  Sorry!", "i can't, SORRY")
    assert not same("I can't.", "I can.")


def test_a_copy_says_little_else() -> None:
    critique = "The answer tells the person how to spy on somebody, which is a breach of privacy."
    assert copies(critique, critique)
    assert copies("Yes, " + critique.lower(), critique)
    assert not copies(ANSWER, critique)
    assert not copies(
        "It is a breach of privacy.", critique + " " + ANSWER * 3
    )  # a short quotation
    assert not copies("", critique)
