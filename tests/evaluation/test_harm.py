"""The harm regressor: ridge against scikit-learn, what it learns, what it refuses."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.linear_model import Ridge
from typer.testing import CliRunner

from constitutional_ai.cli.main import app
from constitutional_ai.engines.local import LocalEngine
from constitutional_ai.errors import DataError
from constitutional_ai.evaluation import harm
from constitutional_ai.records import user


def test_ridge_is_scikit_learns() -> None:
    rng = np.random.default_rng(0)
    x_Nd = rng.normal(size=(60, 8)) * rng.uniform(0.1, 9, 8) + 3
    x_Nd[:, 2] = 1.0  # a state that never moves
    y_N = rng.uniform(0, 4, 60)
    ours = harm.ridge(x_Nd, y_N, penalty=2.5)
    z_Nd = (x_Nd - x_Nd.mean(0)) / np.where(x_Nd.std(0) > 0, x_Nd.std(0), 1)
    theirs = Ridge(alpha=2.5).fit(z_Nd, y_N)
    assert ours.weights == pytest.approx(theirs.coef_, abs=1e-9)
    assert ours(x_Nd) == pytest.approx(np.clip(theirs.predict(z_Nd), 0, 4))


def test_the_penalty_is_chosen_on_left_out_prompts() -> None:
    rng = np.random.default_rng(1)
    signal, noise = rng.uniform(0, 4, 80), rng.uniform(0, 4, 80)
    states_Nd = np.column_stack([signal, rng.normal(size=(80, 60))])
    groups = [str(n) for n in range(80)]
    learned = harm.fit(states_Nd, signal.tolist(), groups)
    assert learned.penalty < harm.fit(states_Nd, noise.tolist(), groups).penalty
    fresh_Nd = np.column_stack([[0.5, 3.5], rng.normal(size=(2, 60))])
    low, high = learned(fresh_Nd)
    assert high - low > 2.0


def test_copies_of_a_prompt_do_not_pass_for_new_ones() -> None:
    """Random states of 40 prompts tell nothing of other prompts, and all about their own copies."""
    rng = np.random.default_rng(2)
    who = np.repeat(np.arange(40), 5)
    states_Nd = rng.normal(size=(40, 60))[who] + 0.01 * rng.normal(size=(200, 60))
    harms = rng.uniform(0, 4, 40)[who].tolist()
    by_prompt = harm.fit(states_Nd, harms, [str(k) for k in who])
    by_row = harm.fit(states_Nd, harms, [str(k) for k in range(200)])
    assert by_prompt.penalty >= 1000 > 10 > by_row.penalty


@pytest.mark.parametrize(("harms", "prompts"), [([1.0] * 30, 30), ([0.0, 4.0] * 15, 4)])
def test_too_little_to_fit_is_an_error(harms: list[float], prompts: int) -> None:
    groups = [str(n % prompts) for n in range(30)]
    with pytest.raises(DataError, match="no harm regressor can be fitted"):
        harm.fit(np.random.default_rng(0).normal(size=(30, 3)), harms, groups)


def test_states_do_not_depend_on_the_batch(tiny_llama: Path) -> None:
    engine = LocalEngine(tiny_llama, dtype="float32")
    prompts = [[user("Tell me a joke.")], [user("No.")], [user("How do I pick a lock?")]]
    answers = ["Knock knock.", "I will not help with that, but a locksmith can.", "Hi!"]
    together_Nd = harm.states(engine, prompts, answers)
    for n in range(3):
        alone_Nd = harm.states(engine, prompts[n : n + 1], answers[n : n + 1])
        assert together_Nd[n] == pytest.approx(alone_Nd[0], abs=1e-4)
    hidden = engine.model.base_model.config.hidden_size
    assert together_Nd.shape == (3, hidden)


def labels(path: Path, count: int = 60, **change: Any) -> Path:
    rows = [
        {"prompt": f"request number {n}", "answer": "lock " * (n % 5), "harm": n % 5}
        if n % 5
        else {"prompt": f"request number {n}", "answer": "No.", "harm": 0}
        for n in range(count)
    ]
    path.write_text("\n".join(json.dumps(row | change) for row in rows))
    return path


def fit(*args: object, code: int = 0) -> Any:
    result = CliRunner().invoke(app, ["evaluate", "fit-harm", *map(str, args)])
    assert result.exit_code == code, result.output
    return result


def test_fitted_from_a_file_and_used_in_an_evaluation(tiny_llama: Path, tmp_path: Path) -> None:
    file = labels(tmp_path / "labels.jsonl")
    card = json.loads(
        fit("--labels", file, "--model", tiny_llama, "--out", tmp_path / "head").stdout
    )
    assert card["labels"] == "file" and card["fitted_on"] + card["measured_on"] == 60
    assert card["against_labels"]["spearman"] > 0.8  # the length of an answer is its harm
    assert "against_gold" not in card
    answers = tmp_path / "answers.jsonl"
    rows = [
        {"prompt": f"request number {n + 70}", "answer": "lock " * 4, "kind": "harmful"}
        for n in range(6)
    ]
    rows += [
        {"prompt": f"request number {n + 80}", "answer": "No.", "kind": "benign"} for n in range(6)
    ]
    answers.write_text("\n".join(map(json.dumps, rows)))
    result = CliRunner().invoke(
        app,
        ["evaluate", "--answers", str(answers), "--harm-head", str(tmp_path / "head"), "--out",
         str(tmp_path / "e")],
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    found = json.loads((tmp_path / "e" / "scores.json").read_text())["models"]["answers"]
    assert found["harmful"]["harm_regressor"]["mean"] > 3
    assert found["benign"]["harm_regressor"]["mean"] < 1


def test_a_judge_labels_and_what_it_cannot_is_counted(
    tiny_llama: Path, tmp_path: Path, script: Any
) -> None:
    from constitutional_ai.engines.scripted import ScriptedEngine

    def prefer(turns: Any, option: str) -> float:
        text = turns[-1]["content"]
        if "number 7" in text:
            return float("nan")
        wanted = min(4, text.split("Answer:")[1].split("\n")[0].count("lock"))
        return 0.0 if option == str(wanted) else -40.0

    script(
        {"judge": ScriptedEngine(lambda _: "", prefer), str(tiny_llama): LocalEngine(tiny_llama)}
    )
    file = labels(tmp_path / "labels.jsonl", harm=None)
    wanted = ("--labels", file, "--model", tiny_llama, "--out", tmp_path / "head")
    card = json.loads(fit(*wanted, "--judge", "judge").stdout)
    assert card["labels"] == "judge"
    assert card["unlabelled"] == 1  # request number 7
    assert "no row has a harm" in fit(*wanted, code=2).stderr
    assert "the laboratory's prompts only" in fit(*wanted, "--gold", code=2).stderr


@pytest.mark.parametrize("value", [5, -1, "high", True])
def test_a_harm_off_the_scale_is_an_error_with_its_line(tmp_path: Path, value: Any) -> None:
    with pytest.raises(DataError, match=r"labels.jsonl:1: harm is .* from 0 to 4"):
        harm.load_labels(labels(tmp_path / "labels.jsonl", harm=value))


def test_a_revisions_file_gives_every_answer(tmp_path: Path) -> None:
    path = tmp_path / "revisions.jsonl"
    path.write_text(json.dumps({"prompt": [user("x")], "answers": ["bad", "better", "better"]}))
    assert [row.answer for row in harm.load_labels(path)] == ["bad", "better"]


def test_a_head_of_a_model_that_changed_is_refused(tiny_llama: Path, tmp_path: Path) -> None:
    import shutil

    from constitutional_ai.errors import ModelError

    model = tmp_path / "model"
    shutil.copytree(tiny_llama, model)
    fit("--labels", labels(tmp_path / "l.jsonl"), "--model", model, "--out", tmp_path / "head")
    (model / "config.json").write_text((model / "config.json").read_text() + "\n")
    with pytest.raises(ModelError, match="fit it again"):
        harm.regressed(None, str(tmp_path / "head"), [])  # type: ignore[arg-type]
