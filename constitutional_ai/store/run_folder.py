"""The run folder: one lock, and a folder for each stage with its fingerprint and manifest.

A stage's folder goes through three states. Empty; begun, when ``settings.json`` holds the
fingerprint that it is being made under; done, when ``manifest.json`` is there, which is written
last and whole. A kill at any moment leaves one of the three, and the same command goes on.

    DIR/1-revise … DIR/8-report                              one round
    DIR/r1/1-revise … DIR/r2/6-ppo, DIR/7-evaluate, …        several

With another learner the folder of stage 6 has its name, and 5-reward may be missing.
"""

import fcntl
import hashlib
import json
import os
import shutil
import sys
import time
from collections.abc import Container, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self, TypeVar

from constitutional_ai.errors import DataError, RunFolderError
from constitutional_ai.machine import installed
from constitutional_ai.records import Row, content_hash
from constitutional_ai.stage_list import (
    ONCE,
    STAGE_NAMES,
    STAGE_OF,
    STAGES,
    Learner,
    Stage,
    words_of,
)
from constitutional_ai.store.atomic import write_atomic
from constitutional_ai.store.rows import read_rows
from constitutional_ai.version import __version__

CHECKPOINTS = "checkpoints"  # in a stage's folder: what only an unfinished training needs

LOCK = ".lock"  # in the run folder; it holds the pid of the process that has it

Fingerprint = dict[str, Any]  # flat: what the rows depend on, by name

R = TypeVar("R", bound=Row)


def stage_word(name: str) -> str:
    """``"3-sample"`` or ``"sample"`` → ``"sample"``. Raises RunFolderError for any other name."""
    word = name.partition("-")[2] or name
    if word not in STAGE_NAMES:
        names = ", ".join(STAGE_NAMES)
        raise RunFolderError(f"no stage is named {name!r}; the stages are: {names}")
    return word


class StageFolder:
    """One stage's folder. ``name`` is its path in the run: ``1-revise`` or ``r2/1-revise``.

    ``remedy`` tells a user how to have it made again.
    """

    def __init__(
        self, path: Path, name: str, seed: int = 0, remedy: str = "delete the folder"
    ) -> None:
        self.path = path
        self.name = name
        self.seed = seed
        self.remedy = remedy
        self._began = time.monotonic()

    @property
    def done(self) -> bool:
        return (self.path / "manifest.json").exists()

    def made_under(self) -> Fingerprint | None:
        """The fingerprint that the rows were made under; None as long as there is no row.

        So a start that failed before its first row, such as for want of a model, binds nobody.
        """
        if not self.done and not any(self.path.glob("*.jsonl")):
            return None
        path = self.path / ("manifest.json" if self.done else "settings.json")
        return _read_json(path).get("fingerprint", {}) if path.exists() else None

    def check(self, fingerprint: Fingerprint, gone: Container[str] = ()) -> None:
        """Raise RunFolderError if the rows were made under another fingerprint.

        ``gone`` names what earlier versions took into a fingerprint; it is not compared.
        """
        before = self.made_under()
        if before is None:
            return
        for key in [*fingerprint, *before]:
            was, now = before.get(key), fingerprint.get(key)
            if was != now and not (now is None and key in gone):
                raise RunFolderError(
                    f"{self.path}: was made with {key} = {_shown(was)}, now {_shown(now)};"
                    f" {self.remedy} to make it and all that follows again, or take another --out"
                )

    def claim(self, fingerprint: Fingerprint, gone: Container[str] = ()) -> None:
        """Begin the folder, or go on in it; a finished one is left alone. Raises as ``check``."""
        self.check(fingerprint, gone)
        if not self.done:
            _write_json(self.path / "settings.json", {"fingerprint": fingerprint})
        self._began = time.monotonic()

    def finish(self, counts: dict[str, Any]) -> None:
        """Write ``manifest.json``: the stage is done now. ``seconds`` count from claim."""
        settings = self.path / "settings.json"
        models = sorted(config.parent for config in self.path.glob("*/config.json"))
        manifest = {
            "stage": self.name,
            "fingerprint": _read_json(settings)["fingerprint"] if settings.exists() else {},
            "files": {file.name: _sha256(file) for file in sorted(self.path.glob("*.jsonl"))},
            "models": {model.name: folder_hash(model) for model in models},
            "versions": versions(),
            "counts": counts,
            "seconds": round(time.monotonic() - self._began, 2),
        }
        _write_json(self.path / "manifest.json", manifest)
        self.tidy()

    def verify(self) -> None:
        """Raise RunFolderError if rows or models have changed since the stage was finished.

        Of a model, ``folder_hash`` is compared. Manifests of earlier versions know no models.
        """
        files, models = self.manifest["files"], self.manifest.get("models", {})
        now = {name: _sha256(self.path / name) for name in files}
        now |= {name: folder_hash(self.path / name) for name in models}
        for name, before in {**files, **models}.items():
            if now[name] != before:
                raise RunFolderError(
                    f"{self.path / name}: has changed since its stage was finished; put it back, or"
                    f" {self.remedy} to make it and all that follows again"
                )

    def tidy(self) -> None:
        """Delete what a finished stage does not need; a kill may have come between."""
        shutil.rmtree(self.path / CHECKPOINTS, ignore_errors=True)

    @property
    def manifest(self) -> dict[str, Any]:
        """What ``finish`` wrote."""
        return _read_json(self.path / "manifest.json")

    def rows(self, file: str, kind: type[R]) -> list[R]:
        """All rows of a file. Raises DataError with file and line for a missing or broken one."""
        path = self.path / file
        if not path.exists():
            raise DataError(f"{path}: missing; {self.remedy} to make it again")
        return read_rows(path, kind)


class RunFolder:
    """The ``--out`` folder of a run."""

    def __init__(
        self, path: str | Path, rounds: int = 1, seed: int = 0, learner: Learner = "ppo"
    ) -> None:
        self.path = Path(path).absolute()
        self.rounds = rounds
        self.seed = seed
        self.learner = learner

    def stage(self, name: str, round: int = 1) -> StageFolder:
        """The folder of a stage, given as ``"1-revise"`` or ``"revise"``, in a round from 1."""
        word = stage_word(name)
        place = f"r{round}/" if self.rounds > 1 and word not in ONCE else ""
        name = f"{place}{STAGE_OF[word].number}-{word}"
        return StageFolder(self.path / name, name, self.seed, f"add `--redo {place}{word}`")

    def plan(self) -> list[tuple[str, int]]:
        """Every (stage, round) in the order in which they run."""
        looped = [name for name in words_of(self.learner) if name not in ONCE]
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

    @contextmanager
    def locked(self) -> Iterator[Self]:
        """Hold the folder alone; it is made if it is missing.

        Raises RunFolderError if another process holds it, or if it belongs to a run with other
        rounds or another learner. After an error, what was made and is still empty is deleted.
        """
        made = [path for path in (self.path, *self.path.parents) if not path.exists()]
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            lock = os.open(self.path / LOCK, os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise RunFolderError(
                f"{self.path}: cannot be a run folder ({error.strerror}); take another --out"
            ) from None
        try:
            self._take(lock)
            try:
                self._check_rounds()
                self._check_learner()
                yield self
            except BaseException:
                self._delete_unused(made)
                raise
        finally:
            os.close(lock)  # closing is what gives the lock back

    def _take(self, lock: int) -> None:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(lock, 20).decode() or "another process"
            raise RunFolderError(
                f"{self.path}: in use by pid {holder}; wait for it, or take another --out"
            ) from None
        os.ftruncate(lock, 0)
        os.write(lock, str(os.getpid()).encode())

    def _check_rounds(self) -> None:
        other = self.path / ("1-revise" if self.rounds > 1 else "r1")
        if other.exists():
            was = "rounds = 1" if self.rounds > 1 else "rounds above 1"
            raise RunFolderError(
                f"{self.path}: belongs to a run with {was}, now rounds = {self.rounds};"
                " take another --out"
            )

    def _check_learner(self) -> None:
        """Two learners in one folder would leave open which of their models was evaluated."""
        for stage in STAGES:
            if stage.learner not in (None, self.learner) and _made(self.path, stage):
                raise RunFolderError(
                    f"{self.path}: holds the stage {stage.word} of a run with learner ="
                    f' "{stage.learner}", now learner = "{self.learner}"; take another --out, and'
                    " copy 1-revise to 4-label into it if they are to be kept"
                )

    def _delete_unused(self, made: Sequence[Path]) -> None:
        if [path.name for path in self.path.iterdir()] == [LOCK]:
            (self.path / LOCK).unlink()
        for path in made:
            if any(path.iterdir()):
                return
            path.rmdir()


def learner_of(path: Path) -> Learner:
    """Whose stages lie in a run folder; "ppo" before there are any."""
    made = (stage.learner for stage in STAGES if stage.learner and _made(path, stage))
    return next(made, "ppo")


def _made(path: Path, stage: Stage) -> bool:
    """Whether a run folder has a stage, begun or done, in any of its rounds."""
    name = f"{stage.number}-{stage.word}"
    return (path / name).exists() or any(path.glob(f"r[0-9]*/{name}"))


def versions() -> dict[str, str]:
    """Versions of what made a stage."""
    libraries = {name: installed(name) or "not installed" for name in ("torch", "transformers")}
    return {"constitutional-ai": __version__, "python": sys.version.split()[0], **libraries}


def _shown(value: object) -> str:
    return "nothing" if value is None else json.dumps(value, ensure_ascii=False)


def fingerprint_hash(fingerprint: Fingerprint) -> str:
    """The fingerprint of a stage as the next stage's fingerprint names it."""
    return content_hash(fingerprint)


def folder_hash(folder: Path) -> str:
    """A hash of the names and sizes of a folder's files, and of each one's first 64 KiB.

    The first bytes of a safetensors file are its layout and some weights. That is enough to notice
    that a model was trained again, without reading all of a large one. "" if there is no folder.
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
    """The hash of a file's content; "" if there is none."""
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
