"""The arguments for OpenRLHF, against the parsers of its own trainers."""

import argparse
import ast
import json
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from constitutional_ai.exports import openrlhf
from constitutional_ai.exports.finished import Finished

from .conftest import lines
from .test_verl import handed_over


@pytest.fixture
def exported(make_run: Callable[..., Path], tmp_path: Path) -> Path:
    openrlhf.export(Finished(make_run("ppo")), tmp_path / "out")
    return tmp_path / "out"


def parser(trainer: str) -> argparse.ArgumentParser:
    """What the trainer builds before it reads its arguments, without importing the trainer."""
    found = find_spec("openrlhf")
    if found is None or found.submodule_search_locations is None:
        pytest.skip("pip install --no-deps openrlhf==0.11.2")
    source = Path(found.submodule_search_locations[0], "cli", f"{trainer}.py").read_text()
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


def parsed(exported: Path, stage: str) -> dict[str, Any]:
    arguments = handed_over(exported / "run.sh", stage, LAUNCH=str(exported.parent / "fake-python"))
    start = next(n for n, argument in enumerate(arguments) if argument.startswith("--train"))
    assert arguments[start - 1] == f"openrlhf.cli.{openrlhf.TRAINERS[stage]}"
    return vars(parser(openrlhf.TRAINERS[stage]).parse_args(arguments[start:]))


@pytest.mark.parametrize("stage", openrlhf.TRAINERS)
def test_each_trainers_parser_takes_every_argument(exported: Path, stage: str) -> None:
    found = parsed(exported, stage)
    assert found["data.apply_chat_template"] is True
    for name, value in found.items():
        if isinstance(value, str) and value.startswith("/") and not name.startswith("ckpt"):
            assert (stage == "sft" and "model" in name) or Path(value).exists(), name


def test_ppo_is_that_of_the_run(exported: Path) -> None:
    found = parsed(exported, "ppo")
    assert found["algo.kl.init_coef"] == 0.07
    assert found["rollout.batch_size"] == 6
    assert found["train.batch_size"] == 3
    assert found["rollout.max_new_tokens"] == 16
    enough = found["rollout.n_samples_per_prompt"] * found["rollout.batch_size"]
    assert enough >= found["actor.num_nodes"] * found["actor.num_gpus_per_node"]


def test_an_unknown_argument_would_be_refused(exported: Path) -> None:
    with pytest.raises(SystemExit):
        parser("train_sft").parse_args(["--pretrain=x"])


def test_the_rows_render_as_its_datasets_do(exported: Path) -> None:
    """OpenRLHF takes an answer as what the template prints after the prompt."""
    from transformers import AutoTokenizer

    template = AutoTokenizer.from_pretrained(exported / "model").apply_chat_template
    row = lines(exported / "sft.jsonl")[0]["messages"]
    prompt = template(row[:-1], tokenize=False, add_generation_prompt=True)
    whole = template(row, tokenize=False)
    assert whole.startswith(prompt)
    assert whole[len(prompt) :].startswith(row[-1]["content"])
    pair = lines(exported / "preferences.jsonl")[1]
    prompt = template(pair["prompt"], tokenize=False, add_generation_prompt=True)
    for side in ("chosen", "rejected"):
        whole = template(pair["prompt"] + pair[side], tokenize=False)
        assert whole.startswith(prompt)
        assert whole[len(prompt) :].startswith(pair[side][0]["content"])


def test_the_reward_models_head_carries_its_scale(exported: Path) -> None:
    config = json.loads((exported / "reward-model" / "config.json").read_text())
    assert config["reward_deviation"] == 1.0
