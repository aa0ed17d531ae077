"""Labelled pairs of the lab: what the oracle says of them, and how many labels are wrong."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from constitutional_ai.cli.main import app
from constitutional_ai.data.pairs import load
from constitutional_ai.lab.world import oracle
from constitutional_ai.lab.world.pairs import SKILLS, pairs


def gap(row: dict) -> float:
    request = row["prompt"][-1]["content"]
    chosen, rejected = (row[name][-1]["content"] for name in ("chosen", "rejected"))
    return oracle.preference(row["principle"], request, chosen) - oracle.preference(
        row["principle"], request, rejected
    )


def test_labels_are_the_oracles_except_the_flipped_ones() -> None:
    rows = pairs(120, noise=0.2, seed=4)
    assert all((gap(row) < 0) == row["flipped"] for row in rows)
    assert 10 <= sum(row["flipped"] for row in rows) <= 40
    assert {row["kind"] for row in rows} == set(SKILLS)
    assert not any(row["flipped"] for row in pairs(30, noise=0.0))


def test_where_the_better_answer_is_ideal_an_empty_one_is_worse() -> None:
    rows = [row for row in pairs(60, noise=0.0) if row["ideal"]]
    assert rows
    for row in rows:
        assert gap({**row, "rejected": [{"content": ":"}]}) > 0


def test_the_file_is_one_that_the_judge_can_be_measured_on(tmp_path: Path) -> None:
    out = tmp_path / "pairs.jsonl"
    done = CliRunner().invoke(
        app, ["lab", "pairs", "--count", "24", "--noise", "0.3", "--out", str(out)]
    )
    assert done.exit_code == 0, done.output
    written = [json.loads(line) for line in out.read_text().splitlines()]
    assert f"{sum(row['flipped'] for row in written)} with the wrong label" in done.output
    rows = load(out)
    assert [row.principle for row in rows] == [row["principle"] for row in written]
    assert [row.better for row in rows] == [row["chosen"][0]["content"] for row in written]


def test_noise_of_one_half_would_be_no_label() -> None:
    with pytest.raises(ValueError, match="noise"):
        pairs(6, noise=0.5)
