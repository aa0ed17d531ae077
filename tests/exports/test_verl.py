"""The export for veRL: against veRL's own configuration, and the reward model against ours."""

import json
import shutil
import subprocess
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from constitutional_ai.exports import verl
from constitutional_ai.exports.finished import Finished
from constitutional_ai.records import assistant, user
from constitutional_ai.settings import load_settings
from constitutional_ai.store.whole import ExportError

pytest.importorskip("pyarrow")


@pytest.fixture
def exported(make_run: Callable[..., Path], tmp_path: Path) -> Path:
    verl.export(Finished(make_run("ppo")), tmp_path / "out")
    return tmp_path / "out"


def handed_over(script: Path, *more: str, **environment: str) -> list[str]:
    """What run.sh gives to Python, one argument a line, from another working directory."""
    fake = script.parent.parent / "fake-python"
    fake.write_text('#!/usr/bin/env bash\nprintf "%s\\n" "$@"\n')
    fake.chmod(0o755)
    environment = {"PATH": "/usr/bin:/bin", "PYTHON": str(fake), **environment}
    ran = subprocess.run(
        [script, *more], cwd="/", env=environment, capture_output=True, text=True, check=True
    )
    return ran.stdout.splitlines()


def composed(overrides: list[str]) -> Any:
    """veRL's configuration under these overrides, as its own entry point composes it."""
    hydra = pytest.importorskip("hydra", reason="pip install -e '.[interop]'")
    found = find_spec("verl")
    if found is None or found.submodule_search_locations is None:
        pytest.skip("pip install --no-deps verl==0.9.1")
    folder = Path(found.submodule_search_locations[0]) / "trainer" / "config"
    with hydra.initialize_config_dir(str(folder), version_base=None):
        return hydra.compose("ppo_trainer", overrides)


def test_verls_configuration_takes_every_override(exported: Path) -> None:
    pytest.importorskip("omegaconf", reason="make test-interop installs it")
    from omegaconf import OmegaConf

    module, *overrides = handed_over(exported / "run.sh")[1:]
    assert module == "verl.trainer.main_ppo"
    config = composed(overrides)
    assert OmegaConf.missing_keys(config) == set()
    assert config.algorithm.kl_ctrl.kl_coef == 0.07
    assert config.data.train_batch_size == 6
    assert config.actor_rollout_ref.actor.ppo_mini_batch_size == 3
    assert config.actor_rollout_ref.rollout.response_length == 16
    assert config.trainer.total_training_steps == 3
    assert list(config.critic.optim.betas) == [0.9, 0.95]
    for path in (
        config.actor_rollout_ref.model.path,
        config.critic.model.path,
        config.reward.reward_model.model_path,
        config.data.train_files,
        config.data.val_files,
    ):
        assert Path(path).is_absolute()
        assert Path(path).exists()


def test_without_the_reward_engines_name_a_key_would_be_missing(exported: Path) -> None:
    """The check above can fail: veRL leaves this key open."""
    pytest.importorskip("omegaconf", reason="make test-interop installs it")
    from omegaconf import OmegaConf

    overrides = [o for o in handed_over(exported / "run.sh")[2:] if "rollout.name" not in o]
    missing = OmegaConf.missing_keys(composed(overrides))
    assert "reward.reward_model.rollout.name" in missing
    with pytest.raises(Exception, match="Could not override"):
        composed(["trainer.total_steps=3"])


def test_the_folder_may_be_moved_and_settings_added(exported: Path, tmp_path: Path) -> None:
    moved = tmp_path / "else where"
    shutil.move(exported, moved)
    arguments = handed_over(moved / "run.sh", "trainer.n_gpus_per_node=8")
    assert f"actor_rollout_ref.model.path={moved}/model" in arguments
    assert arguments[-1] == "trainer.n_gpus_per_node=8"


def test_the_prompts_are_those_that_stage_6_draws(exported: Path) -> None:
    import pyarrow.parquet as pq

    rows = pq.read_table(exported / "prompts" / "train.parquet").to_pylist()
    watched = pq.read_table(exported / "prompts" / "watch.parquet").to_pylist()
    run = Finished(exported.parent / "run")
    trained, apart = run.rl_prompts()
    assert [row["prompt"] for row in rows] == trained
    assert [row["prompt"] for row in watched] == apart
    texts = {json.dumps(row["prompt"]) for row in watched}
    assert texts
    assert texts.isdisjoint(json.dumps(row["prompt"]) for row in rows)
    assert set(rows[0]) >= {"data_source", "prompt", "reward_model", "extra_info"}


def test_prompts_that_changed_since_are_refused(
    make_run: Callable[..., Path], tmp_path: Path
) -> None:
    from constitutional_ai.errors import RunFolderError

    run = make_run("reward")
    with (tmp_path / "prompts.jsonl").open("a") as file:
        file.write('{"prompt": "One more?"}\n')
    with pytest.raises(RunFolderError, match="has changed since"):
        verl.export(Finished(run), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_exported_head_gives_the_score_that_ppo_here_sees(
    exported: Path, tiny_reward_model: Path
) -> None:
    """As a server reads it: the template's text, all tokens, the raw head at the last one."""
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    from constitutional_ai.learning.reward_model import RewardModel

    ours = RewardModel.load(tiny_reward_model)
    folder = exported / "reward-model"
    theirs = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    for prompt, answer in (
        ([user("Do harm.")], "No, but here is a safe way."),
        ([user("Hi."), assistant("Hello."), user("Sing.")], "La la la."),
    ):
        text = tokenizer.apply_chat_template([*prompt, assistant(answer)], tokenize=False)
        ids = tokenizer(text, add_special_tokens=False).input_ids
        assert ids == ours.encode(prompt, answer)
        with torch.no_grad():  # ours without its bfloat16, so that all digits must agree
            read = theirs(torch.tensor([ids])).logits.item() - theirs.config.reward_mean
            state = ours.model.base_model(torch.tensor([ids])).last_hidden_state[0, -1]
            assert read == pytest.approx(float(ours.score_states(state)), rel=1e-4, abs=1e-4)
            assert abs(read) > 0.1
    before = json.loads((tiny_reward_model / "config.json").read_text())
    assert before["reward_deviation"] == 0.25  # the run's own model is as it was
    prompted = tokenizer.apply_chat_template(
        [user("Hi.")], tokenize=False, add_generation_prompt=True
    )
    assert prompted.endswith("assistant\n")


def test_what_has_no_counterpart_is_named(exported: Path) -> None:
    readme = (exported / "README.md").read_text()
    assert "missing_end_penalty = 2.0" in readme
    assert "monitor" in readme
    assert "ensemble" not in readme
    more = " ".join(verl.without_counterpart(load_settings("lab", ["reward.ensemble=3"])))
    assert "`reward.ensemble = 3`" in more


def test_too_few_prompts_for_the_gpus_is_said(
    make_run: Callable[..., Path], tmp_path: Path
) -> None:
    with pytest.raises(ExportError, match="take fewer --gpus"):
        verl.export(Finished(make_run("ppo")), tmp_path / "out", gpus=64)


def test_a_model_without_a_chat_template_is_refused(
    make_run: Callable[..., Path], tmp_path: Path, tiny_gpt2: Path
) -> None:
    run = make_run("ppo")
    (run / "2-finetune" / "model").unlink()
    (run / "2-finetune" / "model").symlink_to(tiny_gpt2)
    with pytest.raises(ExportError, match="has no chat template"):
        verl.export(Finished(run), tmp_path / "out")
