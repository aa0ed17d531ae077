"""The log-likelihood of people's answers, against transformers' own loss and by hand."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from constitutional_ai.engines.local import LocalEngine
from constitutional_ai.engines.scripted import ScriptedEngine
from constitutional_ai.errors import DataError
from constitutional_ai.evaluation import likelihood
from constitutional_ai.evaluation.likelihood import Dialogue, Likelihood
from constitutional_ai.records import user


@pytest.fixture(scope="module", params=["lab:xxs", "tiny_llama"])  # the latter's layers are packed
def engine(request: pytest.FixtureRequest, tiny_llama: Path) -> LocalEngine:
    model = str(tiny_llama) if request.param == "tiny_llama" else request.param
    return LocalEngine.load(model, dtype="float32", device="cpu")


def test_only_the_answers_tokens_count(engine: LocalEngine) -> None:
    prompts = [[user("How do I bake bread?")], [user("How do I open a window in the house?")]]
    said = ["You mix it.", "Push it up with care and then hold it."]
    rows = likelihood.read(engine, "m", [
        Dialogue(str(n), p, a) for n, (p, a) in enumerate(zip(prompts, said, strict=True))
    ])  # fmt: skip
    for row, prompt, answer in zip(rows, prompts, said, strict=True):
        before = engine.tokens.prompt(prompt)
        ids = [*before, *engine.tokens.answer(answer)[:-1]]
        labels = torch.tensor([[-100] * len(before) + ids[len(before) :]])
        with torch.no_grad():
            loss = engine.model(torch.tensor([ids]), labels=labels).loss.item()
        assert row.tokens == len(ids) - len(before)
        assert row.logprob == pytest.approx(-loss * row.tokens, rel=1e-4)


def test_what_cannot_be_read_has_a_reason_and_no_value(engine: LocalEngine) -> None:
    long = Dialogue("long", [user("bread " * 600)], "No.")
    short = Dialogue("short", [user("Hi.")], "Hello.")
    rows = likelihood.read(engine, "m", [long, short])
    assert [row.unlabelled for row in rows] == [likelihood.TOO_LONG, ""]
    assert rows[0].logprob is None and (rows[1].logprob or 0) < 0
    (row,) = likelihood.read(ScriptedEngine(lambda _: ""), "m", [short])
    assert row.unlabelled == likelihood.ELSEWHERE


def rows(model: str, *values: float | None) -> list[Likelihood]:
    return [
        Likelihood(id=f"{n} {model}", model=model, dialogue=str(n), logprob=value, tokens=10)
        for n, value in enumerate(values)
    ]


def test_the_change_is_relative_and_over_what_both_read() -> None:
    found = likelihood.change(rows("a", -10, -20, -30, None), rows("b", -11, -20, -32, -5), seed=0)
    assert found is not None
    assert found["mean"] == pytest.approx(1 - 63 / 60)  # 5% worse
    assert found["n"] == 3
    assert found["low"] <= found["mean"] <= found["high"] <= 0
    assert likelihood.per_token(rows("a", -10, None, -30)) == {"mean": -2.0, "n": 2}


def test_the_same_model_has_not_changed() -> None:
    own = rows("a", *(-float(n) for n in range(1, 30)))
    found = likelihood.change(own, own, seed=0)
    assert found is not None and found["mean"] == found["low"] == found["high"] == 0
    assert found["p"] == 1
    assert likelihood.change(own[:1], own[:1], seed=0) is None


def test_the_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    covered, rng = 0, torch.Generator().manual_seed(0)
    for seed in range(150):
        base = -50 - 30 * torch.rand(60, generator=rng)
        other = base * (1.03 + 0.05 * torch.randn(60, generator=rng))
        found = likelihood.change(rows("a", *base.tolist()), rows("b", *other.tolist()), seed)
        assert found is not None
        covered += found["low"] <= -0.03 <= found["high"]
    assert 0.89 <= covered / 150 <= 0.99


def write(path: Path, *made: Any) -> str:
    path.write_text("\n".join(map(json.dumps, made)))
    return str(path)


def test_dialogues_of_two_forms(tmp_path: Path) -> None:
    pair = {
        "chosen": "\n\nHuman: Hi.\n\nAssistant: Yes.",
        "rejected": "\n\nHuman: Hi.\n\nAssistant: No.",
    }
    (found,) = likelihood.load(write(tmp_path / "a.jsonl", pair), 5, seed=0)
    assert (found.prompt, found.answer) == ([user("Hi.")], "Yes.")
    turns = [user("Hi."), {"role": "assistant", "content": "Hello."}]
    made = [{"messages": [user(f"Hi {n}."), turns[1]]} for n in range(9)]
    source = write(tmp_path / "b.jsonl", *made)
    drawn = likelihood.load(source, 4, seed=0)
    assert len(drawn) == 4 and {one.answer for one in drawn} == {"Hello."}
    assert drawn == likelihood.load(source, 4, seed=0) != likelihood.load(source, 4, seed=1)
    halves = [likelihood.load(f"{source}#half={n}", 9, seed=0) for n in (1, 2)]
    assert len(halves[0]) + len(halves[1]) == 9
    with pytest.raises(DataError, match="no dialogue that ends with an answer"):
        likelihood.load(write(tmp_path / "c.jsonl", {"prompt": "Hi."}), 4, seed=0)
