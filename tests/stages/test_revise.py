"""Critique and revision over scripted models: conversations, rows, counts, resume."""

from collections.abc import Sequence

import pytest
from pydantic import ValidationError

from constitutional_ai import prompts as templates
from constitutional_ai.engines.base import Completion, Own, Sampling
from constitutional_ai.engines.scripted import ScriptedEngine
from constitutional_ai.job import Job
from constitutional_ai.judge import gate
from constitutional_ai.principles import Constitution, WorkedRevision
from constitutional_ai.records import Conversation, RevisedAnswer, content_hash
from constitutional_ai.stage_settings import ReviseSettings
from constitutional_ai.stages import revise


def critic(critique: str = "It is rude.", revision: str = "") -> ScriptedEngine:
    """Answers "v0", criticises, revises "v3" to "v4"; or as it is told."""

    def reply(turns: Conversation) -> str:
        if len(turns) == 1:
            return "v0"
        if len(turns) == 3:
            return critique
        return revision or f"v{int(turns[1]['content'][1:]) + 1}"

    return ScriptedEngine(reply)


class Hashing:
    """Every reply is the hash of its conversation and seed, and is cut off in one case of three."""

    name, own = "hashing", Own()

    def __init__(self, fail_at_call: int = 0) -> None:
        self.calls = 0
        self.fail_at_call = fail_at_call

    def generate(
        self, conversations: Sequence[Conversation], sampling: Sampling
    ) -> list[Completion]:
        self.calls += 1
        if self.calls == self.fail_at_call:
            raise KeyboardInterrupt
        texts = [content_hash(turns, sampling.seed) for turns in conversations]
        return [Completion(text, 1, int(text, 16) % 3 > 0) for text in texts]

    def option_logprobs(
        self, conversations: Sequence[Conversation], options: Sequence[str]
    ) -> list[list[float]]:
        raise AssertionError("not asked for here")


def rows(job: Job) -> list[RevisedAnswer]:
    return job.stage("revise").rows("revisions.jsonl", RevisedAnswer)


def test_answers_and_steps_follow_each_other(make_job, constitution: Constitution) -> None:
    job = make_job({"start": critic()}, revise={"prompts": 5, "rounds": 3, "chunk": 2})
    counts = revise.run(job)
    made = rows(job)
    assert counts["rows"] == len(made) == len({row.id for row in made}) == 5
    for row in made:
        assert row.answers == ["v0", "v1", "v2", "v3"]
        assert [step.revision for step in row.steps] == row.answers[1:]
        assert row.messages == [*row.prompt, {"role": "assistant", "content": "v3"}]
        assert (row.model, row.seed, row.constitution) == ("start", 7, constitution.hash)
        for step in row.steps:
            assert step.principle_hash == constitution.principle(step.principle).hash
    assert counts["changed_by_round"] == [1.0, 1.0, 1.0]
    assert counts["clean_by_principle"] == {}


def test_the_model_sees_the_templates(make_job, constitution: Constitution) -> None:
    seen: list[Conversation] = []
    inner = critic()

    class Recording(ScriptedEngine):
        def generate(
            self, conversations: Sequence[Conversation], sampling: Sampling
        ) -> list[Completion]:
            seen.extend(conversations)
            return inner.generate(conversations, sampling)

    job = make_job({"start": Recording(lambda _: "")}, revise={"prompts": 1, "rounds": 1})
    revise.run(job)
    (row,) = rows(job)
    principle = constitution.principle(row.steps[0].principle)
    assert seen == [
        row.prompt,
        templates.critique(row.prompt, "v0", principle),
        templates.revision(row.prompt, "v0", "It is rude.", principle),
    ]


def test_principles_are_drawn_anew_for_each_row_and_round(make_job) -> None:
    job = make_job({"start": critic()}, revise={"prompts": 20, "rounds": 4})
    counts = revise.run(job)
    orders = {tuple(step.principle for step in row.steps) for row in rows(job)}
    assert len(orders) > 5
    assert {name for order in orders for name in order} == {"kind", "safe"}  # "useful" is no critic
    assert sum(counts["steps_by_principle"].values()) == 80


@pytest.mark.parametrize("stop", [True, False])
def test_a_clean_critique_stops_a_row_if_so_set(make_job, stop: bool) -> None:
    settings = {"prompts": 4, "rounds": 3, "stop_when_clean": stop}
    scripts = {"lab:s": critic("I find no issues with the response.")}
    job = make_job(scripts, model={"path": "lab:s"}, revise=settings)
    counts = revise.run(job)
    for row in rows(job):
        assert row.answers == (["v0", "v0"] if stop else ["v0", "v1", "v2", "v3"])
        assert all(step.clean for step in row.steps)
        assert len(row.steps) == len(row.answers) - 1
    assert counts["changed_by_round"] == ([0.0] if stop else [1.0, 1.0, 1.0])
    assert sum(counts["clean_by_principle"].values()) == (4 if stop else 12)


def test_rows_stop_one_by_one(make_job) -> None:
    def reply(turns: Conversation) -> str:
        number = int(turns[0]["content"].split()[-1])
        if len(turns) == 1:
            return "0"
        done = int(turns[1]["content"])
        if len(turns) == 3:
            return "Nothing wrong." if done >= number % 3 else "It is wrong."
        return str(done + 1)

    settings = {"prompts": 30, "rounds": 4, "stop_when_clean": True}
    scripts = {"lab:s": ScriptedEngine(reply)}
    job = make_job(scripts, model={"path": "lab:s"}, revise=settings)
    counts = revise.run(job)
    for row in rows(job):
        last = int(row.prompt[0]["content"].split()[-1]) % 3
        assert row.answers == [*map(str, range(last + 1)), str(last)]
    assert counts["changed_by_round"] == pytest.approx([2 / 3, 1 / 3, 0])


def test_an_empty_revision_keeps_the_answer_and_is_counted(make_job) -> None:
    job = make_job({"start": critic(revision=" \n")}, revise={"prompts": 3, "rounds": 2})
    counts = revise.run(job)
    assert (counts["kept"], counts["rejected"]) == (0, {gate.EMPTY: 6})
    for row in rows(job):
        assert row.answers == ["v0", "v0", "v0"]
        assert [step.revision for step in row.steps] == [" \n", " \n"]


def test_cut_off_texts_are_counted(make_job) -> None:
    settings = {"prompts": 3, "rounds": 2, "chunk": 2, "max_new_tokens": 2}
    job = make_job({"start": critic("It is so rude.")}, revise=settings)
    assert revise.run(job)["unfinished"] == 6  # each critique has four words


def test_a_run_that_was_interrupted_ends_with_the_same_bytes(make_job) -> None:
    settings = {"prompts": 10, "rounds": 2, "chunk": 4}
    whole = make_job({"start": Hashing()}, "whole", revise=settings)
    expected = revise.run(whole)
    assert 0 < expected["unfinished"] < 50

    # Five calls a chunk: the eighth is in the middle of chunk 2.
    broken = make_job({"start": Hashing(fail_at_call=8)}, "broken", revise=settings)
    with pytest.raises(KeyboardInterrupt):
        revise.run(broken)
    file = broken.stage("revise").path / "revisions.jsonl"
    lines = (whole.stage("revise").path / "revisions.jsonl").read_bytes().splitlines(keepends=True)
    assert file.read_bytes() == b"".join(lines[:4])

    # A kill within the write leaves a part of the chunk, and a torn line.
    file.write_bytes(b"".join(lines[:6]) + lines[6][:25])
    again = make_job({"start": Hashing()}, "broken", revise=settings)
    assert revise.run(again) == expected
    assert file.read_bytes() == b"".join(lines)


def test_a_later_round_starts_from_the_round_before(make_job) -> None:
    settings = {"prompts": 3, "rounds": 1}
    scripts = {"start": critic(), "r1/6-ppo/model": critic(revision="from round one")}
    first = make_job(scripts, rounds=2, revise=settings)
    second = make_job(scripts, round=2, rounds=2, revise=settings)
    revise.run(first)
    revise.run(second)
    assert {row.model for row in rows(second)} == {"r1/6-ppo/model"}
    assert rows(second)[0].answers[-1] == "from round one"
    assert not {row.id for row in rows(first)} & {row.id for row in rows(second)}


def test_another_critic_criticises_and_rewrites_but_does_not_answer(make_job) -> None:
    asked: list[Conversation] = []

    def answers(turns: Conversation) -> str:
        assert len(turns) == 1
        return "v0"

    def judges(turns: Conversation) -> str:
        asked.append(turns)
        return critic(revision="from the critic").generate([turns], Sampling())[0].text

    scripts = {"start": ScriptedEngine(answers), "http://x/v1#critic": ScriptedEngine(judges)}
    settings = {"prompts": 4, "rounds": 2, "critic": "http://x/v1#critic"}
    job = make_job(scripts, revise=settings)
    revise.run(job)
    for row in rows(job):
        assert row.answers == ["v0", "from the critic", "from the critic"]
        assert row.model == "start" and row.critic == "http://x/v1#critic"
    assert all(len(turns) > 1 for turns in asked) and len(asked) == 4 * 4
    alone = make_job({"start": critic()}, "alone", revise={"prompts": 4, "rounds": 2})
    revise.run(alone)
    assert {row.critic for row in rows(alone)} == {""}
    assert not {row.id for row in rows(alone)} & {row.id for row in rows(job)}


def test_worked_examples_stand_before_critique_and_revision_only(
    make_job, constitution: Constitution
) -> None:
    seen: list[Conversation] = []

    def reply(turns: Conversation) -> str:
        seen.append(turns)
        return f"reply {len(seen)}"

    worked = WorkedRevision(prompt="P", answer="A", critique="C", revision="R")
    job = make_job({"start": ScriptedEngine(reply)}, revise={"prompts": 1, "rounds": 1})
    job.constitution = constitution.model_copy(update={"exemplars": (worked, worked)})
    job.settings = job.settings.model_copy(
        update={"revise": job.settings.revise.model_copy(update={"exemplars": 1})}
    )
    revise.run(job)
    (row,) = rows(job)
    principle = constitution.principle(row.steps[0].principle)
    named = constitution.principle
    assert seen == [
        row.prompt,
        templates.DIALOGUE.worked(worked, principle, named, "critique")
        + templates.critique(row.prompt, row.answers[0], principle),
        templates.DIALOGUE.worked(worked, principle, named, "revision")
        + templates.revision(row.prompt, row.answers[0], row.steps[0].critique, principle),
    ]


def test_without_a_critique_the_rewrite_is_asked_for_directly(
    make_job, constitution: Constitution
) -> None:
    seen: list[Conversation] = []

    def reply(turns: Conversation) -> str:
        seen.append(turns)
        return "v0" if len(turns) == 1 else f"v{int(turns[1]['content'][1:]) + 1}"

    job = make_job(
        {"start": ScriptedEngine(reply)}, revise={"prompts": 3, "rounds": 2, "critique": False}
    )
    counts = revise.run(job)
    assert {len(turns) for turns in seen} == {1, 3}  # no turn that criticises
    asked = {turns[2]["content"] for turns in seen if len(turns) == 3}
    assert asked <= {principle.revision_prompt for principle in constitution.principles}
    for row in rows(job):
        assert row.answers == ["v0", "v1", "v2"]
        assert [(step.critique, step.clean) for step in row.steps] == [("", False)] * 2
    assert counts["rows"] == 3


def test_a_rewrite_without_critique_cannot_stop_when_it_is_clean() -> None:
    with pytest.raises(ValidationError, match="stop_when_clean reads critiques"):
        ReviseSettings(critique=False, stop_when_clean=True)
