"""What every training loop here needs: batches, schedule, a safe step, checkpoints, a log.

Weights are float32 masters; matrix products run in bfloat16 where the machine has it. Randomness is
never kept: every draw is seeded from (seed, what for, step), so a checkpoint needs no generator
state. A training that goes on from its last checkpoint ends, on the CPU, in the weights of one that
was never interrupted, to the bit.
"""

import hashlib
import json
import math
import os
import random
import shutil
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, NoReturn

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from constitutional_ai.errors import ModelError, RunFolderError, TrainingDiverged
from constitutional_ai.machine import has_fast_bf16

# ------------------------------------------------------------------------------------- precision


def autocast(device: torch.device) -> AbstractContextManager[Any]:
    """Products in bfloat16, sums and softmax in float32; does nothing where bfloat16 is slow."""
    return torch.autocast(device.type, torch.bfloat16, enabled=has_fast_bf16(device))


Names = Callable[[], str]  # what a step learned from; asked for only where it went wrong

# --------------------------------------------------------------------------------------- batches


def length_batches(lengths: Sequence[int], budget: int) -> list[list[int]]:
    """Row numbers in order of length, as many a batch as fit ``budget`` tokens with the padding.

    A row longer than the budget gets a batch of its own. Equal lengths keep their order.

    >>> length_batches([5, 1, 4, 1], budget=8)
    [[1, 3], [2], [0]]
    """
    batches: list[list[int]] = []
    for row in sorted(range(len(lengths)), key=lambda r: lengths[r]):
        if not batches or lengths[row] * (len(batches[-1]) + 1) > budget:
            batches.append([])
        batches[-1].append(row)
    return batches


def epochs(batches: Sequence[list[int]], count: int, seed: int) -> list[list[int]]:
    """The batches in a new order each epoch, one list after another."""
    return [
        batch
        for epoch in range(count)
        for batch in random.Random(f"{seed}/{epoch}").sample(list(batches), len(batches))
    ]


def endless(size: int, start: int, count: int, seed: int) -> list[int]:
    """Places ``start`` … ``start + count − 1`` of an endless run through ``range(size)``.

    Each pass takes every row once, in an order of its own.

    >>> sorted(endless(3, 0, 3, seed=1)), endless(3, 2, 2, seed=1) == endless(3, 0, 4, seed=1)[2:]
    ([0, 1, 2], True)
    """
    found: list[int] = []
    while len(found) < count:
        turn, place = divmod(start + len(found), size)
        order = random.Random(f"{seed}/{turn}").sample(range(size), size)
        found += order[place : place + count - len(found)]
    return found


# ---------------------------------------------------------------------------------- optimisation


def warmup_decay(step: int, total: int, warmup: int, floor: float = 0.1) -> float:
    """The learning rate's factor at ``step`` from 0: up over ``warmup``, then down to ``floor``."""
    return min(1.0, (step + 1) / max(1, warmup)) * (1 - (1 - floor) * step / max(1, total))


def adamw(parameters: Iterable[nn.Parameter], lr: float, eps: float = 1e-8) -> torch.optim.AdamW:
    """AdamW with betas .9 and .95 and no weight decay: runs here are too short to need any."""
    return torch.optim.AdamW(
        parameters, lr=lr, betas=(0.9, 0.95), eps=eps, weight_decay=0.0, fused=True
    )


def descend(
    loss: Tensor,
    optimiser: torch.optim.Optimizer,
    lr: float,
    rows: Names,
    max_norm: float = 1.0,
) -> float:
    """One step on one loss. Returns the gradient's norm before clipping."""
    loss.backward()
    return apply_gradients(float(loss.detach()), optimiser, lr, rows, max_norm)


def apply_gradients(
    loss: float,
    optimiser: torch.optim.Optimizer,
    lr: float,
    rows: Names,
    max_norm: float = 1.0,
) -> float:
    """Clip the gathered gradients, step, clear them. Returns the norm before clipping.

    Raises TrainingDiverged, naming ``rows``, before anything is changed where the loss or the
    gradient is not a finite number, and after the step where a weight then is none: so no
    checkpoint and no model is ever written of such weights.
    """
    parameters = [p for group in optimiser.param_groups for p in group["params"]]
    norm = float(nn.utils.clip_grad_norm_(parameters, max_norm))
    if not math.isfinite(loss + norm):
        refuse(f"loss {loss}, gradient norm {norm}", rows)
    for group in optimiser.param_groups:
        group["lr"] = lr
    optimiser.step()
    optimiser.zero_grad(set_to_none=True)
    if not math.isfinite(float(nn.utils.get_total_norm(parameters))):
        refuse(f"weights that are no finite numbers after a step at learning rate {lr:g}", rows)
    return norm


def check_weights(model: nn.Module) -> None:
    """Raise ModelError where a weight is no finite number before anything has been trained."""
    for name, weight in model.named_parameters():
        if not weight.isfinite().all():
            raise ModelError(
                f"the model to be trained has a weight in {name} that is no finite number: its file"
                " is damaged, or an earlier training of it went wrong"
            )


def refuse(what: str, rows: Names) -> NoReturn:
    """Raise TrainingDiverged, naming the rows that the step learned from."""
    raise TrainingDiverged(
        f"{what}; the last checkpoint before it is kept; lower the learning rate, or look at these"
        f" rows: {rows()}"
    )


def culprits(rows: Sequence[int], loss_of: Callable[[int], Tensor]) -> list[int]:
    """Those of a diverged batch whose own loss is no finite number; all, where none or each is."""
    with torch.no_grad():
        broken = [row for row in rows if not math.isfinite(float(loss_of(row)))]
    return broken or list(rows)


# ------------------------------------------------------------------------------ files, whole or not


def write_folder(folder: Path, write: Callable[[Path], None]) -> None:
    """Let ``write`` fill a folder under another name, then rename it: whole, or not there.

    An older folder of that name is replaced. What fails half-way leaves nothing behind. Raises
    OSError, also where it is safetensors that finds the disk full.
    """
    draft = folder.with_name(f".{folder.name}.draft")
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    try:
        write(draft)
        for path in (*draft.iterdir(), draft):
            see_onto_disk(path)
        shutil.rmtree(folder, ignore_errors=True)
        os.replace(draft, folder)
        see_onto_disk(folder.parent)
    except SafetensorError as error:
        raise OSError(f"{folder}: {error}") from None
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def see_onto_disk(path: Path) -> None:
    """Wait until a file's bytes, or a folder's names, would outlast a loss of power."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class Checkpoints:
    """Numbered folders ``checkpoints/000010`` with tensors (safetensors) and state (JSON).

    The newest whole one counts, and older ones are deleted once it stands.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def save(self, step: int, tensors: dict[str, Tensor], state: dict[str, Any]) -> None:
        def write(draft: Path) -> None:
            # Tied weights share memory, which safetensors refuses: every tensor is a copy.
            save_file(
                {k: v.detach().cpu().clone() for k, v in tensors.items()},
                draft / "tensors.safetensors",
            )
            (draft / "state.json").write_text(json.dumps(state), encoding="utf-8")

        write_folder(self.folder / f"{step:06d}", write)
        for old in self._whole()[:-1]:
            shutil.rmtree(old)

    def load(self) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        """Tensors and state of the newest checkpoint, or None before the first.

        Raises RunFolderError where its files are damaged: a kill cannot do that, a disk can.
        """
        whole = self._whole()
        if not whole:
            return None
        try:
            state: dict[str, Any] = json.loads((whole[-1] / "state.json").read_bytes())
            return load_file(whole[-1] / "tensors.safetensors"), state
        except (OSError, ValueError, SafetensorError) as error:
            raise RunFolderError(
                f"{whole[-1]}: a damaged checkpoint ({error}); delete this folder, and the training"
                " begins anew"
            ) from None

    def clear(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)

    def _whole(self) -> list[Path]:
        found = [path for path in self.folder.glob("[0-9]*") if path.is_dir()]
        return sorted(found, key=lambda path: int(path.name))


def moving(module: nn.Module) -> dict[str, Tensor]:
    """The ``state_dict`` without parameters that are frozen: beside an adapter most of them."""
    frozen = {id(parameter) for parameter in module.parameters() if not parameter.requires_grad}
    weights = module.state_dict(keep_vars=True)
    return {name: t.detach() for name, t in weights.items() if id(t) not in frozen}


def put_back(module: nn.Module, tensors: dict[str, Tensor]) -> None:
    """The inverse of ``moving``, in place."""
    missing, unknown = module.load_state_dict(tensors, strict=False)
    assert not unknown and not set(missing) & moving(module).keys(), (missing, unknown)


def pack(prefix: str, module: nn.Module, optimiser: torch.optim.Optimizer) -> dict[str, Tensor]:
    """A module's trained weights, buffers and Adam moments as one flat dict of tensors."""
    tensors = {f"{prefix}/weights/{name}": t for name, t in moving(module).items()}
    for number, moments in optimiser.state_dict()["state"].items():
        tensors.update({f"{prefix}/adam/{number}/{key}": t for key, t in moments.items()})
    return tensors


def unpack(
    prefix: str, tensors: dict[str, Tensor], module: nn.Module, optimiser: torch.optim.Optimizer
) -> None:
    """The inverse of ``pack``, in place. The optimiser must stand over the same parameters."""
    put_back(module, under(f"{prefix}/weights/", tensors))
    moments: dict[int, dict[str, Tensor]] = {}
    for name, tensor in under(f"{prefix}/adam/", tensors).items():
        number, key = name.split("/")
        moments.setdefault(int(number), {})[key] = tensor
    groups = optimiser.state_dict()["param_groups"]
    optimiser.load_state_dict({"state": moments, "param_groups": groups})


def under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors whose name begins with ``prefix``, without it."""
    return {name[len(prefix) :]: t for name, t in tensors.items() if name.startswith(prefix)}


class Log:
    """A JSONL file of plain dicts that can be cut back to an earlier length."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.touch()

    def write(self, *rows: dict[str, Any]) -> None:
        """Append rows in one write. NaN is written as null: JSON has no NaN."""
        lines = [json.dumps(_finite(row), ensure_ascii=False) for row in rows]
        with self.path.open("a", encoding="utf-8") as file:
            file.write("".join(f"{line}\n" for line in lines))

    def size(self) -> int:
        """Bytes so far, seen onto the disk: what a checkpoint notes, and ``cut`` goes back to."""
        see_onto_disk(self.path)
        return self.path.stat().st_size

    def cut(self, size: int) -> None:
        """Raises RunFolderError where the file is shorter: it was changed since."""
        if self.path.stat().st_size < size:
            raise RunFolderError(
                f"{self.path}: shorter than at the last checkpoint, so lines were deleted; put them"
                " back, or make the stage again with --redo"
            )
        os.truncate(self.path, size)


class Resumable:
    """Makes a loop over batches one that goes on where it was: ``begin`` once, ``done`` each step.

    A checkpoint every ``every`` steps holds the weights, the optimiser, the log's length and a hash
    of all that was learned from, in order: rows that were changed since are not gone on over.
    """

    def __init__(self, folder: Path, every: int, log: Log) -> None:
        self.checkpoints = Checkpoints(folder)
        self.every = every
        self.log = log

    def begin(
        self,
        module: nn.Module,
        optimiser: torch.optim.Optimizer,
        batch: Callable[[int], object],
    ) -> int:
        """Back to the newest checkpoint, or the beginning; the step to go on with.

        ``batch(step)`` is what a step learns from, as JSON can hold it. Raises RunFolderError where
        the steps before the checkpoint would now learn from something else.
        """
        self.module, self.optimiser, self.batch = module, optimiser, batch
        self.seen = hashlib.sha256()
        found = self.checkpoints.load()
        if not found:
            self.log.cut(0)
            return 0
        tensors, state = found
        start: int = state["step"]
        for step in range(start):
            self._see(step)
        if self.seen.hexdigest() != state["seen"]:
            raise RunFolderError(
                f"{self.checkpoints.folder}: the rows that were learned from before this checkpoint"
                " have changed since; delete this folder to begin anew with those of now"
            )
        unpack("model", tensors, module, optimiser)
        self.log.cut(state["log"])
        return start

    def done(self, step: int) -> None:
        """``step`` was made and logged. Saves where that is due."""
        self._see(step)
        if (step + 1) % self.every == 0:
            state = {"step": step + 1, "seen": self.seen.hexdigest(), "log": self.log.size()}
            self.checkpoints.save(step + 1, pack("model", self.module, self.optimiser), state)

    def _see(self, step: int) -> None:
        self.seen.update(json.dumps(self.batch(step)).encode())


def _finite(row: dict[str, Any]) -> dict[str, Any]:
    return {k: None if isinstance(v, float) and v - v != 0 else v for k, v in row.items()}
