"""Every model on every item, chunk by chunk: how all measures but sampled answers are taken."""

from collections.abc import Callable, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import TypeVar

from constitutional_ai.engines.base import Engine
from constitutional_ai.job import Job
from constitutional_ai.records import Row
from constitutional_ai.store.chunks import in_chunks
from constitutional_ai.store.run_folder import StageFolder

CHUNK = 64  # items between two writes

T = TypeVar("T")
R = TypeVar("R", bound=Row)


def each_model(
    job: Job,
    folder: StageFolder,
    file: str,
    kind: type[R],
    models: Mapping[str, str | Path],
    items: Sequence[T],
    ask: Callable[[Engine, str, Sequence[T]], list[R]],
    task: tuple[str, str],
) -> list[R]:
    """``ask(engine, model's label, items)`` of all, to ``file``; resumed chunk by chunk.

    ``task`` is the progress's word, and what it counts.
    """
    asked = [(label, spec, item) for label, spec in models.items() for item in items]

    def work(chunk: Sequence[tuple[str, str | Path, T]], _: int) -> list[R]:
        rows: list[R] = []
        for label, group in groupby(chunk, key=lambda one: one[0]):
            part = list(group)
            rows += ask(job.engine(part[0][1]), label, [item for _, _, item in part])
        return rows

    word, unit = task
    with job.progress.task(word, total=len(asked), unit=unit) as tick:
        return in_chunks(folder, file, asked, CHUNK, work, tick, kind)
