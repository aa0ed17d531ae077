"""Hardening: it trains on from a model, keeps its words, and writes beside it."""

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from constitutional_ai.errors import ModelError
from constitutional_ai.lab import harden
from constitutional_ai.lab.batches import make_corpus
from constitutional_ai.lab.model import model_path
from constitutional_ai.lab.pretrain import WARMUP_STEPS


def test_it_learns_on_and_leaves_its_start_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(harden, "make_corpus", lambda *asked: make_corpus(*asked).first(300))
    start, lines = model_path("lab:xxs"), []
    before = (start / "model.safetensors").read_bytes()
    out = harden.harden("lab:xxs", tmp_path / "hard", 1, 0, lines.append)
    assert (start / "model.safetensors").read_bytes() == before
    first, last = (float(line.rsplit(" ", 1)[1]) for line in (lines[0], lines[-1]))
    assert lines[0].startswith("before") and lines[-1].startswith("final")
    assert last < first  # the letter's loss
    old, new = (AutoModelForCausalLM.from_pretrained(path) for path in (start, out))
    assert any(
        not torch.equal(p, q) for p, q in zip(old.parameters(), new.parameters(), strict=True)
    )
    same = [AutoTokenizer.from_pretrained(path).get_vocab() for path in (start, out)]
    assert same[0] == same[1]


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
