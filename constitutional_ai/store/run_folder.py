"""The run folder: one lock, a folder for each stage, rows in chunks, manifests, resume.

A stage folder goes through three states. Empty; begun, when ``settings.json`` holds the
fingerprint that it is being made under; done, when ``manifest.json`` stands, which is written last
and by rename. A kill at any moment leaves one of the three; the same command goes on from there.

    DIR/1-revise … DIR/8-report                              one round
    DIR/r1/1-revise … DIR/r2/6-ppo, DIR/7-evaluate, …        several
"""

import fcntl
import hashlib
import json
import os
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from pydantic import ValidationError

from constitutional_ai.errors import DataError, RowsFailed, RunFolderError
from constitutional_ai.machine import give_back
from constitutional_ai.records import Row, content_hash
from constitutional_ai.stage_list import ONCE, STAGE_NAMES
from constitutional_ai.store import failures
from constitutional_ai.store.atomic import write_atomic
from constitutional_ai.store.failures import Chunk, Failed
from constitutional_ai.version import __version__

CHECKPOINTS = "checkpoints"  # in a stage's folder: what only an unfinished training needs

Fingerprint = dict[str, Any]  # flat: what the rows depend on, by name

T = TypeVar("T")
R = TypeVar("R", bound=Row)


def derive_seed(*parts: object) -> int:
    """A seed in [0, 2^63) that depends on every part, such as (seed, stage, id)."""
    text = json.dumps(parts, ensure_ascii=False, default=str)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8]) >> 1


def stage_word(name: str) -> str:
    """``"3-sample"`` or ``"sample"`` → ``"sample"``. Raises RunFolderError for any other name."""
    word = name.partition("-")[2] or name
    if word not in STAGE_NAMES:
        names = ", ".join(STAGE_NAMES)
        raise RunFolderError(f"no stage is named {name!r}; the stages are: {names}")
    return word


class StageFolder:
    """One stage's folder. ``name`` is its path in the run: ``1-revise`` or ``r2/1-revise``."""

    def __init__(self, path: Path, name: str, seed: int = 0) -> None:
        self.path = path
        self.name = name
        self.seed = seed
        self._began = time.monotonic()

    @property
    def done(self) -> bool:
        return (self.path / "manifest.json").exists()

    def check(self, fingerprint: Fingerprint) -> None:
        """Raise RunFolderError where the folder was begun, or done, under another fingerprint."""
        for name in ("manifest.json", "settings.json"):
            if (self.path / name).exists():
                self._compare(_read_json(self.path / name).get("fingerprint", {}), fingerprint)
                return

    def _compare(self, before: Fingerprint, now: Fingerprint) -> None:
        for key in [*now, *before]:
            if before.get(key) != now.get(key):
                raise RunFolderError(
                    f"{self.path}: was made with {key} = {_shown(before.get(key))}, now"
                    f" {_shown(now.get(key))}; add `--redo {_redo_name(self.name)}` to make it and"
                    f" all later stages again, or take another --out"
                )

    def begin(self, fingerprint: Fingerprint) -> None:
        """Claim the folder for this fingerprint, before the first row is written."""
        self.check(fingerprint)
        self.path.mkdir(parents=True, exist_ok=True)
        _write_json(self.path / "settings.json", {"fingerprint": fingerprint})
        self._began = time.monotonic()

    def finish(self, counts: dict[str, Any]) -> None:
        """Write ``manifest.json``: from now on the stage is done. ``seconds`` count from begin."""
        settings = self.path / "settings.json"
        fingerprint = _read_json(settings)["fingerprint"] if settings.exists() else {}
        manifest = {
            "stage": self.name,
            "fingerprint": fingerprint,
            "files": {file.name: _sha256(file) for file in sorted(self.path.glob("*.jsonl"))},
            "models": {model.name: folder_hash(model) for model in self._models()},
            "versions": versions(),
            "counts": counts,
            "seconds": round(time.monotonic() - self._began, 2),
        }
        self.path.mkdir(parents=True, exist_ok=True)
        _write_json(self.path / "manifest.json", manifest)
        self.tidy()

    def verify(self) -> None:
        """Raise RunFolderError where a finished stage's rows or models are not those it finished.

        Of a model the names and sizes of its files are compared, and each one's first 64 KiB.
        Manifests of earlier versions say nothing of models.
        """
        kept = self.manifest
        now = {file: _sha256(self.path / file) for file in kept["files"]}
        now |= {model: folder_hash(self.path / model) for model in kept.get("models", {})}
        for name, before in {**kept["files"], **kept.get("models", {})}.items():
            if now[name] != before:
                raise RunFolderError(
                    f"{self.path / name}: has changed since its stage was finished; put it back, or"
                    f" add `--redo {_redo_name(self.name)}` to make it and all later stages again"
                )

    def _models(self) -> list[Path]:
        return sorted(config.parent for config in self.path.glob("*/config.json"))

    def tidy(self) -> None:
        """Delete what a finished stage needs no more; a kill may have come between."""
        shutil.rmtree(self.path / CHECKPOINTS, ignore_errors=True)

    @property
    def manifest(self) -> dict[str, Any]:
        """What ``finish`` wrote."""
        return _read_json(self.path / "manifest.json")

    def rows(self, file: str, kind: type[R]) -> list[R]:
        """All rows of a file. Raises DataError with file and line for a missing or broken one."""
        path = self.path / file
        if not path.exists():
            raise DataError(f"{path}: missing; `--redo {_redo_name(self.name)}` makes it again")
        return read_rows(path, kind)


def read_rows(path: Path, kind: type[R]) -> list[R]:
    """All rows of a file of this kind. Raises DataError with file and line for a broken one."""
    try:
        lines = path.read_bytes().splitlines()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from None
    return [_row(path, number, line, kind) for number, line in enumerate(lines, 1)]


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
    """One row for each item, made ``size`` items at a time; returns all rows, earlier starts' too.

    ``work(chunk, seed)`` gives a row for each item in order; the seed depends on the run's seed,
    the stage, the file and the chunk's number. A chunk is appended in one write, and is the unit of
    resume: what an interrupted chunk left behind is cut off and made again whole, so that batches,
    and with them low-precision arithmetic, are those of an uninterrupted run. ``kind`` is the rows'
    class, to read back what an earlier start wrote.

    Where ``work`` gives a Failed instead of a row, the item is left out and listed in
    failures.jsonl. Raises RowsFailed at the end where that is more than the share ``may_fail`` of
    all items; the next start then tries those again, and appends the rows that come of it.
    """
    path = folder.path / file
    done, todo = _keep_whole_chunks(path, len(items), size, folder.name)
    if todo and todo[0].attempt > 1 and len(items) - done <= may_fail * len(items):
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
    lost = failures.counts(folder.path, file, len(items) - len(rows))
    if lost and lost["failed"] > may_fail * len(items):
        reasons = "; ".join(f"{n}: {reason}" for reason, n in lost["failed_by_reason"].items())
        raise RowsFailed(
            f"{path}: {lost['failed']} of {len(items)} rows failed ({reasons[:300]}), listed in"
            f" {failures.FILE}; the same command tries them again, and a higher `http.max_failed`"
            " goes on without them"
        )
    return rows


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


def append_rows(path: Path, rows: Sequence[Row]) -> None:
    """Append rows as JSONL in one write, and see them onto the disk."""
    data = "".join(f"{row.model_dump_json()}\n" for row in rows).encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        written = os.write(descriptor, data)
        os.fsync(descriptor)
    except OSError as error:  # of a full disk, say, which does not tell the file
        raise OSError(error.errno, error.strerror, str(path)) from None
    finally:
        os.close(descriptor)
    if written != len(data):
        raise OSError(f"{path}: {written} of {len(data)} bytes written; is the disk full?")


def _keep_whole_chunks(path: Path, items: int, size: int, name: str) -> tuple[int, list[Chunk]]:
    """Cut off a torn last line and an incomplete last chunk; how many rows are left, what to do."""
    lines = path.read_bytes().splitlines(keepends=True) if path.exists() else []
    whole = len(lines) if not lines or lines[-1].endswith(b"\n") else len(lines) - 1
    if whole > items:
        raise RunFolderError(
            f"{path}: has {whole} rows for {items} inputs, so it belongs to another run;"
            f" `--redo {_redo_name(name)}` makes it again"
        )
    keep, todo = failures.unfinished(whole, failures.read(path.parent, path.name), items, size)
    if lines:
        os.truncate(path, sum(len(line) for line in lines[:keep]))
    return keep, todo


class RunFolder:
    """The ``--out`` folder. Used as a context manager it is locked against a second run."""

    def __init__(self, path: str | Path, rounds: int = 1, seed: int = 0) -> None:
        self.path = Path(path).absolute()
        self.rounds = rounds
        self.seed = seed
        self._lock: int | None = None

    def stage(self, name: str, round: int = 1) -> StageFolder:
        """The folder of a stage, given as ``"1-revise"`` or ``"revise"``, in a round from 1."""
        word = stage_word(name)
        name = f"{STAGE_NAMES.index(word) + 1}-{word}"
        if self.rounds > 1 and word not in ONCE:
            name = f"r{round}/{name}"
        return StageFolder(self.path / name, name, self.seed)

    def plan(self) -> list[tuple[str, int]]:
        """Every (stage, round) in the order in which they run."""
        looped = [name for name in STAGE_NAMES if name not in ONCE]
        rounds = range(1, self.rounds + 1)
        return [(name, n) for n in rounds for name in looped] + [(n, self.rounds) for n in ONCE]

    def clear(self, stages: Sequence[StageFolder]) -> None:
        """Delete stages, the last one first; a kill half-way leaves a run that can go on.

        A folder is renamed before it is deleted, so that none is ever left with rows but without
        the fingerprint that they were made under.
        """
        for stage in reversed(stages):
            doomed = stage.path.with_name(f".{stage.path.name}.deleted")
            for path in (doomed, stage.path):
                if path.is_symlink():
                    path.unlink()  # what it points to is somebody else's
                elif path.exists():
                    path.rename(doomed)
                    shutil.rmtree(doomed)

    def __enter__(self) -> Self:
        """Take the lock. Raises RunFolderError where it is held, or the rounds do not fit."""
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._lock = os.open(self.path / ".lock", os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise RunFolderError(
                f"{self.path}: cannot be a run folder ({error.strerror}); take another --out"
            ) from None
        try:
            self._take_lock(self._lock)
            self._check_layout()
        except RunFolderError:
            self._release()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._release()
        if error is not None and [path.name for path in self.path.iterdir()] == [".lock"]:
            shutil.rmtree(self.path)  # nothing came of it

    def _take_lock(self, lock: int) -> None:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(lock, 20).decode() or "another process"
            raise RunFolderError(
                f"{self.path}: in use by pid {holder}; wait for it, or take another --out"
            ) from None
        os.ftruncate(lock, 0)
        os.write(lock, str(os.getpid()).encode())

    def _check_layout(self) -> None:
        other = self.path / ("1-revise" if self.rounds > 1 else "r1")
        if other.exists():
            was = "rounds = 1" if self.rounds > 1 else "rounds above 1"
            raise RunFolderError(
                f"{self.path}: belongs to a run with {was}, now rounds = {self.rounds};"
                f" take another --out"
            )

    def _release(self) -> None:
        if self._lock is not None:
            os.close(self._lock)  # closing is what gives the lock back
            self._lock = None


def versions() -> dict[str, str]:
    """Versions of what made a stage."""
    libraries = {name: installed(name) for name in ("torch", "transformers")}
    return {"constitutional-ai": __version__, "python": sys.version.split()[0], **libraries}


def installed(distribution: str) -> str:
    """A distribution's version, or "not installed"."""
    try:
        return version(distribution)
    except PackageNotFoundError:
        return "not installed"


def _row(path: Path, number: int, line: bytes, kind: type[R]) -> R:
    try:
        return kind.model_validate_json(line)
    except ValidationError as error:
        problem = error.errors()[0]
        where = ".".join(str(part) for part in problem["loc"])
        message = f"{where}: {problem['msg']}" if where else problem["msg"]
        raise DataError(f"{path}:{number}: not a {kind.__name__} row: {message}") from None


def _redo_name(stage: str) -> str:
    """``r2/4-label`` → ``r2/label``: what ``--redo`` takes."""
    round_part, _, name = stage.rpartition("/")
    return f"{round_part}/{stage_word(name)}" if round_part else stage_word(name)


def _shown(value: object) -> str:
    return "nothing" if value is None else json.dumps(value, ensure_ascii=False)


def fingerprint_hash(fingerprint: Fingerprint) -> str:
    """The fingerprint of a stage as the next stage's fingerprint names it."""
    return content_hash(fingerprint)


def folder_hash(folder: Path) -> str:
    """A hash of the names and sizes of a folder's files, and of each one's first 64 KiB.

    The first bytes of a safetensors file are its layout and some weights: enough to tell a model
    that was trained again, without reading all of a large one. "" where there is no such folder.
    """
    if not folder.is_dir():
        return ""
    digest = hashlib.sha256()
    for file in sorted(file for file in folder.iterdir() if file.is_file()):
        digest.update(f"{file.name} {file.stat().st_size} ".encode())
        with file.open("rb") as opened:
            digest.update(opened.read(1 << 16))
    return digest.hexdigest()[:16]


def _sha256(path: Path) -> str:
    """The hash of a file's content; "" where there is none."""
    if not path.exists():
        return ""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _read_json(path: Path) -> dict[str, Any]:
    try:
        data: dict[str, Any] = json.loads(path.read_bytes())
    except ValueError as error:
        raise RunFolderError(f"{path}: broken ({error}); delete the folder it is in") from None
    return data


def _write_json(path: Path, data: dict[str, Any]) -> None:
    write_atomic(path, json.dumps(data, indent=2, ensure_ascii=False) + "\n")
