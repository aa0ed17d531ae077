"""Stage 1: answer → critique → revise. The data of SL-CAI (paper, section 3.1).

Each red-team prompt gets a first answer from the model that the round starts from; then,
``rounds`` times, a principle is drawn, the answer is criticised under it and rewritten. Rows are
RevisedAnswer. Where we deviate: the conversation has no few-shot examples before it, and a row may
stop early. All rows of a chunk take each step together, since batches are what makes it fast.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

from constitutional_ai import prompts as templates
from constitutional_ai.constitution import Constitution, Principle
from constitutional_ai.data import load_prompts
from constitutional_ai.engines.base import Completion
from constitutional_ai.job import Job
from constitutional_ai.records import (
    Conversation,
    Prompt,
    RevisedAnswer,
    RevisionStep,
    assistant,
    content_hash,
)
from constitutional_ai.run import derive_seed, in_chunks
from constitutional_ai.stages import Tally, asker, model_name

NAME = "revise"
FILE = "revisions.jsonl"

Ask = Callable[[Sequence[Conversation]], list[Completion]]

# A critique that holds one of these found nothing. In lower case; whatever the constitution says.
CLEAN_PHRASES = (
    "no issues",
    "no problems",
    "nothing wrong",
    "nothing to criticize",
    "nothing to criticise",
    "nothing needs to change",
    "no changes needed",
    "no changes are needed",
    "no revision is needed",
    "response is appropriate",
    "answer is appropriate",
)


def finds_nothing(critique: str) -> bool:
    """Whether a critique says that the answer is fine as it is.

    >>> finds_nothing("The response is appropriate."), finds_nothing("It insults the reader.")
    (True, False)
    """
    spoken = " ".join(critique.lower().split())
    return any(phrase in spoken for phrase in CLEAN_PHRASES)


@dataclass
class Draft:
    """One row in the making. ``answers`` is always one longer than ``steps``."""

    prompt: Prompt
    answers: list[str]
    steps: list[RevisionStep] = field(default_factory=list)
    stopped: bool = False


def run(job: Job) -> dict[str, Any]:
    """Write revisions.jsonl; the counts of the manifest."""
    settings, folder = job.settings.revise, job.stage(NAME)
    model = job.start_model()
    engine, name = job.engine(model), model_name(job, model)
    stage_seed = derive_seed(job.settings.seed, NAME, job.round)
    prompts = load_prompts(job.settings.prompts.red_team, "red-team", settings.prompts, stage_seed)
    made_by = (NAME, stage_seed, name, job.constitution.hash, settings.model_dump())
    tally = Tally(folder)

    def work(chunk: Sequence[Prompt], chunk_seed: int) -> list[RevisedAnswer]:
        counts: Counter[str] = Counter()
        drafts = revise(
            chunk,
            asker(engine, settings, chunk_seed, counts),
            job.constitution,
            rounds=settings.rounds,
            stop_when_clean=settings.stop_when_clean,
            seed=stage_seed,
        )
        tally.keep(chunk_seed, counts)
        return [
            RevisedAnswer(
                id=content_hash(draft.prompt.id, *made_by),
                prompt=draft.prompt.prompt,
                answers=draft.answers,
                steps=draft.steps,
                messages=[*draft.prompt.prompt, assistant(draft.answers[-1])],
                constitution=job.constitution.hash,
                model=name,
                seed=job.settings.seed,
            )
            for draft in drafts
        ]

    with job.progress.task(NAME, total=len(prompts), unit="rows") as tick:
        rows = in_chunks(folder, FILE, prompts, settings.chunk, work, tick, RevisedAnswer)
    return {**summary(rows), **tally.total("unfinished")}


def revise(
    prompts: Sequence[Prompt],
    ask: Ask,
    constitution: Constitution,
    *,
    rounds: int,
    stop_when_clean: bool,
    seed: int,
) -> list[Draft]:
    """Answer each prompt, then criticise and rewrite every answer ``rounds`` times."""
    firsts = ask([prompt.prompt for prompt in prompts])
    drafts = [Draft(prompt, [first.text]) for prompt, first in zip(prompts, firsts, strict=True)]
    for number in range(1, rounds + 1):
        going = [draft for draft in drafts if not draft.stopped]
        drawn = [
            constitution.draw("critique", "red-team", 1, seed, draft.prompt.id, number)[0]
            for draft in going
        ]
        _one_round(going, drawn, ask, stop_when_clean)
    return drafts


def _one_round(
    drafts: Sequence[Draft], drawn: Sequence[Principle], ask: Ask, stop_when_clean: bool
) -> None:
    """Add one step to each draft. A draft that stops keeps its answer and asks for no revision."""
    critiques = ask(
        [
            templates.critique(draft.prompt.prompt, draft.answers[-1], principle)
            for draft, principle in zip(drafts, drawn, strict=True)
        ]
    )
    turns = list(zip(drafts, drawn, [reply.text for reply in critiques], strict=True))
    for draft, _, critique in turns:
        draft.stopped = stop_when_clean and finds_nothing(critique)
    revisions = iter(
        ask(
            [
                templates.revision(draft.prompt.prompt, draft.answers[-1], critique, principle)
                for draft, principle, critique in turns
                if not draft.stopped
            ]
        )
    )
    for draft, principle, critique in turns:
        before = draft.answers[-1]
        step = RevisionStep(
            principle=principle.name,
            principle_hash=principle.hash,
            critique=critique,
            revision=before if draft.stopped else next(revisions).text,
            clean=finds_nothing(critique),
        )
        draft.steps.append(step)
        # An empty revision would teach silence: the answer stays, the step shows what was said.
        draft.answers.append(step.revision if step.revision.strip() else before)


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
