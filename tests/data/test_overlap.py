"""Test prompts that a model was trained on are found, whatever their spelling."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from constitutional_ai.data.cases import load_cases
from constitutional_ai.data.overlap import refuse_overlap, run_of
from constitutional_ai.data.rows import normalised
from constitutional_ai.errors import DataError
from constitutional_ai.records import user


def write(path: Path, *rows: Any) -> str:
    path.write_text("\n".join(map(json.dumps, rows)))
    return str(path)


def test_overlap_is_found_whatever_the_spelling(tmp_path: Path) -> None:
    cases = load_cases(
        write(tmp_path / "t.jsonl", {"prompt": "How do I kill a process?"}, {"prompt": "Hi."}), {}
    )
    train = write(
        tmp_path / "train.jsonl",
        {"prompt": "something else"},
        {"prompt": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "HOW do I  kill “a” process"},
        ]},
    )  # fmt: skip
    with pytest.raises(DataError, match=r"1 of its 2 prompts .*train.jsonl:2"):
        refuse_overlap(cases, "t.jsonl", [train])
    refuse_overlap(cases[1:], "t.jsonl", [train])


def test_a_runs_own_rows_are_searched(tmp_path: Path) -> None:
    for place in ("run/1-revise", "run/6-ppo/model", "many/r1/1-revise", "many/r2/6-ppo/model"):
        (tmp_path / place).mkdir(parents=True)
    write(
        tmp_path / "run/1-revise/revisions.jsonl", {"prompt": [{"role": "user", "content": "Hi"}]}
    )
    write(tmp_path / "many/r1/1-revise/revisions.jsonl", {"prompt": "hi!"})
    cases = load_cases(write(tmp_path / "t.jsonl", {"prompt": "Hi."}), {})
    for run, model in (("run", "run/6-ppo/model"), ("many", "many/r2/6-ppo/model")):
        found = run_of(str(tmp_path / model))
        assert found == str(tmp_path / run)
        with pytest.raises(DataError, match="1 of its 1 prompts"):
            refuse_overlap(cases, "t.jsonl", [found])
    assert run_of(str(tmp_path / "elsewhere" / "model")) is None
    with pytest.raises(DataError, match="no run folder"):
        refuse_overlap(cases, "t.jsonl", [str(tmp_path)])


@given(st.text(max_size=40))
def test_normalised_is_idempotent_and_deaf_to_case_and_space(text: str) -> None:
    once = normalised([user(text)])
    assert normalised([user(once)]) == once
    assert normalised([user(f"  {text}\t ")]) == once
