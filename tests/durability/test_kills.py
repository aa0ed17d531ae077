"""The kill harness in small, with real processes; and that it would see what it looks for.

All of it: ``python tests/durability/harness.py``, twenty kills of each stage in each way.
"""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.durability import harness
from tests.durability.harness import Ended, Tally


def ended(code: int, said: str = "") -> Ended:
    return Ended(code=code, said=said, seconds=1.0, operations=0, done=False)


def make_run(folder: Path) -> Path:
    files = {
        "1-revise/revisions.jsonl": "one\ntwo\n",
        "1-revise/manifest.json": json.dumps({"seconds": 1.5, "files": {}, "counts": {"rows": 2}}),
        "2-finetune/model/model.safetensors": "weights",
    }
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


@pytest.mark.parametrize(
    ("file", "text", "told"),
    [
        ("1-revise/revisions.jsonl", "one\n", "differs"),
        ("1-revise/revisions.jsonl", "one\ntwo\ntwo\n", "differs"),
        ("2-finetune/model/model.safetensors", "weightz", "differs"),
        ("2-finetune/.model.draft/config.json", "{}", "left over"),
        ("2-finetune/checkpoints/000003/state.json", "{}", "left over"),
        ("1-revise/revisions.jsonl", None, "missing"),
    ],
)
def test_it_sees_every_difference(tmp_path: Path, file: str, text: str | None, told: str) -> None:
    whole, run = make_run(tmp_path / "whole"), make_run(tmp_path / "run")
    if text is None:
        (run / file).unlink()
    else:
        (run / file).parent.mkdir(parents=True, exist_ok=True)
        (run / file).write_text(text)
    assert list(harness.differences(whole, run, "finetune")) == [f"{file}: {told}"]


def test_seconds_may_differ_and_counts_may_not(tmp_path: Path) -> None:
    whole, run = make_run(tmp_path / "whole"), make_run(tmp_path / "run")
    manifest = run / "1-revise/manifest.json"
    manifest.write_text(manifest.read_text().replace("1.5", "9.5"))
    assert list(harness.differences(whole, run, "finetune")) == []
    manifest.write_text(manifest.read_text().replace('"rows": 2', '"rows": 3'))
    assert list(harness.differences(whole, run, "finetune")) == ["1-revise/manifest.json: differs"]


def test_it_sees_how_a_process_ended() -> None:
    assert list(harness.wrong_end("kill", ended(-9))) == []
    assert list(harness.wrong_end("int", ended(130, f"step 3\n{harness.MESSAGE}\n"))) == []
    for way, end in (
        ("kill", ended(1)),
        ("term", ended(0)),  # the signal was lost, and the stage went on
        ("term", ended(-15)),
        ("int", ended(1, "Aborted!")),
        ("int", ended(130, "")),
        ("term", ended(130, f"Traceback (most recent call last):\n{harness.MESSAGE}\n")),
    ):
        assert list(harness.wrong_end(way, end)) != []


HARNESS = Path(harness.__file__)


def run_harness(tmp_path: Path, *arguments: str) -> list[Tally]:
    table = tmp_path / "table.json"
    command = [sys.executable, str(HARNESS), "--json", str(table), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return [Tally(**{k: row[k] for k in vars(Tally())}) for row in json.loads(table.read_text())]


@pytest.mark.slow
def test_every_stage_goes_on_after_kill_nine(tmp_path: Path) -> None:
    rows = run_harness(tmp_path, "--kills", "2", "--ways", "kill")
    assert len(rows) == len(harness.STAGE_NAMES)
    assert all(row.kills == 2 and row.resumed >= 1 and row.wrong == [] for row in rows)


@pytest.mark.slow
def test_before_a_file_operation_and_by_signals_that_can_be_answered(tmp_path: Path) -> None:
    stages = ("revise", "finetune", "reward", "ppo")
    rows = run_harness(
        tmp_path, "--kills", "3", "--ways", "file", "term", "int", "--stages", *stages
    )
    assert [row.codes for row in rows] == [{"-9": 3}, {"130": 3}, {"130": 3}] * len(stages)


@pytest.mark.slow
def test_it_fails_where_a_resume_loses_something(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stage that forgets to cut its log back to the checkpoint is found out."""
    broken = tmp_path / "broken.py"
    broken.write_text(
        "import os, sys\n"
        f"sys.path[:0] = [{str(HARNESS.parents[2])!r}, {str(HARNESS.parent)!r}]\n"
        "os.environ.update(OMP_NUM_THREADS='1', OMP_WAIT_POLICY='passive', HF_HUB_OFFLINE='1')\n"
        "import harness\n"
        "from constitutional_ai.store.checkpoints import Log\n"
        "Log.cut = lambda self, size: None\n"
        "sys.exit(harness.main(['--kills', '6', '--ways', 'kill', '--stages', 'ppo']))\n"
    )
    done = subprocess.run(
        [sys.executable, str(broken)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 1, done.stdout + done.stderr
    # Which log betrays it is a matter of where the kills fell.
    assert re.search(r"6-ppo/(metrics|monitor|samples)\.jsonl: differs", done.stdout), done.stdout
