"""Lets models answer the test prompts, or takes answers that were made elsewhere."""

from collections.abc import Callable, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

from constitutional_ai.data.answers import NO_ANSWER, Given
from constitutional_ai.data.cases import Case
from constitutional_ai.engines.ask import sampling_of
from constitutional_ai.evaluation.rows import Transcript
from constitutional_ai.job import Job, model_name
from constitutional_ai.records import Conversation, content_hash
from constitutional_ai.store import failures
from constitutional_ai.store.chunks import in_chunks
from constitutional_ai.store.failures import Failed
from constitutional_ai.store.rows import append_rows
from constitutional_ai.store.run_folder import StageFolder
from constitutional_ai.store.seeds import derive_seed

FILE = "transcripts.jsonl"
GIVEN = "given.jsonl"  # answers that came from files
SAID_NOTHING = "the model said nothing"

Reader = Callable[[Conversation, str], dict[str, float]]  # the oracle, where there is one


class Item(NamedTuple):
    """One answer: whose it is, to which case, for which time. ``id`` is its row's."""

    id: str
    label: str
    model: str | Path
    sample: int
    case: Case

    def row(self, answer: str, finished: bool, oracle: Reader | None) -> Transcript:
        """The answer's row; an empty answer is missing where no oracle knows what it is."""
        silent = oracle is None and not answer.strip()
        return self.missing(SAID_NOTHING if silent else "").model_copy(
            update={
                "answer": answer,
                "finished": finished,
                "metrics": oracle(self.case.prompt, answer) if oracle else {},
            }
        )

    def missing(self, reason: str) -> Transcript:
        """The row in place of an answer that there is not."""
        return Transcript(
            id=self.id,
            model=self.label,
            kind=self.case.kind,
            slice=self.case.slice,
            prompt=self.case.prompt,
            answer="",
            finished=False,
            metrics={},
            case=self.case.id,
            sample=self.sample,
            missing=reason,
        )


def _item(case: Case, label: str, model: str | Path, sample: int, *made_by: object) -> Item:
    id_ = content_hash(case.id, "evaluate", label, sample, *made_by)
    return Item(id_, label, model, sample, case)


def generate(
    job: Job,
    folder: StageFolder,
    models: Mapping[str, str | Path],
    cases: Sequence[Case],
    seed: int,
    oracle: Reader | None,
) -> list[Transcript]:
    """Every model's answers to every case, to transcripts.jsonl, resumed chunk by chunk.

    An engine's failure is listed in failures.jsonl, and the next start tries it again. Until then
    its row here is one whose answer is missing.
    """
    settings = job.settings.evaluate
    nucleus = () if settings.top_p is None else (settings.top_p,)
    asked_with = settings.temperature, *nucleus, settings.max_new_tokens, seed
    items = [
        _item(case, label, model, sample, model_name(job, model), *asked_with)
        for label, model in models.items()
        for sample in range(settings.samples)
        for case in cases
    ]

    def work(chunk: Sequence[Item], chunk_seed: int) -> list[Transcript | Failed]:
        made: list[Transcript | Failed] = []
        for (label, sample), group in groupby(chunk, key=lambda item: (item.label, item.sample)):
            asked = list(group)
            sampling = sampling_of(settings, derive_seed(seed, label, sample, chunk_seed))
            prompts = [item.case.prompt for item in asked]
            replies = job.engine(asked[0].model).generate(prompts, sampling)
            made += [
                Failed(id=item.id, reason=reply.failed, unfit=reply.unfit)
                if reply.failed
                else item.row(reply.text, reply.finished, oracle)
                for item, reply in zip(asked, replies, strict=True)
            ]
        return made

    most = job.settings.http.max_failed
    with job.progress.task("evaluate", total=len(items), unit="answers") as tick:
        rows = in_chunks(folder, FILE, items, settings.chunk, work, tick, Transcript, most)
    by_id = {row.id: row for row in rows}
    reasons = {failure.id: failure.reason for failure in failures.read(folder.path, FILE)}
    return [by_id.get(item.id) or item.missing(reasons.get(item.id, NO_ANSWER)) for item in items]


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
            for number, answer in enumerate(of_model.get(case.id) or [Given("", NO_ANSWER)]):
                item = _item(case, label, "", number, "given")
                lost = answer.missing
                rows.append(item.missing(lost) if lost else item.row(answer.text, True, oracle))
    (folder.path / GIVEN).unlink(missing_ok=True)  # a killed start's: they cost nothing to make
    append_rows(folder.path / GIVEN, rows)
    return rows
