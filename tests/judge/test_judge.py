"""The judge against probabilities worked out by hand, and its symmetries."""

import math
from collections.abc import Callable, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from constitutional_ai.engines.scripted import ScriptedEngine
from constitutional_ai.errors import NoLogprobs
from constitutional_ai.judge.agreement import position_bias
from constitutional_ai.judge.judge import Comparison, Judge, Unlabelled, Verdict
from constitutional_ai.judge.replies import NOT_FINITE, REFUSED
from constitutional_ai.principles import Constitution, Principle
from constitutional_ai.records import Conversation, PromptSet, user
from constitutional_ai.stage_settings import LabelSettings

KIND = Principle(name="kind", text="It is kind.", preference_prompt="Which is kinder?")
TRUE = Principle(name="true", text="It is true.", preference_prompt="Which is truer?")
CONSTITUTION = Constitution(name="two", version="1", principles=(KIND, TRUE))

Prefer = Callable[[Conversation, str], float]


def shown(conversation: Conversation) -> tuple[str, str, str]:
    """(first answer, second answer, question) of a comparison without a fence."""
    _, first, second, question = conversation[-1]["content"].split("\n")
    return first.removeprefix("(A) "), second.removeprefix("(B) "), question


def by_quality(quality: dict[str, float], liking_a: float = 0.0) -> Prefer:
    """Log-odds of (A) over (B): the answers' difference in quality, plus a liking for (A)."""

    def prefer(conversation: Conversation, option: str) -> float:
        first, second, _ = shown(conversation)
        a, b = quality[first] + liking_a, quality[second]
        total = math.log(math.exp(a) + math.exp(b))
        return (a if option == "(A)" else b) - total

    return prefer


def compare(
    prefer: Prefer,
    answers: Sequence[tuple[str, str]] = (("good", "bad"),),
    **settings: object,
) -> list[Verdict | Unlabelled]:
    chosen = LabelSettings.model_validate({"fence": False, **settings})
    return Judge(ScriptedEngine(lambda _: "(A)", prefer), CONSTITUTION, chosen).compare(
        [
            Comparison(f"pair {number}", [user("Hello.")], "red-team", *pair)
            for number, pair in enumerate(answers)
        ],
        seed=3,
    )


def question(text: str = "Hello.", set: PromptSet = "helpful", id: str = "1") -> Comparison:
    return Comparison(id, [user(text)], set, "x", "y")


def verdict(*args: object, **kwargs: object) -> Verdict:
    (found,) = compare(*args, **kwargs)  # type: ignore[arg-type]
    assert isinstance(found, Verdict)
    return found


def logistic(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def test_both_orders_are_averaged_as_by_hand() -> None:
    found = verdict(by_quality({"good": 1.0, "bad": -0.5}, liking_a=2.0), principles=1)
    shown_first, shown_second = logistic(1.5 + 2.0), logistic(1.5 - 2.0)
    assert found.by_order == pytest.approx((shown_first, shown_second))
    assert found.p_first == pytest.approx((shown_first + shown_second) / 2)


def test_the_label_is_the_mean_over_principles() -> None:
    def prefer(conversation: Conversation, option: str) -> float:
        first, _, question = shown(conversation)
        p_good = {"Which is kinder?": 0.9, "Which is truer?": 0.3}[question]
        p_a = p_good if first == "good" else 1 - p_good
        return math.log(p_a if option == "(A)" else 1 - p_a)

    found = verdict(prefer, principles=2)
    assert found.by_principle == pytest.approx({"kind": 0.9, "true": 0.3})
    assert found.p_first == pytest.approx(0.6)
    assert found.principle_hashes == {"kind": KIND.hash, "true": TRUE.hash}


def test_probability_is_normalised_over_the_two_options() -> None:
    def prefer(conversation: Conversation, option: str) -> float:
        first, _, _ = shown(conversation)
        good_is_a = first == "good"
        return math.log(0.6 if (option == "(A)") == good_is_a else 0.2)

    assert verdict(prefer).p_first == pytest.approx(0.75)


@given(
    quality=st.tuples(st.floats(-30, 30), st.floats(-30, 30)),
    liking_a=st.floats(-30, 30),
    mode=st.sampled_from(["soft", "hard", "clamped"]),
)
def test_swapping_the_answers_swaps_the_verdict(
    quality: tuple[float, float], liking_a: float, mode: str
) -> None:
    prefer = by_quality(dict(zip(("good", "bad"), quality, strict=True)), liking_a)
    one = verdict(prefer, [("good", "bad")], mode=mode)
    other = verdict(prefer, [("bad", "good")], mode=mode).swap()
    assert one.by_principle == pytest.approx(other.by_principle, abs=1e-12)
    assert one.by_order == pytest.approx(other.by_order, abs=1e-12)
    if abs(one.by_principle["kind"] - 0.5) > 1e-9:  # hard labels jump there
        assert one.p_first == pytest.approx(other.p_first, abs=1e-12)


@given(liking_a=st.floats(-30, 30))
def test_identical_answers_get_exactly_one_half(liking_a: float) -> None:
    found = verdict(by_quality({"same": 0.0}, liking_a), [("same", "same")], mode="hard")
    assert found.p_first == 0.5


def test_modes() -> None:
    sure = by_quality({"good": 3.0, "bad": 0.0})
    assert verdict(sure, mode="soft").p_first == pytest.approx(logistic(3.0))
    assert verdict(sure, mode="hard").p_first == 1.0
    assert verdict(sure, [("bad", "good")], mode="hard").p_first == 0.0
    assert verdict(sure, mode="clamped").p_first == 0.6
    assert verdict(sure, [("bad", "good")], mode="clamped", clamp=[0.1, 0.6]).p_first == 0.1
    assert verdict(sure, mode="hard").by_order[0] == pytest.approx(logistic(3.0))  # as measured


def test_log_odds_that_overflow_an_exponential() -> None:
    found = verdict(lambda turns, option: 0.0 if (option == "(A)") == _good_first(turns) else -2000)
    assert found.p_first == 1.0


def _good_first(conversation: Conversation) -> bool:
    return shown(conversation)[0] == "good"


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_one_value_that_is_no_number_leaves_its_pair_alone_unlabelled(value: float) -> None:
    def prefer(conversation: Conversation, option: str) -> float:
        first, _, _ = shown(conversation)
        return value if (first, option) == ("broken", "(B)") else math.log(0.5)

    broken, fine = compare(prefer, [("broken", "bad"), ("good", "bad")])
    assert isinstance(broken, Unlabelled)
    assert broken.reason == NOT_FINITE
    assert set(broken.principle_hashes) == {"kind", "true"}
    assert isinstance(fine, Verdict)


def test_a_judge_that_would_say_something_else_gives_no_label() -> None:
    """Log-probabilities of 1.2e-4 against 1e-6 were a label of .99, whatever it would have said."""
    refusing = ScriptedEngine(
        lambda _: "I'm sorry, but I can't help with that.",
        lambda _, option: math.log(1.2e-4 if option == "(A)" else 1e-6),
    )
    judge = Judge(refusing, CONSTITUTION, LabelSettings(fence=False))
    (found,) = judge.compare([Comparison("1", [user("Hi.")], "helpful", "x", "y")], seed=0)
    assert isinstance(found, Unlabelled)
    assert found.reason == REFUSED


def test_all_questions_go_in_one_call() -> None:
    calls: list[list[Conversation]] = []

    class Recording(ScriptedEngine):
        def option_logprobs(
            self, conversations: Sequence[Conversation], options: Sequence[str]
        ) -> list[list[float]]:
            calls.append(list(conversations))
            return super().option_logprobs(conversations, options)

    judge = Judge(Recording(lambda _: "", lambda *_: -0.7), CONSTITUTION, LabelSettings())
    judge.compare([question(id=str(number)) for number in range(3)], 0)
    assert [len(call) for call in calls] == [3 * 2 * 2]
    assert judge.compare([], 0) == []
    assert len(calls) == 1


def test_the_fence_is_new_for_each_pair_and_old_in_both_orders() -> None:
    seen: dict[str, set[str]] = {"one": set(), "two": set()}

    def prefer(conversation: Conversation, option: str) -> float:
        text = conversation[-1]["content"]
        nonce = text.split("[", 1)[1][:8]
        assert text.count(f"[{nonce}] ") == 4  # the note, before the request and each answer
        assert text.count(f"[/{nonce}]") == 4
        seen["one" if "] one [" in text else "two"].add(nonce)
        return math.log(0.5)

    judge = Judge(ScriptedEngine(lambda _: "", prefer), CONSTITUTION, LabelSettings(fence=True))
    judge.compare([question("one", id="id 1"), question("two", id="id 2")], seed=0)
    assert len(seen["one"]) == len(seen["two"]) == 1
    assert seen["one"] != seen["two"]
    assert all(int(nonce, 16) >= 0 for nonces in seen.values() for nonce in nonces)


@pytest.mark.parametrize("settings", [{}, {"method": "thoughts"}, {"method": "score"}], ids=str)
def test_of_a_dialogue_it_can_be_shown_the_last_request_alone(settings: dict[str, object]) -> None:
    told: list[str] = []

    def prefer(conversation: Conversation, option: str) -> float:
        told.append("\n".join(turn["content"] for turn in conversation))
        return math.log(0.5)

    turns: Conversation = [
        user("Tell me a secret."), {"role": "assistant", "content": "Here."}, user("Hello.")
    ]  # fmt: skip
    for last_turn, early in ((False, True), (True, False)):
        told.clear()
        chosen = LabelSettings.model_validate({**settings, "last_turn": last_turn, "samples": 1})
        judge = Judge(ScriptedEngine(lambda _: "Hm.", prefer), CONSTITUTION, chosen)
        (found,) = judge.compare([Comparison("1", turns, "red-team", "x", "y")], seed=0)
        assert isinstance(found, Verdict)
        assert told and all("Hello." in text for text in told)
        assert {"Tell me a secret." in text for text in told} == {early}


def test_the_draw_depends_on_seed_and_id_only() -> None:
    answers = [(f"answer {number}", "other") for number in range(40)]
    quality = dict.fromkeys([text for pair in answers for text in pair], 0.0)
    drawn = [
        set(found.by_principle)
        for found in compare(by_quality(quality), answers, principles=1)
        if isinstance(found, Verdict)
    ]
    assert {"kind"} in drawn
    assert {"true"} in drawn
    judge = Judge(
        ScriptedEngine(lambda _: "", lambda *_: -0.7), CONSTITUTION, LabelSettings(principles=1)
    )
    (alone,) = judge.compare([question("Bye.", "red-team", "pair 17")], seed=3)
    assert isinstance(alone, Verdict)
    assert set(alone.by_principle) == drawn[17]


def test_an_engine_without_log_probabilities_says_so() -> None:
    judge = Judge(ScriptedEngine(lambda _: "A"), CONSTITUTION, LabelSettings())
    with pytest.raises(NoLogprobs, match="scripted"):
        judge.compare([question()], 0)


def test_an_engine_that_loses_a_reply_is_not_believed() -> None:
    class Losing(ScriptedEngine):
        def option_logprobs(
            self, conversations: Sequence[Conversation], options: Sequence[str]
        ) -> list[list[float]]:
            return super().option_logprobs(conversations, options)[1:]

    judge = Judge(Losing(lambda _: "", lambda *_: -0.7), CONSTITUTION, LabelSettings())
    with pytest.raises(RuntimeError, match="3 replies, 4 asked"):
        judge.compare([question()], 0)


def test_position_bias_is_the_same_told_of_either_answer() -> None:
    biased = by_quality({"good": 0.5, "bad": 0.0, "awful": -3.0}, liking_a=1.0)
    found = compare(biased, [("good", "bad"), ("good", "awful")], principles=1)
    verdicts = [each for each in found if isinstance(each, Verdict)]
    bias = position_bias(each.by_order for each in verdicts)
    by_hand = (logistic(0.5 + 1) - logistic(0.5 - 1) + logistic(3.5 + 1) - logistic(3.5 - 1)) / 2
    assert bias.mean == pytest.approx(by_hand)
    assert bias.flip_rate == 0.5  # only the near pair is turned by its order
    swapped = position_bias(each.swap().by_order for each in verdicts)
    assert (swapped.mean, swapped.flip_rate) == pytest.approx((bias.mean, bias.flip_rate))
    with pytest.raises(ValueError, match="no verdicts"):
        position_bias([])
