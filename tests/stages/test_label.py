"""Preference rows from a scripted judge."""

import math
from collections.abc import Sequence

import pytest

from constitutional_ai.engines.http import HttpEngine
from constitutional_ai.engines.scripted import ScriptedEngine
from constitutional_ai.errors import ModelError
from constitutional_ai.job import Job
from constitutional_ai.judge.certificate import write
from constitutional_ai.judge.replies import NOT_FINITE
from constitutional_ai.records import Conversation, Pair, Preference, user
from constitutional_ai.settings import HttpSettings
from constitutional_ai.stage_settings import LabelSettings
from constitutional_ai.stages import label
from constitutional_ai.store.rows import append_rows
from tests.engines.faulty_server import MODEL, faulty_server


def length_judge(fail_at_call: int = 0, name: str = "judge") -> ScriptedEngine:
    """Prefers the longer answer: the log-odds are the difference in length. "nan" breaks it."""

    def prefer(conversation: Conversation, option: str) -> float:
        _, first, second, _ = conversation[-1]["content"].split("\n")
        if "nan" in first + second:
            return math.nan
        odds = len(first) - len(second)
        return -math.log1p(math.exp(-odds if option == "(A)" else odds))

    class Interrupted(ScriptedEngine):
        calls = 0

        def option_logprobs(
            self, conversations: Sequence[Conversation], options: Sequence[str]
        ) -> list[list[float]]:
            self.calls += 1
            if self.calls == fail_at_call:
                raise KeyboardInterrupt
            return super().option_logprobs(conversations, options)

    return Interrupted(lambda _: "", prefer, name)


def given_pairs(job: Job, answers: Sequence[tuple[str, str]]) -> None:
    pairs = [
        Pair(
            id=f"pair-{number}",
            prompt=[user(f"request {number}")],
            set="helpful" if number % 2 else "red-team",
            answers=pair,
            model="2-finetune/model",
            seed=7,
        )
        for number, pair in enumerate(answers)
    ]
    append_rows(job.stage("sample").path / "pairs.jsonl", pairs)


def rows(job: Job) -> list[Preference]:
    return job.stage("label").rows("preferences.jsonl", Preference)


PLAIN = {"fence": False, "chunk": 3}


def test_a_served_judge_without_logprobs_votes_and_no_file_holds_its_key(
    make_job, monkeypatch
) -> None:
    secret = "sk-very-secret"
    monkeypatch.setenv("JUDGE_KEY", secret)
    with faulty_server(key=secret, logprobs=False, says="(A)") as server:
        keys = (f"{server.url.split('/')[2]}=JUDGE_KEY",)
        served = HttpEngine(f"{server.url}#{MODEL}", HttpSettings(keys=keys))
        vote = {**PLAIN, "method": "vote", "samples": 3, "principles": 1}
        job = make_job({"start": served}, label=vote, http={"keys": keys})
        given_pairs(job, [("xxx", "x"), ("x", "xxx")])
        job.stage("label").finish(label.run(job))
        server.says = "I would rather not."
        refused = make_job({"start": served}, "other", label=vote)
        given_pairs(refused, [("xxx", "x")])
        with pytest.raises(ModelError, match="names neither option"):
            label.run(refused)
    made = rows(job)
    # Three of three for the first option, with one vote more for each: in either order the same.
    assert [(row.method, row.p_chosen) for row in made] == [("vote", 0.5)] * 2
    assert [row.by_order for row in made] == [pytest.approx((0.8, 0.2))] * 2
    files = [path for path in job.folder.path.rglob("*") if path.is_file()]
    assert len(files) > 2
    for path in files:
        assert secret.encode() not in path.read_bytes(), path
    assert secret not in job.settings.model_dump_json()


def test_the_better_answer_is_chosen_whichever_place_it_has(make_job, constitution) -> None:
    job = make_job({"start": length_judge()}, label=PLAIN)
    given_pairs(job, [("xxx", "x"), ("x", "xxx"), ("x", "x"), ("", "x")])
    counts = label.run(job)
    made = rows(job)
    p = 1 / (1 + math.exp(-2))
    assert [row.p_chosen for row in made] == pytest.approx([p, p, None, 1 / (1 + math.exp(-1))])
    assert [row.chosen[0]["content"] for row in made] == ["xxx", "xxx", "x", "x"]
    assert [row.rejected[0]["content"] for row in made] == ["x", "x", "x", ""]
    for row in made[:2]:
        assert row.chosen[0]["role"] == row.rejected[0]["role"] == "assistant"
        assert row.by_order == pytest.approx((p, p))
        assert list(row.by_principle.values()) == pytest.approx([p, p])
        assert (row.judge, row.constitution) == ("start", constitution.hash)
        assert row.principle_hashes == {
            name: constitution.principle(name).hash for name in row.by_principle
        }
    assert [row.prompt for row in made] == [[user(f"request {n}")] for n in range(4)]
    assert set(made[0].by_principle) == {"kind", "safe"}
    assert set(made[1].by_principle) == {"kind", "useful"}
    assert len({row.id for row in made}) == 4
    assert (counts["rows"], counts["labelled"]) == (4, 3)
    assert counts["mean_confidence"] == pytest.approx((2 * p + 1 / (1 + math.exp(-1))) / 3)
    assert counts["position_bias"] == pytest.approx(0)
    assert counts["flip_rate"] == 0
    assert counts["by_principle"]["kind"]["n"] == 3
    assert [row.mass for row in made] == pytest.approx([1, 1, None, 1])
    assert counts["mass"] == pytest.approx(1)


def test_identical_answers_are_not_asked_about_and_count_as_no_failure(make_job) -> None:
    asked: list[Conversation] = []

    def prefer(conversation: Conversation, option: str) -> float:
        asked.append(conversation)
        return math.log(0.9 if option == "(A)" else 0.1)

    job = make_job(
        {"start": ScriptedEngine(lambda _: "", prefer)}, label={**PLAIN, "max_unlabelled": 0.0}
    )
    given_pairs(job, [("same", "same"), ("xxx", "x"), ("same", "same")])
    counts = label.run(job)
    assert [row.unlabelled for row in rows(job)] == [label.IDENTICAL, "", label.IDENTICAL]
    assert counts["unlabelled"] == {label.IDENTICAL: 2}
    assert not any("same" in turns[0]["content"] for turns in asked)
    only = make_job({"start": ScriptedEngine(lambda _: "", prefer)}, "only", label=PLAIN)
    given_pairs(only, [("same", "same")] * 2)
    with pytest.raises(
        ModelError, match=r"2 hold one answer twice, 0 an answer .*; raise sample\.temperature"
    ):
        label.run(only)


@pytest.mark.parametrize(("p", "gap"), [(0.9, 0.8), (0.55, 0.1)])
def test_a_wide_order_gap_is_told(make_job, capsys, p: float, gap: float) -> None:
    judge = ScriptedEngine(lambda _: "", lambda _, o: math.log(p if o == "(A)" else 1 - p))
    job = make_job({"start": judge}, label=PLAIN)
    given_pairs(job, [("xxx", "x"), ("x", "xxx")])
    assert label.run(job)["order_gap"] == pytest.approx(gap)
    told = capsys.readouterr().err
    assert ("the order of the answers moves the judge's P by 0.80 on average" in told) == (
        gap > 0.2
    )


def test_bias_and_flips_are_reported(make_job) -> None:
    always_a = ScriptedEngine(
        lambda _: "", lambda _, option: math.log(0.9 if option == "(A)" else 0.1)
    )
    job = make_job({"start": always_a}, label=PLAIN)
    given_pairs(job, [("xxx", "x"), ("x", "xxx")])
    counts = label.run(job)
    assert counts["mean_confidence"] == pytest.approx(0.5)
    assert counts["position_bias"] == pytest.approx(0.8)
    assert counts["flip_rate"] == 1.0


def test_an_unreadable_verdict_is_a_row_with_its_reason(make_job) -> None:
    job = make_job({"start": length_judge()}, label={**PLAIN, "max_unlabelled": 0.7})
    given_pairs(job, [("xxx", "x"), ("nan", "x"), ("x", "nan")])
    counts = label.run(job)
    _, second, third = rows(job)
    assert second.p_chosen is second.by_order is None
    assert second.by_principle == {}
    assert second.principle_hashes
    assert second.unlabelled == NOT_FINITE
    assert (third.chosen[0]["content"], third.rejected[0]["content"]) == ("x", "nan")
    assert (counts["rows"], counts["labelled"]) == (3, 1)
    assert counts["unlabelled"] == {NOT_FINITE: 2}


def test_a_judge_that_labels_nothing_is_an_error_that_names_the_setting(make_job) -> None:
    job = make_job({"start": length_judge()}, label=PLAIN)
    given_pairs(job, [("nan", "x")] * 2)
    with pytest.raises(ModelError, match=r"start judged none of 2 pairs .*label\.judge"):
        label.run(job)
    assert len(rows(job)) == 2


def test_too_many_unlabelled_pairs_stop_the_stage_and_the_rows_are_kept(make_job) -> None:
    answers = [("nan", "x")] * 3 + [("xxx", "x")] * 3
    job = make_job({"start": length_judge()}, label={**PLAIN, "max_unlabelled": 0.4})
    given_pairs(job, answers)
    with pytest.raises(ModelError, match=r"left 3 of 6 pairs unlabelled.*3x: .*max_unlabelled"):
        label.run(job)
    kept = rows(job)
    assert len(kept) == 3  # no further chunk is asked once the share is passed
    again = make_job({"start": length_judge()}, label={**PLAIN, "max_unlabelled": 0.5})
    assert label.run(again)["labelled"] == 3
    assert rows(again)[:3] == kept  # a higher limit goes on where it stopped


def test_a_jury_is_recorded_judge_by_judge(make_job) -> None:
    engines = {"start": length_judge(), "other": ScriptedEngine(lambda _: "", lambda *_: -0.7)}
    job = make_job(engines, label={**PLAIN, "jury": ["other"]})
    engines["start"].name, engines["other"].name = "start", "other"
    given_pairs(job, [("x", "xxx")])
    counts = label.run(job)
    (row,) = rows(job)
    p = 1 / (1 + math.exp(-2))
    assert row.by_judge == pytest.approx({"start": p, "other": 0.5})
    assert row.disagreement == counts["disagreement"] == pytest.approx(p - 0.5)
    assert row.p_chosen == pytest.approx((p + 0.5) / 2)
    assert row.judge == "start + other"


def test_how_the_judge_was_asked_is_recorded(make_job) -> None:
    job = make_job({"start": length_judge()}, label={**PLAIN, "mode": "hard"})
    given_pairs(job, [("xxx", "x")])
    label.run(job)
    (row,) = rows(job)
    assert (row.method, row.mode, row.p_chosen) == ("compare", "hard", 1.0)
    assert row.p_soft == pytest.approx(1 / (1 + math.exp(-2)))
    assert row.chosen_model == row.rejected_model == "2-finetune/model"


def test_a_certificate_moves_the_labels_and_is_recorded(make_job, constitution, tmp_path) -> None:
    path = tmp_path / "judge.json"
    table = {**PLAIN, "calibration": str(path)}
    write(
        path,
        LabelSettings.model_validate(table),
        constitution.hash,
        {"start": {"temperature": 2.0}},
    )
    job = make_job({"start": length_judge()}, label=table)
    given_pairs(job, [("xxx", "x")])
    label.run(job)
    (row,) = rows(job)
    assert row.p_chosen == pytest.approx(1 / (1 + math.exp(-1)))
    assert row.temperature == {"start": 2.0}


@pytest.mark.parametrize("mode", ["hard", "clamped"])
def test_modes_reach_the_rows(make_job, mode: str) -> None:
    job = make_job({"start": length_judge()}, label={**PLAIN, "mode": mode})
    given_pairs(job, [("xxx", "x"), ("x", "xxx")])
    label.run(job)
    assert [row.p_chosen for row in rows(job)] == [1.0 if mode == "hard" else 0.6] * 2


@pytest.mark.parametrize(
    ("judge", "round", "path"),
    [
        ("base", 1, "start"),
        ("base", 2, "start"),
        ("sl-cai", 2, "r2/2-finetune/model"),
        ("some/judge", 1, "some/judge"),
    ],
)
def test_which_model_judges(make_job, judge: str, round: int, path: str) -> None:
    settings = {**PLAIN, "judge": judge}
    job = make_job({path: length_judge()}, round=round, rounds=2, label=settings)
    given_pairs(job, [("xxx", "x")])
    label.run(job)
    assert rows(job)[0].judge == path


def test_a_run_that_was_interrupted_ends_with_the_same_bytes(make_job) -> None:
    answers = [("x" * (n % 4), "x" * (4 + n % 3)) for n in range(8)]
    whole = make_job({"start": length_judge()}, "whole", label=PLAIN)
    broken = make_job({"start": length_judge(fail_at_call=2)}, "broken", label=PLAIN)
    for job in (whole, broken):
        given_pairs(job, answers)
    expected = label.run(whole)
    with pytest.raises(KeyboardInterrupt):
        label.run(broken)
    assert len(rows(broken)) == 3
    again = make_job({"start": length_judge()}, "broken", label=PLAIN)
    assert label.run(again) == expected
    files = [job.stage("label").path / "preferences.jsonl" for job in (whole, again)]
    assert files[0].read_bytes() == files[1].read_bytes()
