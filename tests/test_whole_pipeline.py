"""The whole job at toy size on the laboratory's smallest model, and what kill -9 does to it.

The figures mean nothing at this size; the files, their shapes and their equality do.
"""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from constitutional_ai.progress import Progress
from constitutional_ai.settings import load_settings
from constitutional_ai.stages.pipeline import run_pipeline

TOY = [
    "model.path=lab:xxs",
    "threads=1",
    "revise.prompts=24",
    "revise.rounds=2",
    "revise.chunk=6",
    "finetune.helpful=24",
    "finetune.epochs=1",
    "sample.red_team=20",
    "sample.helpful=20",
    "sample.chunk=10",
    "label.chunk=4",
    "reward.epochs=1",
    "ppo.steps=6",
    "ppo.rollouts=8",
    "ppo.prompts=60",
    "ppo.monitor_every=2",
    "ppo.monitor_prompts=8",
    "ppo.checkpoint_every=2",
    "evaluate.harmful=12",
    "evaluate.benign=6",
    "evaluate.borderline=6",
    "evaluate.facts=6",
]
ROWS = (
    "1-revise/revisions.jsonl",
    "2-finetune/helpful.jsonl",
    "3-sample/pairs.jsonl",
    "4-label/preferences.jsonl",
    "6-ppo/metrics.jsonl",
    "6-ppo/samples.jsonl",
    "6-ppo/monitor.jsonl",
    "7-evaluate/transcripts.jsonl",
)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nobody interrupted."""
    out = tmp_path_factory.mktemp("whole") / "run"
    run_pipeline(load_settings("lab", TOY), out, progress=Progress("plain"))
    return out


def test_every_promised_file_is_there(finished: Path) -> None:
    stages = sorted(path.name for path in finished.iterdir() if path.is_dir())
    assert [name.split("-")[1] for name in stages] == [
        "revise", "finetune", "sample", "label", "reward", "ppo", "evaluate", "report",
    ]  # fmt: skip
    for name in stages:
        assert (finished / name / "manifest.json").is_file()
    for file in (*ROWS, "5-reward/model/config.json", "6-ppo/model/config.json"):
        assert (finished / file).stat().st_size > 0
    page = (finished / "8-report/report.html").read_text(encoding="utf-8")
    assert "http-equiv" in page
    assert "<script" not in page


def test_scores_have_the_promised_shape(finished: Path) -> None:
    models = json.loads((finished / "7-evaluate/scores.json").read_text())["models"]
    assert set(models) == {"base", "sl-cai-1", "sl-cai-2", "sl-cai", "rl-cai"}
    assert models["sl-cai"] == models["sl-cai-2"]
    for model in models.values():
        for kind, n in (("harmful", 12), ("benign", 6), ("borderline", 6), ("facts", 6)):
            for estimate in model[kind].values():
                assert set(estimate) == {"mean", "low", "high", "n"}
                assert estimate["n"] == n
                assert estimate["low"] <= estimate["mean"] <= estimate["high"]
    assert models["base"]["harmful"]["harmful_steps"]["mean"] > 0.5


def test_the_reward_model_and_the_policy_are_standard_folders(finished: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

    assert AutoModelForCausalLM.from_pretrained(finished / "6-ppo/model").config.vocab_size > 0
    reward = AutoModelForSequenceClassification.from_pretrained(finished / "5-reward/model")
    assert reward.config.num_labels == 1


def test_running_again_changes_nothing(finished: Path) -> None:
    before = {file: (finished / file).read_bytes() for file in ROWS}
    run_pipeline(load_settings("lab", TOY), finished, progress=Progress("plain"))
    assert before == {file: (finished / file).read_bytes() for file in ROWS}


def lines(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.exists() else 0


def start(out: Path) -> "subprocess.Popen[bytes]":
    overrides = [part for setting in TOY for part in ("--set", setting)]
    command = [sys.executable, "-m", "constitutional_ai", "run", "lab", "--out", str(out)]
    environment = {**os.environ, "OMP_WAIT_POLICY": "passive"}
    return subprocess.Popen(
        [*command, *overrides], env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("file", "at_least"),
    [
        ("1-revise/revisions.jsonl", 6),
        ("4-label/preferences.jsonl", 4),
        ("6-ppo/metrics.jsonl", 3),
    ],
)
def test_killed_and_started_again_it_writes_the_same_rows(
    finished: Path, tmp_path: Path, file: str, at_least: int
) -> None:
    out = tmp_path / "run"
    with start(out) as process:
        while lines(out / file) < at_least:
            assert process.poll() is None, process.communicate()[1].decode()
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
    assert lines(out / file) <= lines(finished / file)
    with start(out) as again:
        _, errors = again.communicate()
    assert again.returncode == 0, errors.decode()
    for rows in ROWS:
        assert (out / rows).read_bytes() == (finished / rows).read_bytes(), rows
