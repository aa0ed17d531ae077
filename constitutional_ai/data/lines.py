"""Text files, plain or gzipped: JSONL (one object a line) and CSV (with a header).

A file is read line by line, so only its rows take memory. It is UTF-8 with or without a byte order
mark, with any line ends. Whatever cannot be read is a DataError that names the line: nothing is
skipped, guessed or cut. JSON arrays and CSV without a header are refused.
"""

import csv
import gzip
import json
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import IO, Any, cast

from constitutional_ai.data.rows import Columns, Table
from constitutional_ai.errors import DataError

# No prompt is this long: a longer line means that the file is something else.
LONGEST_LINE = 1 << 24  # bytes
EXAMPLE = '{"prompt": "Hello."}'


def jsonl(path: Path) -> Table:
    return Table(str(path), "JSONL", "line", _objects(path))


def delimited(path: Path) -> Table:
    return Table(str(path), "CSV", "line", _records(path))


def _objects(path: Path) -> Iterator[tuple[int, Columns]]:
    for number, line in enumerate(_lines(path), 1):
        if not line.strip():
            continue
        if number == 1 and line.lstrip().startswith("[") and _opens_array(line):
            raise DataError(f"{path}:1: a JSON array; write one object a line: jq -c '.[]'")
        try:
            row = json.loads(line, object_pairs_hook=_keys_once)
        except json.JSONDecodeError as error:
            raise DataError(f"{path}:{number}: not valid JSON: {error.msg}") from None
        except RecursionError:
            raise DataError(f"{path}:{number}: not valid JSON: nested too deeply") from None
        except ValueError as error:  # a key that stands twice, or a number of 5,000 digits
            raise DataError(f"{path}:{number}: {error}") from None
        if not isinstance(row, dict):
            raise DataError(f'{path}:{number}: expected an object with "prompt", such as {EXAMPLE}')
        yield number, row


def _keys_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    row = dict(pairs)
    if len(row) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the key {twice!r} stands twice; remove one of them")
    return row


def _opens_array(line: str) -> bool:
    """Whether a line begins an array of objects, which may go on in later lines."""
    try:
        return any(isinstance(item, dict) for item in json.loads(line))
    except ValueError:
        return True


def _records(path: Path) -> Iterator[tuple[int, Columns]]:
    lines = _lines(path)
    first = next(lines, "")
    delimiter = max(",;\t", key=first.count)
    csv.field_size_limit(LONGEST_LINE)
    reader = csv.reader(chain([first], lines), delimiter=delimiter, strict=True)
    header: list[str] = []
    begin = 1
    try:
        for cells in reader:
            if not header:
                header = _header(path, begin, cells)
            elif len(cells) == len(header):
                yield begin, dict(zip(header, cells, strict=True))
            elif cells:
                raise DataError(
                    f"{path}:{begin}: {len(cells)} cells, but the header names {len(header)}"
                    f' columns; a cell with {delimiter!r} or a line end in it needs "quotes"'
                )
            begin = reader.line_num + 1
    except csv.Error as error:
        raise DataError(f"{path}:{begin}: not valid CSV: {error}") from None


def _header(path: Path, line: int, cells: list[str]) -> list[str]:
    names = [cell.strip() for cell in cells]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise DataError(f"{path}:{line}: two columns are named {twice[0]!r}; rename one")
    return names


def _lines(path: Path) -> Iterator[str]:
    """Decoded lines with their ends. Raises DataError with file and line."""
    with opened(path) as file:
        number = 0
        while True:
            number += 1
            try:
                line = file.readline(LONGEST_LINE + 1)
            except (EOFError, zlib.error):
                raise DataError(
                    f"{path}:{number}: the gzip file is broken off; fetch it again"
                ) from None
            if not line:
                return
            if number == 1:
                line = _without_mark(path, line)
            yield _decoded(path, number, line)


def _decoded(path: Path, number: int, line: bytes) -> str:
    if len(line) > LONGEST_LINE:
        most = LONGEST_LINE >> 20
        raise DataError(
            f"{path}:{number}: the line is longer than {most} MiB; is it JSONL or CSV,"
            f" with a line for each row?"
        )
    if b"\0" in line:
        raise DataError(
            f"{path}:{number}: a NUL byte; the file is binary, or a crash tore it: make it again"
        )
    try:
        return line.decode()
    except UnicodeDecodeError:
        raise DataError(f"{path}:{number}: not UTF-8 text; save the file as UTF-8") from None


def _without_mark(path: Path, line: bytes) -> bytes:
    if line.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise DataError(f"{path}:1: UTF-16 text; save the file as UTF-8")
    return line.removeprefix(b"\xef\xbb\xbf")


@contextmanager
def opened(path: Path) -> Iterator[IO[bytes]]:
    """The file's bytes, unpacked where its name ends with .gz. Raises DataError."""
    try:
        with path.open("rb") as file:
            yield file if path.suffix != ".gz" else cast(IO[bytes], gzip.GzipFile(fileobj=file))
    except gzip.BadGzipFile:
        raise DataError(f"{path}: not a gzip file, in spite of its name") from None
    except OSError as error:
        raise unreadable(path, error) from None


def unreadable(path: Path, error: OSError) -> DataError:
    reason = error.strerror or str(error)
    return DataError(
        f"{path}: cannot be read ({reason}); name a JSONL, CSV or Parquet file, hf:ID, or 'lab'"
    )
