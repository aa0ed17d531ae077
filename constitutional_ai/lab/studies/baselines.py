"""Baselines of the comparison that know the truth, and say so: they stand in for people.

    revise.critic = "oracle:demonstrations"   ideal answers, as a careful person would write them
    label.judge   = "oracle:noise=0.25"       the better answer by the oracle, 25% of them wrong

Only a study's variants have these settings; `cai run` knows no model of these names. The stage's
fingerprint and every row carry the name, so no such run passes for one without people.
"""

import random
import re
from collections.abc import Sequence
from pathlib import Path

from constitutional_ai.data.prompts import load_prompts
from constitutional_ai.job import Job
from constitutional_ai.lab.world import answers, gold
from constitutional_ai.lab.world import topics as world
from constitutional_ai.principles import load_constitution
from constitutional_ai.progress import Progress
from constitutional_ai.records import (
    Pair,
    Preference,
    RevisedAnswer,
    RevisionStep,
    assistant,
    content_hash,
)
from constitutional_ai.settings import Settings
from constitutional_ai.stages.pipeline import Step, fingerprints
from constitutional_ai.store.rows import append_rows
from constitutional_ai.store.run_folder import RunFolder
from constitutional_ai.store.seeds import derive_seed

DEMONSTRATIONS = "oracle:demonstrations"
NOISY = re.compile(r"oracle:noise=(0?\.\d+|0)")


def stands_in(settings: Settings, stage: str) -> bool:
    """Whether the oracle makes a stage of these settings, and no model."""
    if stage == "revise":
        return settings.revise.critic == DEMONSTRATIONS
    return stage == "label" and NOISY.fullmatch(settings.label.judge) is not None


def make(settings: Settings, folder: Path, step: Step, progress: Progress) -> None:
    """The stage, finished like any other. Rows of a killed start are deleted first."""
    constitution = load_constitution(settings.constitution)
    with RunFolder(folder, settings.rounds, settings.seed, settings.learner).locked() as run:
        prints = fingerprints(settings, constitution, run.plan())
        place = run.stage(*step)
        place.claim(prints[step])
        job = Job(settings, constitution, run, step[1], progress)
        file, rows = demonstrations(job) if step[0] == "revise" else noisy_labels(job)
        (place.path / file).unlink(missing_ok=True)
        append_rows(place.path / file, rows)
        place.finish({"rows": len(rows), "baseline": True})


def demonstrations(job: Job) -> tuple[str, Sequence[RevisedAnswer]]:
    """The revise stage's prompts, each with an ideal answer in place of the last revision."""
    settings = job.settings
    seed = derive_seed(settings.seed, "revise", job.round)
    rows = []
    for prompt in load_prompts(
        settings.prompts.red_team, "red-team", settings.revise.prompts, seed
    ):
        text = prompt.prompt[-1]["content"]
        request = world.Request(world.topic_of(text), text, world.asked_in(text).split(" ", 1)[1])
        rng = random.Random(content_hash("demonstration", seed, prompt.id))
        said = answers.ideal(request, rng).text()
        step = RevisionStep(
            principle="", principle_hash="", critique="", revision=said, clean=False
        )
        rows.append(
            RevisedAnswer(
                id=content_hash(prompt.id, DEMONSTRATIONS, seed),
                prompt=prompt.prompt,
                answers=["", said],
                steps=[step],
                messages=[*prompt.prompt, assistant(said)],
                constitution=job.constitution.hash,
                model=settings.model.path,
                seed=settings.seed,
                critic=DEMONSTRATIONS,
            )
        )
    return "revisions.jsonl", rows


def noisy_labels(job: Job) -> tuple[str, Sequence[Preference]]:
    """The better answer of each pair by the oracle, a share of the verdicts wrong by chance.

    Equal answers get either verdict, as from a person who has to choose. A person's label is 1.
    """
    match = NOISY.fullmatch(job.settings.label.judge)
    assert match
    noise, seed = float(match[1]), derive_seed(job.settings.seed, "label", job.round)
    pairs = job.stage("sample").rows("pairs.jsonl", Pair)
    rows = []
    for pair in pairs:
        rng = random.Random(content_hash("noisy label", seed, pair.id))
        first, second = pair.answers
        gap = gold.gap(gold.OVERALL, pair.prompt, first, second) or rng.choice((-1.0, 1.0))
        if (gap < 0) != (rng.random() < noise):
            first, second = second, first
        rows.append(_preference(job, pair, first, second))
    return "preferences.jsonl", rows


def _preference(job: Job, pair: Pair, chosen: str, rejected: str) -> Preference:
    judge = job.settings.label.judge
    return Preference(
        id=content_hash(pair.id, judge, job.settings.seed),
        prompt=pair.prompt,
        set=pair.set,
        chosen=[assistant(chosen)],
        rejected=[assistant(rejected)],
        p_chosen=1.0,
        by_principle={},
        by_order=None,
        principle_hashes={},
        constitution=job.constitution.hash,
        judge=judge,
        seed=job.settings.seed,
        mode="hard",
        p_soft=1.0,
        chosen_model=pair.model,
        rejected_model=pair.model,
    )
