"""Stage 3: two answers a prompt from the SL-CAI model, to be compared (paper, section 4.1).

Red-team and helpful prompts, mixed. In a share of the pairs (``swapped``) the second answer is one
that was given to another prompt: answers beside the point stay in the reward model's sight, or RL
would find them. In another share (``refused``) the second answer to a helpful prompt begins with
words in which the model has just refused a red-team prompt, and goes on by itself: SL-CAI hardly
ever refuses what is harmless, so the reward model would see refusals only where they are right,
and RL would learn to refuse. The judge labels all pairs alike. Rows are Pair.
"""

import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from constitutional_ai.data.prompts import load_prompts
from constitutional_ai.engines.ask import asker, used
from constitutional_ai.engines.base import Completion
from constitutional_ai.job import Job, model_name
from constitutional_ai.records import Conversation, Pair, Prompt, assistant, content_hash
from constitutional_ai.refusal import refuses
from constitutional_ai.store import failures
from constitutional_ai.store.chunks import in_chunks
from constitutional_ai.store.failures import Failed
from constitutional_ai.store.seeds import derive_seed
from constitutional_ai.store.tally import Tally

NAME = "sample"
FILE = "pairs.jsonl"
OPENING_WORDS = 5  # of a refusal that the model goes on from

Ask = Callable[[Sequence[Conversation]], list[Completion]]


def run(job: Job) -> dict[str, Any]:
    """Write pairs.jsonl; the counts of the manifest."""
    settings, folder = job.settings.sample, job.stage(NAME)
    model = job.stage("finetune").path / "model"
    engine, name = job.engine(model), model_name(job, model)
    stage_seed = derive_seed(job.settings.seed, NAME, job.round)
    prompts = mixed_prompts(job, stage_seed)
    made_by = (NAME, stage_seed, name, settings.identity())
    tally = Tally(folder)

    def pair(prompt: Prompt, one: Completion, two: Completion) -> Pair | Failed:
        for answer in (one, two):
            if answer.failed:
                return Failed(id=prompt.id, reason=answer.failed, unfit=answer.unfit)
        return Pair(
            id=content_hash(prompt.set, prompt.id, *made_by),
            prompt=prompt.prompt,
            set=prompt.set,
            answers=(one.text, two.text),
            model=name,
            seed=job.settings.seed,
            constitution=job.constitution.hash,
            cut=not (one.finished and two.finished),
        )

    def work(chunk: Sequence[Prompt], chunk_seed: int) -> list[Pair | Failed]:
        counts: Counter[str] = Counter()
        ask = asker(engine, settings, chunk_seed, counts)
        firsts, seconds = (ask([prompt.prompt for prompt in chunk]) for _ in range(2))
        refused = over_refusals(chunk, firsts, ask, settings.refused, stage_seed)
        seconds = [refused.get(row, second) for row, second in enumerate(seconds)]
        failed = [one.failed or two.failed for one, two in zip(firsts, seconds, strict=True)]
        answered = [row for row, reason in enumerate(failed) if not reason]
        swapped = swaps([chunk[row] for row in answered], settings.swapped, stage_seed)
        donors = {answered[row]: answered[donor] for row, donor in swapped.items()}
        donors = {row: donor for row, donor in donors.items() if row not in refused}
        tally.keep(chunk_seed, {**counts, "swapped": len(donors), "refused": len(refused)})
        seconds = [firsts[donors[row]] if row in donors else two for row, two in enumerate(seconds)]
        return [pair(*of_row) for of_row in zip(chunk, firsts, seconds, strict=True)]

    with job.progress.task(NAME, total=len(prompts), unit="pairs") as tick:
        may_fail = job.settings.http.max_failed
        rows = in_chunks(folder, FILE, prompts, settings.chunk, work, tick, Pair, may_fail)
    return {
        "rows": len(rows),
        "rows_by_set": dict(sorted(Counter(row.set for row in rows).items())),
        "cut": sum(row.cut for row in rows),
        "identical": sum(row.answers[0] == row.answers[1] for row in rows),
        "empty_answers": sum(not answer.strip() for row in rows for answer in row.answers),
        **tally.total("swapped", "refused", "unfinished"),
        **used(engine, settings),
        **failures.counts(folder.path, FILE, len(prompts) - len(rows)),
    }


def mixed_prompts(job: Job, seed: int) -> list[Prompt]:
    """The prompts of both sets in a random order, so that every chunk holds some of each."""
    settings, sources = job.settings.sample, job.settings.prompts
    prompts = [
        *load_prompts(sources.red_team, "red-team", settings.red_team, seed),
        *load_prompts(sources.helpful, "helpful", settings.helpful, seed),
    ]
    random.Random(seed).shuffle(prompts)
    return prompts


def over_refusals(
    prompts: Sequence[Prompt],
    answers: Sequence[Completion],
    ask: Ask,
    share: float,
    seed: int,
) -> dict[int, Completion]:
    """Refusals of helpful prompts, by row: the opening is that of a refusal among ``answers``.

    Each helpful row is chosen with probability ``share``, by its id alone. None if the model
    refused no red-team prompt.
    """
    openings = [
        " ".join(answer.text.split()[:OPENING_WORDS])
        for prompt, answer in zip(prompts, answers, strict=True)
        if prompt.set == "red-team" and refuses(answer.text)
    ]
    chosen: dict[int, str] = {}
    for row, prompt in enumerate(prompts):
        rng = random.Random(content_hash("refuse", seed, prompt.id))
        if openings and prompt.set == "helpful" and rng.random() < share:
            chosen[row] = rng.choice(openings)
    replies = ask([[*prompts[row].prompt, assistant(text)] for row, text in chosen.items()])
    return {
        row: replace(reply, text=opening + reply.text)
        for (row, opening), reply in zip(chosen.items(), replies, strict=True)
    }


def swaps(prompts: Sequence[Prompt], share: float, seed: int) -> dict[int, int]:
    """Rows whose second answer is taken from elsewhere, each with the row that it is taken from.

    Each row is chosen with probability ``share``, by its id alone. A row stays as it is if every
    other prompt is the same as its own.
    """
    chosen: dict[int, int] = {}
    for row, prompt in enumerate(prompts):
        rng = random.Random(content_hash("swap", seed, prompt.id))
        if rng.random() >= share:
            continue
        others = [i for i, other in enumerate(prompts) if other.prompt != prompt.prompt]
        if others:
            chosen[row] = rng.choice(others)
    return chosen
