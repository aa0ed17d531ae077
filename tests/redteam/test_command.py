"""``cai redteam`` as it is typed, on the smallest laboratory model."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from constitutional_ai.cli.main import app
from constitutional_ai.cli.redteam import _listed
from constitutional_ai.errors import UserError
from constitutional_ai.principles import load_constitution
from constitutional_ai.redteam import round as loop
from constitutional_ai.redteam.plan import Plan, plan_in
from constitutional_ai.settings import load_settings

SMALL = ["--requests", "6", "--benign-requests", "2", "--families", "role-play", "--seed", "3"]


def test_attack_then_amend_from_the_finished_folder(tmp_path: Path) -> None:
    out = ["--out", str(tmp_path / "out")]
    models = ["--model", "tiny=lab:xxs", "--judge", "lab:xxs", "--prompts", "lab-train"]
    result = CliRunner().invoke(app, ["redteam", *models, *SMALL, *out])
    assert result.exit_code == 0, result.output
    assert "tiny: " in result.output and "redteam.html" in result.output
    scores = json.loads((tmp_path / "out" / "scores.json").read_text())
    assert scores["models"]["tiny"]["families"]["role-play"]["success"]["n"] == 6
    assert scores["by"] == "the judge lab:xxs"
    assert scores["constitution"] == load_constitution("lab").hash
    assert f"lab ({scores['constitution']})" in (tmp_path / "out" / "redteam.html").read_text()
    attack = json.loads((tmp_path / "out" / "attacks.jsonl").read_text().splitlines()[0])
    assert attack["constitution"] == scores["constitution"]
    before = (tmp_path / "out" / "rows" / "attempts.jsonl").read_bytes()
    again = CliRunner().invoke(app, ["redteam", "--amend", *out])
    assert again.exit_code == 0, again.output  # a base model complies, so something got through
    assert "Amendments to lab" in again.output
    made = {path.name for path in (tmp_path / "out" / "amend").iterdir()}
    assert {"lab.toml", "lab.tests.toml", "red_team.jsonl", "proposal.md"} <= made
    assert (tmp_path / "out" / "rows" / "attempts.jsonl").read_bytes() == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--families", "base46"], "no family is named"),
        (["--test", "lab"], "go with --retrain"),
        (["--control"], "go with --retrain"),
        (["--test-steps", "2"], "go with --retrain"),
        (["--retrain", "lab"], "use it with --amend"),
        (["--retrain", "lab", "--amend", "--prompts", "x.jsonl"], "give the held-out requests"),
        (["--model", "a=x", "--model", "a=y"], "named twice"),
        (["--prompts", "nowhere.jsonl"], "cannot be read"),
    ],
)
def test_mistakes_are_one_line_and_exit_2(
    arguments: list[str], message: str, tmp_path: Path
) -> None:
    result = CliRunner().invoke(app, ["redteam", *arguments, "--out", str(tmp_path / "out")])
    assert result.exit_code == 2, result.output
    assert message in result.output


@pytest.mark.parametrize(
    ("arguments", "trained_on", "tested"),
    [
        ([], (("seen",), 2), (("all",), 1)),
        (["--steps", "1", "--test-steps", "2"], (("seen",), 1), (("all",), 2)),
        (
            ["--prompts", "a.jsonl", "--test", "b.jsonl", "--test-families", "spoof"],
            (("framing",), 1),
            (("spoof",), 1),
        ),
    ],
)
def test_a_round_trains_on_pairs_of_seen_families_and_tests_on_single_ones(
    arguments: list[str],
    trained_on: tuple[tuple[str, ...], int],
    tested: tuple[tuple[str, ...], int],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found = []

    def run(made: loop.Round, *_: object) -> None:
        found.append([(plan.families, plan.steps) for plan in (made.plan, made.test)])
        raise UserError("seen enough")

    monkeypatch.setattr(loop, "run", run)
    wanted = ["redteam", "--amend", "--retrain", "lab", "--out", str(tmp_path / "out"), *arguments]
    CliRunner().invoke(app, wanted)
    assert found == [[trained_on, tested]]


def test_lists_have_commas() -> None:
    assert _listed("a, b,,c+d") == ("a", "b", "c+d")


def test_a_round_whose_test_was_trained_on_is_refused(tmp_path: Path) -> None:
    for name, request in (("train", "Do HARM, now!"), ("test", "do harm now"), ("other", "Else.")):
        (tmp_path / name).with_suffix(".jsonl").write_text(json.dumps({"prompt": request}) + "\n")
    plans = {
        name: Plan(models={"a": "a"}, prompts=str(tmp_path / f"{name}.jsonl"))
        for name in ("train", "test", "other")
    }
    loop.refuse_overlap(plans["train"], plans["other"])
    with pytest.raises(UserError, match="1 of its requests"):
        loop.refuse_overlap(plans["train"], plans["test"])


def test_the_laboratorys_two_splits_do_not_overlap() -> None:
    models = {"a": "a"}
    loop.refuse_overlap(
        Plan(models=models, prompts="lab-train"), Plan(models=models, prompts="lab")
    )


def test_a_run_files_table_is_the_default_and_an_option_comes_before_it(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text('[redteam]\nfamilies = ["role-play"]\nrequests = 7\nbenign_requests = 0\n')
    table = load_settings(file, ["redteam.rounds=2"]).redteam
    plan = plan_in(tmp_path / "rows", table, {"requests": 5})
    assert (plan.families, plan.requests, plan.benign_requests) == (("role-play",), 5, 0)
    assert (plan.rounds, plan.resolved().temperature) == (2, 1.0)  # in the laboratory
