"""The whole job at toy size on the laboratory's smallest model, and what kill -9 does to it.

The figures mean nothing at this size; the files, their shapes and their equality do.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from constitutional_ai.progress import Progress
from constitutional_ai.settings import load_settings
from constitutional_ai.stages.pipeline import run_pipeline
from constitutional_ai.store.whole import ExportError

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
DPO = ["learner=dpo", "dpo.batch_pairs=8", "dpo.checkpoint_every=2", "dpo.sl_mix=0.1"]
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


@pytest.fixture(scope="module")
def by_dpo(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same run with the other learner, on the same labels."""
    out = tmp_path_factory.mktemp("whole") / "dpo"
    for stage in ("1-revise", "2-finetune", "3-sample", "4-label"):
        shutil.copytree(finished / stage, out / stage)
    run_pipeline(load_settings("lab", [*TOY, *DPO]), out, progress=Progress("plain"))
    return out


def test_with_dpo_the_same_labels_make_a_model_without_a_reward_model(by_dpo: Path) -> None:
    from transformers import AutoModelForCausalLM

    assert sorted(path.name for path in by_dpo.iterdir() if path.is_dir()) == [
        "1-revise", "2-finetune", "3-sample", "4-label", "6-dpo", "7-evaluate", "8-report",
    ]  # fmt: skip
    assert AutoModelForCausalLM.from_pretrained(by_dpo / "6-dpo/model").config.vocab_size > 0
    counts = json.loads((by_dpo / "6-dpo/manifest.json").read_text())["counts"]
    assert lines(by_dpo / "6-dpo/metrics.jsonl") == 2 * -(-counts["trained"] // 8)
    assert 0 <= counts["accuracy"] <= 1 and counts["n"] <= counts["held_out"]
    models = json.loads((by_dpo / "7-evaluate/scores.json").read_text())["models"]
    assert set(models) == {"base", "sl-cai-1", "sl-cai-2", "sl-cai", "rl-cai"}
    gold = json.loads((by_dpo / "7-evaluate/gold.json").read_text())
    assert gold["ppo"] == [] and gold["reward"]["pairs"] + gold["reward"]["near_ties"] > 0
    page = (by_dpo / "8-report/report.html").read_text(encoding="utf-8")
    assert "made by direct preference optimisation" in page and "held-out pairs" in page
    assert "The monitor was off" not in page and "calibration error" not in page.lower()
    assert (by_dpo / "8-report/dpo.svg").stat().st_size > 0


def test_the_run_with_dpo_is_exported_as_what_it_is(by_dpo: Path, tmp_path: Path) -> None:
    from constitutional_ai.exports import hub, trl
    from constitutional_ai.exports.finished import Finished

    run = Finished(by_dpo)
    assert run.settings.learner == "dpo" and run.settings.dpo.batch_pairs == 8
    hub.export(run, tmp_path / "hub")
    assert sorted(p.name for p in (tmp_path / "hub/models").iterdir()) == ["rl-cai", "sl-cai"]
    card = (tmp_path / "hub/models/rl-cai/README.md").read_text()
    assert "by direct preference optimisation" in card and "dpo.beta = 0.1" in card
    written = trl.export(run, tmp_path / "trl")
    held = (by_dpo / "6-dpo/held_out.jsonl").read_bytes().count(b"\n")
    assert written["preferences/test.jsonl"] == held
    with pytest.raises(ExportError, match='learner = "dpo", so it has no stage reward'):
        run.model("reward")


def lines(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.exists() else 0


def start(out: Path, *more: str) -> "subprocess.Popen[bytes]":
    overrides = [part for setting in (*TOY, *more) for part in ("--set", setting)]
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


@pytest.mark.slow
def test_dpo_killed_and_started_again_ends_in_the_same_weights(
    finished: Path, by_dpo: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    for stage in ("1-revise", "2-finetune", "3-sample", "4-label"):
        shutil.copytree(finished / stage, out / stage)
    with start(out, *DPO) as process:
        while lines(out / "6-dpo/metrics.jsonl") < 3:
            assert process.poll() is None, process.communicate()[1].decode()
            time.sleep(0.002)
        process.send_signal(signal.SIGKILL)
    assert not (out / "6-dpo/manifest.json").exists()
    with start(out, *DPO) as again:
        _, errors = again.communicate()
    assert again.returncode == 0, errors.decode()
    for file in ("metrics.jsonl", "held_out.jsonl", "model/model.safetensors"):
        assert (out / "6-dpo" / file).read_bytes() == (by_dpo / "6-dpo" / file).read_bytes(), file
