"""The exports for clusters: against veRL's own configuration, and OpenRLHF's own parsers."""

import argparse
import ast
import json
import shutil
import subprocess
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from constitutional_ai.exports import cluster
from constitutional_ai.exports.cluster import OPENRLHF, VERL
from constitutional_ai.exports.finished import Finished
from constitutional_ai.settings import load_settings
from constitutional_ai.store.whole import ExportError

from .conftest import lines

pytest.importorskip("pyarrow")

HOW = "make test-interop installs it"
TRAINERS = {"sft": "train_sft", "reward": "train_rm", "dpo": "train_dpo", "ppo": "train_ppo_ray"}


@pytest.fixture
def for_verl(make_run: Callable[..., Path], tmp_path: Path) -> Path:
    cluster.export(VERL, Finished(make_run("ppo")), tmp_path / "out")
    return tmp_path / "out"


@pytest.fixture
def for_openrlhf(make_run: Callable[..., Path], tmp_path: Path) -> Path:
    cluster.export(OPENRLHF, Finished(make_run("ppo")), tmp_path / "out")
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


def installed(package: str) -> Path:
    """Its folder, without importing it."""
    spec = find_spec(package)
    if spec is None or spec.submodule_search_locations is None:
        pytest.skip(HOW)
    return Path(spec.submodule_search_locations[0])


def composed(overrides: list[str]) -> Any:
    """veRL's configuration under these overrides, as its own entry point composes it."""
    hydra = pytest.importorskip("hydra", reason=HOW)
    folder = installed("verl") / "trainer" / "config"
    with hydra.initialize_config_dir(str(folder), version_base=None):
        return hydra.compose("ppo_trainer", overrides)


def test_verls_configuration_takes_every_override(for_verl: Path) -> None:
    OmegaConf = pytest.importorskip("omegaconf", reason=HOW).OmegaConf
    module, *overrides = handed_over(for_verl / "run.sh")[1:]
    assert module == "verl.trainer.main_ppo"
    config = composed(overrides)
    assert OmegaConf.missing_keys(config) == set()
    assert config.algorithm.kl_ctrl.kl_coef == 0.07
    assert config.data.train_batch_size == 6
    assert config.actor_rollout_ref.actor.ppo_mini_batch_size == 3
    assert config.actor_rollout_ref.rollout.response_length == 16
    assert config.trainer.total_training_steps == 3
    assert list(config.critic.optim.betas) == [0.9, 0.95]
    assert config.trainer.save_freq == 10
    assert "hf_model" in config.actor_rollout_ref.actor.checkpoint.save_contents
    for path in (
        config.actor_rollout_ref.model.path,
        config.critic.model.path,
        config.reward.reward_model.model_path,
        config.data.train_files,
        config.data.val_files,
    ):
        assert Path(path).is_absolute()
        assert Path(path).exists()


def test_without_the_reward_engines_name_a_key_would_be_missing(for_verl: Path) -> None:
    """The check above can fail: veRL leaves this key open."""
    OmegaConf = pytest.importorskip("omegaconf", reason=HOW).OmegaConf
    overrides = [o for o in handed_over(for_verl / "run.sh")[2:] if "rollout.name" not in o]
    missing = OmegaConf.missing_keys(composed(overrides))
    assert "reward.reward_model.rollout.name" in missing
    with pytest.raises(Exception, match="Could not override"):
        composed(["trainer.total_steps=3"])


def test_the_folder_may_be_moved_and_settings_added(for_verl: Path, tmp_path: Path) -> None:
    moved = tmp_path / "else where"
    shutil.move(for_verl, moved)
    arguments = handed_over(moved / "run.sh", "trainer.n_gpus_per_node=8")
    assert f"actor_rollout_ref.model.path={moved}/model" in arguments
    assert arguments[-1] == "trainer.n_gpus_per_node=8"


def test_the_prompts_are_those_that_stage_6_draws(for_verl: Path) -> None:
    import pyarrow.parquet as pq

    rows = pq.read_table(for_verl / "prompts" / "train.parquet").to_pylist()
    watched = pq.read_table(for_verl / "prompts" / "watch.parquet").to_pylist()
    run = Finished(for_verl.parent / "run")
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
        cluster.export(VERL, Finished(run), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_what_has_no_counterpart_is_named(for_verl: Path) -> None:
    readme = (for_verl / "README.md").read_text()
    assert "missing_end_penalty = 2.0" in readme
    assert "monitor" in readme
    assert "ensemble" not in readme
    more = " ".join(cluster.without_counterpart(load_settings("lab", ["reward.ensemble=3"])))
    assert "`reward.ensemble = 3`" in more


def test_too_few_prompts_for_the_gpus_is_said(
    make_run: Callable[..., Path], tmp_path: Path
) -> None:
    with pytest.raises(ExportError, match="take fewer --gpus"):
        cluster.export(VERL, Finished(make_run("ppo")), tmp_path / "out", gpus=64)


def test_a_model_without_a_chat_template_is_refused(
    make_run: Callable[..., Path], tmp_path: Path, tiny_gpt2: Path
) -> None:
    run = make_run("ppo")
    (run / "2-finetune" / "model").unlink()
    (run / "2-finetune" / "model").symlink_to(tiny_gpt2)
    with pytest.raises(ExportError, match="has no chat template"):
        cluster.export(VERL, Finished(run), tmp_path / "out")


def parser(trainer: str) -> argparse.ArgumentParser:
    """What the trainer builds before it reads its arguments, without importing the trainer."""
    source = (installed("openrlhf") / "cli" / f"{trainer}.py").read_text()
    main = next(
        node
        for node in ast.parse(source).body
        if isinstance(node, ast.If) and "__main__" in ast.unparse(node.test)
    )
    until = next(n for n, node in enumerate(main.body) if "parse_args" in ast.unparse(node))
    names: dict[str, Any] = {}
    code = "import argparse\nfrom datetime import datetime\n" + "\n".join(
        map(ast.unparse, main.body[:until])
    )
    exec(compile(code, trainer, "exec"), names)
    made: argparse.ArgumentParser = names["parser"]
    return made


def parsed(for_openrlhf: Path, stage: str) -> dict[str, Any]:
    arguments = handed_over(
        for_openrlhf / "run.sh", stage, LAUNCH=str(for_openrlhf.parent / "fake-python")
    )
    start = next(n for n, argument in enumerate(arguments) if argument.startswith("--train"))
    assert arguments[start - 1] == f"openrlhf.cli.{TRAINERS[stage]}"
    return vars(parser(TRAINERS[stage]).parse_args(arguments[start:]))


@pytest.mark.parametrize("stage", TRAINERS)
def test_each_trainers_parser_takes_every_argument(for_openrlhf: Path, stage: str) -> None:
    read = parsed(for_openrlhf, stage)
    assert read["data.apply_chat_template"] is True
    for name, value in read.items():
        if isinstance(value, str) and value.startswith("/") and not name.startswith("ckpt"):
            assert (stage == "sft" and "model" in name) or Path(value).exists(), name


def test_ppo_is_that_of_the_run(for_openrlhf: Path) -> None:
    read = parsed(for_openrlhf, "ppo")
    assert read["algo.kl.init_coef"] == 0.07
    assert read["rollout.batch_size"] == 6
    assert read["train.batch_size"] == 3
    assert read["rollout.max_new_tokens"] == 16
    enough = read["rollout.n_samples_per_prompt"] * read["rollout.batch_size"]
    assert enough >= read["actor.num_nodes"] * read["actor.num_gpus_per_node"]


def test_what_is_left_out_is_counted(for_openrlhf: Path) -> None:
    readme = (for_openrlhf / "README.md").read_text()
    assert "1 SFT rows left out: empty answer" in readme
    assert "1 pairs left out: unlabelled (no option token in the reply)" in readme


def test_an_unknown_argument_would_be_refused(for_openrlhf: Path) -> None:
    with pytest.raises(SystemExit):
        parser("train_sft").parse_args(["--pretrain=x"])


def test_the_rows_render_as_its_datasets_do(for_openrlhf: Path) -> None:
    """OpenRLHF takes an answer as what the template prints after the prompt."""
    from transformers import AutoTokenizer

    template = AutoTokenizer.from_pretrained(for_openrlhf / "model").apply_chat_template
    row = lines(for_openrlhf / "sft.jsonl")[0]["messages"]
    prompt = template(row[:-1], tokenize=False, add_generation_prompt=True)
    whole = template(row, tokenize=False)
    assert whole.startswith(prompt)
    assert whole[len(prompt) :].startswith(row[-1]["content"])
    pair = lines(for_openrlhf / "preferences.jsonl")[1]
    prompt = template(pair["prompt"], tokenize=False, add_generation_prompt=True)
    for side in ("chosen", "rejected"):
        whole = template(pair["prompt"] + pair[side], tokenize=False)
        assert whole.startswith(prompt)
        assert whole[len(prompt) :].startswith(pair[side][0]["content"])
