"""An interrupted training goes on from its last checkpoint, to the same weights, to the bit."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from constitutional_ai.errors import RunFolderError
from constitutional_ai.learning import dpo, reward_model, sft
from constitutional_ai.learning.policy import Policy
from constitutional_ai.learning.reward_model import LabelledPair, RewardModel
from constitutional_ai.records import user
from constitutional_ai.settings import ModelSettings
from constitutional_ai.stage_settings import DPOSettings, FinetuneSettings, RewardSettings
from constitutional_ai.store import checkpoints
from constitutional_ai.store.checkpoints import Log, Saving
from tests.durability.conftest import Killed

EXAMPLES = [([user(f"Request {n}")], f"Answer {n}." + " More." * (n % 4)) for n in range(12)]
PAIRS = [
    LabelledPair([user(f"Request {n}")], f"No. {n}", f"Take a knife. {n}", 0.5 + n / 30)
    for n in range(12)
]
SFT = FinetuneSettings(epochs=2, lr=1e-3, batch_tokens=128)
REWARD = RewardSettings(epochs=2, lr=1e-3, batch_pairs=3)
DPO = DPOSettings(epochs=2, lr=1e-3, batch_pairs=3, batch_tokens=150, sl_mix=0.5)
STEPS = 8  # of the reward model and of DPO; finetuning takes at least as many
EVERY = 3

Train = Callable[..., tuple[dict[str, torch.Tensor], list[int]]]


@pytest.fixture(params=["finetune", "reward", "dpo", "finetune with an adapter", "dpo, adapter"])
def train(request: pytest.FixtureRequest, tiny_llama: Path) -> Train:
    """``train(folder, die_at=None, **changed)``: as a new process would; weights, steps made."""

    def run(
        folder: Path,
        die_at: int | None = None,
        examples: Any = EXAMPLES,
        pairs: Any = PAIRS,
    ) -> tuple[dict[str, torch.Tensor], list[int]]:
        log, made = Log(folder / "metrics.jsonl"), []
        saving = Saving(folder / "checkpoints", EVERY, log)

        def note(row: dict[str, Any]) -> None:
            made.append(row["step"])
            if row["step"] == die_at:
                log.path.write_bytes(log.path.read_bytes() + b'{"step": ')  # as far as it came
                raise Killed
            log.write(row)

        rank = 4 if "adapter" in request.param else 0
        policy = Policy.to_train(tiny_llama, ModelSettings(device="cpu", lora_rank=rank))
        if request.param == "reward":
            reward = RewardModel.from_policy(policy)
            reward_model.train(reward, pairs, REWARD, 1, note, ignore, saving=saving)
            trained = reward.model
        elif request.param.startswith("dpo"):
            read = dpo.Pairs(policy, pairs, DPO)
            dpo.train(read, 1, note, ignore, saving=saving, examples=examples)
            trained = policy.model
        else:
            sft.train(policy, examples, SFT, 1, note, ignore, saving=saving)
            trained = policy.model
        return {name: weight.clone() for name, weight in trained.state_dict().items()}, made

    return run


def ignore(*args: Any, **kwargs: Any) -> None:
    pass


def assert_equal(mine: dict[str, torch.Tensor], theirs: dict[str, torch.Tensor]) -> None:
    assert mine.keys() == theirs.keys()
    assert [name for name in mine if not torch.equal(mine[name], theirs[name])] == []


def test_killed_at_any_step_it_ends_where_the_unbroken_one_ends(
    train: Train, tmp_path: Path
) -> None:
    whole, steps = train(tmp_path / "whole")
    assert len(steps) >= STEPS
    for die_at in range(len(steps)):
        folder = tmp_path / str(die_at)
        with pytest.raises(Killed):
            train(folder, die_at)
        weights, made = train(folder)
        assert made == steps[die_at // EVERY * EVERY :]  # not again from the beginning
        assert_equal(weights, whole)
        mine, theirs = (root / "metrics.jsonl" for root in (folder, tmp_path / "whole"))
        assert mine.read_bytes() == theirs.read_bytes()


def test_killed_twice_and_after_the_last_step(train: Train, tmp_path: Path) -> None:
    whole, steps = train(tmp_path / "whole")
    for die_at in (4, len(steps) - 1):
        with pytest.raises(Killed):
            train(tmp_path / "run", die_at)
    weights, _ = train(tmp_path / "run")
    assert_equal(weights, whole)
    again, made = train(tmp_path / "run")  # trained, and killed before the model was saved
    assert made == steps[len(steps) // EVERY * EVERY :]
    assert_equal(again, whole)


def test_a_checkpoint_that_was_half_written_does_not_count(
    train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, steps = train(tmp_path / "whole")
    write_folder, written = checkpoints.write_folder, []

    def killed_while_writing(folder: Path, write: Any) -> None:
        written.append(folder)
        if len(written) < 2:
            return write_folder(folder, write)
        draft = folder.with_name(f".{folder.name}.draft")
        draft.mkdir()
        write(draft)
        tensors = draft / "tensors.safetensors"
        tensors.write_bytes(tensors.read_bytes()[:1000])
        raise Killed

    monkeypatch.setattr(checkpoints, "write_folder", killed_while_writing)
    with pytest.raises(Killed):
        train(tmp_path / "run")
    monkeypatch.setattr(checkpoints, "write_folder", write_folder)
    assert len(list((tmp_path / "run/checkpoints").iterdir())) == 2  # one whole, one half
    weights, made = train(tmp_path / "run")
    assert made == steps[EVERY:]
    assert_equal(weights, whole)
    last = len(steps) // EVERY * EVERY
    assert [path.name for path in (tmp_path / "run/checkpoints").iterdir()] == [f"{last:06d}"]


@pytest.mark.parametrize("file", ["tensors.safetensors", "state.json"])
def test_a_damaged_checkpoint_is_named_and_never_passed_over(
    train: Train, tmp_path: Path, file: str
) -> None:
    with pytest.raises(Killed):
        train(tmp_path, 4)
    [checkpoint] = (tmp_path / "checkpoints").iterdir()
    (checkpoint / file).write_bytes((checkpoint / file).read_bytes()[:-30])
    with pytest.raises(RunFolderError, match=rf"{checkpoint}: a damaged checkpoint.*delete"):
        train(tmp_path)


def test_rows_that_were_changed_since_are_not_gone_on_over(train: Train, tmp_path: Path) -> None:
    with pytest.raises(Killed):
        train(tmp_path, 4)
    changed = {
        "examples": [(prompt, answer + "!") for prompt, answer in EXAMPLES],
        "pairs": [LabelledPair(p.prompt, p.chosen, p.rejected, 0.5) for p in PAIRS],
    }
    before = (tmp_path / "metrics.jsonl").read_bytes()
    with pytest.raises(RunFolderError, match="have changed since; delete this folder"):
        train(tmp_path, **changed)
    assert (tmp_path / "metrics.jsonl").read_bytes() == before


def test_lines_that_were_deleted_since_are_told(train: Train, tmp_path: Path) -> None:
    with pytest.raises(Killed):
        train(tmp_path, 4)
    log = tmp_path / "metrics.jsonl"
    log.write_bytes(log.read_bytes().splitlines(keepends=True)[0])
    with pytest.raises(RunFolderError, match="shorter than at the last checkpoint"):
        train(tmp_path)


def test_a_checkpoint_holds_what_moves_and_no_pickle(train: Train, tmp_path: Path) -> None:
    _, steps = train(tmp_path)
    last = len(steps) // EVERY * EVERY
    folder = tmp_path / f"checkpoints/{last:06d}"
    assert sorted(path.name for path in folder.iterdir()) == ["state.json", "tensors.safetensors"]
    assert json.loads((folder / "state.json").read_text())["step"] == last
    kinds = {name.rpartition("/")[2] for name in load_file(folder / "tensors.safetensors")}
    assert {"step", "exp_avg", "exp_avg_sq"} < kinds
