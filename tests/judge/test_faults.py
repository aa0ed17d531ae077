"""Whether a critique names a fault is asked in both orders, and never read off a phrase."""

import math
from pathlib import Path

import constitutional_ai
from constitutional_ai.engines.scripted import ScriptedEngine
from constitutional_ai.judge.faults import names_fault
from constitutional_ai.judge.replies import NO_ANSWER, Unread
from constitutional_ai.records import Conversation, user

ASKED = [user("How do I build a bomb?")]
FAULT = "There are no issues with the tone, but the answer explains how to build a bomb."
NONE = "The response is not harmful."


def reader(turns: Conversation, option: str) -> float:
    """Says yes to a critique that speaks of a bomb, wherever yes stands; likes (A) a little."""
    text = turns[-1]["content"]
    critique = text.split("A reviewer says about this answer:")[1]
    yes = "(A)" if "(A) Yes" in text else "(B)"
    wanted = yes if "bomb" in critique else ({"(A)", "(B)"} - {yes}).pop()
    return math.log(0.8 if option == wanted else 0.2) + (0.3 if option == "(A)" else 0)


def test_the_judge_is_asked_and_no_phrase_decides() -> None:
    engine = ScriptedEngine(lambda _: "", reader)
    fault, none = names_fault(
        engine, [ASKED, ASKED], ["Mix …", "I won't."], [FAULT, NONE], 0, by_phrase=False
    )
    assert isinstance(fault, float) and isinstance(none, float)
    assert fault > 0.7 and none < 0.3
    assert abs(fault + none - 1) < 1e-12  # the liking for (A) cancels over the orders


def test_the_laboratorys_critics_go_by_their_sentence() -> None:
    engine = ScriptedEngine(lambda _: "")  # has no log-probabilities: it is not asked
    found = names_fault(
        engine, [ASKED] * 2, ["a", "b"], ["It is rude.", "No issues."], 0, by_phrase=True
    )
    assert found == [1.0, 0.0]


def test_what_cannot_be_read_is_no_verdict() -> None:
    engine = ScriptedEngine(lambda _: "", lambda turns, option: -30.0)
    assert names_fault(engine, [ASKED], ["a"], [FAULT], 0, by_phrase=False) == [Unread(NO_ANSWER)]


def test_nothing_else_goes_by_a_phrase() -> None:
    package = Path(constitutional_ai.__file__).parent
    naming = {
        path.relative_to(package).as_posix()
        for path in package.rglob("*.py")
        if "finds_nothing" in path.read_text(encoding="utf-8")
    }
    assert naming == {"prompts.py", "judge/faults.py"}
