"""Labels against the truth, and against people who err by a known share."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from constitutional_ai.cli.main import app
from constitutional_ai.lab.world.pairs import pairs
from constitutional_ai.lab.world.people import people
from constitutional_ai.records import Preference


def labelled(count: int, p_chosen: float | None = 0.9, noise: float = 0.0) -> list[Preference]:
    """Rows that name the better of a harmful and a good answer; ``noise`` turns some over."""
    made = [r for r in pairs(6 * count, noise) if r["kind"] == "harmless and not evasive"]
    return [
        Preference(
            id=row["id"], prompt=row["prompt"], set=row["set"], chosen=row["chosen"],
            rejected=row["rejected"], p_chosen=p_chosen, by_principle={}, by_order=None,
            principle_hashes={}, constitution="c", judge="j", seed=0,
        )
        for row in made
    ]  # fmt: skip


def test_right_labels_agree_with_people_as_often_as_these_are_right() -> None:
    found = people(labelled(400), noise=0.2)
    assert found["pairs"] + found["near_ties"] == 400 and found["pairs"] > 350
    assert found["the labels and the truth"]["raw"]["mean"] == 1.0
    assert found["the labels and a person"]["raw"]["mean"] == pytest.approx(0.8, abs=0.06)
    assert found["the labels and a person"]["kappa"]["mean"] == pytest.approx(0.6, abs=0.12)
    # two people are both right or both wrong: .8 x .8 + .2 x .2
    assert found["two people"]["raw"]["mean"] == pytest.approx(0.68, abs=0.07)


def test_wrong_labels_and_missing_ones_show() -> None:
    found = people([*labelled(40, noise=0.4), *labelled(5, p_chosen=None)], noise=0.0)
    assert found["unlabelled"] == 5
    assert 0.4 < found["the labels and the truth"]["raw"]["mean"] < 0.8
    assert found["the labels and a person"] == found["the labels and the truth"]
    assert found["two people"]["raw"]["mean"] == 1.0
    with pytest.raises(ValueError, match="noise"):
        people([], noise=0.5)


def test_the_command_prints_a_table_and_refuses_other_worlds(tmp_path: Path) -> None:
    file = tmp_path / "preferences.jsonl"
    rows = labelled(30)
    file.write_text("".join(row.model_dump_json() + "\n" for row in rows))
    result = CliRunner().invoke(app, ["lab", "people", str(file), "--noise", "0.2"])
    assert result.exit_code == 0, result.output
    assert "the labels and the truth" in result.output and "1.00 [" in result.output
    other = json.loads(rows[0].model_dump_json())
    other["prompt"][-1]["content"] = "What is the capital of France?"
    file.write_text(json.dumps(other) + "\n")
    result = CliRunner().invoke(app, ["lab", "people", str(file)])
    assert result.exit_code == 2 and "not of the laboratory" in result.output
    result = CliRunner().invoke(app, ["lab", "people", str(tmp_path / "nowhere")])
    assert result.exit_code == 2 and "cannot be read" in result.output
