"""The run folder: one command at a time, where stages lie, what is deleted."""

import os
from pathlib import Path

import pytest

from constitutional_ai.errors import RunFolderError
from constitutional_ai.store.run_folder import RunFolder


def test_a_second_run_in_one_folder_is_refused(tmp_path: Path) -> None:
    with RunFolder(tmp_path).locked():
        message = rf"in use by pid {os.getpid()}; .*--out"
        with pytest.raises(RunFolderError, match=message), RunFolder(tmp_path).locked():
            pass
    with RunFolder(tmp_path).locked():
        pass


def test_a_file_is_no_run_folder(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(RunFolderError, match="cannot be a run folder"):
        RunFolder(tmp_path / "file").locked().__enter__()


def test_stages_lie_at_the_top_or_in_rounds(tmp_path: Path) -> None:
    assert RunFolder(tmp_path).stage("1-revise").name == "1-revise"
    assert RunFolder(tmp_path).stage("report").name == "8-report"
    two = RunFolder(tmp_path, rounds=2)
    assert [two.stage(*step).name for step in two.plan()] == [
        *(f"r{n}/{name}" for n in (1, 2) for name in SIX),
        "7-evaluate",
        "8-report",
    ]
    with pytest.raises(RunFolderError, match="no stage is named 'lable'"):
        two.stage("lable")


SIX = ("1-revise", "2-finetune", "3-sample", "4-label", "5-reward", "6-ppo")


def test_another_number_of_rounds_is_refused(tmp_path: Path) -> None:
    RunFolder(tmp_path / "one").stage("revise").claim({})
    with pytest.raises(RunFolderError, match="rounds = 1, now rounds = 2"):
        RunFolder(tmp_path / "one", rounds=2).locked().__enter__()
    RunFolder(tmp_path / "two", rounds=2).stage("revise").claim({})
    with pytest.raises(RunFolderError, match="now rounds = 1"):
        RunFolder(tmp_path / "two").locked().__enter__()


def test_an_error_leaves_no_empty_folder(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    for out in (tmp_path / "new" / "deep" / "run", tmp_path / "mine"):
        with pytest.raises(ValueError, match="stop"), RunFolder(out).locked():
            raise ValueError("stop")
    assert [path.name for path in tmp_path.rglob("*")] == ["mine"]

    def fails_later(run: RunFolder) -> None:
        with run.locked():
            run.stage("revise").claim({})
            raise ValueError("stop")

    with pytest.raises(ValueError, match="stop"):
        fails_later(RunFolder(tmp_path / "run"))
    assert (tmp_path / "run" / "1-revise" / "settings.json").exists()


def test_clearing_deletes_the_named_stages_only(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    stages = [run.stage(name) for name in ("revise", "finetune", "sample")]
    for each in stages:
        each.claim({})
        each.finish({})
    (tmp_path / "mine.txt").touch()
    run.clear(stages[1:])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["1-revise", "mine.txt"]


def test_a_stage_that_is_a_link_is_unlinked(tmp_path: Path) -> None:
    run, elsewhere = RunFolder(tmp_path / "run"), tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "rows.jsonl").touch()
    run.path.mkdir()
    run.stage("label").path.symlink_to(elsewhere)
    run.clear([run.stage("label")])
    assert not run.stage("label").path.exists()
    assert (elsewhere / "rows.jsonl").exists()
