"""Where an interrupted training goes on: one kind of checkpoint for all trainings.

A checkpoint is a folder that is named after the steps made, ``000010``. Its ``tensors.safetensors``
holds the trained weights and the optimisers' moments; its ``state.json`` holds the lengths of the
logs and whatever else the training must know. No generator's state is kept: every random draw is
seeded from (seed, purpose, step). On a CPU a training that goes on ends in the same weights, to the
bit, as one that was never interrupted.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from constitutional_ai.errors import RunFolderError
from constitutional_ai.store.atomic import sync_to_disk, write_folder

State = dict[str, Any]  # as JSON can hold it


class Log:
    """A JSONL file of plain dicts that can be cut back to an earlier length."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.touch()

    def write(self, *rows: dict[str, Any]) -> None:
        """Append rows in one write. NaN and infinity are written as null: JSON has neither."""
        lines = [json.dumps(_finite(row), ensure_ascii=False) for row in rows]
        with self.path.open("a", encoding="utf-8") as file:
            file.write("".join(f"{line}\n" for line in lines))

    def size(self) -> int:
        """Bytes so far, which are on the disk when this returns."""
        sync_to_disk(self.path)
        return self.path.stat().st_size

    def cut(self, size: int) -> None:
        """Raises RunFolderError if the file is shorter, because somebody has changed it."""
        if self.path.stat().st_size < size:
            raise RunFolderError(
                f"{self.path}: shorter than at the last checkpoint, so lines were deleted; put them"
                " back, or make the stage again with --redo"
            )
        os.truncate(self.path, size)


class Checkpoints:
    """A folder of checkpoints. The newest counts; older ones are deleted once it is there."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def save(self, step: int, tensors: Mapping[str, Tensor], state: State) -> None:
        def write(draft: Path) -> None:
            # Tied weights share memory, which safetensors refuses, so every tensor is a copy.
            copies = {name: t.detach().cpu().clone() for name, t in tensors.items()}
            save_file(copies, draft / "tensors.safetensors")
            (draft / "state.json").write_text(json.dumps(state), encoding="utf-8")

        write_folder(self.folder / f"{step:06d}", write)
        for old in self._all()[:-1]:
            shutil.rmtree(old)

    def load(self) -> tuple[dict[str, Tensor], State] | None:
        """Tensors and state of the newest checkpoint, or None before the first.

        Raises RunFolderError for damaged files. A kill cannot cause them, a disk can.
        """
        newest = self._all()[-1:]
        if not newest:
            return None
        try:
            state: State = json.loads((newest[0] / "state.json").read_bytes())
            return load_file(newest[0] / "tensors.safetensors"), state
        except (OSError, ValueError, SafetensorError) as error:
            raise RunFolderError(
                f"{newest[0]}: a damaged checkpoint ({error}); delete this folder, and the training"
                " begins anew"
            ) from None

    def _all(self) -> list[Path]:
        folders = [path for path in self.folder.glob("[0-9]*") if path.is_dir()]
        return sorted(folders, key=lambda path: int(path.name))


class Part(NamedTuple):
    """A module that is trained, with its optimiser."""

    module: nn.Module
    optimiser: torch.optim.Optimizer


class Saved(NamedTuple):
    """What a training finds of its earlier start: steps made, its own state, its own tensors."""

    step: int
    state: State
    tensors: dict[str, Tensor]


class Training:
    """All that a kill must not change: trained parts and logs by name, in checkpoints."""

    def __init__(self, folder: Path, parts: Mapping[str, Part], logs: Mapping[str, Log]) -> None:
        self.checkpoints = Checkpoints(folder)
        self.parts = parts
        self.logs = logs

    def save(self, step: int, state: State, tensors: Mapping[str, Tensor] | None = None) -> None:
        """Keep parts and logs as they are after ``step`` steps, with a state and more tensors."""
        kept = dict(tensors or {})
        for name, part in self.parts.items():
            kept |= pack(name, part)
        sizes = {name: log.size() for name, log in self.logs.items()}
        self.checkpoints.save(step, kept, {**state, "step": step, "logs": sizes})

    def resume(self, check: Callable[[State], None] = lambda state: None) -> Saved | None:
        """Put parts and logs back as they were at the newest checkpoint; without one, empty logs.

        ``check`` may raise before anything is changed.
        """
        newest = self.checkpoints.load()
        if newest is None:
            for log in self.logs.values():
                log.cut(0)
            return None
        tensors, state = newest
        if "logs" not in state:
            raise RunFolderError(
                f"{self.checkpoints.folder}: holds a checkpoint of an earlier version; delete this"
                " folder, and the training begins anew"
            )
        check(state)
        for name, log in self.logs.items():
            log.cut(state["logs"][name])
        for name, part in self.parts.items():
            unpack(name, tensors, part)
        return Saved(state["step"], state, tensors)


@dataclass(frozen=True)
class Saving:
    """Where and how often a training over batches is kept, and the log that is kept with it."""

    folder: Path
    every: int
    log: Log

    def clear(self) -> None:
        """Delete the checkpoints of a training that is over."""
        shutil.rmtree(self.folder, ignore_errors=True)


class Resumable:
    """A training over batches that goes on at step ``start``; call ``done`` after each step.

    Its checkpoints hold a hash of all that was learned from, in order. Raises RunFolderError if
    the steps before the checkpoint would now learn from something else.
    """

    def __init__(self, saving: Saving, part: Part, batch: Callable[[int], object]) -> None:
        """``batch(step)`` is what a step learns from, as JSON can hold it."""
        self._every, self._batch = saving.every, batch
        self._seen = hashlib.sha256()
        self._training = Training(saving.folder, {"model": part}, {"metrics": saving.log})
        saved = self._training.resume(self._check)
        self.start = saved.step if saved else 0

    def done(self, step: int) -> None:
        """``step`` was made and logged. Saves if it is time."""
        self._see(step)
        if (step + 1) % self._every == 0:
            self._training.save(step + 1, {"seen": self._seen.hexdigest()})

    def _check(self, state: State) -> None:
        for step in range(state["step"]):
            self._see(step)
        if self._seen.hexdigest() != state["seen"]:
            raise RunFolderError(
                f"{self._training.checkpoints.folder}: the rows that were learned from before this"
                " checkpoint have changed since; delete this folder to begin anew with those of now"
            )

    def _see(self, step: int) -> None:
        self._seen.update(json.dumps(self._batch(step)).encode())


def moving(module: nn.Module) -> dict[str, Tensor]:
    """The ``state_dict`` without frozen parameters; beside an adapter those are most of it."""
    frozen = {id(parameter) for parameter in module.parameters() if not parameter.requires_grad}
    weights = module.state_dict(keep_vars=True)
    return {name: t.detach() for name, t in weights.items() if id(t) not in frozen}


def put_back(module: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """The inverse of ``moving``, in place."""
    missing, unknown = module.load_state_dict(tensors, strict=False)
    assert not unknown and not set(missing) & moving(module).keys(), (missing, unknown)


def pack(name: str, part: Part) -> dict[str, Tensor]:
    """A part's trained weights, buffers and optimiser's moments as one flat dict of tensors."""
    tensors = {f"{name}/weights/{key}": t for key, t in moving(part.module).items()}
    for number, moments in part.optimiser.state_dict()["state"].items():
        tensors.update({f"{name}/adam/{number}/{key}": t for key, t in moments.items()})
    return tensors


def unpack(name: str, tensors: Mapping[str, Tensor], part: Part) -> None:
    """The inverse of ``pack``, in place. The optimiser must have the same parameters."""
    put_back(part.module, under(f"{name}/weights/", tensors))
    moments: dict[int, dict[str, Tensor]] = {}
    for path, tensor in under(f"{name}/adam/", tensors).items():
        number, key = path.split("/")
        moments.setdefault(int(number), {})[key] = tensor
    groups = part.optimiser.state_dict()["param_groups"]
    part.optimiser.load_state_dict({"state": moments, "param_groups": groups})


def under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors whose name begins with ``prefix``, without the prefix."""
    return {name[len(prefix) :]: t for name, t in tensors.items() if name.startswith(prefix)}


def _finite(row: dict[str, Any]) -> dict[str, Any]:
    return {k: None if isinstance(v, float) and v - v != 0 else v for k, v in row.items()}
