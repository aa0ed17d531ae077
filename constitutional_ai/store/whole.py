"""New files and folders for other tools: whole or not there, and never over what exists.

Everything is written under another name and renamed at the end, so a full disk or a kill leaves
nothing that looks finished. What replaces its own older state is in ``store/atomic.py``.
"""

import json
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from constitutional_ai.errors import UserError
from constitutional_ai.store.atomic import sync_to_disk


class ExportError(UserError):
    """The export cannot be made, or not written where it should go."""


@contextmanager
def new_folder(target: Path) -> Iterator[Path]:
    """A folder to fill. It becomes ``target`` if all goes well, and is deleted otherwise.

    Raises ExportError if ``target`` exists, or if the disk is full or read-only.
    """
    with _draft_of(target) as draft:
        draft.mkdir(parents=True)
        yield draft


def write_lines(target: Path, rows: Iterable[Mapping[str, Any]]) -> int:
    """Write a new JSONL file; returns the number of rows. Raises ExportError as `new_folder`."""
    with _draft_of(target) as draft:
        return rows_to(draft, rows)


def rows_to(path: Path, rows: Iterable[Mapping[str, Any]]) -> int:
    """Write JSONL into a folder that is new itself; returns the number of rows."""
    count = 0
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8") as file:
        for row in rows:
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
            count += 1
    sync_to_disk(path)
    return count


@contextmanager
def _draft_of(target: Path) -> Iterator[Path]:
    if target.exists():
        raise ExportError(f"{target}: exists; name one that does not, or delete it")
    draft = target.with_name(f".{target.name}.part")
    try:
        _delete(draft)  # of an export that was killed
        yield draft
        draft.rename(target)
    except (OSError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ExportError(
            f"{target}: cannot be written ({reason}); nothing is left of it, and what was there"
            " before is untouched"
        ) from None
    finally:
        _delete(draft)


def _delete(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
