"""The fake engine."""

import pytest

from constitutional_ai.engines.base import Completion, Engine, Sampling
from constitutional_ai.engines.scripted import ScriptedEngine
from constitutional_ai.errors import NoLogprobs
from constitutional_ai.records import user

TALKS = [[user("one")], [user("two")]]


def test_replies_in_order_and_cut_at_the_limit() -> None:
    engine: Engine = ScriptedEngine(lambda turns: f"about {turns[-1]['content']}: no")
    assert engine.generate(TALKS, Sampling()) == [
        Completion("about one: no", 3, True),
        Completion("about two: no", 3, True),
    ]
    assert engine.generate(TALKS[:1], Sampling(max_new_tokens=2)) == [
        Completion("about one:", 2, False)
    ]


def test_options_are_scored_only_by_a_preference() -> None:
    engine = ScriptedEngine(lambda _: "", prefer=lambda turns, option: -float(len(option)))
    assert engine.option_logprobs(TALKS, ["a", "bcd"]) == [[-1.0, -3.0]] * 2
    with pytest.raises(NoLogprobs, match="without `prefer`"):
        ScriptedEngine(lambda _: "").option_logprobs(TALKS, ["a", "b"])
