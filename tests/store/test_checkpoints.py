"""Checkpoints, and the logs that are cut back to them."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from constitutional_ai.errors import RunFolderError
from constitutional_ai.store.checkpoints import Checkpoints, Log, Part, Training, under


def part() -> Part:
    model = nn.Linear(3, 1)
    return Part(model, torch.optim.AdamW(model.parameters(), lr=0.1))


def one_step(trained: Part) -> None:
    trained.optimiser.zero_grad()
    trained.module(torch.ones(2, 3)).pow(2).mean().backward()
    trained.optimiser.step()


def test_a_training_goes_on_exactly_where_it_was(tmp_path: Path) -> None:
    """Two parts, a log, a state and a tensor of its own."""
    log = Log(tmp_path / "metrics.jsonl")
    log.write({"of": "an earlier start"})
    folder, parts = tmp_path / "checkpoints", {"policy": part(), "value": part()}
    training = Training(folder, parts, {"metrics": log})
    assert training.resume() is None and log.size() == 0
    one_step(parts["policy"])
    log.write({"step": 0})
    training.save(1, {"beta": 0.1}, {"best/w": torch.ones(2)})
    one_step(parts["policy"])
    log.write({"step": 1})

    again = {"policy": part(), "value": part()}
    saved = Training(folder, again, {"metrics": Log(log.path)}).resume()
    assert saved is not None and (saved.step, saved.state["beta"]) == (1, 0.1)
    assert torch.equal(under("best/", saved.tensors)["w"], torch.ones(2))
    assert log.path.read_text() == '{"step": 0}\n'
    one_step(again["policy"])
    for name, mine in parts.items():
        theirs = again[name].module.state_dict()
        assert all(torch.equal(t, theirs[key]) for key, t in mine.module.state_dict().items())


def test_a_resume_that_is_refused_changes_nothing(tmp_path: Path) -> None:
    log, trained = Log(tmp_path / "metrics.jsonl"), part()
    training = Training(tmp_path / "checkpoints", {"model": trained}, {"metrics": log})
    training.save(1, {})
    one_step(trained)
    log.write({"step": 1})
    before = trained.module.weight.clone()

    def check(state: dict[str, Any]) -> None:
        raise RunFolderError("changed since")

    with pytest.raises(RunFolderError, match="changed since"):
        training.resume(check)
    assert torch.equal(trained.module.weight, before) and log.size() > 0


def test_a_checkpoint_of_an_earlier_version_is_named(tmp_path: Path) -> None:
    Checkpoints(tmp_path).save(1, {}, {"step": 1, "log": 0})
    with pytest.raises(RunFolderError, match="of an earlier version; delete this folder"):
        Training(tmp_path, {}, {}).resume()


def test_only_the_newest_whole_checkpoint_counts(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path)
    assert checkpoints.load() is None
    for step in (5, 10):
        checkpoints.save(step, {"x": torch.tensor([step])}, {"step": step})
    (tmp_path / ".000015.draft").mkdir()  # what a kill in the midst of saving leaves
    found = checkpoints.load()
    assert found is not None and found[1] == {"step": 10} and found[0]["x"].item() == 10
    assert not (tmp_path / "000005").exists()
    assert {p.suffix for p in (tmp_path / "000010").iterdir()} == {".safetensors", ".json"}


def test_a_log_is_cut_back(tmp_path: Path) -> None:
    log = Log(tmp_path / "metrics.jsonl")
    log.write({"step": 1, "x": float("nan")})
    size = log.size()
    log.write({"step": 2}, {"step": 3})
    Log(log.path).cut(size)
    assert [json.loads(line) for line in log.path.read_text().splitlines()] == [
        {"step": 1, "x": None}
    ]
