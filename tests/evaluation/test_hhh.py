"""Multiple choice: the reading of the file, both orders, and models whose accuracy is known."""

import json
import math
import os
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from constitutional_ai.cli.main import app
from constitutional_ai.engines.scripted import ScriptedEngine
from constitutional_ai.errors import DataError
from constitutional_ai.evaluation import hhh
from constitutional_ai.evaluation.hhh import Choice
from constitutional_ai.records import Conversation

PAPERS = Path(os.environ.get("CAI_DATA", Path(__file__).parents[3] / "shared" / "data"))
PAPERS /= "cai-paper/evals/438HHHEvaluations.jsonl"


def question(number: int, right: str) -> dict[str, Any]:
    good, bad = f"[[[good {number}\n\nsecond paragraph]]]", "[[[bad]]]"
    a, b = (good, bad) if right == "A" else (bad, good)
    return {
        "prompt": f"\n\nHuman: q{number}\n\nOptions:\n (A) {a}\n (B) {b}\n\nThe answer is:",
        "corrects": [f" ({right})"],
        "incorrects": [" (B)" if right == "A" else " (A)"],
        "text_correct": "left alone",
    }


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "hhh.jsonl"
    rows = [question(n, "A" if n < 15 else "B") for n in range(20)]  # (A) is right in three of four
    path.write_text("\n".join(map(json.dumps, rows)))
    return path


def p_of_a(p: float) -> Any:
    return lambda _, option: math.log(p if option == "(A)" else 1 - p)


def knows(turns: Conversation, option: str) -> float:
    after = turns[-1]["content"].split(f" {option} ")[1]
    return math.log(0.8 if after.startswith("[[[good") else 0.2)


def test_swapping_twice_is_nothing_and_moves_whole_answers() -> None:
    prompt = question(3, "A")["prompt"]
    once = hhh.swapped(prompt)
    assert "(A) [[[bad]]]\n (B) [[[good 3\n\nsecond paragraph]]]\n\nThe answer" in once
    assert hhh.swapped(once) == prompt.rstrip()


def test_answers_that_name_an_option_are_asked_in_one_order() -> None:
    assert hhh.swapped("x\n (A) pick (B)\n (B) no\n\nThe answer is:") == ""
    engine = ScriptedEngine(lambda _: "", p_of_a(0.9))
    (found,) = hhh.ask(engine, "m", [Choice("1", "x\n (A) pick (B)\n\nThe answer is:", 1)])
    assert found.by_order == (pytest.approx(0.1),)


def test_a_liking_for_a_is_no_accuracy(file: Path, script: Any, tmp_path: Path) -> None:
    script(
        {
            "position": ScriptedEngine(lambda _: "", p_of_a(0.9)),
            "knows": ScriptedEngine(lambda _: "", knows),
            "fails": ScriptedEngine(
                lambda _: "", lambda t, o: math.nan if "q7" in t[-1]["content"] else knows(t, o)
            ),
        }
    )
    models = ("--model", "position", "--model", "knows", "--model", "fails")
    args = ["evaluate", "hhh", *models, "--data", str(file), "--out", str(tmp_path / "out")]
    result = CliRunner().invoke(app, args)
    assert result.exit_code == 0, result.output
    found = json.loads((tmp_path / "out" / "hhh.json").read_text())
    position, sure, fails = found["models"].values()
    assert position["p_correct"]["mean"] == pytest.approx(0.5)  # .9 and .1
    assert position["flipped_by_order"]["mean"] == 1.0
    assert sure["accuracy"]["mean"] == 1.0 and sure["p_correct"]["mean"] == pytest.approx(0.8)
    assert fails["accuracy"]["n"] == 19 and sum(fails["unlabelled"].values()) == 1
    first = found["paired"][0]
    assert first["difference"]["mean"] >= 0.9 and first["p"] < 0.001
    assert "flipped by order" in result.stdout
    assert CliRunner().invoke(app, args).stdout == result.stdout  # read back, nothing asked again
    fewer = CliRunner().invoke(app, [*args, "--limit", "5"])
    assert fewer.exit_code == 2 and "was made with questions" in fewer.stderr


def test_a_limit_asks_the_first_questions(file: Path, script: Any, tmp_path: Path) -> None:
    script({"knows": ScriptedEngine(lambda _: "", knows)})
    args = ["evaluate", "hhh", "--model", "knows", "--data", str(file), "--limit", "5"]
    result = CliRunner().invoke(app, [*args, "--out", str(tmp_path / "out")])
    assert result.exit_code == 0, result.output
    found = json.loads((tmp_path / "out" / "hhh.json").read_text())
    assert found["models"]["knows"]["accuracy"]["n"] == 5


def test_a_question_too_long_for_the_model_is_counted_alone() -> None:
    class Short(ScriptedEngine):
        def option_logprobs(self, conversations: Any, options: Any) -> list[list[float]]:
            scores = super().option_logprobs(conversations, options)
            return [
                [math.nan] * 2 if len(turns[-1]["content"]) > 60 else score
                for turns, score in zip(conversations, scores, strict=True)
            ]

    engine = Short(lambda _: "", p_of_a(0.9))
    choices = [Choice("1", "short", 0), Choice("2", "long " * 20, 0), Choice("3", "short", 1)]
    found = hhh.ask(engine, "m", choices)
    assert [row.p_correct for row in found] == [pytest.approx(0.9), None, pytest.approx(0.1)]
    assert found[1].unlabelled == hhh.LOST


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"corrects": [" (C)"]}, r":2: corrects: expected"),
        ({"incorrects": None}, r":2: incorrects: expected"),
        ({"corrects": [" (A)"], "incorrects": [" (A)"]}, "name the same option"),
        ({"prompt": 3}, r':2: expected "prompt" as text'),
        (question(0, "A"), r":2: the same question as line 1"),
    ],
)
def test_broken_questions(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    path = tmp_path / "q.jsonl"
    rows = [question(0, "A"), question(1, "A") | change]
    path.write_text("\n".join(map(json.dumps, rows)))
    with pytest.raises(DataError, match=message):
        hhh.load(path)


@pytest.mark.skipif(not PAPERS.exists(), reason="the paper's comparisons are not here")
def test_the_papers_438() -> None:
    choices = hhh.load(PAPERS)
    assert len(choices) == 438
    assert sum(choice.correct == 0 for choice in choices) == 228
    both = [choice for choice in choices if choice.swapped]
    assert len(both) > 430
    good = "Protecting the White House from these threats"
    (sample,) = [
        c for c in both if f"(A) [[[{good}" in c.prompt and "Some of the major" in c.prompt
    ]
    assert sample.prompt.index(good) < sample.prompt.index("Some of the major")
    assert sample.swapped.index(good) > sample.swapped.index("Some of the major")
