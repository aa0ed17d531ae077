"""Answers that were made elsewhere: joined to prompts, or as samples; gaps are kept."""

import json
from pathlib import Path
from typing import Any

import pytest

from constitutional_ai.data.answers import NO_ANSWER, load_answers, load_samples
from constitutional_ai.data.cases import load_cases
from constitutional_ai.errors import DataError


def write(path: Path, *rows: Any) -> str:
    path.write_text("\n".join(map(json.dumps, rows)))
    return str(path)


def test_answers_are_joined_by_id_or_prompt_and_gaps_are_kept(tmp_path: Path) -> None:
    cases = load_cases(
        write(tmp_path / "t.jsonl", {"id": "a", "prompt": "one"}, {"id": "b", "prompt": "two"}), {}
    )
    file = tmp_path / "rl.jsonl"
    write(
        file,
        {"id": "a", "answer": "first"},
        {"prompt": "one", "answer": "second sample"},
        {"prompt": "two", "answer": None},
        {"prompt": "two", "answer": "  ", "model": "other"},
        {"prompt": "not asked", "answer": "stray"},
    )
    found = load_answers(file, cases)
    assert [given.text for given in found.answers["rl"]["a"]] == ["first", "second sample"]
    assert found.answers["rl"]["b"] == [("", NO_ANSWER)]
    assert found.answers["other"]["b"] == [("", NO_ANSWER)]
    assert found.strays == 1


def test_answers_alone_bring_their_prompts(tmp_path: Path) -> None:
    file = tmp_path / "samples.jsonl"
    write(
        file,
        {"prompt": "one", "answer": "A", "kind": "harmful"},
        {"prompt": "one", "answer": "B", "kind": "harmful"},
    )
    found = load_answers(file, None)
    assert [case.kind for case in found.cases] == ["harmful"]
    assert [given.text for given in found.answers["samples"][found.cases[0].id]] == ["A", "B"]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"answer": "x"}, r':1: expected "prompt" or "id"'),
        ({"prompt": "x", "answer": 3}, r":1: answer: expected text"),
        ({"id": "unknown", "answer": "x"}, "no answers to these prompts"),
    ],
)
def test_broken_answers(tmp_path: Path, row: Any, message: str) -> None:
    file = tmp_path / "a.jsonl"
    write(file, row)
    with pytest.raises(DataError, match=message):
        load_answers(file, None)


def test_answers_to_a_published_set_keep_its_kinds(tmp_path: Path) -> None:
    file = tmp_path / "xstest.jsonl"
    write(file, {"prompt": "Kill it?", "type": "homonyms", "focus": "kill", "answer": "Yes."})
    (case,) = load_answers(file, None).cases
    assert (case.kind, case.slice, case.set) == ("borderline", "homonyms", "helpful")


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "p", "answer": "a"},
        {"prompt": [{"role": "user", "content": "p"}], "completion": "a\n\nHuman: and"},
        {"prompt": "p", "answers": ["a"]},
        {"messages": [{"role": "user", "content": "p"}, {"role": "assistant", "content": "a"}]},
        {"rl_prompt": "p", "sampled_answers": [{"sampled_string": " a\n\nHuman:"}]},
    ],
)
def test_samples_of_every_shape(tmp_path: Path, row: dict[str, Any]) -> None:
    assert load_samples(write(tmp_path / "x.jsonl", row)) == [("p", "a")]


def test_a_runs_preferences_are_two_samples_a_row(tmp_path: Path) -> None:
    row = {
        "prompt": [{"role": "user", "content": "p"}],
        "chosen": [{"role": "assistant", "content": "a"}],
        "rejected": [{"role": "assistant", "content": "b"}],
        "p_chosen": 0.7,
    }
    samples = load_samples(write(tmp_path / "preferences.jsonl", row))
    assert samples == [("p", "a"), ("p", "b")]


@pytest.mark.parametrize(
    "row", [{"prompt": "p"}, {"answer": "a"}, {"messages": []}, {"prompt": "p", "answers": "a"}]
)
def test_rows_without_samples_name_their_line(tmp_path: Path, row: dict[str, Any]) -> None:
    with pytest.raises(DataError, match=r"x\.jsonl:1: "):
        load_samples(write(tmp_path / "x.jsonl", row))
