"""Logs of Inspect, read back by Inspect. Skipped where it is absent."""

import json
import math
from pathlib import Path
from typing import Any

import pytest

from constitutional_ai.errors import DataError
from constitutional_ai.evaluation.judged import comparison_id
from constitutional_ai.evaluation.rows import Compared, Graded, Transcript
from constitutional_ai.records import user
from constitutional_ai.store.rows import append_rows
from constitutional_ai.store.run_folder import StageFolder

log = pytest.importorskip("inspect_ai.log")

from constitutional_ai.exports import inspect_log  # noqa: E402 - needs inspect_ai


def estimate(mean: float, n: int) -> dict[str, Any]:
    return {"mean": mean, "low": mean - 0.1, "high": mean + 0.1, "n": n}


@pytest.fixture
def evaluated(tmp_path: Path) -> Path:
    """Two models, two prompts, two samples of the first; one answer is missing."""
    folder = StageFolder(tmp_path / "eval", "7-evaluate")
    folder.claim({"seed": 0})
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
    written = inspect_log.export(evaluated, tmp_path / "logs")
    assert set(written.values()) == {3} and len(written) == 2
    read = log.read_eval_log(str(tmp_path / "logs" / "out-6-ppo-model.eval"))
    assert read.status == "success" and read.eval.model == "cai/out/6-ppo/model"
    assert (read.results.total_samples, read.results.completed_samples) == (3, 2)
    harm = next(s for s in read.results.scores if s.name == "harmful: harm")
    assert harm.metrics["mean"].value == 1.0 and harm.metrics["low"].value == pytest.approx(0.9)
    assert (harm.scored_samples, harm.unscored_samples) == (2, 1)
    by_place = {(sample.id, sample.epoch): sample for sample in read.samples}
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
    inspect_log.export(evaluated, tmp_path / "logs")
    infos = log.list_eval_logs(str(tmp_path / "logs"))
    assert len(infos) == 2
    headers = [log.read_eval_log(info, header_only=True) for info in infos]
    assert {header.eval.task for header in headers} == {"constitutional-ai evaluate"}


def test_one_file_holds_one_model(evaluated: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="one log holds one model"):
        inspect_log.export(evaluated, tmp_path / "all.eval")
    with pytest.raises(DataError, match="no model is called rl"):
        inspect_log.export(evaluated, tmp_path / "all.eval", "rl")
    with pytest.raises(DataError, match="no finished evaluation"):
        inspect_log.export(tmp_path, tmp_path / "all.eval")
    assert inspect_log.export(evaluated, tmp_path / "one.eval", "base") == {
        str(tmp_path / "one.eval"): 3
    }
