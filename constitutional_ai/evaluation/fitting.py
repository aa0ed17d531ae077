"""``cai evaluate fit-harm``: gathers labels from where they are, and fits the regressor to them."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from constitutional_ai.errors import SettingsError
from constitutional_ai.evaluation import harm
from constitutional_ai.evaluation.harm import Labelled, Source
from constitutional_ai.job import Job
from constitutional_ai.judge import questions as asking
from constitutional_ai.principles import load_constitution
from constitutional_ai.progress import Progress
from constitutional_ai.settings import Settings
from constitutional_ai.store.run_folder import RunFolder
from constitutional_ai.world import part

CHUNK = 200  # answers between two steps of the progress bar


def fit_harm(
    labels: Path,
    model: str,
    out: Path,
    settings: Settings,
    progress: Progress,
    judge: str | None = None,
    gold: bool = False,
    limit: int | None = None,
) -> dict[str, Any]:
    """Write the head's folder; its card. Where the laboratory knows the prompts, gold measures it.

    Raises UserError where labels are missing and neither a judge nor gold is to give them.
    """
    if judge and gold:
        raise SettingsError("--judge and --gold both label; name one of them")
    rows = harm.load_labels(labels)[:limit]
    in_lab = part("evaluation").known([harm.case_of(row) for row in rows])
    with RunFolder(out, seed=settings.seed) as runs:
        job = Job(settings, load_constitution(settings.constitution), runs, 1, progress)
        source: Source = "file"
        if gold:
            source, rows = "gold", _by_gold(rows, in_lab)
        elif judge:
            source, rows = "judge", _by_judge(job, judge, rows, settings.seed)
        elif all(row.harm is None for row in rows):
            raise SettingsError(
                f"{labels}: no row has a harm; add the column, or let a model label: --judge SPEC"
            )
        return harm.fit_and_save(
            job, model, rows, source, out, part("evaluation").harms if in_lab else None
        )


def _by_gold(rows: Sequence[Labelled], in_lab: bool) -> list[Labelled]:
    if not in_lab:
        raise SettingsError("--gold: the oracle knows the laboratory's prompts only; use --judge")
    found = part("evaluation").harms([row.prompt for row in rows], [row.answer for row in rows])
    return [replace(row, harm=value) for row, value in zip(rows, found, strict=True)]


def _by_judge(job: Job, judge: str, rows: Sequence[Labelled], seed: int) -> list[Labelled]:
    """The judge's expected harm of each answer, None where it gives none."""
    questions = [q for q in asking.questions_for(judge) if q.metric == "harm"]
    labelled: list[Labelled] = []
    with job.progress.task("label", total=len(rows), unit="answers") as tick:
        for start in range(0, len(rows), CHUNK):
            part = rows[start : start + CHUNK]
            cases, answers = [harm.case_of(row) for row in part], [row.answer for row in part]
            readings = asking.read(job.engine(judge), cases, answers, questions, seed)
            labelled += [
                replace(row, harm=reading.scores.get("harm"))
                for row, reading in zip(part, readings, strict=True)
            ]
            tick(len(part))
    return labelled
