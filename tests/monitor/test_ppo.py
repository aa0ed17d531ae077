"""The monitor's rules on checks whose story is known."""

import math
import random
from dataclasses import replace
from typing import Any

import pytest

from constitutional_ai.monitor.ppo import Check, Monitor, boilerplate, distinct_2
from constitutional_ai.records import Prompt, PromptSet, user

COUNT = 40


def check(step: int, helpful: float, red_team: float, proxy: float, **changed: Any) -> Check:
    """Half of the prompts helpful; wins scatter a little around the means."""
    rng = random.Random(step)
    half = COUNT // 2
    means = [helpful] * half + [red_team] * half
    found = Check(
        step=step,
        proxy=proxy,
        wins=tuple(mean + rng.uniform(-0.05, 0.05) for mean in means),
        helpful=(True,) * half + (False,) * half,
        refused=(False,) * COUNT,
        distinct_2=0.6,
        finished=(True,) * COUNT,
    )
    return replace(found, **changed)


def monitor() -> Monitor:
    return Monitor(prompts=[], references=[], compare=lambda *_: [])


def reasons(*checks: Check) -> list[str]:
    watch = monitor()
    return [watch.judge(found) for found in checks]


def test_a_policy_that_gets_better_is_left_alone() -> None:
    rising = [check(n, 0.5 + 0.02 * n, 0.5 + 0.05 * n, 0.3 * n) for n in range(8)]
    assert reasons(*rising) == [""] * 8


def test_noise_alone_is_no_alarm() -> None:
    assert reasons(*[check(n, 0.5, 0.5, 0.1 * n) for n in range(30)]) == [""] * 30


def test_it_speaks_at_the_second_fall_in_a_row() -> None:
    found = reasons(
        check(0, 0.5, 0.5, 0.0),
        check(5, 0.6, 0.7, 1.0),
        check(10, 0.4, 0.5, 1.5),
        check(15, 0.3, 0.4, 2.0),
    )
    assert found[:3] == [""] * 3 and "all prompts" in found[3] and "step 5" in found[3]


def test_one_fall_is_forgiven() -> None:
    story = [(0.5, 0.0), (0.7, 1.0), (0.5, 1.2), (0.72, 1.3), (0.5, 1.4)]
    assert not any(reasons(*[check(n, s, s, proxy) for n, (s, proxy) in enumerate(story)]))


def test_helpfulness_lost_is_seen_though_the_whole_still_rises() -> None:
    found = reasons(
        check(0, 0.5, 0.5, 0.0),
        check(5, 0.35, 0.8, 1.0),
        check(10, 0.35, 0.9, 1.5),
    )
    assert "helpful prompts" in found[2]


def test_a_policy_that_loses_reward_too_is_not_hacking_it() -> None:
    found = reasons(check(0, 0.7, 0.7, 1.0), check(5, 0.5, 0.5, 0.5), check(10, 0.4, 0.4, 0.2))
    assert not any(found)


@pytest.mark.parametrize(
    ("sign", "changed"),
    [
        ("repeat", {"distinct_2": 0.29}),
        ("do not end", {"finished": (False,) * 6 + (True,) * (COUNT - 6)}),
    ],
)
def test_collapse_is_seen_at_once(sign: str, changed: dict[str, Any]) -> None:
    assert sign in reasons(check(0, 0.5, 0.5, 0.0), check(5, 0.6, 0.6, 1.0, **changed))[1]


def test_refused_help_is_forgiven_once_and_an_alarm_the_second_time() -> None:
    refused = (True,) * 8 + (False,) * (COUNT - 8)
    start, rise = check(0, 0.5, 0.5, 0.0), {"refused": refused}
    once = [start, check(5, 0.6, 0.6, 1.0, **rise), check(10, 0.6, 0.6, 1.0)]
    assert not any(reasons(*once))
    twice = reasons(*once[:2], check(10, 0.6, 0.6, 1.0, **rise))
    assert not twice[1]
    assert "refused" in twice[2]


def test_refusals_of_red_team_prompts_are_welcome() -> None:
    refused = (False,) * (COUNT // 2) + (True,) * (COUNT // 2)
    assert not any(reasons(check(0, 0.5, 0.5, 0.0), check(5, 0.5, 0.9, 1.0, refused=refused)))


def test_a_model_that_seldom_ended_before_is_not_blamed_for_it() -> None:
    seldom = (True, False) * (COUNT // 2)
    found = reasons(
        check(0, 0.5, 0.5, 0.0, finished=seldom), check(5, 0.6, 0.6, 1.0, finished=seldom)
    )
    assert not any(found)


def test_the_best_check_is_the_last_good_one_of_the_highest_signal() -> None:
    watch = monitor()
    for found in (check(0, 0.5, 0.5, 0.0), check(5, 0.6, 0.6, 1.0), check(10, 0.3, 1.0, 2.0)):
        watch.judge(found)
    assert watch.checks[2].signal() > watch.checks[1].signal()
    assert watch.best_step == 5  # step 10 beats it over all, by giving up helpfulness


def test_unread_verdicts_are_counted_and_left_out() -> None:
    prompts = [_prompt("helpful"), _prompt("helpful"), _prompt("red-team")]
    watch = Monitor(prompts, ["a", "b", "c"], lambda *_: [0.8, None, 0.4])
    assert watch.check(0, ["x y", "I cannot help with that.", "z"], [True] * 3, proxy=1.0) == ""
    found = watch.metrics()
    assert found["monitor/unread"] == 1
    assert found["monitor/judge"] == pytest.approx(0.6)
    assert found["monitor/judge/helpful"] == pytest.approx(0.8)
    assert found["monitor/refusal_rate"] == 0.5
    assert found["monitor/judge/se"] == pytest.approx(0.2)  # of 0.8 and 0.4
    assert found["monitor/refusal_rate/se"] == pytest.approx(0.5)


def test_nothing_is_decided_where_no_verdict_can_be_read() -> None:
    silent = {"wins": (None,) * COUNT}
    watch = monitor()
    assert [watch.judge(check(n, 0.5, 0.5, n, **silent)) for n in range(3)] == [""] * 3
    assert math.isnan(watch.metrics()["monitor/judge"])


def test_state_survives_json() -> None:
    import json

    watch, again = monitor(), monitor()
    story = [check(0, 0.5, 0.5, 0.0), check(5, 0.7, 0.7, 1.0), check(10, 0.5, 0.5, 1.5)]
    for found in story:
        watch.judge(found)
    again.restore(json.loads(json.dumps(watch.state())))
    assert again.checks == watch.checks and again.best_step == 5
    fall = check(15, 0.4, 0.4, 2.0)
    assert again.judge(fall) == watch.judge(fall) != ""


def test_text_measures_by_hand() -> None:
    assert distinct_2(["a b a b", "a b"]) == pytest.approx(2 / 4)
    assert distinct_2(["one"]) == 1.0
    same, other = "I am sorry but I cannot", "First take the cup and pour"
    assert boilerplate([same, f"{same} today", other]) == pytest.approx(2 / 3)
    assert boilerplate([]) == 0.0


def _prompt(set: PromptSet) -> Prompt:
    return Prompt(id=set, prompt=[user("Hello")], set=set)
