"""Hardening: it trains on from a model, keeps its words, and writes beside it."""

from multiprocessing.pool import ThreadPool
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from constitutional_ai.errors import ModelError
from constitutional_ai.lab.training import consistency, harden
from constitutional_ai.lab.training.batches import Batch, make_corpus
from constitutional_ai.lab.training.pretrain import WARMUP_STEPS, Trainer
from constitutional_ai.lab.world.sizes import model_path


@pytest.fixture
def few_documents(monkeypatch: pytest.MonkeyPatch) -> None:
    """300 documents and 30 questions, made in this process."""
    monkeypatch.setattr(harden, "workers", lambda: ThreadPool(1))
    monkeypatch.setattr(harden, "make_corpus", lambda *asked: make_corpus(*asked).first(300))
    monkeypatch.setattr(harden, "WARMUP_STEPS", 2)
    monkeypatch.setattr(consistency, "make_corpus", lambda *asked: make_corpus(*asked).first(90))


ON = pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])


@ON
@pytest.mark.slow
@pytest.mark.usefixtures("few_documents")
def test_it_learns_on_and_leaves_its_start_alone(tmp_path: Path, device: str) -> None:
    start, lines = model_path("lab:xxs"), list[str]()
    before = (start / "model.safetensors").read_bytes()
    out = harden.harden("lab:xxs", tmp_path / "hard", 1, lines.append, device)
    assert (start / "model.safetensors").read_bytes() == before
    first, last = (
        next(line for line in lines if line.startswith(when)).replace(",", "").split()
        for when in ("before", "final")
    )
    assert float(last[2]) < float(first[2]) - 0.01  # nats a token of documents that it did not read
    assert float(last[4]) < float(first[4])  # of their letters
    old, new = (AutoModelForCausalLM.from_pretrained(path) for path in (start, out))
    assert any(
        not torch.equal(p, q) for p, q in zip(old.parameters(), new.parameters(), strict=True)
    )
    same = [AutoTokenizer.from_pretrained(path).get_vocab() for path in (start, out)]
    assert same[0] == same[1]
    assert not (out / "checkpoint").exists()


@ON
@pytest.mark.slow
@pytest.mark.usefixtures("few_documents")
def test_a_killed_call_goes_on_and_asks_the_start_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, device: str
) -> None:
    start, out, again = model_path("lab:xxs"), tmp_path / "hard", tmp_path / "again"
    real, calls = Trainer.update, list[float]()

    def killed(trainer: Trainer, batch: Batch, share: float) -> float:
        if len(calls) == 3:
            raise KeyboardInterrupt
        calls.append(share)
        return real(trainer, batch, share)

    harden.harden(start, again, 1, device=device)
    monkeypatch.setattr(Trainer, "update", killed)
    with pytest.raises(KeyboardInterrupt):
        harden.harden(start, out, 1, device=device)
    monkeypatch.setattr(Trainer, "update", real)
    monkeypatch.setattr(consistency, "_chosen", None)  # asked already
    lines: list[str] = []
    harden.harden(start, out, 1, lines.append, device)
    assert any(line.startswith("resumed at step") for line in lines)
    one, other = (load_file(folder / "model.safetensors") for folder in (out, again))
    for name in one:
        torch.testing.assert_close(one[name], other[name])


def test_the_rate_rises_and_falls_to_zero() -> None:
    rates = [harden._falling(step, step / 400) for step in range(401)]
    assert rates[0] == pytest.approx(harden.RATE / WARMUP_STEPS)
    assert max(rates) <= harden.RATE
    assert rates[-1] == 0


@pytest.mark.parametrize(
    ("start", "out", "told"),
    [("nowhere", "out", "nowhere holds no model"), ("model", "model", "name another folder")],
)
def test_what_it_refuses(tmp_path: Path, start: str, out: str, told: str) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "model.safetensors").touch()
    with pytest.raises(ModelError, match=told):
        harden.harden(tmp_path / start, tmp_path / out)
