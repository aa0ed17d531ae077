"""Stage 2: SL-CAI. The start model, finetuned on its own revised answers (paper, section 3.2).

Answers to helpful prompts are mixed in, so that it stays helpful: the start model's or, as in the
paper, those of a model that is only helpful (``finetune.helper``). ``model`` is
trained on the answers after the last revision; with ``every_revision`` there is also ``model-k`` on
those after k revisions, for the revision curve. All start from the same weights with the same seed.
"""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from constitutional_ai.data.prompts import load_prompts
from constitutional_ai.engines.ask import asker, used
from constitutional_ai.engines.local import tokens_of
from constitutional_ai.engines.tokens import ChatTokens
from constitutional_ai.errors import DataError
from constitutional_ai.job import SELF, Job, model_name
from constitutional_ai.learning import sft
from constitutional_ai.learning.fitting import fitting
from constitutional_ai.learning.policy import Policy
from constitutional_ai.learning.sft import Example
from constitutional_ai.machine import give_back
from constitutional_ai.records import (
    HelpfulAnswer,
    Prompt,
    RevisedAnswer,
    assistant,
    content_hash,
)
from constitutional_ai.settings import Settings
from constitutional_ai.stage_settings import ReviseSettings
from constitutional_ai.store import failures
from constitutional_ai.store.checkpoints import Log, Saving
from constitutional_ai.store.chunks import in_chunks
from constitutional_ai.store.failures import Failed
from constitutional_ai.store.run_folder import CHECKPOINTS
from constitutional_ai.store.seeds import derive_seed

NAME = "finetune"
FILE = "helpful.jsonl"


def run(job: Job) -> dict[str, Any]:
    """Write helpful.jsonl and the models that are not there yet; the counts of the manifest."""
    folder = job.stage(NAME).path
    helpful = answer_helpful_prompts(job)
    drawn = used(job.engine(helper_of(job)), job.settings.revise) if helpful else {}
    revised = job.stage("revise").rows("revisions.jsonl", RevisedAnswer)
    last = revisions(revised)
    first = 1 if job.settings.finetune.every_revision else last
    tokens, context = tokens_of(job.start_model())
    note = job.progress.note
    for k in range(first, last + 1):
        name = "model" if k == last else f"model-{k}"
        named = named_examples(revised, helpful, k)
        fit = fitting(named, lambda example: sft.length(tokens, example), context, note)
        if not (folder / name).exists():
            finetune(job, folder / name, fit)
    return {
        "revisions": last,
        "without_revision": sum(not row.learnable(last) for row in revised),
        "examples": len(fit),
        "too_long": len(named) - len(fit),
        "helpful": len(helpful),
        "helpful_unfinished": sum(not row.finished for row in helpful),
        **drawn,
        **failures.counts(folder, FILE, job.settings.finetune.helpful - len(helpful)),
        "steps": len((folder / "metrics.jsonl").read_bytes().splitlines()),
    }


def helper_of(job: Job) -> str:
    """Who answers the helpful prompts."""
    helper = job.settings.finetune.helper
    return job.start_model() if helper == SELF else helper


def answer_helpful_prompts(job: Job) -> list[HelpfulAnswer]:
    """The helper's answers to helpful prompts."""
    settings, drawing = job.settings, _drawing(job.settings)
    if settings.finetune.helpful == 0:
        return []
    model = helper_of(job)
    engine, name = job.engine(model), model_name(job, model)
    stage_seed = derive_seed(settings.seed, NAME, job.round)
    prompts = load_prompts(
        settings.prompts.helpful, "helpful", settings.finetune.helpful, stage_seed
    )

    def work(chunk: Sequence[Prompt], seed: int) -> list[HelpfulAnswer | Failed]:
        replies = asker(engine, drawing, seed, Counter())([prompt.prompt for prompt in chunk])
        return [
            Failed(id=prompt.id, reason=reply.failed, unfit=reply.unfit)
            if reply.failed
            else HelpfulAnswer(
                id=content_hash(
                    prompt.id, NAME, name, drawing.identity(), settings.seed, job.round
                ),
                prompt=prompt.prompt,
                answer=reply.text,
                finished=reply.finished,
                messages=[*prompt.prompt, assistant(reply.text)],
                model=name,
                seed=settings.seed,
            )
            for prompt, reply in zip(chunk, replies, strict=True)
        ]

    with job.progress.task("helpful", total=len(prompts), unit="answers") as tick:
        may_fail = settings.http.max_failed
        return in_chunks(
            job.stage(NAME), FILE, prompts, drawing.chunk, work, tick, HelpfulAnswer, may_fail
        )


def _drawing(settings: Settings) -> ReviseSettings:
    """The sampling of ``[revise]``; an answer may be longer than a rewrite, which is a refusal."""
    longest = settings.finetune.max_new_tokens or settings.revise.max_new_tokens
    return settings.revise.model_copy(update={"max_new_tokens": longest})


def revisions(rows: Sequence[RevisedAnswer]) -> int:
    """How many revisions the longest row has. Raises DataError if there is nothing to learn."""
    most = max((len(row.answers) - 1 for row in rows), default=0)
    if most == 0:
        raise DataError("revisions.jsonl has no revision to finetune on; `--redo revise`")
    return most


def examples(
    revised: Sequence[RevisedAnswer], helpful: Sequence[HelpfulAnswer], k: int
) -> list[Example]:
    """Prompt and answer after k revisions (or after the row's last), then the helpful ones.

    Left out are rows without a revision that was kept, silence and answers that were cut off: they
    would teach the model its own faults, silence, and cutting off.
    """
    return [example for _, example in named_examples(revised, helpful, k)]


def named_examples(
    revised: Sequence[RevisedAnswer], helpful: Sequence[HelpfulAnswer], k: int
) -> list[tuple[str, Example]]:
    """``examples``, each with its file and line."""
    rows = [
        (f"revisions.jsonl:{line}", (row.prompt, row.answers[min(k, len(row.answers) - 1)]))
        for line, row in enumerate(revised, 1)
        if row.learnable(k)
    ]
    rows += [
        (f"{FILE}:{line}", (row.prompt, row.answer))
        for line, row in enumerate(helpful, 1)
        if row.finished
    ]
    return [(name, (prompt, answer)) for name, (prompt, answer) in rows if answer.strip()]


def sft_examples(job: Job, tokens: ChatTokens, context: int) -> list[Example]:
    """What ``model`` was trained on, for the joint objective of PPO."""
    revised = job.stage("revise").rows("revisions.jsonl", RevisedAnswer)
    helpful = job.stage(NAME).rows(FILE, HelpfulAnswer) if job.settings.finetune.helpful else []
    rows = examples(revised, helpful, revisions(revised))
    return [example for example in rows if sft.length(tokens, example) <= context]


def finetune(job: Job, target: Path, named: Sequence[tuple[str, Example]]) -> None:
    """Train and save one model; ``model-k`` has its metrics in metrics-k.jsonl.

    What was interrupted goes on from its last checkpoint.
    """
    settings = job.settings.finetune
    names, rows = [name for name, _ in named], [example for _, example in named]
    policy = Policy.to_train(job.start_model(), job.settings.model)
    log = Log(target.with_name(target.name.replace("model", "metrics") + ".jsonl"))
    saving = Saving(target.parent / CHECKPOINTS / target.name, settings.checkpoint_every, log)
    seed = derive_seed(job.settings.seed, NAME, job.round)
    total = sft.steps(policy, rows, settings)
    with job.progress.task(f"SL-CAI {target.name}", total=total, unit="steps") as tick:
        sft.train(policy, rows, settings, seed, log.write, tick, names, saving)
    adapter = target.with_name(target.name.replace("model", "adapter"))
    policy.save_adapter(adapter, model_name(job, job.start_model()))
    policy.merge()
    policy.save_pretrained(target)
    saving.clear()
    give_back()
