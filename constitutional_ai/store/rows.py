"""Rows in JSONL files: appended in one write, read back with file and line in every complaint."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

from pydantic import ValidationError

from constitutional_ai.errors import DataError
from constitutional_ai.records import Row

R = TypeVar("R", bound=Row)


def read_rows(path: Path, kind: type[R]) -> list[R]:
    """All rows of a file of this kind. Raises DataError with file and line for a broken one."""
    try:
        lines = path.read_bytes().splitlines()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from None
    return [_row(path, number, line, kind) for number, line in enumerate(lines, 1)]


def _row(path: Path, number: int, line: bytes, kind: type[R]) -> R:
    try:
        return kind.model_validate_json(line)
    except ValidationError as error:
        problem = error.errors()[0]
        where = ".".join(str(part) for part in problem["loc"])
        message = f"{where}: {problem['msg']}" if where else problem["msg"]
        raise DataError(f"{path}:{number}: not a {kind.__name__} row: {message}") from None


def append_rows(path: Path, rows: Sequence[Row]) -> None:
    """Append rows as JSONL in one write, and wait until they are on the disk."""
    data = "".join(f"{row.model_dump_json()}\n" for row in rows).encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        written = os.write(descriptor, data)
        os.fsync(descriptor)
    except OSError as error:  # of a full disk, say, which does not name the file
        raise OSError(error.errno, error.strerror, str(path)) from None
    finally:
        os.close(descriptor)
    if written != len(data):
        raise OSError(f"{path}: {written} of {len(data)} bytes written; is the disk full?")
