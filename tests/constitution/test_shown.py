"""What `cai constitution show` says is sent: both orders, with and without the fence."""

from constitutional_ai.constitution import shown
from constitutional_ai.principles import load_constitution


def test_both_orders_are_shown_and_the_second_turns_the_answers() -> None:
    principle = load_constitution("harmless").principles[0]
    found = {name: turns[-1]["content"] for name, turns in shown.sent(principle).items()}
    one, other = found["preference, one order"], found["preference, the other order"]
    first, second = shown.ANSWERS
    assert one.index(first) < one.index(second)
    assert other.index(second) < other.index(first)
    assert one.replace(first, "X").replace(second, first).replace("X", second) == other
    assert "[nonce]" in one and "[nonce]" not in found["preference, unfenced"]


def test_a_principle_of_one_phase_shows_that_phase_alone() -> None:
    principle = load_constitution("harmless").principles[0]
    for use, others in (("critique", "preference"), ("preference", "critique")):
        found = shown.sent(principle.model_copy(update={"use": (use,)}))
        assert found and not any(name.startswith(others) for name in found)
