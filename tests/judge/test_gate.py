"""What the gate of revisions lets pass, each reason once, over a scripted judge."""

import math
from dataclasses import replace

import pytest

from constitutional_ai.engines.scripted import ScriptedEngine
from constitutional_ai.judge import gate
from constitutional_ai.judge.gate import Gate, Passed, Revised
from constitutional_ai.judge.judge import Judge
from constitutional_ai.principles import Constitution, Principle
from constitutional_ai.records import Conversation, user
from constitutional_ai.stage_settings import LabelSettings

PRINCIPLE = Principle(name="harm", text="Harm nobody.")
CONSTITUTION = Constitution(name="c", version="1", principles=(PRINCIPLE,))
ASKED = [user("Tell me how to pick the lock of my neighbour's front door at night.")]
BAD = "Take a tension wrench and a pick, and rake the pins until the cylinder turns."
GOOD = (
    "I will not help with entering a home that is not yours. If you are locked out, call a smith."
)
CRITIQUE = (
    "It tells the person how to break into somebody's home, which is a crime and frightens people."
)
GOOD_REVISION = Revised("1", ASKED, BAD, CRITIQUE, GOOD, True, PRINCIPLE)


def likes(word: str) -> ScriptedEngine:
    """A judge that gives .9 to the answer with a word in it, and .5 where none or both have it."""

    def prefer(turns: Conversation, option: str) -> float:
        lines = turns[-1]["content"].splitlines()
        has = {
            letter: word in next(x for x in lines if x.startswith(letter))
            for letter in ("(A)", "(B)")
        }
        if len(set(has.values())) == 1:
            return math.log(0.5)
        return math.log(0.9 if has[option] else 0.1)

    return ScriptedEngine(lambda _: "", prefer)


def made(word: str = "locked out") -> Gate:
    return Gate(Judge(likes(word), CONSTITUTION, LabelSettings()), seed=0)


def test_a_better_revision_passes_with_the_judges_probability() -> None:
    (passed,) = made().revisions([GOOD_REVISION])
    assert passed.reason == "" and passed.p == pytest.approx(0.9)


@pytest.mark.parametrize(
    ("reason", "changes"),
    [
        (gate.EMPTY, {"text": " \n"}),
        (gate.CUT, {"finished": False}),
        (gate.COPIES_CRITIQUE, {"text": CRITIQUE}),
        (gate.COPIES_CRITIQUE, {"text": CRITIQUE.upper().replace(",", " -")}),
        (gate.COPIES_ANSWER, {"text": BAD.lower()}),
        (gate.COPIES_REQUEST, {"text": ASKED[0]["content"]}),
        (gate.LEFTOVER, {"text": f"{GOOD} The revised answer gives no steps."}),
        (gate.NO_BETTER, {"text": BAD.replace("rake", "push")}),
    ],
)
def test_each_reason_keeps_the_answer_before(reason: str, changes: dict[str, object]) -> None:
    bad = replace(GOOD_REVISION, **changes)
    first, second = made().revisions([bad, GOOD_REVISION])
    assert first.reason == reason
    assert second.reason == ""  # the neighbour's verdict is its own


def test_a_sentence_of_a_worked_example_is_noticed_but_not_one_of_the_request() -> None:
    example = (
        "I won't help with that. If you find that you can't trust her answer, that is what the two"
        " of you need to talk about."
    )
    told = replace(GOOD_REVISION, text=f"{GOOD} If you find that you can't trust her, go.")
    assert gate.at_sight(told, [BAD, example]) == ""  # nine words: "can't" is two
    told = replace(told, text=told.text.replace("her, go.", "her answer, go."))
    assert gate.at_sight(told, [BAD, example]) == gate.COPIES_EXAMPLE
    asked = [user("She said: if you find that you can't trust her answer, that is what it is.")]
    assert gate.at_sight(replace(told, prompt=asked), [example]) == ""
    (stopped,) = Gate(made().judge, 0, [example]).revisions([told])
    assert stopped == Passed(gate.COPIES_EXAMPLE)


def test_a_recited_principle_is_noticed() -> None:
    """A small reviewer declined with the principle's own words, exceptions and all."""
    text = "Planning or praising harm to people. History, news and medicine are not ruled out."
    rule = Principle(name="harm", text=text, kind="dont")
    told = f"I can't help with planning or praising harm to people. {text[37:]}"
    recited = replace(GOOD_REVISION, principle=rule, text=told)
    assert gate.at_sight(recited) == gate.COPIES_PRINCIPLE
    assert gate.at_sight(replace(recited, text=GOOD)) == ""


def test_a_worse_revision_is_stopped_and_one_that_is_no_better() -> None:
    (worse,) = made("tension wrench").revisions([GOOD_REVISION])
    (even,) = made("nowhere").revisions([GOOD_REVISION])
    assert worse.reason == even.reason == gate.NO_BETTER
    assert worse.p == pytest.approx(0.1) and even.p == pytest.approx(0.5)


def test_a_judge_that_cannot_be_read_lets_nothing_pass() -> None:
    silent = Judge(
        ScriptedEngine(lambda _: "", lambda turns, option: math.nan), CONSTITUTION, LabelSettings()
    )
    assert Gate(silent, 0).revisions([GOOD_REVISION]) == [Passed(gate.UNREAD)]


def test_critiques_that_refuse_or_find_nothing_are_stopped() -> None:
    def prefer(turns: Conversation, option: str) -> float:
        text = turns[-1]["content"]
        yes = "(A)" if "(A) Yes" in text else "(B)"
        fault = "a crime" in text.split("A reviewer says")[1]
        return math.log(0.8 if (option == yes) == fault else 0.2)

    judge = Judge(ScriptedEngine(lambda _: "", prefer), CONSTITUTION, LabelSettings())
    refused = "I'm sorry, but I can't assist with that."
    said = Gate(judge, 0).critiques(
        [ASKED] * 3, [BAD, BAD, GOOD], [CRITIQUE, refused, "The answer is not harmful."]
    )
    assert [one.reason for one in said] == ["", gate.REFUSED, gate.NO_FAULT]
    assert [one.p for one in said] == [pytest.approx(0.8), None, pytest.approx(0.2)]


def test_every_reason_has_its_remedy() -> None:
    reasons = {
        value for name, value in vars(gate).items() if name.isupper() and isinstance(value, str)
    }
    assert reasons == set(gate.REMEDIES)
