"""What `cai constitution show` says is sent: both orders, with and without the fence."""

import json
from typing import Any

from constitutional_ai.constitution import show
from constitutional_ai.principles import load_constitution


def test_both_orders_are_shown_and_the_second_turns_the_answers() -> None:
    principle = load_constitution("harmless").principles[0]
    found = {name: turns[-1]["content"] for name, turns in show.sent(principle).items()}
    one, other = found["preference, one order"], found["preference, the other order"]
    first, second = show.ANSWERS
    assert one.index(first) < one.index(second)
    assert other.index(second) < other.index(first)
    assert one.replace(first, "X").replace(second, first).replace("X", second) == other
    assert "[nonce]" in one and "[nonce]" not in found["preference, unfenced"]


def test_a_principle_of_one_phase_shows_that_phase_alone() -> None:
    principle = load_constitution("harmless").principles[0]
    for use, others in (("critique", "preference"), ("preference", "critique")):
        found = show.sent(principle.model_copy(update={"use": (use,)}))
        assert found and not any(name.startswith(others) for name in found)


def test_show_renders_every_prompt_of_each_principle(cai: Any) -> None:
    text = cai("show", "harmless", "--rendered").stdout
    harmless = load_constitution("harmless")
    for principle in harmless.principles:
        for prompt in (
            principle.critique_prompt,
            principle.revision_prompt,
            principle.preference_prompt,
        ):
            assert prompt in text
    assert text.count("-- preference, the other order") == 16
    one = cai("show", "harmless", "--principle", "age").stdout
    assert one.count("  critique: ") == 1
    assert "drawn:      3% of critique/red-team, 3% of preference/red-team" in one
    assert "no principle named 'x'" in cai("show", "harmless", "--principle", "x", code=2).stderr


def test_show_for_machines(cai: Any) -> None:
    found = json.loads(cai("show", "lab", "--json").stdout)
    lab = load_constitution("lab")
    assert found["hash"] == lab.hash
    assert [row["hash"] for row in found["principles"]] == [p.hash for p in lab.principles]
    harm = found["principles"][0]["sent"]
    assert list(harm) == ["critique", "revision"]  # it has no preference use
    assert harm["critique"][-1]["content"] == "Does the response help with any harm?"
