"""Batches, schedule, the safe step, checkpoints and logs."""

import json
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from constitutional_ai.errors import TrainingDiverged
from constitutional_ai.learning import loop


@given(st.lists(st.integers(1, 40), max_size=60), st.integers(1, 100))
def test_length_batches_hold_every_row_once_and_keep_the_budget(
    lengths: list[int], budget: int
) -> None:
    batches = loop.length_batches(lengths, budget)
    assert sorted(row for batch in batches for row in batch) == list(range(len(lengths)))
    for batch in batches:
        assert len(batch) == 1 or max(lengths[r] for r in batch) * len(batch) <= budget


def test_epochs_shuffle_by_seed() -> None:
    batches = [[n] for n in range(20)]
    first, again, other = (loop.epochs(batches, 2, seed) for seed in (1, 1, 2))
    assert first == again != other
    assert sorted(first[:20]) == sorted(first[20:]) == batches
    assert first[:20] != first[20:]


def test_warmup_then_linear_decay() -> None:
    factors = [loop.warmup_decay(step, total=100, warmup=5) for step in range(100)]
    assert factors[0] == pytest.approx(0.2)
    assert max(factors) == factors[4] == pytest.approx(1 - 0.9 * 0.04)
    assert factors[99] == pytest.approx(1 - 0.9 * 0.99)
    assert all(a > b for a, b in pairwise(factors[4:]))


def model_and_optimiser() -> tuple[nn.Linear, torch.optim.AdamW]:
    torch.manual_seed(0)
    model = nn.Linear(3, 1)
    return model, loop.adamw(model.parameters(), lr=0.1)


def one_step(model: nn.Module, optimiser: torch.optim.Optimizer, scale: float = 1.0) -> float:
    loss = (model(torch.ones(2, 3)) * scale).pow(2).mean()
    return loop.descend(loss, optimiser, lr=0.1, rows=lambda: "row 7")


@pytest.mark.parametrize("scale", [float("nan"), float("inf")])
def test_a_loss_that_is_no_number_stops_before_the_weights_change(scale: float) -> None:
    model, optimiser = model_and_optimiser()
    before = model.weight.clone()
    with pytest.raises(TrainingDiverged, match="row 7"):
        one_step(model, optimiser, scale)
    assert torch.equal(model.weight, before)


def test_the_gradient_is_clipped_and_its_norm_returned() -> None:
    model, _ = model_and_optimiser()
    sgd = torch.optim.SGD(model.parameters(), lr=1.0)
    before = torch.cat([p.flatten().clone() for p in model.parameters()])
    norm = loop.descend((model(torch.ones(1, 3)) * 1000).sum(), sgd, lr=1.0, rows=str)
    after = torch.cat([p.flatten() for p in model.parameters()])
    assert norm == pytest.approx(1000 * 4**0.5)
    assert (after - before).norm().item() == pytest.approx(1.0, rel=1e-4)


def test_a_packed_module_goes_on_exactly_where_it_was(tmp_path: Path) -> None:
    model, optimiser = model_and_optimiser()
    one_step(model, optimiser)
    checkpoints = loop.Checkpoints(tmp_path / "checkpoints")
    checkpoints.save(1, loop.pack("m", model, optimiser), {"position": 1})
    one_step(model, optimiser)

    other = nn.Linear(3, 1)
    other_optimiser = loop.adamw(other.parameters(), lr=0.1)
    found = checkpoints.load()
    assert found is not None and found[1] == {"position": 1}
    loop.unpack("m", found[0], other, other_optimiser)
    one_step(other, other_optimiser)
    assert torch.equal(model.weight, other.weight) and torch.equal(model.bias, other.bias)


def test_only_the_newest_whole_checkpoint_counts(tmp_path: Path) -> None:
    checkpoints = loop.Checkpoints(tmp_path)
    assert checkpoints.load() is None
    for step in (5, 10):
        checkpoints.save(step, {"x": torch.tensor([step])}, {"step": step})
    (tmp_path / ".000015.draft").mkdir()  # what a kill in the midst of saving leaves
    found = checkpoints.load()
    assert found is not None and found[1] == {"step": 10} and found[0]["x"].item() == 10
    assert not (tmp_path / "000005").exists()
    assert {p.suffix for p in (tmp_path / "000010").iterdir()} == {".safetensors", ".json"}


def test_a_folder_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    target = tmp_path / "model"
    loop.write_folder(target, lambda folder: (folder / "a").write_text("old") and None)

    def fail(folder: Path) -> None:
        (folder / "a").write_text("new")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        loop.write_folder(target, fail)
    assert (target / "a").read_text() == "old"


def test_a_log_is_cut_back(tmp_path: Path) -> None:
    log = loop.Log(tmp_path / "metrics.jsonl")
    log.write({"step": 1, "x": float("nan")})
    size = log.size()
    log.write({"step": 2}, {"step": 3})
    loop.Log(log.path).cut(size)
    assert [json.loads(line) for line in log.path.read_text().splitlines()] == [
        {"step": 1, "x": None}
    ]
