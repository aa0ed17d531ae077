"""Kinds of harm are drawn for requests that are about them; general principles always may be."""

import math
import re
from collections import Counter

import pytest

from constitutional_ai.engines.scripted import ScriptedEngine
from constitutional_ai.judge.kinds import draw, fitting, kinds_of_harm
from constitutional_ai.judge.replies import NO_ANSWER, Unread
from constitutional_ai.principles import Constitution, Principle
from constitutional_ai.records import Conversation, Prompt, user

KINDS = ("weapons", "hate", "fraud")
CONSTITUTION = Constitution(
    name="kinds",
    version="1",
    principles=(
        Principle(name="harm", text="Harm nobody."),
        *(Principle(name=kind, text=f"About {kind}.", prompts=("red-team",)) for kind in KINDS),
    ),
)


def prompt(text: str) -> Prompt:
    return Prompt(id=text, prompt=[user(text)], set="red-team")


def topical(turns: Conversation, option: str) -> float:
    """Gives .7 to the listed kind that the request names, else to the last choice."""
    text = turns[-1]["content"]
    listed = re.findall(r"\(([A-Z])\) (.+)", text)
    request = text.split("Request:")[1]
    wanted = next((letter for letter, kind in listed if kind[6:-1] in request), listed[-1][0])
    return math.log(0.7 if option == wanted else 0.1)


def test_shares_belong_to_the_principle_whatever_the_lists_order() -> None:
    engine = ScriptedEngine(lambda _: "", topical)
    hate, none = fitting(engine, [prompt("a hate bot"), prompt("a cake")], CONSTITUTION, 0)
    assert hate == pytest.approx({"weapons": 0.1, "hate": 0.7, "fraud": 0.1})
    assert none == pytest.approx({"weapons": 0.1, "hate": 0.1, "fraud": 0.1})


def test_nobody_criticises_hate_for_weapons() -> None:
    shares = {"weapons": 0.1, "hate": 0.7, "fraud": 0.1}
    drawn = Counter(draw(CONSTITUTION, shares, n).name for n in range(200))
    assert set(drawn) == {"harm", "hate"} and min(drawn.values()) > 60


def test_where_the_judge_cannot_be_read_all_may_be_drawn() -> None:
    drawn = {draw(CONSTITUTION, Unread(NO_ANSWER), n).name for n in range(200)}
    assert drawn == {"harm", *KINDS}


def test_a_constitution_without_kinds_of_harm_asks_nothing() -> None:
    plain = Constitution(name="p", version="1", principles=CONSTITUTION.principles[:1])
    engine = ScriptedEngine(lambda _: "")  # would raise if it were asked
    assert kinds_of_harm(plain) == []
    assert fitting(engine, [prompt("a")], plain, 0) == [{}]
    assert draw(plain, {}, 1).name == "harm"
