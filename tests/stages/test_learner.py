"""A run with another learner: which stages it has, what they are called, what is refused."""

import shutil
from pathlib import Path

import pytest

from constitutional_ai.errors import RunFolderError, SettingsError
from constitutional_ai.job import Job
from constitutional_ai.principles import load_constitution
from constitutional_ai.progress import Progress
from constitutional_ai.settings import Settings
from constitutional_ai.stages import pipeline
from constitutional_ai.stages.pipeline import fingerprints
from constitutional_ai.store.run_folder import RunFolder
from tests.stages.test_pipeline import ALL, WORDS, Stages, run, settings


@pytest.fixture
def stages(monkeypatch: pytest.MonkeyPatch) -> Stages:
    fake = Stages()
    monkeypatch.setattr(pipeline, "stage_module", fake.module)
    return fake


DPO = ("learner=dpo",)
BY_DPO = [*ALL[:4], "6-dpo", *ALL[6:]]


def test_with_dpo_there_is_no_reward_model_and_the_other_stages_keep_their_names(
    tmp_path: Path, stages: Stages
) -> None:
    run(tmp_path, *DPO)
    assert stages.ran == BY_DPO
    run(tmp_path / "rounds", *DPO, "rounds=2")
    assert stages.ran[len(BY_DPO) :] == [
        *(f"r{n}/{name}" for n in (1, 2) for name in BY_DPO[:5]),
        *BY_DPO[5:],
    ]
    stages.ran.clear()
    run(tmp_path, *DPO, "dpo.beta=0.2", redo="dpo")
    assert stages.ran == BY_DPO[4:]


def test_a_later_round_starts_from_the_model_that_its_learner_made(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path, rounds=2, learner="dpo")
    chosen = settings("rounds=2", *DPO)
    job = Job(chosen, None, folder, 2, Progress("plain"))  # type: ignore[arg-type]
    assert job.start_model() == str(tmp_path / "r1" / "6-dpo" / "model")
    assert job.aligned_model() == tmp_path / "r2" / "6-dpo" / "model"


@pytest.mark.parametrize(
    ("learner", "wrong", "right"),
    [("dpo", "ppo", "ppo"), ("dpo", "reward", "ppo"), ("ppo", "dpo", "dpo")],
)
def test_a_stage_of_another_learner_is_refused_by_the_setting(
    tmp_path: Path, stages: Stages, learner: str, wrong: str, right: str
) -> None:
    said = rf'learner = "{learner}", and .* no stage {wrong}; run .*set learner = "{right}"'
    with pytest.raises(SettingsError, match=said):
        run(tmp_path / "run", f"learner={learner}", stages=[wrong])
    with pytest.raises(SettingsError, match=said):
        run(tmp_path / "run", f"learner={learner}", redo=wrong)
    assert stages.ran == [] and not (tmp_path / "run").exists()


def test_a_run_folder_has_one_learner(tmp_path: Path, stages: Stages) -> None:
    """What comes before the learner can be copied to another folder, and goes on there."""
    run(tmp_path / "ppo")
    with pytest.raises(RunFolderError, match=r'the stage reward .*"ppo", now learner = "dpo"'):
        run(tmp_path / "ppo", *DPO)
    for name in ALL[:4]:
        shutil.copytree(tmp_path / "ppo" / name, tmp_path / "dpo" / name)
    stages.ran.clear()
    run(tmp_path / "dpo", *DPO)
    assert stages.ran == BY_DPO[4:]
    with pytest.raises(RunFolderError, match=r'the stage dpo .*"dpo", now learner = "ppo"'):
        run(tmp_path / "dpo")
    run(tmp_path / "several", *DPO, "rounds=2")
    with pytest.raises(RunFolderError, match="the stage dpo"):
        run(tmp_path / "several", "rounds=2")


def test_the_learner_is_no_part_of_what_a_run_with_ppo_depends_on(tmp_path: Path) -> None:
    lab = load_constitution("lab")
    plain = fingerprints(Settings(), lab, RunFolder(tmp_path).plan())
    asked = Settings.model_validate({"learner": "ppo", "dpo": {"beta": 3.0}})
    assert fingerprints(asked, lab, RunFolder(tmp_path).plan()) == plain
    assert not any("learner" in key or "dpo" in key for print_ in plain.values() for key in print_)
    by_dpo = Settings.model_validate({"learner": "dpo"})
    prints = fingerprints(by_dpo, lab, RunFolder(tmp_path, learner="dpo").plan())
    assert [step for step in plain if prints.get(step) == plain[step]] == [
        (word, 1) for word in WORDS[:4]
    ]
    assert {"dpo.beta", "dpo.loss"} <= prints["dpo", 1].keys()
    assert "dpo.checkpoint_every" not in prints["dpo", 1]
