"""Hardening: it trains on from a model, keeps its words, and writes beside it."""

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM

from constitutional_ai.errors import ModelError
from constitutional_ai.lab import harden
from constitutional_ai.lab.batches import make_corpus
from constitutional_ai.lab.model import model_path
from constitutional_ai.lab.pretrain import WARMUP_STEPS


@pytest.fixture
def few_documents(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(harden, "make_corpus", lambda *asked: make_corpus(*asked).first(300))


@pytest.mark.usefixtures("few_documents")
def test_it_learns_on_and_leaves_its_start_alone(tmp_path: Path) -> None:
    start, lines = model_path("lab:xxs"), []
    before = (start / "model.safetensors").read_bytes()
    out = harden.harden("lab:xxs", tmp_path / "hard", 1, 1, lines.append)
    assert (start / "model.safetensors").read_bytes() == before
    first, last = (
        float(next(line for line in lines if line.startswith(when)).rsplit(" ", 1)[1])
        for when in ("before", "final")
    )
    assert last < first  # the letter's loss
    old, new = (AutoModelForCausalLM.from_pretrained(path) for path in (start, out))
    assert any(
        not torch.equal(p, q) for p, q in zip(old.parameters(), new.parameters(), strict=True)
    )
    same = [AutoTokenizer.from_pretrained(path).get_vocab() for path in (start, out)]
    assert same[0] == same[1]
    assert not (out / "checkpoint").exists()


@pytest.mark.usefixtures("few_documents")
def test_each_run_has_its_own_documents_and_is_not_made_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    start, out, seen = model_path("lab:xxs"), tmp_path / "hard", []
    real = harden.mean

    def killed(start: Path, trained: Sequence[Path]) -> LlamaForCausalLM:
        seen.append([load_file(folder / "model.safetensors") for folder in trained])
        raise KeyboardInterrupt

    monkeypatch.setattr(harden, "mean", killed)
    with pytest.raises(KeyboardInterrupt):
        harden.harden(start, out, 1, 2)
    one, two = seen[0]
    assert any(not torch.equal(one[name], two[name]) for name in one)
    monkeypatch.setattr(harden, "mean", real)
    monkeypatch.setattr(harden.Trainer, "update", None)  # no step is left
    lines: list[str] = []
    harden.harden(start, out, 1, 2, lines.append)
    assert sum(line.startswith("resumed at step") for line in lines) == 2
    was, made = (load_file(folder / "model.safetensors") for folder in (start, out))
    for name in was:
        wanted = 0.25 * was[name].float() + 0.375 * (one[name].float() + two[name].float())
        torch.testing.assert_close(made[name], wanted.bfloat16())


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
