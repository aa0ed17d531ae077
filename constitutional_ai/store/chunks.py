"""The rows of a stage, made chunk by chunk: a chunk is the unit of work and of resume."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from constitutional_ai.errors import RowsFailed, RunFolderError
from constitutional_ai.machine import give_back
from constitutional_ai.records import Row
from constitutional_ai.store import failures
from constitutional_ai.store.failures import Chunk, Failed, Failure
from constitutional_ai.store.rows import append_rows
from constitutional_ai.store.run_folder import StageFolder
from constitutional_ai.store.seeds import derive_seed

T = TypeVar("T")
R = TypeVar("R", bound=Row)


def in_chunks(
    folder: StageFolder,
    file: str,
    items: Sequence[T],
    size: int,
    work: Callable[[Sequence[T], int], Sequence[R | Failed]],
    tick: Callable[[int], None],
    kind: type[R],
    may_fail: float = 0.0,
) -> list[R]:
    """Make one row for each item; returns all rows, those of earlier starts too.

    ``work(chunk, seed)`` gives the rows of ``size`` items in order. The seed depends on the run's
    seed, the stage, the file and the chunk's number. ``kind`` is the rows' class. A chunk is
    appended in one write and is the unit of resume: what an interrupted chunk left behind is cut
    off and made again whole. So batches, and with them low-precision arithmetic, are those of an
    uninterrupted run.

    If ``work`` gives a Failed instead of a row, the item is left out and listed in failures.jsonl.
    Raises RowsFailed at the end if that is more than the share ``may_fail`` of all items, those
    that are unfit not counted, or if there is no row at all. The next start then tries those again,
    and appends the rows that come of it.
    """
    path = folder.path / file
    done, todo = _keep_whole_chunks(folder, path, len(items), size)
    if done and todo and todo[0].attempt > 1:
        unfit = failures.unfit_in(failures.read(folder.path, file), todo)
        if len(items) - done - unfit <= may_fail * len(items):
            todo = []
    rows = folder.rows(file, kind) if done else []
    tick(len(items) - sum(len(chunk.places) for chunk in todo))
    for chunk in todo:
        again = () if chunk.attempt == 1 else (chunk.attempt,)
        seed = derive_seed(folder.seed, folder.name, file, chunk.number, *again)
        made = list(work([items[place] for place in chunk.places], seed))
        if len(made) != len(chunk.places):
            raise RuntimeError(f"{folder.name}: {len(made)} rows for {len(chunk.places)} items")
        rows += _store(path, chunk, made)
        give_back()
        tick(len(chunk.places))
    lost = failures.standing(folder.path, file, len(items) - len(rows))
    counted = [failure for failure in lost if not failure.unfit]
    if len(counted) > may_fail * len(items):
        raise RowsFailed(
            f"{path}: {len(counted)} of {len(items)} rows failed ({_reasons(counted)}), listed in"
            f" {failures.FILE}; the same command tries them again, and a higher `http.max_failed`"
            " goes on without them"
        )
    if lost and not rows:
        raise RowsFailed(
            f"{path}: none of {len(items)} rows could be made ({_reasons(lost)}), listed in"
            f" {failures.FILE}; shorten the prompts, or take a model with a longer context"
        )
    return rows


def _reasons(lost: Sequence[Failure]) -> str:
    listed = failures.by_reason(lost)
    return "; ".join(f"{n}: {reason}" for reason, n in listed.items())[:300]


def _store(path: Path, chunk: Chunk, made: Sequence[R | Failed]) -> list[R]:
    """Write a chunk, its failures first: they tell how many rows it has when it is whole."""
    lost = [
        chunk.failure(path.name, place, row)
        for place, row in zip(chunk.places, made, strict=True)
        if isinstance(row, Failed)
    ]
    rows = [row for row in made if not isinstance(row, Failed)]
    failures.keep(path.parent, path.name, chunk, lost)
    if rows:
        append_rows(path, rows)
    return rows


def _keep_whole_chunks(
    folder: StageFolder, path: Path, items: int, size: int
) -> tuple[int, list[Chunk]]:
    """Cut off a torn last line and an incomplete last chunk; how many rows are left, what to do."""
    lines = path.read_bytes().splitlines(keepends=True) if path.exists() else []
    whole = len(lines) if not lines or lines[-1].endswith(b"\n") else len(lines) - 1
    if whole > items:
        raise RunFolderError(
            f"{path}: has {whole} rows for {items} inputs, so it belongs to another run;"
            f" {folder.remedy} to make it again"
        )
    keep, todo = failures.unfinished(whole, failures.read(path.parent, path.name), items, size)
    if lines:
        os.truncate(path, sum(len(line) for line in lines[:keep]))
    return keep, todo
