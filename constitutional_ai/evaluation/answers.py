"""Lets models answer the test prompts, or takes answers that were made elsewhere."""

from collections.abc import Callable, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

from constitutional_ai.data.cases import NO_ANSWER, Case, Given
from constitutional_ai.engines.base import Completion, Sampling
from constitutional_ai.evaluation.rows import Transcript
from constitutional_ai.job import Job, model_name
from constitutional_ai.records import Conversation, content_hash
from constitutional_ai.store import failures
from constitutional_ai.store.failures import Failed
from constitutional_ai.store.run_folder import StageFolder, append_rows, derive_seed, in_chunks

FILE = "transcripts.jsonl"
GIVEN = "given.jsonl"  # answers that came from files
SAID_NOTHING = "the model said nothing"

Reader = Callable[[Conversation, str], dict[str, float]]  # the oracle, where there is one


class Item(NamedTuple):
    """One answer to be made: who answers what, for which time."""

    label: str
    model: str | Path
    sample: int
    case: Case


def generate(
    job: Job,
    folder: StageFolder,
    models: Mapping[str, str | Path],
    cases: Sequence[Case],
    seed: int,
    oracle: Reader | None,
) -> list[Transcript]:
    """Every model's answers to every case, to transcripts.jsonl, resumed chunk by chunk.

    An engine's failure is listed in failures.jsonl, tried again by the next start, and until then
    a row here whose answer is missing; so is an empty answer, where no oracle knows what it is.
    """
    settings = job.settings.evaluate
    items = [
        Item(label, model, sample, case)
        for label, model in models.items()
        for sample in range(settings.samples)
        for case in cases
    ]

    def made_by(item: Item) -> tuple[object, ...]:
        return (model_name(job, item.model), settings.temperature, settings.max_new_tokens, seed)

    def work(chunk: Sequence[Item], chunk_seed: int) -> list[Transcript | Failed]:
        found: list[Transcript | Failed] = []
        for (label, sample), group in groupby(chunk, key=lambda item: (item.label, item.sample)):
            asked = list(group)
            sampling = Sampling(
                temperature=settings.temperature,
                max_new_tokens=settings.max_new_tokens,
                seed=derive_seed(seed, label, sample, chunk_seed),
            )
            engine = job.engine(asked[0].model)
            replies = engine.generate([item.case.prompt for item in asked], sampling)
            for item, reply in zip(asked, replies, strict=True):
                row = _row(item.case, label, sample, made_by(item), reply, oracle)
                found.append(Failed(id=row.id, reason=reply.failed) if reply.failed else row)
        return found

    with job.progress.task("evaluate", total=len(items), unit="answers") as tick:
        rows = in_chunks(
            folder,
            FILE,
            items,
            settings.chunk,
            work,
            tick,
            Transcript,
            job.settings.http.max_failed,
        )
    by_id = {row.id: row for row in rows}
    reasons = {failure.id: failure.reason for failure in failures.read(folder.path, FILE)}
    everything = []
    for item in items:
        lost = _row(item.case, item.label, item.sample, made_by(item), None, None)
        reason = reasons.get(lost.id, NO_ANSWER)
        everything.append(by_id.get(lost.id) or lost.model_copy(update={"missing": reason}))
    return everything


def given(
    folder: StageFolder,
    cases: Sequence[Case],
    answers: Mapping[str, Mapping[str, Sequence[Given]]],
    oracle: Reader | None,
) -> list[Transcript]:
    """Answers from files, as the same rows; a case that a model did not answer is missing."""
    rows = []
    for label, of_model in answers.items():
        for case in cases:
            samples = of_model.get(case.id) or [Given("", NO_ANSWER)]
            for number, (text, missing) in enumerate(samples):
                reply = None if missing else Completion(text, 0, True)
                row = _row(case, label, number, ("given",), reply, oracle)
                rows.append(row.model_copy(update={"missing": missing}))
    (folder.path / GIVEN).unlink(missing_ok=True)  # a killed start's: they cost nothing to make
    append_rows(folder.path / GIVEN, rows)
    return rows


def _row(
    case: Case,
    label: str,
    sample: int,
    made_by: Sequence[object],
    reply: Completion | None,
    oracle: Reader | None,
) -> Transcript:
    """The row of a reply, or of none yet, with a reading where the oracle knows the prompt."""
    text = reply.text if reply else ""
    empty = oracle is None and not text.strip()
    return Transcript(
        id=content_hash(case.id, "evaluate", label, sample, *made_by),
        model=label,
        kind=case.kind,
        slice=case.slice,
        prompt=case.prompt,
        answer=text,
        finished=reply is not None and reply.finished,
        metrics=oracle(case.prompt, text) if oracle and reply else {},
        case=case.id,
        sample=sample,
        missing=SAID_NOTHING if empty else "",
    )
