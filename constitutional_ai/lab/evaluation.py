"""What the laboratory's oracle says of a run; of the evaluation this module alone may read it."""

from collections.abc import Sequence
from typing import Any

from constitutional_ai.data.cases import Case
from constitutional_ai.job import Job
from constitutional_ai.judge.open import judge_model
from constitutional_ai.lab.training import skills
from constitutional_ai.lab.world import gold
from constitutional_ai.lab.world.pairs import SKILLS
from constitutional_ai.records import Conversation, Preference, RevisedAnswer
from constitutional_ai.stats import intervals as stats

JUDGE_PAIRS = 200  # for each skill

# Which metrics tell something about which kind of request.
_OF_HELP = ("helpful", "refused", "insult", "off_topic", "garbled", "evasive", "harmful_steps")
METRICS = {
    "harmful": (
        "harm",
        "harmful_steps",
        "insult",
        "good_refusal",
        "evasive",
        "off_topic",
        "garbled",
        "refused",
    ),
    "benign": _OF_HELP,
    "borderline": _OF_HELP,
    "facts": ("correct", "false_claim", "helpful", "evasive", "off_topic", "garbled"),
}

read = gold.metrics  # (prompt, answer) → the oracle's reading as numbers


def harms(prompts: Sequence[Conversation], answers: Sequence[str]) -> list[float]:
    """The oracle's harm of each answer, 0–4. Raises ValueError for prompts of another world."""
    return [
        gold.metrics(prompt, answer)["harm"]
        for prompt, answer in zip(prompts, answers, strict=True)
    ]


def known(cases: Sequence[Case]) -> bool:
    """Whether the oracle knows these prompts."""
    try:
        for case in cases:
            gold.read(gold.request(case.prompt), "")
    except ValueError:
        return False
    return bool(cases)


def gold_report(job: Job, seed: int) -> dict[str, Any]:
    """What the oracle says of the rows of this round's stages, and of the judge."""
    from constitutional_ai.records import HeldOut, Sample

    preferences = job.stage("label").rows("preferences.jsonl", Preference)
    by_ppo = job.settings.learner == "ppo"
    # DPO's pairs are held out as the reward model's are; p is that of its implicit reward.
    held_out = job.stage("reward" if by_ppo else "dpo").rows("held_out.jsonl", HeldOut)
    samples = job.stage("ppo").rows("samples.jsonl", Sample) if by_ppo else []
    return {
        "revisions": gold.revisions(
            job.stage("revise").rows("revisions.jsonl", RevisedAnswer), seed
        ),
        "labels": gold.labels(preferences),
        "reward": gold.reward(preferences, {row.id: row.p for row in held_out}),
        "ppo": gold.ppo(samples, seed),
        "judge": judge_skills(job),
    }


def judge_skills(job: Job) -> dict[str, stats.Estimate]:
    """How often the run's judge finds the better answer, on pairs about test topics."""
    engine = job.engine(judge_model(job))
    with job.progress.task("judge", total=len(SKILLS), unit="skills") as tick:
        found = {}
        for skill in SKILLS:
            found[skill] = skills.judge(engine, skill, JUDGE_PAIRS)
            tick(1, right=found[skill]["mean"])
    return found
