"""Completions that failed cost their row, and nothing else: not counted, not trained on, listed."""

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from constitutional_ai.engines.base import Completion, Sampling
from constitutional_ai.engines.local import LocalEngine
from constitutional_ai.engines.scripted import ScriptedEngine
from constitutional_ai.errors import RowsFailed
from constitutional_ai.records import Conversation, HelpfulAnswer, Pair, RevisedAnswer
from constitutional_ai.stages import finetune, revise, sample
from constitutional_ai.store import failures

MODEL = "2-finetune/model"


class Failing(ScriptedEngine):
    """Fails at the given turn (1, 3, 5: answer, critique, revision) of the requests numbered so."""

    def __init__(self, turn: int, numbers: Sequence[int], call: int = 0) -> None:
        super().__init__(lambda turns: f"reply {len(turns)} to {turns[0]['content']}")
        self.turn, self.numbers, self.call = turn, set(numbers), call
        self.calls = 0
        self.asked = 0

    def generate(
        self, conversations: Sequence[Conversation], sampling: Sampling
    ) -> list[Completion]:
        self.calls += 1
        self.asked += len(conversations)
        replies = super().generate(conversations, sampling)
        return [
            Completion("", 0, False, failed="HTTP 500") if self._fails(turns) else reply
            for turns, reply in zip(conversations, replies, strict=True)
        ]

    def _fails(self, turns: Conversation) -> bool:
        number = int(turns[0]["content"].split()[-1])
        return len(turns) == self.turn and number in self.numbers and self.call in (0, self.calls)


@pytest.mark.parametrize("turn", [1, 3, 5])
def test_a_row_fails_wherever_it_fails_and_is_asked_for_no_more(make_job, turn: int) -> None:
    settings = {"prompts": 30, "rounds": 2, "chunk": 8}
    engine = Failing(turn, [3, 11])
    job = make_job({"start": engine}, revise=settings, http={"max_failed": 0.1})
    counts = revise.run(job)
    rows = job.stage("revise").rows("revisions.jsonl", RevisedAnswer)
    spoken = {row.prompt[0]["content"] for row in rows}
    listed = failures.read(job.stage("revise").path)
    assert len(rows) == len(spoken) == counts["rows"] == 28
    assert counts["failed"] == len(listed) == 2 and counts["unfinished"] == 0
    assert not spoken & {f"red_team request {n}" for n in (3, 11)}
    assert all(len(row.steps) == 2 and all(row.answers) for row in rows)
    asked_in_vain = {1: 1, 3: 2, 5: 3}[turn]
    assert engine.asked == 5 * 28 + asked_in_vain * 2


def test_too_many_failures_stop_the_stage_and_are_tried_again(make_job) -> None:
    settings = {"prompts": 30, "rounds": 1, "chunk": 8}
    job = make_job({"start": Failing(3, range(10))}, revise=settings)
    with pytest.raises(
        RowsFailed, match=r"10 of 30 rows failed \(10: HTTP 500\).*http\.max_failed"
    ):
        revise.run(job)
    assert len(job.stage("revise").rows("revisions.jsonl", RevisedAnswer)) == 20
    again = make_job({"start": Failing(3, [])}, revise=settings)
    counts = revise.run(again)
    assert counts["rows"] == 30 and "failed" not in counts
    assert again.engine("start").asked == 30  # three replies for each of the ten


def test_a_pair_with_one_answer_is_none_and_gives_none_away(make_job) -> None:
    settings = {"red_team": 30, "helpful": 0, "swapped": 1.0, "chunk": 30}
    engine = Failing(1, [5], call=1)
    job = make_job({MODEL: engine}, sample=settings, http={"max_failed": 0.1})
    counts = sample.run(job)
    rows = job.stage("sample").rows("pairs.jsonl", Pair)
    assert (counts["rows"], counts["failed"], counts["swapped"]) == (29, 1, 29)
    assert all(all(row.answers) for row in rows)
    assert "red_team request 5" not in {row.prompt[0]["content"] for row in rows}
    assert counts["empty_answers"] == counts["unfinished"] == 0


def test_helpful_answers_that_failed_are_not_learnt(make_job) -> None:
    job = make_job(
        {"start": Failing(1, [2, 4])}, finetune={"helpful": 30}, http={"max_failed": 0.1}
    )
    rows = finetune.answer_helpful_prompts(job)
    assert rows == job.stage("finetune").rows("helpful.jsonl", HelpfulAnswer)
    assert len(rows) == 28 and len(failures.read(job.stage("finetune").path)) == 2
    assert all(row.finished and row.answer for row in rows)


@pytest.mark.parametrize("stage", ["revise", "sample", "finetune"])
def test_a_prompt_longer_than_a_local_models_context_stops_no_stage(
    make_job, tiny_llama: Path, tmp_path: Path, stage: str
) -> None:
    """One in thirty, with max_failed at its 1%."""
    engine = LocalEngine.load(tiny_llama, device="cpu")
    few = {"max_new_tokens": 4}
    tables = {
        "revise": {"prompts": 30, "rounds": 1, "chunk": 8, **few},
        "sample": {"red_team": 30, "helpful": 0, "chunk": 8, **few},
        "finetune": {"helpful": 30},
    }
    job = make_job({"start": engine, MODEL: engine}, **tables)
    long = json.dumps({"prompt": "word " * 300})
    for name in ("red_team", "helpful"):
        path = tmp_path / f"{name}.jsonl"
        path.write_text("\n".join([long, *path.read_text().splitlines()[1:]]))
    if stage == "finetune":
        job.stage("finetune").claim({})
        rows = len(finetune.answer_helpful_prompts(job))
        counts = failures.counts(job.stage("finetune").path, "helpful.jsonl", 30 - rows)
    else:
        counts = {"revise": revise, "sample": sample}[stage].run(job)
        rows = counts["rows"]
    assert (rows, counts["failed"], counts["unfit"]) == (29, 1, 1)
    (reason,) = counts["failed_by_reason"]
    assert "leaves no room for an answer in this model's context of 256" in reason
    (line,) = failures.read(job.stage(stage).path)
    assert line.unfit and line.reason == reason
