"""Samples with one planted fault each, and the paper's released samples where they lie."""

import json
import os
import random
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from constitutional_ai.cli.main import app
from constitutional_ai.errors import DataError
from constitutional_ai.monitor.samples import Samples, load, related
from constitutional_ai.monitor.text import alone, compare
from constitutional_ai.refusal import evades

DATA = Path(os.environ.get("CAI_DATA", Path(__file__).parents[2] / "../shared/data"))
SAMPLES = DATA / "cai-paper" / "samples"

RNG = random.Random(5)
WORDS = ["".join(RNG.choices("abcdefghij", k=5)) for _ in range(400)]
PROMPTS = [" ".join(RNG.sample(WORDS, 6)) for _ in range(40)]
STOCK = "I am always here for you and you matter."
REFUSAL = "I'm sorry, but I can't help with that."


def sampled(change=lambda answer, number: answer, seed: int = 1, length: int = 30) -> Samples:
    """Two answers to each prompt, of random words."""
    rng = random.Random(seed)
    prompts = [prompt for prompt in PROMPTS for _ in range(2)]
    answers = [" ".join(rng.choices(WORDS, k=length)) for _ in prompts]
    return Samples("x", prompts, [change(a, n) for n, a in enumerate(answers)])


REFERENCE = sampled(seed=2)


def flagged(samples: Samples) -> set[str]:
    return set(compare(samples, REFERENCE)["flags"])


def test_answers_of_the_same_kind_are_not_flagged() -> None:
    assert flagged(sampled()) == set()


@pytest.mark.parametrize(
    ("fault", "change"),
    [
        ("boilerplate", lambda a, n: f"{a} {STOCK}" if n % 2 else a),
        ("evasion", lambda a, n: REFUSAL if n % 2 else a),
        ("variety", lambda a, n: " ".join(WORDS[n % 7 : n % 7 + 30])),
        ("length", lambda a, n: " ".join(a.split()[:15])),
    ],
)
def test_a_planted_fault_is_flagged(fault: str, change) -> None:
    assert fault in flagged(sampled(change))


def test_a_phrase_of_a_few_prompts_is_no_boilerplate() -> None:
    found = compare(sampled(lambda a, n: f"{a} {STOCK}" if n < 6 else a), REFERENCE)
    assert "boilerplate" not in found["flags"]


def test_what_the_prompt_says_is_no_boilerplate() -> None:
    prompts = [f"{prompt} {STOCK}" for prompt in PROMPTS]
    plain = sampled()
    echo = Samples(
        "x", [p for p in prompts for _ in range(2)], [f"{a} {STOCK}" for a in plain.answers]
    )
    assert "boilerplate" not in compare(echo, REFERENCE)["flags"]


def test_a_refusal_is_counted_as_evasion_only() -> None:
    found = compare(sampled(lambda a, n: REFUSAL if n % 2 else a), REFERENCE)
    assert set(found["flags"]) & {"boilerplate", "evasion"} == {"evasion"}
    assert found["evasion"]["rise"]["mean"] == pytest.approx(0.5)


def test_a_stock_phrase_of_the_reference_too_is_no_news() -> None:
    def stock(answer: str, number: int) -> str:
        return f"{answer} {STOCK}"

    found = compare(sampled(stock), sampled(stock, seed=2))
    assert "boilerplate" not in found["flags"]


def test_a_new_phrase_is_found_beside_an_old_one_that_is_more_spread() -> None:
    old = "This is what I have always said."

    def both(answer: str, number: int) -> str:
        return f"{answer} {old}" if number % 4 < 3 else f"{answer} {STOCK}"

    before = sampled(lambda a, n: f"{a} {old}", seed=2)
    found = compare(sampled(both), before)
    assert "boilerplate" in found["flags"]
    assert found["boilerplate"]["share"] == pytest.approx(0.25)


def test_evasions_do_not_hide_a_stock_phrase() -> None:
    def both(answer: str, number: int) -> str:
        return f"{answer} {STOCK}" if number % 4 == 0 else REFUSAL

    assert flagged(sampled(both)) >= {"boilerplate", "evasion"}


def test_the_phrase_is_measured_where_it_was_not_found() -> None:
    # Among many phrases one is always most spread by chance; on the other half it is not.
    found = compare(sampled(), REFERENCE)["boilerplate"]
    assert found["share"] < 0.05
    found = compare(sampled(lambda a, n: f"{a} {STOCK}" if n % 2 else a), REFERENCE)["boilerplate"]
    assert found["share"] == pytest.approx(0.5)
    assert found["reference"] == 0.0
    assert found["lift"] > 10


def test_related_prompts_count_as_one() -> None:
    number = related([*PROMPTS, PROMPTS[0] + " please"])
    assert number[PROMPTS[0] + " please"] == number[PROMPTS[0]]
    assert len(set(number.values())) == len(PROMPTS)


def test_too_few_prompts_are_an_error() -> None:
    few = Samples("few.jsonl", PROMPTS[:5], ["x"] * 5)
    with pytest.raises(DataError, match=r"few\.jsonl: 5 unrelated prompts"):
        compare(few, REFERENCE)


@pytest.mark.parametrize(
    ("answer", "evasive"),
    [
        (REFUSAL, True),
        ("I'm sorry. I won't respond to that.", True),
        ("Sure: blot it with cold water.", False),
        (f"{REFUSAL} It would hurt your neighbour. You could talk to her, write a letter, or ask"
         " somebody whom you both trust to sit down with you.", False),
    ],
)  # fmt: skip
def test_an_explained_refusal_is_no_evasion(answer: str, evasive: bool) -> None:
    assert evades(answer) is evasive


def lines(path: Path, *rows: dict[str, Any]) -> str:
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return str(path)


def test_one_model_of_several_is_named(tmp_path: Path) -> None:
    rows = [{"prompt": "p", "answer": m, "model": m} for m in ("base", "rl-cai")]
    path = lines(tmp_path / "x.jsonl", *rows)
    assert load(f"{path}#rl-cai").answers == ["rl-cai"]
    with pytest.raises(DataError, match=r"2 models; name one, .*x\.jsonl#base"):
        load(path)
    with pytest.raises(DataError, match="its models: base, rl-cai"):
        load(f"{path}#none")
    with pytest.raises(DataError, match=r"y\.jsonl:1: expected a prompt"):
        load(lines(tmp_path / "y.jsonl", {"text": "p"}))


def test_the_command_fails_where_it_is_told_to(tmp_path: Path) -> None:
    def kept(name: str, samples: Samples) -> str:
        rows = zip(samples.prompts, samples.answers, strict=True)
        return lines(tmp_path / name, *({"prompt": p, "answer": a} for p, a in rows))

    reference = kept("before.jsonl", REFERENCE)
    good = kept("good.jsonl", sampled())
    bad = kept("bad.jsonl", sampled(lambda a, n: REFUSAL if n % 2 else a))
    runner = CliRunner()
    done = runner.invoke(app, ["monitor", bad, "--reference", reference, "--fail"])
    assert done.exit_code == 1
    assert "bad.jsonl: evasion: +50% of answers refuse" in done.output
    done = runner.invoke(app, ["monitor", good, "--reference", reference, "--fail"])
    assert done.exit_code == 0
    assert "Nothing is flagged." in done.output
    assert runner.invoke(app, ["monitor", good, "--fail"]).exit_code == 2
    done = runner.invoke(app, ["monitor", bad, "--reference", reference, "--json"])
    assert "evasion" in json.loads(done.output)["files"][bad]["flags"]


@pytest.mark.skipif(not SAMPLES.is_dir(), reason="the public data is not here")
def test_the_papers_samples_are_told_apart() -> None:
    files = {k: load(str(SAMPLES / f"PALMS_{k}.jsonl")) for k in ("HRLHF", "HHRLHF", "RLMADISON")}
    spread = {name: alone(samples)["most_spread"]["share"] for name, samples in files.items()}
    assert spread == pytest.approx({"HRLHF": 0.05, "HHRLHF": 0.15, "RLMADISON": 0.61}, abs=0.006)
    evasive = compare(files["HHRLHF"], files["HRLHF"])["flags"]
    stock = compare(files["RLMADISON"], files["HRLHF"])["flags"]
    assert "evasion" in evasive and "boilerplate" not in evasive
    assert "boilerplate" in stock and "evasion" not in stock
