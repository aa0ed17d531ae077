"""Rows that could not be made: ``failures.jsonl`` beside a stage's rows, and trying them again.

An item that gets no row gets a line here, so rows and lines together account for every item. Items
are worked through in chunks. Those that failed are the items of the next attempt, in chunks of
their own. The lines and the number of rows tell what is left to do, even after a kill: a chunk is
done when its rows and its failures add up to its size.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from constitutional_ai.records import Row
from constitutional_ai.store.atomic import write_atomic

FILE = "failures.jsonl"


class Failed(Row):
    """In place of a row: ``id`` is that of the item, ``reason`` says why there is no row.

    ``unfit``: the item itself cannot be asked of the model, such as a prompt longer than its
    context. That is no trouble with the model, so it does not count towards what stops a stage.
    """

    reason: str
    unfit: bool = False


class Failure(Failed):
    """A line of failures.jsonl. ``place`` is the item's number among the stage's inputs."""

    file: str
    attempt: int
    chunk: int
    place: int


@dataclass(frozen=True)
class Chunk:
    """Items by their places, of one attempt; the first attempt and the first chunk are 1 and 0."""

    attempt: int
    number: int
    places: Sequence[int]

    @property
    def key(self) -> tuple[int, int]:
        return self.attempt, self.number

    def failure(self, file: str, place: int, failed: Failed) -> Failure:
        return Failure(
            **failed.model_dump(), file=file, attempt=self.attempt, chunk=self.number, place=place
        )


def unfinished(
    rows: int, failures: Sequence[Failure], items: int, size: int
) -> tuple[int, list[Chunk]]:
    """How many rows belong to whole chunks, and the chunks that are left of this attempt.

    When an attempt is over, the chunks are those of the next one; none if no item failed.

    >>> unfinished(5, [], items=6, size=2)
    (4, [Chunk(attempt=1, number=2, places=[4, 5])])
    """
    lost = Counter((failure.attempt, failure.chunk) for failure in failures)
    places, attempt, kept = list(range(items)), 1, 0
    while places:
        chunks = [
            Chunk(attempt, number, places[start : start + size])
            for number, start in enumerate(range(0, len(places), size))
        ]
        for at, chunk in enumerate(chunks):
            made = len(chunk.places) - lost[chunk.key]
            if rows - kept < made:
                return kept, chunks[at:]
            kept += made
        places = sorted(failure.place for failure in failures if failure.attempt == attempt)
        attempt += 1
    return kept, []


def read(folder: Path, file: str = "") -> list[Failure]:
    """The lines about ``file``, or about every file. A torn last line is skipped."""
    path = folder / FILE
    lines = path.read_bytes().splitlines(keepends=True) if path.exists() else []
    listed = []
    for number, line in enumerate(lines, 1):
        try:
            listed.append(Failure.model_validate_json(line))
        except ValidationError:
            if number < len(lines):
                raise
    return [failure for failure in listed if file in ("", failure.file)]


def keep(folder: Path, file: str, chunk: Chunk, failures: Sequence[Failure]) -> None:
    """Replace the lines of one chunk, all at once; the other lines stay."""
    before = read(folder)
    after = [f for f in before if (f.file, f.attempt, f.chunk) != (file, *chunk.key)]
    after += failures
    if after == before:
        return
    write_atomic(folder / FILE, "".join(f"{failure.model_dump_json()}\n" for failure in after))


def unfit_in(listed: Sequence[Failure], todo: Sequence[Chunk]) -> int:
    """How many items that have no row are unfit, if ``todo`` is left of a further attempt."""
    now = todo[0].attempt
    still_open = {place for chunk in todo for place in chunk.places}
    return sum(
        failure.unfit
        for failure in listed
        if (failure.attempt == now - 1 and failure.place in still_open)
        or (failure.attempt == now and failure.place not in still_open)
    )


def standing(folder: Path, file: str, missing: int) -> list[Failure]:
    """The lines of the last attempt; none if no row is ``missing``."""
    listed = read(folder, file) if missing else []
    last = max((failure.attempt for failure in listed), default=0)
    return [failure for failure in listed if failure.attempt == last]


def by_reason(lost: Sequence[Failure]) -> dict[str, int]:
    """How many for each reason, the commonest first."""
    return dict(Counter(failure.reason for failure in lost).most_common())


def counts(folder: Path, file: str, missing: int) -> dict[str, Any]:
    """What a manifest says of a file's failures; nothing if no row is ``missing``."""
    lost = standing(folder, file, missing)
    if not lost:
        return {}
    unfit = sum(failure.unfit for failure in lost)
    of_them = {"unfit": unfit} if unfit else {}
    return {"failed": len(lost), **of_them, "failed_by_reason": by_reason(lost)}
