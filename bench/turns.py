"""Sides that run in processes of their own and take turns: one works while the others wait.

The parent writes "go" to a worker and reads one line of JSON, the outcome of one turn. So memory is
measured apart, each side has its own environment, and noise of the machine hits all of them.
"""

import json
import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from compare import ROOT

from constitutional_ai.errors import UserError

# dill, by which `datasets` hashes, takes what lies in no site-packages for a user's own code, and
# cannot pickle pyarrow then.
TRL, TRL112 = (ROOT / folder / "site-packages" for folder in (".venv-trl", ".venv-trl112"))
OVERLAYS = {"1.16.0": [TRL], "1.12.0": [TRL112, TRL]}


class Worker:
    """The parent's side. Use as a context manager; RuntimeError where the worker ends early."""

    def __init__(
        self,
        command: Sequence[str],
        overlays: Sequence[Path] = (),
        env: Mapping[str, str] | None = None,
    ) -> None:
        path = os.pathsep.join(map(str, [*overlays, ROOT]))
        self._log = tempfile.TemporaryFile("w+", encoding="utf-8")  # noqa: SIM115 - see __exit__
        self._process = subprocess.Popen(
            [sys.executable, *command],
            env={**os.environ, "PYTHONPATH": path, **(env or {})},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
        )

    def turn(self) -> dict[str, Any]:
        """Let the worker take a turn, and wait for what it reports."""
        assert self._process.stdin and self._process.stdout
        try:
            self._process.stdin.write("go\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            pass  # the log says why
        line = self._process.stdout.readline()
        if not line:
            self._process.wait()
            self._log.seek(0)
            tail = "".join(self._log.readlines()[-25:])
            raise RuntimeError(f"{' '.join(self._process.args[1:])} ended early:\n{tail}")
        found: dict[str, Any] = json.loads(line)
        return found

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._process.kill()
        self._process.communicate()
        self._log.close()


class Turns:
    """The worker's side. From now on whatever prints goes to stderr."""

    def __init__(self) -> None:
        self._channel = os.fdopen(os.dup(1), "w", encoding="utf-8")
        os.dup2(2, 1)

    def wait(self) -> None:
        """Until it is this worker's turn; ends the process where the parent is gone."""
        if not sys.stdin.readline():
            os._exit(0)

    def report(self, **found: Any) -> None:
        print(json.dumps(found), file=self._channel, flush=True)


def peak_memory(device: str) -> float:
    """GB: of the process's resident memory at its highest, on a GPU of what tensors took there."""
    if device != "cpu":
        import torch

        return torch.cuda.max_memory_allocated(device) / 1e9
    status = Path("/proc/self/status")
    if not status.is_file():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e9  # bytes on a Mac
    # Not ru_maxrss: on Linux a process inherits the peak of the one that started it.
    lines = status.read_text().splitlines()
    (peak,) = (int(line.split()[1]) for line in lines if line.startswith("VmHWM:"))
    return peak * 1024 / 1e9


def trl_overlays(version: str) -> list[Path]:
    """What to lay over this environment so that ``import trl`` gives that version.

    Nothing where it is installed. Raises UserError where it is nowhere.
    """
    overlays = OVERLAYS[version]
    if (overlays[0] / "trl").is_dir():
        return overlays
    try:
        if metadata.version("trl") == version:
            return []
    except metadata.PackageNotFoundError:
        pass
    raise UserError(f"TRL {version} is not here; `make bench-env` puts it into {overlays[0].name}")
