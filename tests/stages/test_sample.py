"""Pairs from a scripted SL-CAI model: seeds, swaps, counts, resume."""

from collections.abc import Sequence

import pytest

from constitutional_ai.data.prompts import load_prompts
from constitutional_ai.engines.base import Completion, Sampling
from constitutional_ai.engines.scripted import ScriptedEngine
from constitutional_ai.job import Job
from constitutional_ai.records import Conversation, Pair, Prompt, user
from constitutional_ai.stages import sample
from constitutional_ai.store.seeds import derive_seed

MODEL = "2-finetune/model"


class Seeded(ScriptedEngine):
    """Replies with the request and the seed; keeps the seeds that it was called with."""

    def __init__(self, fail_at_call: int = 0) -> None:
        super().__init__(lambda turns: turns[-1]["content"])
        self.seeds: list[int] = []
        self.fail_at_call = fail_at_call

    def generate(
        self, conversations: Sequence[Conversation], sampling: Sampling
    ) -> list[Completion]:
        self.seeds.append(sampling.seed)
        if len(self.seeds) == self.fail_at_call:
            raise KeyboardInterrupt
        made = super().generate(conversations, sampling)
        return [Completion(f"{m.text} / {sampling.seed}", m.tokens, m.finished) for m in made]


def rows(job: Job) -> list[Pair]:
    return job.stage("sample").rows("pairs.jsonl", Pair)


def request(row: Pair) -> str:
    return row.prompt[-1]["content"]


def test_two_answers_of_different_seeds_to_prompts_of_both_sets(make_job) -> None:
    engine = Seeded()
    settings = {"red_team": 12, "helpful": 8, "swapped": 0.0, "chunk": 7}
    job = make_job({MODEL: engine}, sample=settings)
    counts = sample.run(job)
    made = rows(job)
    assert counts["rows_by_set"] == {"helpful": 8, "red-team": 12}
    assert len(made) == len({row.id for row in made}) == 20
    assert len(set(engine.seeds)) == 6  # two for each of three chunks
    for row in made:
        assert row.answers[0] != row.answers[1]
        assert all(answer.startswith(f"{request(row)} / ") for answer in row.answers)
        assert request(row).startswith("red_team" if row.set == "red-team" else "helpful")
        assert (row.model, row.seed) == (MODEL, 7)
    assert counts["identical"] == counts["swapped"] == 0
    assert {row.set for row in made[:7]} == {"red-team", "helpful"}  # mixed within a chunk


def test_a_swapped_answer_was_given_to_another_prompt_of_the_chunk(make_job) -> None:
    settings = {"red_team": 30, "helpful": 30, "swapped": 0.4, "chunk": 20}
    job = make_job({MODEL: Seeded()}, sample=settings)
    counts = sample.run(job)
    made = rows(job)
    swapped = [
        (number, row)
        for number, row in enumerate(made)
        if not row.answers[1].startswith(f"{request(row)} / ")
    ]
    assert len(swapped) == counts["swapped"]
    assert 12 <= len(swapped) <= 36  # 24 expected, ± 3 standard deviations
    for number, row in swapped:
        chunk = made[number - number % 20 : number - number % 20 + 20]
        assert row.answers[1] in {other.answers[0] for other in chunk}
        assert row.answers[0].startswith(f"{request(row)} / ")


def test_swaps_need_another_prompt() -> None:
    prompts = [Prompt(id=str(n), prompt=[user("the same")], set="helpful") for n in range(5)]
    assert sample.swaps(prompts, 1.0, seed=0) == {}
    prompts.append(Prompt(id="5", prompt=[user("another")], set="helpful"))
    assert sample.swaps(prompts, 1.0, seed=0) == {
        **dict.fromkeys(range(5), 5),
        5: pytest.approx(2, abs=2),
    }
    assert sample.swaps(prompts, 0.0, seed=0) == {}


def test_identical_and_cut_off_answers_are_counted_and_kept(make_job) -> None:
    engine = ScriptedEngine(lambda _: "one two three")
    settings = {"red_team": 4, "helpful": 0, "max_new_tokens": 2, "swapped": 0.0}
    job = make_job({MODEL: engine}, sample=settings)
    counts = sample.run(job)
    assert (counts["rows"], counts["identical"], counts["unfinished"]) == (4, 4, 8)
    assert rows(job)[0].answers == ("one two", "one two")


def test_prompts_are_other_ones_than_those_revised(make_job) -> None:
    job = make_job({MODEL: Seeded()}, sample={"red_team": 10, "helpful": 0})
    sample.run(job)
    source = job.settings.prompts.red_team
    revised = load_prompts(source, "red-team", 10, derive_seed(job.settings.seed, "revise", 1))
    assert {request(row) for row in rows(job)} != {p.prompt[-1]["content"] for p in revised}


def test_a_run_that_was_interrupted_ends_with_the_same_bytes(make_job) -> None:
    settings = {"red_team": 9, "helpful": 9, "swapped": 0.3, "chunk": 7}
    whole = make_job({MODEL: Seeded()}, "whole", sample=settings)
    expected = sample.run(whole)
    broken = make_job({MODEL: Seeded(fail_at_call=4)}, "broken", sample=settings)
    with pytest.raises(KeyboardInterrupt):
        sample.run(broken)
    assert len(rows(broken)) == 7
    again = make_job({MODEL: Seeded()}, "broken", sample=settings)
    assert sample.run(again) == expected
    files = [job.stage("sample").path / "pairs.jsonl" for job in (whole, again)]
    assert files[0].read_bytes() == files[1].read_bytes()


def test_helpful_prompts_are_refused_in_the_models_own_words() -> None:
    red = [
        Prompt(id=f"r{n}", prompt=[user(f"Harm {n}")], set="red-team", kind="") for n in range(3)
    ]
    good = [
        Prompt(id=f"h{n}", prompt=[user(f"Help {n}")], set="helpful", kind="") for n in range(60)
    ]
    firsts = [
        Completion("I will not help you harm 0, because it hurts.", 9, True),
        Completion("Sure, here is how.", 5, True),  # complied: nothing to begin with
        Completion("I cannot help you to harm 2.", 9, True),
        *[Completion("Sure.", 2, True)] * 60,
    ]
    asked: list[Conversation] = []

    def ask(conversations: Sequence[Conversation]) -> list[Completion]:
        asked.extend(conversations)
        return [Completion(" do that.", 3, False) for _ in conversations]

    found = sample.over_refusals([*red, *good], firsts, ask, 0.4, seed=3)
    assert 10 < len(found) < 40 and min(found) >= 3
    openings = {"I will not help you", "I cannot help you to"}
    assert {turns[-1]["content"] for turns in asked} == openings
    for (row, reply), turns in zip(found.items(), asked, strict=True):
        assert turns[:-1] == good[row - 3].prompt
        assert reply.text == turns[-1]["content"] + " do that." and not reply.finished
    again = sample.over_refusals([*red, *good], firsts, ask, 0.4, seed=3)
    assert again == found  # by the ids alone
    assert not sample.over_refusals(good, firsts[3:], ask, 1.0, seed=3)  # nothing was refused
