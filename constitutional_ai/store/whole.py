"""Writes exports whole or not at all: a full disk or a kill leaves nothing that looks finished.

Everything is made under another name and renamed at the end. What exists is never overwritten.
"""

import json
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from constitutional_ai.errors import UserError


class ExportError(UserError):
    """The export cannot be made, or written where it should go."""


@contextmanager
def new_folder(target: Path) -> Iterator[Path]:
    """A folder to fill; it becomes ``target`` when all went well, and else is gone.

    Raises ExportError where ``target`` exists, or where the disk is full or read-only.
    """
    if target.exists():
        raise ExportError(f"{target}: exists; name a folder that does not, or delete it")
    draft = target.with_name(f".{target.name}.part")
    with _told(target):
        if draft.exists():  # of an export that was killed
            shutil.rmtree(draft)
        draft.mkdir(parents=True)
    try:
        with _told(target):
            yield draft
            draft.rename(target)
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)
        raise


def write_lines(target: Path, rows: Iterable[Mapping[str, Any]]) -> int:
    """Write JSONL whole or not at all; returns how many rows. Raises ExportError."""
    if target.exists():
        raise ExportError(f"{target}: exists; name a file that does not, or delete it")
    draft = target.with_name(f".{target.name}.part")
    try:
        with _told(target):
            count = rows_to(draft, rows)
            draft.rename(target)
    except BaseException:
        with suppress(OSError):
            draft.unlink(missing_ok=True)
        raise
    return count


def rows_to(path: Path, rows: Iterable[Mapping[str, Any]]) -> int:
    """JSONL in a folder that is itself made whole or not at all; returns how many rows."""
    count = 0
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8") as file:
        for row in rows:
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
            count += 1
        file.flush()
        os.fsync(file.fileno())
    return count


@contextmanager
def _told(target: Path) -> Iterator[None]:
    """What the system says of a disk, as one line that names the place and what is left of it."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        raise ExportError(
            f"{target}: cannot be written ({reason}); nothing is left of it, and what was there"
            f" before is untouched"
        ) from None
