"""Stage 6: RL-CAI. PPO from the SL-CAI model against the reward model (paper, section 4.2).

Beside the prompts that are trained on, some of the same sources are set apart for the monitor,
which asks the judge whether answers to them get better (monitor/ppo.py).
"""

from collections.abc import Sequence
from typing import Any

from constitutional_ai.data.prompts import load_prompts
from constitutional_ai.job import Job, model_name
from constitutional_ai.judge.judge import Comparison, Verdict
from constitutional_ai.judge.open import seated
from constitutional_ai.learning import ppo
from constitutional_ai.learning.fitting import fitting
from constitutional_ai.learning.lora import training_dtype
from constitutional_ai.learning.policy import Policy
from constitutional_ai.learning.reward import Ensemble, Reward
from constitutional_ai.learning.reward_model import RewardModel
from constitutional_ai.monitor.ppo import Compare, Probe
from constitutional_ai.records import Prompt, PromptSet, content_hash
from constitutional_ai.stages.finetune import sft_examples
from constitutional_ai.store.seeds import derive_seed

NAME = "ppo"


def run(job: Job) -> dict[str, Any]:
    """Write the model, metrics.jsonl, samples.jsonl, monitor.jsonl; the counts of the manifest."""
    settings, folder = job.settings.ppo, job.stage(NAME).path
    seed = derive_seed(job.settings.seed, NAME, job.round)
    drawn, watched_prompts = draw_prompts(job, seed)
    start, options = job.stage("finetune").path / "model", job.settings.model
    policy = Policy.to_train(start, options)
    prompts, apart = (that_fit(job, policy, some) for some in (drawn, watched_prompts))
    watched = settings.monitor != "off" and len(apart) > 0
    inputs = ppo.Inputs(
        policy=policy,
        reward=reward_of(job, str(policy.device)),
        prompts=prompts,
        settings=settings,
        folder=folder,
        seed=seed,
        probe=Probe(apart, judge_of(job, seed)) if watched else None,
        examples=sft_examples(job, policy.tokens, policy.context) if settings.sl_mix else (),
    )
    with job.progress.task(NAME, total=settings.steps, unit="steps") as tick:
        outcome = ppo.train(inputs, tick, job.progress.note)
    policy.save_adapter(folder / "adapter", model_name(job, start))
    policy.merge()
    policy.save_pretrained(folder / "model")
    if outcome.stopped:
        back = (
            ""
            if outcome.restored is None
            else f"; the weights are those of step {outcome.restored}"
        )
        job.progress.note(f"PPO stopped after {outcome.steps} steps: {outcome.stopped}{back}")
    return {
        "steps": outcome.steps,
        "prompts": len(prompts),
        "monitor_prompts": len(apart) if watched else 0,
        "too_long": len(drawn) - len(prompts) + len(watched_prompts) - len(apart),
        "stopped": outcome.stopped,
        "restored_step": outcome.restored,
        "warnings": outcome.warnings,
    }


def that_fit(job: Job, policy: Policy, prompts: Sequence[Prompt]) -> list[Prompt]:
    """The prompts that leave room for a whole answer and, if that is cut off, its end token."""
    answer = job.settings.ppo.max_new_tokens + 1
    named = [(repr(prompt.prompt[-1]["content"][:40]), prompt) for prompt in prompts]
    fit = fitting(
        named,
        lambda prompt: len(policy.tokens.prompt(prompt.prompt)) + answer,
        policy.context,
        job.progress.note,
    )
    return [prompt for _, prompt in fit]


def reward_of(job: Job, device: str) -> Reward:
    """The reward model, or the ensemble if the reward stage made several."""
    folder, dtype = job.stage("reward").path, training_dtype(job.settings.model)
    members = [RewardModel.load(folder / "model", device, dtype)]
    for number in range(2, job.settings.reward.ensemble + 1):
        members.append(RewardModel.load(folder / f"model-{number}", device, dtype))
    if len(members) == 1:
        return members[0]
    return Ensemble(members, job.settings.ppo.ensemble)


def draw_prompts(job: Job, seed: int) -> tuple[list[Prompt], list[Prompt]]:
    """Prompts to train on, and the monitor's, half of each set; they have no text in common.

    Of a small prompts file the monitor takes a fifth at most.
    """
    settings, sources = job.settings.ppo, job.settings.prompts
    red = round(settings.prompts * settings.red_team_share)
    trained: list[Prompt] = []
    apart: list[Prompt] = []
    wanted: tuple[tuple[str, PromptSet, int], ...] = (
        (sources.red_team, "red-team", red),
        (sources.helpful, "helpful", settings.prompts - red),
    )
    for source, name, count in wanted:
        if not count:
            continue
        monitored = settings.monitor_prompts // 2 if settings.monitor != "off" else 0
        pool = load_prompts(source, name, count + monitored, seed)
        head = pool[: min(monitored, len(pool) // 5)]
        texts = {content_hash(prompt.prompt) for prompt in head}
        apart += head
        trained += [prompt for prompt in pool if content_hash(prompt.prompt) not in texts]
    return trained, apart


def judge_of(job: Job, seed: int) -> Compare:
    """The label stage's judge, as the monitor asks it; None for a verdict that cannot be read."""
    judge = seated(job)

    def compare(
        prompts: Sequence[Prompt], answers: Sequence[str], references: Sequence[str]
    ) -> list[float | None]:
        questions = [
            Comparison(prompt.id, prompt.prompt, prompt.set, answer, reference)
            for prompt, answer, reference in zip(prompts, answers, references, strict=True)
        ]
        verdicts = judge.compare(questions, seed)
        return [verdict.p_first if isinstance(verdict, Verdict) else None for verdict in verdicts]

    return compare
