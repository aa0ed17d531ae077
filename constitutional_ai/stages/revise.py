"""Stage 1: answer → critique → revise. The data of SL-CAI (paper, section 3.1).

Each red-team prompt gets a first answer from the model that the round starts from. Then,
``rounds`` times, a principle is drawn, and the answer is criticised under it and rewritten. Another
model may criticise and rewrite (``critic``). For a model that only continues text, worked examples
of the constitution come before each request (``exemplars``). Without ``critique`` a step's critique
is empty, and the rewrite is asked for directly (paper, section 3.5). Unlike the paper, a row may
stop early. All rows of a chunk take each step together, because batches are fast. Rows are
RevisedAnswer.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from constitutional_ai import prompts as templates
from constitutional_ai.data.prompts import load_prompts
from constitutional_ai.engines.ask import Ask, asker, used
from constitutional_ai.engines.prefix import PrefixCache
from constitutional_ai.job import SELF, Job, model_name
from constitutional_ai.principles import Constitution, Principle, WorkedRevision
from constitutional_ai.progress import called
from constitutional_ai.prompts import finds_nothing
from constitutional_ai.records import (
    Conversation,
    Prompt,
    RevisedAnswer,
    RevisionStep,
    assistant,
    content_hash,
)
from constitutional_ai.store import failures
from constitutional_ai.store.chunks import in_chunks
from constitutional_ai.store.failures import Failed
from constitutional_ai.store.seeds import derive_seed
from constitutional_ai.store.tally import Tally

NAME = "revise"
FILE = "revisions.jsonl"

Work = Callable[[WorkedRevision, Principle, templates.Named], Conversation]


@dataclass
class Draft:
    """One row in the making. ``answers`` is one longer than ``steps`` between two rounds.

    ``principle``, ``critique`` and ``revision`` are of the present round; ``critique`` is None
    if none is asked for. ``failed`` says why there will be no row: the model was not reached.
    """

    prompt: Prompt
    answers: list[str]
    steps: list[RevisionStep] = field(default_factory=list)
    principle: Principle | None = None
    critique: str | None = None
    revision: str = ""
    stopped: bool = False
    failed: str = ""

    @property
    def going(self) -> bool:
        return not (self.stopped or self.failed)

    def end_round(self) -> None:
        """Make a step of what was said. A draft that has stopped keeps its answer."""
        assert self.principle is not None
        critique = self.critique or ""
        step = RevisionStep(
            principle=self.principle.name,
            principle_hash=self.principle.hash,
            critique=critique,
            revision=self.answers[-1] if self.stopped else self.revision,
            clean=finds_nothing(critique),
        )
        self.steps.append(step)
        # An empty revision would teach silence: the answer stays, the step shows what was said.
        self.answers.append(step.revision if step.revision.strip() else self.answers[-1])


def run(job: Job) -> dict[str, Any]:
    """Write revisions.jsonl; the counts of the manifest."""
    settings, folder = job.settings.revise, job.stage(NAME)
    model = job.start_model()
    engine, name = job.engine(model), model_name(job, model)
    stage_seed = derive_seed(job.settings.seed, NAME, job.round)
    critic = model if settings.critic == SELF else settings.critic
    critic_name = model_name(job, critic)
    exemplars = job.constitution.worked_revisions(settings.exemplars)
    prompts = load_prompts(job.settings.prompts.red_team, "red-team", settings.prompts, stage_seed)
    made_by = (NAME, stage_seed, name, job.constitution.hash, settings.identity())
    tally = Tally(folder)

    def work(chunk: Sequence[Prompt], chunk_seed: int) -> list[RevisedAnswer | Failed]:
        counts: Counter[str] = Counter()
        # A critique goes on from its answer, and a revision from its critique.
        prefixes = PrefixCache()
        if critic == model:
            answer = criticise = asker(engine, settings, chunk_seed, counts, prefixes)
        else:
            answer = asker(engine, settings, chunk_seed, counts)
            seed = derive_seed(chunk_seed, "critic")
            criticise = asker(job.engine(critic), settings, seed, counts, prefixes)
        drafts = revise(
            chunk,
            answer,
            criticise,
            job.constitution,
            exemplars,
            critique=settings.critique,
            rounds=settings.rounds,
            stop_when_clean=settings.stop_when_clean,
            seed=stage_seed,
        )
        tally.keep(chunk_seed, counts)
        return [
            Failed(id=draft.prompt.id, reason=draft.failed)
            if draft.failed
            else RevisedAnswer(
                id=content_hash(draft.prompt.id, *made_by),
                prompt=draft.prompt.prompt,
                answers=draft.answers,
                steps=draft.steps,
                messages=[*draft.prompt.prompt, assistant(draft.answers[-1])],
                constitution=job.constitution.hash,
                model=name,
                seed=job.settings.seed,
                critic=critic_name if critic != model else "",
            )
            for draft in drafts
        ]

    with job.progress.task(NAME, total=len(prompts), unit="rows") as tick:
        may_fail = job.settings.http.max_failed
        rows = in_chunks(folder, FILE, prompts, settings.chunk, work, tick, RevisedAnswer, may_fail)
    failed = failures.counts(folder.path, FILE, len(prompts) - len(rows))
    return {**summary(rows), **tally.total("unfinished"), **used(engine, settings), **failed}


def revise(
    prompts: Sequence[Prompt],
    answer: Ask,
    criticise: Ask,
    constitution: Constitution,
    exemplars: Sequence[WorkedRevision] = (),
    *,
    critique: bool = True,
    rounds: int,
    stop_when_clean: bool,
    seed: int,
) -> list[Draft]:
    """Answer each prompt, then criticise and rewrite every answer ``rounds`` times.

    Without ``critique`` every round only rewrites.
    """
    with called("answers"):
        firsts = answer([prompt.prompt for prompt in prompts])
    requests = Requests(constitution, exemplars)
    drafts = [
        Draft(prompt, [first.text], failed=first.failed)
        for prompt, first in zip(prompts, firsts, strict=True)
    ]
    for number in range(1, rounds + 1):
        going = [draft for draft in drafts if draft.going]
        for draft in going:
            (draft.principle,) = constitution.draw(
                "critique", "red-team", 1, seed, draft.prompt.id, number
            )
        if critique:
            _criticise(going, criticise, requests, stop_when_clean)
        _rewrite([draft for draft in going if draft.going], criticise, requests)
        for draft in going:
            if not draft.failed:
                draft.end_round()
    return drafts


def _criticise(
    drafts: Sequence[Draft], ask: Ask, requests: "Requests", stop_when_clean: bool
) -> None:
    with called("critiques"):
        replies = ask([requests.critique(draft) for draft in drafts])
    for draft, reply in zip(drafts, replies, strict=True):
        draft.critique, draft.failed = reply.text, reply.failed
        draft.stopped = stop_when_clean and not reply.failed and finds_nothing(reply.text)


def _rewrite(drafts: Sequence[Draft], ask: Ask, requests: "Requests") -> None:
    with called("revisions"):
        replies = ask([requests.revision(draft) for draft in drafts])
    for draft, reply in zip(drafts, replies, strict=True):
        draft.revision, draft.failed = reply.text, reply.failed


@dataclass(frozen=True)
class Requests:
    """What this stage asks, with worked examples before each request."""

    constitution: Constitution
    exemplars: Sequence[WorkedRevision]

    def critique(self, draft: Draft) -> Conversation:
        assert draft.principle is not None
        asked = templates.critique(draft.prompt.prompt, draft.answers[-1], draft.principle)
        return self._after(templates.worked_critique, draft.principle, asked)

    def revision(self, draft: Draft) -> Conversation:
        """For a rewrite after the draft's critique, or without one (paper, section 3.5)."""
        prompt, answer, principle = draft.prompt.prompt, draft.answers[-1], draft.principle
        assert principle is not None
        if draft.critique is None:
            asked = templates.direct_revision(prompt, answer, principle)
            return self._after(templates.worked_direct, principle, asked)
        asked = templates.revision(prompt, answer, draft.critique, principle)
        return self._after(templates.worked_revision, principle, asked)

    def _after(self, work: Work, principle: Principle, asked: Conversation) -> Conversation:
        named = self.constitution.principle
        return templates.after_examples(
            [work(exemplar, principle, named) for exemplar in self.exemplars], asked
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
        "empty_revisions": sum(
            bool(kept.strip()) and not step.revision.strip()
            for row in rows
            for step, kept in zip(row.steps, row.answers[1:], strict=True)
        ),
        "changed_by_round": [
            changed[number] / len(rows)
            for number in range(max((len(row.steps) for row in rows), default=0))
        ],
    }
