"""Stage 1: answer → critique → revise. The data of SL-CAI (paper, section 3.1).

Each red-team prompt gets a first answer from the model that the round starts from. Then,
``rounds`` times, a principle is drawn, and the answer is criticised under it and rewritten
(stages/drafts.py). Another model may criticise and rewrite (``critic``). Worked examples of the
constitution may come before each request (``exemplars``). Without ``critique`` a step's critique is
empty, and the rewrite is asked for directly (paper, section 3.5). Unlike the paper, a row may stop
early, and a gate keeps the answer before where a revision is not worth training on. Rows are
RevisedAnswer.
"""

from collections import Counter, defaultdict
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from constitutional_ai.data.prompts import load_prompts
from constitutional_ai.engines.ask import asker, used
from constitutional_ai.engines.prefix import PrefixCache
from constitutional_ai.errors import ModelError
from constitutional_ai.job import SELF, Job, model_name
from constitutional_ai.judge.faults import is_laboratorys
from constitutional_ai.judge.gate import REMEDIES, Gate
from constitutional_ai.judge.judge import Judge
from constitutional_ai.records import Prompt, RevisedAnswer, assistant, content_hash
from constitutional_ai.stage_settings import ReviseSettings
from constitutional_ai.stages.drafts import Draft, Reviser
from constitutional_ai.store import failures
from constitutional_ai.store.chunks import in_chunks
from constitutional_ai.store.failures import Failed
from constitutional_ai.store.seeds import derive_seed
from constitutional_ai.store.tally import Tally

NAME = "revise"
FILE = "revisions.jsonl"


def run(job: Job) -> dict[str, Any]:
    """Write revisions.jsonl; the counts of the manifest.

    Raises ModelError if the gate kept fewer revisions than ``min_kept``. The rows that are written
    by then are kept.
    """
    settings, folder = job.settings.revise, job.stage(NAME)
    model = job.start_model()
    engine, name = job.engine(model), model_name(job, model)
    stage_seed = derive_seed(job.settings.seed, NAME, job.round)
    critic = model if settings.critic == SELF else settings.critic
    critic_name = model_name(job, critic)
    critic_engine = engine if critic == model else job.engine(critic)
    judge = Judge(critic_engine, job.constitution, job.settings.label)
    shown = [worked.revision for worked in job.constitution.worked_revisions(settings.exemplars)]
    gate = Gate(judge, stage_seed, shown) if settings.gate == "judge" else None
    named = job.settings.model.path if settings.critic == SELF else settings.critic
    reviser = Reviser(
        job.constitution, settings, critic_engine, gate, stage_seed, is_laboratorys(named)
    )
    prompts = load_prompts(job.settings.prompts.red_team, "red-team", settings.prompts, stage_seed)
    made_by = (NAME, stage_seed, name, job.constitution.hash, settings.identity())
    tally = Tally(folder)
    made: list[RevisedAnswer] = []

    def row(draft: Draft) -> RevisedAnswer | Failed:
        if draft.failed:
            return Failed(id=draft.prompt.id, reason=draft.failed, unfit=draft.unfit)
        return RevisedAnswer(
            id=content_hash(draft.prompt.id, *made_by),
            prompt=draft.prompt.prompt,
            answers=draft.answers,
            steps=draft.steps,
            messages=[*draft.prompt.prompt, assistant(draft.answers[-1])],
            constitution=job.constitution.hash,
            model=name,
            seed=job.settings.seed,
            critic=critic_name if critic != model else "",
            finished=() if all(draft.finished) else tuple(draft.finished),
        )

    def work(chunk: Sequence[Prompt], chunk_seed: int) -> list[RevisedAnswer | Failed]:
        _stop_at(made, settings)
        counts: Counter[str] = Counter()
        # A critique goes on from its answer, and a revision from its critique.
        prefixes = PrefixCache()
        if critic == model:
            answer = criticise = asker(engine, settings, chunk_seed, counts, prefixes)
        else:
            answer = asker(engine, settings, chunk_seed, counts)
            seed = derive_seed(chunk_seed, "critic")
            criticise = asker(critic_engine, settings, seed, counts, prefixes)
        drafts = reviser.revise(chunk, answer, criticise)
        tally.keep(chunk_seed, counts)
        rows = [row(draft) for draft in drafts]
        made.extend(one for one in rows if isinstance(one, RevisedAnswer))
        return rows

    with job.progress.task(NAME, total=len(prompts), unit="rows") as tick:
        may_fail = job.settings.http.max_failed
        rows = in_chunks(folder, FILE, prompts, settings.chunk, work, tick, RevisedAnswer, may_fail)
    _stop_at(rows, settings)
    failed = failures.counts(folder.path, FILE, len(prompts) - len(rows))
    return {**summary(rows), **tally.total("unfinished"), **used(engine, settings), **failed}


def _stop_at(rows: Sequence[RevisedAnswer], settings: ReviseSettings) -> None:
    """Raise ModelError if the gate stopped more revisions than it may."""
    steps = [step for row in rows for step in row.steps]
    reasons = Counter(step.rejected for step in steps if step.rejected)
    kept = len(steps) - reasons.total()
    if settings.gate == "off" or not steps or kept >= settings.min_kept * len(steps):
        return
    (reason, often), *_ = reasons.most_common(1)
    raise ModelError(
        f"only {kept} of {len(steps)} revisions are worth training on, less than revise.min_kept ="
        f" {settings.min_kept:g} ({often}x: {reason}); {REMEDIES[reason]}; or lower"
        " `revise.min_kept` to go on with what there is: the rows are kept"
    )


def summary(rows: Sequence[RevisedAnswer]) -> dict[str, Any]:
    """What the rows themselves tell, as counts and shares."""
    steps = [step for row in rows for step in row.steps]
    changed = Counter(
        number
        for row in rows
        for number, (before, after) in enumerate(pairwise(row.answers))
        if before != after
    )
    return {
        "rows": len(rows),
        "steps_by_principle": dict(sorted(Counter(step.principle for step in steps).items())),
        "clean_by_principle": dict(
            sorted(Counter(step.principle for step in steps if step.clean).items())
        ),
        "empty_answers": sum(not row.answers[0].strip() for row in rows),
        "kept": sum(not step.rejected for step in steps),
        "rejected": dict(Counter(step.rejected for step in steps if step.rejected).most_common()),
        "rejected_by_round": [
            dict(Counter(row.steps[n].rejected for row in rows if _rejected(row, n)).most_common())
            for n in range(max((len(row.steps) for row in rows), default=0))
        ],
        "rejected_by_principle": _by_principle(rows),
        "changed_by_round": [
            changed[number] / len(rows)
            for number in range(max((len(row.steps) for row in rows), default=0))
        ],
    }


def _rejected(row: RevisedAnswer, number: int) -> bool:
    return number < len(row.steps) and bool(row.steps[number].rejected)


def _by_principle(rows: Sequence[RevisedAnswer]) -> dict[str, dict[str, int]]:
    reasons: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for row in rows:
        for step in row.steps:
            if step.rejected:
                reasons[step.principle][step.rejected] += 1
    return {name: dict(counts.most_common()) for name, counts in sorted(reasons.items())}
