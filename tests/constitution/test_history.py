"""The log of runs, and the other small commands: show, new."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from constitutional_ai.constitution.suite import load_suite
from constitutional_ai.constitution.writing import keep_copy, to_toml
from constitutional_ai.principles import load_constitution
from constitutional_ai.store.run_folder import RunFolder

SHARE = {"low": 0.0, "high": 0.5, "n": 9}


def finish(
    folder: Path, name: str, fingerprint: dict[str, Any], when: int, rounds: int = 1
) -> None:
    stage = RunFolder(folder, rounds).stage(name)
    stage.begin(fingerprint)
    stage.finish({})
    os.utime(stage.path / "manifest.json", (when, when))


def scores(folder: Path, base: float, result: float) -> None:
    (folder / "7-evaluate").mkdir(exist_ok=True)
    models = {
        name: {"harmful": {"harm": {"mean": mean, **SHARE}}}
        for name, mean in (("base", base), ("sl-cai", 1.0), ("rl-cai", result))
    }
    (folder / "7-evaluate" / "scores.json").write_text(json.dumps({"models": models}))


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """Three runs: one done, one of two rounds and newer, one just begun; and what is none."""
    lab = load_constitution("lab")
    print_ = {"constitution": f"lab {lab.hash}", "model.path": "lab:s"}
    finish(tmp_path / "old", "revise", print_, 1_000_000)
    keep_copy(tmp_path / "old", lab)
    scores(tmp_path / "old", 2.5, 0.25)
    finish(
        tmp_path / "deep" / "new",
        "revise",
        {**print_, "constitution": "two words 0123"},
        3_000_000,
        2,
    )
    RunFolder(tmp_path / "begun").stage("revise").begin(print_)
    keep_copy(tmp_path / "begun", load_constitution("harmless"))  # not what it was begun under
    os.utime(tmp_path / "begun" / "1-revise" / "settings.json", (2_000_000, 2_000_000))
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "notes.txt").touch()
    return tmp_path


def test_runs_are_listed_newest_first_with_their_result(runs: Path, cai: Any) -> None:
    rows = json.loads(cai("log", runs, "--json").stdout)
    lab = load_constitution("lab")
    assert [Path(row["folder"]).name for row in rows] == ["new", "begun", "old"]
    assert [row["version"] for row in rows] == ["?", "?", lab.version]
    assert [row["hash"] for row in rows] == ["0123", lab.hash, lab.hash]
    assert [row["constitution"] for row in rows] == ["two words", "lab", "lab"]
    assert rows[0]["done"] == ["r1/1-revise"]
    assert rows[1]["done"] == []
    before, after = rows[2]["figures"]["harmful harm"]
    assert (before["mean"], after["mean"]) == (2.5, 0.25)


def test_the_log_for_people(runs: Path, cai: Any) -> None:
    text = cai("log", runs / "old", runs / "deep").stdout
    lab = load_constitution("lab")
    assert f"1970-01-12 13:46  lab {lab.version}  {lab.hash}  lab:s  {runs / 'old'}" in text
    assert "  harmful harm: 2.50 → 0.25 (0.00–0.50)" in text
    assert "not evaluated; done: r1/1-revise" in text
    assert text.index("two words") < text.index("lab 1.0")
    assert cai("log", runs / "other").stdout == f"no runs in {runs / 'other'}\n"
    assert "no such folder" in cai("log", runs / "none", code=2).stderr


def test_a_run_keeps_what_it_was_made_under(tmp_path: Path) -> None:
    for name in ("lab", "harmless", "red-team", "customer-service"):
        constitution = load_constitution(name)
        keep_copy(tmp_path, constitution)
        assert load_constitution(tmp_path / "constitution.toml").hash == constitution.hash


def test_every_text_survives_writing(tmp_path: Path) -> None:
    from constitutional_ai.principles import Constitution, Principle, WorkedComparison

    nasty = 'a "quoted" \\ text\nof\ttwo lines, \x7f, \x01, “é”, {x} # no comment'
    principle = Principle(
        name="n",
        text=nasty,
        weight=1 / 3,
        use=("critique",),
        priority=2,
        hard=True,
        rationale=nasty,
    )
    example = WorkedComparison(prompt=nasty, first="a", second=nasty, better="second")
    made = Constitution(
        name="mine",
        version="1",
        description=nasty,
        thoughts=(nasty,),
        principles=(principle,),
        exemplar=(example,),
    )
    path = tmp_path / "x.toml"
    path.write_text(to_toml(made, ["a\nb"], {"n": ["c\x00d"]}), encoding="utf-8")
    assert load_constitution(path) == made


def test_new_writes_what_lints_and_loads(tmp_path: Path, cai: Any, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    assert cai("new", "Support Bot!").stdout.split() == [
        "support-bot.toml",
        "support-bot.tests.toml",
    ]
    cai("lint", "support-bot.toml", "--strict")
    constitution = load_constitution("support-bot.toml")
    assert constitution.name == "support-bot"
    assert load_suite(Path("support-bot.tests.toml"), constitution).cases
    assert "already exists" in cai("new", "support-bot", code=2).stderr
    assert "needs letters" in cai("new", "!!", code=2).stderr


def test_new_copies_a_shipped_one_with_its_cases(
    tmp_path: Path, cai: Any, monkeypatch: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    cai("new", "ours", "--from", "customer-service")
    ours, shipped = load_constitution("ours.toml"), load_constitution("customer-service")
    assert ours.name == "ours"
    assert ours.principles == shipped.principles
    assert len(load_suite(Path("ours.tests.toml"), ours).cases) == 10
    assert "no such constitution" in cai("new", "x", "--from", "nowhere", code=2).stderr


def test_show_renders_every_prompt_of_each_principle(cai: Any) -> None:
    text = cai("show", "harmless", "--rendered").stdout
    harmless = load_constitution("harmless")
    for principle in harmless.principles:
        for prompt in (
            principle.critique_prompt,
            principle.revision_prompt,
            principle.preference_prompt,
        ):
            assert prompt in text
    assert text.count("-- preference, the other order") == 16
    one = cai("show", "harmless", "--principle", "age").stdout
    assert one.count("  critique: ") == 1
    assert "drawn:      3% of critique/red-team, 3% of preference/red-team" in one
    assert "no principle named 'x'" in cai("show", "harmless", "--principle", "x", code=2).stderr


def test_show_for_machines(cai: Any) -> None:
    found = json.loads(cai("show", "lab", "--json").stdout)
    lab = load_constitution("lab")
    assert found["hash"] == lab.hash
    assert [row["hash"] for row in found["principles"]] == [p.hash for p in lab.principles]
    harm = found["principles"][0]["sent"]
    assert list(harm) == ["critique", "revision"]  # it has no preference use
    assert harm["critique"][-1]["content"] == "Does the response help with any harm?"
