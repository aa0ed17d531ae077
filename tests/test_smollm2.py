"""The smallest run with a real model, where its weights are: all eight stages of smollm2-135m.

CAI_SMOLLM2=FOLDER_OR_FILE.gguf pytest -m slow tests/test_smollm2.py
"""

import json
import os
from pathlib import Path

import pytest

from constitutional_ai.progress import Progress
from constitutional_ai.records import Preference, RevisedAnswer
from constitutional_ai.settings import load_settings
from constitutional_ai.stage_list import words_of
from constitutional_ai.stages.pipeline import run_pipeline

WEIGHTS = os.environ.get("CAI_SMOLLM2", "")
MOST_SECONDS = 20 * 60  # of all stages, on two cores that do nothing else


@pytest.mark.slow
@pytest.mark.skipif(
    not WEIGHTS, reason="CAI_SMOLLM2 names no weights: a folder, or a GGUF file, of SmolLM2-135M"
)
def test_all_eight_stages(tmp_path: Path) -> None:
    settings = load_settings("smollm2-135m", [f"model.path={WEIGHTS}", "model.revision="])
    folder = run_pipeline(settings, tmp_path / "run", progress=Progress("plain"))
    manifests = {
        word: json.loads((folder.stage(word).path / "manifest.json").read_text())
        for word in words_of("ppo")
    }
    seconds = {word: manifest["seconds"] for word, manifest in manifests.items()}
    assert sum(seconds.values()) < MOST_SECONDS, seconds
    revised = folder.stage("revise").rows("revisions.jsonl", RevisedAnswer)
    assert len(revised) == settings.revise.prompts
    assert all(row.steps for row in revised)
    labelled = folder.stage("label").rows("preferences.jsonl", Preference)
    assert len(labelled) == settings.sample.red_team + settings.sample.helpful
    models = json.loads((folder.stage("evaluate").path / "scores.json").read_text())["models"]
    assert {"base", "sl-cai", "rl-cai"} <= set(models)
    assert (folder.stage("report").path / "report.html").stat().st_size > 1000
