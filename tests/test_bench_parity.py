"""The benchmarks' own tests: what they claim about TRL, and that their tables keep their rows."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent
BENCH = ROOT / "bench"

TRL112, TRL = (ROOT / folder / "site-packages" for folder in (".venv-trl112", ".venv-trl"))
needs_trl = pytest.mark.skipif(
    not (TRL112 / "trl").is_dir(), reason="no TRL to compare with: make bench-env"
)


def run(script: str, tmp_path: Path, *options: str) -> Any:
    """What a benchmark writes as JSON. In a process of its own: TRL comes by its path."""
    file = tmp_path / "found.json"
    done = subprocess.run(
        [sys.executable, str(BENCH / script), "--json", str(file), *options],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(file.read_bytes())


@pytest.mark.slow
@needs_trl
def test_ppo_computes_what_trls_does(tmp_path: Path) -> None:
    told = run("parity.py", tmp_path)
    facts, found = told["facts"], told["found"]
    # A rollout in which every branch of the formulas has something to decide.
    assert 0 < facts["answers that ended"] < facts["answers"]
    assert facts["mean KL of an answer, nats"] > 0.1 and facts["largest advantage"] > 1
    assert 0 < facts["policy clip share, last update"] < 1
    assert 0 < facts["value clip share, last update"] < 1
    exact = {name for name in found if "update" in name or "advantages" in name}
    assert len(exact) == 3 + 4 * facts["updates"]
    for name in (*exact, "KL penalty of each token", "returns"):
        assert found[name][0] <= 1e-5, name
    for name in ("log-probabilities of the answers", "those of the reference", "values", "scores"):
        assert found[name][0] <= 1e-4, name


@pytest.mark.slow
@needs_trl
@pytest.mark.parametrize("script", ["sft.py", "reward.py"])
def test_on_the_same_batches_the_loss_curves_agree(script: str, tmp_path: Path) -> None:
    rows = run(script, tmp_path, "--quick", "--precision", "float32", "--threads", "1")
    facts = rows[0]["facts"]
    assert facts["steps"] >= 6
    assert facts["last loss"] < facts["first loss"]
    assert facts["largest loss difference"] < 1e-3


@pytest.mark.slow
@needs_trl
def test_parity_notices_another_discount(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The comparison itself: with a formula that is a little off it says so."""
    site = tmp_path / "site"
    site.mkdir()
    (site / "sitecustomize.py").write_text(
        "import functools\n"
        "from constitutional_ai.learning import losses\n"
        "right = losses.gae\n"
        "losses.gae = lambda r, v, m, gamma, lam: right(r, v, m, gamma, lam - 0.001)\n"
    )
    paths = [site, TRL112, TRL, ROOT]
    done = subprocess.run(
        [sys.executable, str(BENCH / "parity.py"), "--json", str(tmp_path / "found.json")],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(map(str, paths))},
    )
    found = json.loads((tmp_path / "found.json").read_bytes())["found"]
    assert done.returncode == 1
    assert found["advantages"][0] > 1e-3 and found["returns"][0] > 1e-3
    assert found["policy loss, update 0"][0] <= 1e-5


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCH))


@pytest.mark.usefixtures("bench")
def test_a_row_goes_to_the_end_of_its_own_table(tmp_path: Path) -> None:
    import compare

    file = tmp_path / "RESULTS.md"
    file.write_text((BENCH / "RESULTS.md").read_text(encoding="utf-8"), encoding="utf-8")
    before = file.read_text(encoding="utf-8").splitlines()
    for number in range(2):
        compare.append(file, "label", [f"row {number}", "a|b"])
    after = file.read_text(encoding="utf-8").splitlines()
    assert len(after) == len(before) + 2
    assert [line for line in after if line not in before] == [
        "| row 0 | a\\|b |",
        "| row 1 | a\\|b |",
    ]
    place = after.index("| row 0 | a\\|b |")
    assert after.index("## label") < place < after.index("## ppo")
    assert after[place - 1].startswith("|") and after[place + 1] == "| row 1 | a\\|b |"


@pytest.mark.usefixtures("bench")
def test_every_benchmark_has_a_table() -> None:
    import compare

    text = (BENCH / "RESULTS.md").read_text(encoding="utf-8")
    shared = (BENCH / "training.py").read_text(encoding="utf-8")
    assert "compare.finish(kind.name" in shared
    for script in ("revise", "label", "ppo", "sft", "reward", "roofline"):
        code = (BENCH / f"{script}.py").read_text(encoding="utf-8")
        through_shared = f'"{script}", __file__' in code and "training.run(kind" in code
        assert f'compare.finish("{script}"' in code or through_shared
        section = text.partition(f"## {script}\n")[2].partition("\n## ")[0]
        assert "| " + " | ".join(compare.COLUMNS) + " |" in section


@pytest.mark.usefixtures("bench")
def test_sides_take_turns_in_both_orders() -> None:
    import compare

    called: list[str] = []
    sides = {name: lambda n, name=name: called.append(name) or float(n) for name in "ab"}
    assert compare.in_turns(sides, 2) == {"a": [0.0, 1.0], "b": [0.0, 1.0]}
    assert called == ["a", "b", "b", "a"]
    assert compare.Row("", "", "", compare.ratios([4, 9, 8], [2, 3, 1])).ratio == "3 (2–8)"


@pytest.mark.usefixtures("bench")
def test_an_inner_phase_takes_its_time_from_the_outer(monkeypatch: pytest.MonkeyPatch) -> None:
    import phases

    now = 0.0
    monkeypatch.setattr(phases.time, "perf_counter", lambda: now)

    class Work:
        def inner(self) -> str:
            nonlocal now
            now += 3
            return "done"

    measured = phases.Phases()
    measured.wrap(Work, "inner", "inner")
    with measured("outer"):
        now += 1
        assert Work().inner() == "done"
        now += 2
        assert measured.take() == {"outer": 3.0, "inner": 3.0}
        now += 4
    assert measured.take() == {"outer": 4.0}


@pytest.mark.usefixtures("bench")
def test_a_worker_reports_each_turn_and_says_why_it_ended(tmp_path: Path) -> None:
    import turns

    script = tmp_path / "side.py"
    script.write_text(
        "import turns\n"
        "taking = turns.Turns()\n"
        "print('whatever a library prints')\n"
        "for number in range(2):\n"
        "    taking.wait()\n"
        "    taking.report(number=number)\n"
        "raise RuntimeError('out of memory')\n"
    )
    with turns.Worker([str(script)], [BENCH]) as worker:
        assert [worker.turn()["number"] for _ in range(2)] == [0, 1]
        with pytest.raises(RuntimeError, match="out of memory"):
            worker.turn()


@pytest.mark.usefixtures("bench")
def test_memory_is_a_workers_own(tmp_path: Path) -> None:
    import turns

    script = tmp_path / "side.py"
    script.write_text(
        "import turns\n"
        "taking = turns.Turns()\n"
        "taking.wait()\n"
        "taking.report(peak=turns.peak_memory('cpu'))\n"
        "taking.wait()\n"
        "held = bytearray(200_000_000)\n"
        "taking.report(peak=turns.peak_memory('cpu'))\n"
    )
    ours = bytearray(300_000_000)
    with turns.Worker([str(script)], [BENCH]) as worker:
        before, after = worker.turn()["peak"], worker.turn()["peak"]
    assert len(ours) and before < 0.15
    assert 0.19 < after - before < 0.25


@pytest.mark.usefixtures("bench")
def test_least_times_count_what_a_step_must_read(tiny_llama: Path) -> None:
    import roofline
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(tiny_llama)
    cost = roofline.Cost.of(model)
    everything = sum(p.numel() for p in model.parameters())
    assert cost.body + 2 * cost.head == everything  # the head is not tied here
    assert cost.weight_bytes == 4 * (cost.body + cost.head)
    assert cost.cached_bytes == 4 * 2 * 2 * 2 * 8  # floats, key and value, layers, heads, width
    products = 2 * cost.body + 2 * cost.head
    # Three tokens see one, two and three; each pair costs 4 FLOPs for each of 2 layers' 32 places.
    assert cost.flops(3, 0) == 3 * 2 * cost.body + 2 * cost.head + 4 * 64 * 6
    assert cost.flops(1, 5) == products + 4 * 64 * 6


@pytest.mark.usefixtures("bench")
def test_an_answer_of_a_random_model_runs_to_its_limit(tmp_path: Path) -> None:
    import models
    from transformers import AutoTokenizer

    from constitutional_ai.engines.base import Sampling
    from constitutional_ai.engines.local import LocalEngine
    from constitutional_ai.records import user

    small = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 2}
    models.SHAPES["tiny"] = ("Llama", {**models.SHAPES["0.1b"][1], **small, **heads})
    folder = models.folder_of("random:tiny", tmp_path)
    del models.SHAPES["tiny"]
    engine = LocalEngine.load(folder, device="cpu")
    asked = [[user("Tell me a joke.")], [user("How do I boil an egg?")]] * 4
    answers = engine.generate(asked, Sampling(max_new_tokens=40, seed=0))
    assert [answer.tokens for answer in answers] == [40] * 8
    words = AutoTokenizer.from_pretrained(folder)
    assert all(len(words(answer.text).input_ids) > 20 for answer in answers)
