"""The figures of a judge whose faults are known, from the verdicts to the page."""

import json
import math
import re
import time
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from constitutional_ai.cli import main as cli
from constitutional_ai.data.pairs import Labelled
from constitutional_ai.engines.scripted import ScriptedEngine
from constitutional_ai.judge import judge_pairs, pages, report
from constitutional_ai.judge import open as bench
from constitutional_ai.judge.judge import Comparison, Judge, Unlabelled, Verdict
from constitutional_ai.judge.judge_pairs import (
    Judged,
    ask,
    examine,
    jury,
    questions,
    seconds_each,
    spoken,
)
from constitutional_ai.judge.jury import Jury
from constitutional_ai.principles import Constitution, Principle
from constitutional_ai.records import Conversation, user
from constitutional_ai.stage_settings import LabelSettings

KIND = Principle(name="kind", text="It is kind.", preference_prompt="Which is kinder?")
TRUE = Principle(name="true", text="It is true.", preference_prompt="Which is truer?")
CONSTITUTION = Constitution(name="two", version="1", principles=(KIND, TRUE))


def pair(number: int, better: str = "good", worse: str = "bad", **more: Any) -> Labelled:
    return Labelled(f"pair {number}", [user("Hello.")], "helpful", better, worse, **more)


def by_place(p_shown_first: float, p_shown_second: float) -> ScriptedEngine:
    """P("good" better) hangs on whether it is shown first; a pair with "odd" cannot be read."""

    def prefer(turns: Conversation, option: str) -> float:
        text = turns[-1]["content"]
        if "odd" in text:
            return math.nan
        good_first = "(A) good" in text
        p = p_shown_first if good_first else p_shown_second
        return math.log(p if (option == "(A)") == good_first else 1 - p)

    return ScriptedEngine(lambda _: "(A)", prefer, "judge")


def judge_of(engine: ScriptedEngine, **settings: Any) -> Judge:
    return Judge(engine, CONSTITUTION, LabelSettings.model_validate({"fence": False, **settings}))


def figures(engine: ScriptedEngine, rows: list[Labelled]) -> dict[str, Any]:
    judged = ask(judge_of(engine), rows, seed=0, swapped={row.id for row in rows})
    return report.of_judge(rows, judged, "judge")


def test_flips_by_order_before_and_after_averaging() -> None:
    found = figures(by_place(0.9, 0.3), [pair(n) for n in range(10)])
    assert found["order"]["bias"] == pytest.approx(0.6)
    assert found["order"]["gap"]["mean"] == pytest.approx(0.6)
    assert found["mass"]["mean"] == pytest.approx(1.0)
    assert found["order"]["flips"]["mean"] == 1.0  # each order alone names another winner
    assert found["order"]["flips_after_averaging"]["mean"] == 0.0
    assert found["accuracy"]["mean"] == 1.0  # .6 on average


def test_abstentions_are_counted_and_left_out() -> None:
    rows = [pair(0), pair(1), pair(2, worse="odd"), pair(3)]
    found = figures(by_place(0.9, 0.9), rows)
    assert found["unlabelled"] == {"a log-probability of the options is not a finite number": 1}
    assert found["unlabelled_share"]["mean"] == 0.25
    assert found["accuracy"]["n"] == 3
    nothing = figures(by_place(0.9, 0.9), [pair(2, worse="odd")])
    assert "accuracy" not in nothing
    captions = [table.caption for table in pages.tables({"floors": {}, "judges": {"j": nothing}})]
    assert "j: pairs without a verdict." in captions  # a judge that never spoke is told why


def test_a_label_about_one_principle_is_held_against_that_one() -> None:
    def prefer(turns: Conversation, option: str) -> float:
        text = turns[-1]["content"]
        p = 0.9 if "kinder" in text else 0.2
        return math.log(p if (option == "(A)") == ("(A) good" in text) else 1 - p)

    engine = ScriptedEngine(lambda _: "", prefer, "judge")
    rows = [pair(0, principle="kind"), pair(1, principle="true"), pair(2)]
    judged = ask(judge_of(engine, principles=2), rows, seed=0)
    assert [j.p for j in judged] == pytest.approx([0.9, 0.2, 0.55])
    found = report.of_judge(rows, judged, "judge")
    assert found["by_principle"]["kind"] == found["by_principle"]["kind"] | {"mean": 1.0, "n": 2}
    assert found["by_principle"]["true"] == found["by_principle"]["true"] | {"mean": 0.0, "n": 2}


def test_length_and_self_preference() -> None:
    engine = by_place(0.9, 0.9)
    rows = [
        pair(0, "good and long", "bad", better_model="judge", worse_model="x"),
        pair(1, "good", "a long bad one", better_model="x", worse_model="judge"),
        pair(2, "good", "a long bad one"),
    ]
    found = figures(engine, rows)
    assert found["length"]["judge_prefers_longer"]["mean"] == pytest.approx(1 / 3)
    assert found["length"]["labels_prefer_longer"]["mean"] == pytest.approx(1 / 3)
    assert found["self_preference"]["judge_prefers_own"]["mean"] == 0.5
    assert found["self_preference"]["labels_prefer_own"]["mean"] == 0.5
    assert figures(engine, [pair(0)])["self_preference"] == {}


def test_a_jury_says_what_a_labelling_jury_would() -> None:
    rows = [pair(0), pair(1, worse="odd"), pair(2, principle="true")]
    said = {"sure": by_place(0.9, 0.7), "unsure": by_place(0.2, 0.6)}
    said["sure"].name, said["unsure"].name = said
    judges = [judge_of(engine, principles=2) for engine in said.values()]
    together = jury([ask(judge, rows, 0, {row.id for row in rows}) for judge in judges])
    assert [one.p for one in together] == [pytest.approx(0.6), None, pytest.approx(0.6)]
    assert together[0].orders["kind"] == pytest.approx((0.55, 0.65))
    assert together[0].again == pytest.approx(0.6)
    assert "not a finite number" in together[1].unlabelled
    asked = [Comparison(row.id, row.prompt, row.set, row.better, row.worse) for row in rows[:2]]
    labelled = Jury(judges).compare(asked, 0)
    assert isinstance(labelled[0], Verdict) and labelled[0].p_soft == together[0].p
    assert isinstance(labelled[1], Unlabelled)
    found = report.of_judge(rows, together, "jury")
    assert found["accuracy"]["mean"] == 1.0 and found["order"]["flips"]["mean"] == 0


def test_a_judge_that_cannot_read_is_left_out_of_the_jury() -> None:
    one, two = Judged(id="a", p=0.9), Judged(id="a", unlabelled="it refuses")
    assert jury([[one], [two]]) == [Judged(id="a", p=0.9, unread={"it refuses": 1})]


def test_judges_are_held_against_each_other_on_what_both_read() -> None:
    one = [Judged(id=str(n), p=0.9) for n in range(4)]
    two = [Judged(id=str(n), p=p) for n, p in enumerate((0.8, 0.1, 0.7, None))]
    (found,) = report.between({"a": one, "b": two})
    assert found["raw"]["n"] == 3
    assert found["raw"]["mean"] == pytest.approx(2 / 3)


def test_what_it_says_is_heard_in_both_orders() -> None:
    found = spoken(judge_of(by_place(0.9, 0.9)), [pair(0), pair(1)], seed=0, tick=lambda _: None)
    assert found == {"A": 4}
    refusing = ScriptedEngine(lambda _: "I'm sorry, but I can't help with that.")
    assert spoken(judge_of(refusing), [pair(0)], 0, lambda _: None) == {
        "the judge refuses to choose": 2
    }


def test_an_interrupted_examination_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(judge_pairs, "BATCH", 8)  # two principles, two orders: pairs by twos
    rows = [pair(n) for n in range(5)]
    judge = judge_of(by_place(0.9, 0.3))
    whole = examine(judge, rows, 0, tmp_path / "a", lambda _: None, again=5)
    (file,) = (tmp_path / "a").rglob("verdicts.jsonl")
    file.write_bytes(b"\n".join(file.read_bytes().split(b"\n")[:3]))  # a chunk and a torn one
    assert examine(judge, rows, 0, tmp_path / "a", lambda _: None, again=5) == whole


def test_other_pairs_of_the_same_ids_are_asked_anew(tmp_path: Path) -> None:
    judge = judge_of(by_place(0.9, 0.9))
    (before,) = examine(judge, [pair(1)], 0, tmp_path, lambda _: None, again=0)
    turned = [pair(1, better="bad", worse="good")]
    (after,) = examine(judge, turned, 0, tmp_path, lambda _: None, again=0)
    assert before.p == pytest.approx(0.9)
    assert after.p == pytest.approx(0.1)


def many(count: int) -> Constitution:
    principles = [KIND.model_copy(update={"name": f"rule {n}"}) for n in range(count)]
    return Constitution(name="many", version="1", principles=tuple(principles))


def test_of_many_principles_a_pair_is_asked_under_a_few_those_of_its_label_among_them() -> None:
    settings = LabelSettings(fence=False, principles=2)
    judge = Judge(by_place(0.9, 0.6), many(16), settings)
    rows = [pair(n) for n in range(6)]
    few = ask(judge, rows, seed=0, least=4)
    assert {len(one.by_principle) for one in few} == {4}
    assert all(set(one.drawn) <= set(one.by_principle) and len(one.drawn) == 2 for one in few)
    assert len({name for one in few for name in one.by_principle}) > 4  # not the same ones
    every = ask(judge, rows, seed=0, least=16)
    assert {len(one.by_principle) for one in every} == {16}
    assert [(one.p, one.drawn) for one in few] == [(one.p, one.drawn) for one in every]


@pytest.mark.parametrize("settings", [{}, {"method": "vote", "samples": 3}], ids=str)
def test_the_questions_are_counted_before_they_are_asked(settings: dict[str, Any]) -> None:
    put: list[Conversation] = []

    class Counting(ScriptedEngine):
        def option_logprobs(self, conversations, options):
            put.extend(conversations)
            return super().option_logprobs(conversations, options)

        def generate(self, conversations, sampling):
            put.extend(conversations)
            return super().generate(conversations, sampling)

    engine = Counting(lambda _: "(A)", lambda *_: -0.7)
    judge = Judge(engine, many(16), LabelSettings(fence=False, principles=2, **settings))
    rows = [pair(0), pair(1), pair(2, principle="rule 3")]
    ask(judge, rows, seed=0, swapped={"pair 0", "pair 1"}, least=4)
    assert questions(judge, rows, seed=0, again=2, least=4) == len(put)


def test_how_long_a_question_takes_is_told_from_pairs_of_all_lengths() -> None:
    put: list[int] = []

    class Slow(ScriptedEngine):
        def option_logprobs(self, conversations, options):
            put.append(len(conversations))
            time.sleep(0.02 * len(conversations))
            return super().option_logprobs(conversations, options)

    judge = Judge(Slow(lambda _: "(A)", lambda *_: -0.7), many(16), LabelSettings(fence=False))
    rows = [pair(n, worse="bad " * n) for n in range(40)]
    assert 0.019 < seconds_each(judge, rows, seed=0) < 0.1
    assert put == [2, 2 * 4]  # one pair to warm up, and four


@pytest.fixture
def pairs_file(tmp_path: Path) -> Path:
    path = tmp_path / "pairs.jsonl"
    rows = [
        {"prompt": f"Hello {n}.", "chosen": "good", "rejected": "<b>bad</b>", "set": "helpful"}
        for n in range(12)
    ]
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return path


@pytest.fixture
def scripted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "open_engine", lambda spec, settings: by_place(0.9, 0.6))


def run(*arguments: object) -> Any:
    return CliRunner().invoke(cli.app, ["judge", *map(str, arguments)])


@pytest.mark.usefixtures("scripted")
def test_the_report_as_a_user_types_it(pairs_file: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = run("report", pairs_file, "--engine", "some/judge", "--set", "label.fence=false",
               "--method", "compare", "--method", "vote", "--out", out)  # fmt: skip
    assert done.exit_code == 0, done.output
    assert "Judges against the labels." in done.output
    page = (out / pages.FILE).read_text()
    assert "some/judge, compare" in page and "some/judge, vote" in page
    assert "<svg" in page and "http://" not in page.replace("http://www.w3.org", "")
    assert (out / "reliability-1.png").stat().st_size > 1000
    kept = json.loads((out / "report.json").read_text())
    assert kept["judges"]["some/judge, compare"]["accuracy"]["mean"] == 1.0
    assert kept["between"][0]["raw"]["n"] == 12
    assert "--all-principles asks" in done.stderr  # harmless has more principles than four
    assert re.search(
        r"vote: 720 questions about 12 pairs, in both orders, about \d+ s;", done.stderr
    )


@pytest.mark.usefixtures("scripted")
def test_calibrate_writes_what_the_label_table_can_name(pairs_file: Path, tmp_path: Path) -> None:
    out = tmp_path / "judge.json"
    common = ("--engine", "some/judge", "--set", "label.fence=false")
    done = run("calibrate", pairs_file, "--out", out, *common)
    assert done.exit_code == 0, done.output
    temperature = json.loads(out.read_text())["judges"]["some/judge"]["temperature"]
    assert 0.1 <= temperature < 1  # it was right with .75, always: not sure enough
    done = run("report", pairs_file, *common, "--set", f'label.calibration="{out}"', "--json",
               "--out", tmp_path / "r")  # fmt: skip
    result = json.loads(done.output.strip().splitlines()[-1])
    assert result["judges"]["some/judge"]["asked"]["temperature"] == temperature


def test_floors_need_no_engine_and_a_missing_one_is_named(pairs_file: Path, tmp_path: Path) -> None:
    done = run("report", pairs_file, "--floors-only")
    assert done.exit_code == 0
    assert "takes the shorter answer" in done.output
    done = run("report", pairs_file, "--out", tmp_path)
    assert done.exit_code == 2
    assert "--engine" in done.output
    assert run("report", tmp_path / "none.jsonl", "--floors-only").exit_code == 2


@pytest.mark.usefixtures("scripted")
@pytest.mark.parametrize(
    "extra", [("--method", "guess"), ("--prompts", "blue"), ("--set", "label.metod=x")]
)
def test_a_wrong_option_is_the_users_mistake(pairs_file: Path, tmp_path: Path, extra) -> None:
    assert run("report", pairs_file, "--engine", "x", *extra, "--out", tmp_path).exit_code == 2
