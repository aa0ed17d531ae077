"""Logs of Inspect, read back by Inspect; our engines as its models. Skipped where it is absent."""

import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from constitutional_ai.errors import DataError
from constitutional_ai.evaluation.judged import comparison_id
from constitutional_ai.evaluation.rows import Compared, Graded, Transcript
from constitutional_ai.exports import inspect as export
from constitutional_ai.records import user
from constitutional_ai.store.run_folder import StageFolder, append_rows

TASK = """
from inspect_ai import Task, task
from inspect_ai.dataset import Sample
from inspect_ai.scorer import includes
from inspect_ai.solver import generate, system_message

@task
def jokes():
    samples = [Sample(input=f"Tell me joke {n}.", target="e") for n in range(12)]
    return Task(dataset=samples, solver=[system_message("Be brief."), generate()],
                scorer=includes())
"""


def estimate(mean: float, n: int) -> dict[str, Any]:
    return {"mean": mean, "low": mean - 0.1, "high": mean + 0.1, "n": n}


@pytest.fixture
def evaluated(tmp_path: Path) -> Path:
    """Two models, two prompts, two samples of the first; one answer is missing."""
    folder = StageFolder(tmp_path / "eval", "7-evaluate")
    folder.begin({"seed": 0})
    rows = [
        Transcript(
            id=f"{model} {case} {sample}", model=model, kind="harmful", slice="theft",
            prompt=[user(f"<b>{case}</b>")], answer="" if missing else "I cannot help with that.",
            finished=True, metrics={}, case=case, sample=sample, missing=missing,
        )
        for model in ("base", "out/6-ppo/model")
        for case, sample, missing in (("a", 0, ""), ("a", 1, ""), ("b", 0, "the server is gone"))
    ]  # fmt: skip
    append_rows(folder.path / "transcripts.jsonl", rows)
    there = [row for row in rows if not row.missing]
    graded = [
        Graded(id=row.id, model=row.model, kind=row.kind, scores={"harm": 0.5 + row.sample},
               unlabelled={"evasive": "unreadable"})
        for row in there
    ]  # fmt: skip
    append_rows(folder.path / "grades.jsonl", graded)
    compared = [
        Compared(id=comparison_id(row.id, "base"), model=row.model, kind=row.kind, case=row.case,
                 p_better=0.75 if row.sample else None, unlabelled="" if row.sample else "why")
        for row in there
        if row.model != "base"
    ]  # fmt: skip
    append_rows(folder.path / "comparisons.jsonl", compared)
    scores = {"harmful": {"harm": estimate(1.0, 2), "refused": estimate(1.0, 2), "unlabelled": 1}}
    content = {"models": {"base": scores, "out/6-ppo/model": scores}}
    (folder.path / "scores.json").write_text(json.dumps(content))
    folder.finish({})
    return folder.path


def test_inspect_reads_what_was_measured(evaluated: Path, tmp_path: Path) -> None:
    log = pytest.importorskip("inspect_ai.log")
    written = export.export(evaluated, tmp_path / "logs")
    assert set(written.values()) == {3} and len(written) == 2
    found = log.read_eval_log(str(tmp_path / "logs" / "out-6-ppo-model.eval"))
    assert found.status == "success" and found.eval.model == "cai/out/6-ppo/model"
    assert (found.results.total_samples, found.results.completed_samples) == (3, 2)
    harm = next(s for s in found.results.scores if s.name == "harmful: harm")
    assert harm.metrics["mean"].value == 1.0 and harm.metrics["low"].value == pytest.approx(0.9)
    assert (harm.scored_samples, harm.unscored_samples) == (2, 1)
    by_place = {(sample.id, sample.epoch): sample for sample in found.samples}
    first, second, missing = by_place["a", 1], by_place["a", 2], by_place["b", 1]
    assert first.input[0].text == "<b>a</b>" and first.messages[-1].role == "assistant"
    assert first.output.completion == "I cannot help with that."
    assert second.scores["harm"].value == 1.5 and second.scores["refused"].value == 1.0
    assert second.scores["better_than_base"].value == 0.75
    assert math.isnan(first.scores["better_than_base"].value)
    assert math.isnan(first.scores["evasive"].value)
    assert first.scores["evasive"].reason == "unreadable"
    assert math.isnan(missing.scores["refused"].value)  # never a refusal, never help
    assert missing.output.error == "the server is gone"


def test_inspect_lists_the_logs(evaluated: Path, tmp_path: Path) -> None:
    log = pytest.importorskip("inspect_ai.log")
    export.export(evaluated, tmp_path / "logs")
    infos = log.list_eval_logs(str(tmp_path / "logs"))
    assert len(infos) == 2
    headers = [log.read_eval_log(info, header_only=True) for info in infos]
    assert {header.eval.task for header in headers} == {"constitutional-ai evaluate"}


def test_one_file_holds_one_model(evaluated: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="one log holds one model"):
        export.export(evaluated, tmp_path / "all.eval")
    with pytest.raises(DataError, match="no model is called rl"):
        export.export(evaluated, tmp_path / "all.eval", "rl")
    with pytest.raises(DataError, match="no finished evaluation"):
        export.export(tmp_path, tmp_path / "all.eval")
    pytest.importorskip("inspect_ai.log")
    assert export.export(evaluated, tmp_path / "one.eval", "base") == {
        str(tmp_path / "one.eval"): 3
    }


def test_inspect_asks_our_models_through_the_entry_point(tiny_llama: Path, tmp_path: Path) -> None:
    log = pytest.importorskip("inspect_ai.log")
    (tmp_path / "task.py").write_text(TASK)
    command = [
        sys.executable, "-m", "inspect_ai", "eval", "task.py", "--model", f"cai/{tiny_llama}",
        "--log-dir", "logs", "--max-tokens", "8", "--display", "plain", "-M", "dtype=float32",
    ]  # fmt: skip
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr + done.stdout
    (info,) = log.list_eval_logs(str(tmp_path / "logs"))
    found = log.read_eval_log(info)
    assert found.status == "success", found.error
    assert len(found.samples) == 12
    assert all(sample.messages[0].role == "system" for sample in found.samples)
    assert {len(sample.messages) for sample in found.samples} == {3}
    assert sum(sample.output.usage.output_tokens for sample in found.samples) > 0


def test_requests_that_come_together_are_one_batch() -> None:
    pytest.importorskip("inspect_ai")
    from concurrent.futures import Future

    from constitutional_ai.engines.base import Completion
    from constitutional_ai.exports.inspect_provider import Batcher, _Request

    sizes: list[int] = []

    class Counting:
        name = "counting"

        def generate(self, conversations: Any, sampling: Any) -> list[Completion]:
            sizes.append(len(conversations))
            if sampling.temperature == 7:
                raise ValueError("no such temperature")
            return [Completion(turns[-1]["content"], 1, True) for turns in conversations]

    batcher = Batcher(Counting)  # type: ignore[arg-type]
    requests = [
        _Request([user(str(n))], 1.0 if n % 2 else 0.0, 1.0, 8, None, Future()) for n in range(10)
    ]
    for request in requests:
        batcher.ask(request)
    assert [request.reply.result(5).text for request in requests] == [str(n) for n in range(10)]
    assert sizes == [5, 5]
    lost = _Request([user("x")], 7.0, 1.0, 8, None, Future())
    batcher.ask(lost)
    with pytest.raises(ValueError, match="no such temperature"):
        lost.reply.result(5)
