"""Constitutions as files: what is written loads as what it was; templates and copies to edit."""

from pathlib import Path
from typing import Any

from constitutional_ai.constitution.suite import load_suite
from constitutional_ai.constitution.writing import keep_copy, to_toml
from constitutional_ai.principles import (
    Constitution,
    Principle,
    WorkedComparison,
    load_constitution,
)


def test_a_run_keeps_what_it_was_made_under(tmp_path: Path) -> None:
    for name in ("lab", "harmless", "red-team", "customer-service"):
        constitution = load_constitution(name)
        keep_copy(tmp_path, constitution)
        assert load_constitution(tmp_path / "constitution.toml").hash == constitution.hash


def test_every_text_survives_writing(tmp_path: Path) -> None:
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


def test_rationales_that_are_shown_are_written_once(tmp_path: Path) -> None:
    asked = "Which answer is kinder?"
    made = Constitution(
        name="mine",
        version="1",
        rationale=True,
        principles=(
            Principle(name="n", text="Be kind.", rationale="Trust is lost once."),
            Principle(name="m", text="Be fair.", rationale="So.", preference_prompt=asked),
        ),
    )
    assert made.principles[1].preference_prompt == f"{asked}\nWhy: So."
    keep_copy(tmp_path, made)
    text = (tmp_path / "constitution.toml").read_text(encoding="utf-8")
    assert text.count("Trust is lost once.") == 1 and "rationale = true" in text
    assert load_constitution(tmp_path / "constitution.toml") == made


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
