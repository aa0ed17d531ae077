"""How far a run is: bars on a terminal, plain lines elsewhere, JSON lines for machines.

Bars and plain lines go to stderr, so that stdout holds only results; JSON lines are results, and go
to stdout.

A unit of a task may take minutes: a chunk is 64 answers of a large model. So an engine says of each
call, through ``asking``, how far it is. That is shown beside the innermost task that is open, and
nowhere if none is. ``called`` gives the calls of a block a better name.
"""

import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, TextIO

Mode = Literal["auto", "json", "plain"]
SECONDS_BETWEEN_LINES = 5.0
SECONDS_WITHIN = 30.0  # between two lines about a call that is still going on
SECONDS_BETWEEN_BARS = 0.2


class Tick(Protocol):
    """Says that ``done`` more units are done, and what the latest figures are."""

    def __call__(self, done: int = 1, **figures: object) -> None: ...


@dataclass
class Task:
    """A step that takes long. ``total`` and ``done`` count ``unit``s."""

    name: str
    total: int
    unit: str
    began: float  # seconds, of time.monotonic
    done: int = 0
    figures: dict[str, object] = field(default_factory=dict)
    call: str = ""  # "critiques 16/64": how far the engine is with what it was asked last

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.began

    def line(self) -> str:
        """``revise  300/600 rows (critiques 16/64)  12 s  harm 0.41``"""
        count = f"{self.done}/{self.total} {self.unit}" + (f" ({self.call})" if self.call else "")
        figures = [f"{name} {shown(value)}" for name, value in self.figures.items()]
        return "  ".join([self.name, count, f"{self.seconds:.0f} s", *figures])


class View(Protocol):
    """Where tasks are shown."""

    def start(self, task: Task) -> None: ...
    def update(self, task: Task) -> None: ...
    def within(self, task: Task) -> None: ...
    def end(self, task: Task, error: bool) -> None: ...
    def note(self, text: str) -> None: ...


class Progress:
    """``with progress.task("revise", total=600, unit="rows") as tick: tick(50, harm=0.4)``."""

    def __init__(self, mode: Mode = "auto", stream: TextIO | None = None) -> None:
        stream = stream or (sys.stdout if mode == "json" else sys.stderr)
        self._view: View
        if mode == "json":
            self._view = JsonLines(stream)
        elif mode == "auto" and stream.isatty():
            self._view = Bars(stream)
        else:
            self._view = PlainLines(stream)

    @contextmanager
    def task(self, name: str, total: int, unit: str = "rows") -> Iterator[Tick]:
        """Show a task for as long as the block runs; tasks may be nested."""
        task = Task(name, total, unit, time.monotonic())

        def tick(done: int = 1, **figures: object) -> None:
            task.done += done
            task.figures.update(figures)
            task.call = ""
            self._view.update(task)

        def hear(call: str) -> None:
            task.call = call
            self._view.within(task)

        self._view.start(task)
        outer = _listener.set(hear)
        try:
            yield tick
        except BaseException:
            self._view.end(task, error=True)
            raise
        finally:
            _listener.reset(outer)
        task.call = ""
        self._view.end(task, error=False)

    def note(self, text: str) -> None:
        """One line that stays."""
        self._view.note(text)


class Done(Protocol):
    """Says that ``rows`` more rows of a call are done, and that ``tokens`` more were made."""

    def __call__(self, rows: int, tokens: int = 0) -> None: ...


_listener: ContextVar[Callable[[str], None] | None] = ContextVar("listener", default=None)
_name: ContextVar[str] = ContextVar("name", default="")


def asking(total: int, name: str) -> Done:
    """For an engine that begins a call of ``total`` rows; it is to say how many are done."""
    hear, name = _listener.get(), _name.get() or name
    done = made = 0

    def tell(rows: int, tokens: int = 0) -> None:
        nonlocal done, made
        done, made = done + rows, made + tokens
        if hear is not None:
            hear(f"{name} {done}/{total}" + (f", {made:,} tokens" if made else ""))

    tell(0)
    return tell


@contextmanager
def called(name: str) -> Iterator[None]:
    """What is asked in this block is shown under this name: "critiques"."""
    outer = _name.set(name)
    try:
        yield
    finally:
        _name.reset(outer)


class PlainLines:
    """A line every few seconds, and one when the task ends."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._last = time.monotonic()

    def start(self, task: Task) -> None:
        self._last = time.monotonic()

    def update(self, task: Task) -> None:
        if task.done < task.total and time.monotonic() - self._last >= SECONDS_BETWEEN_LINES:
            self._last = time.monotonic()
            self.note(task.line())

    def within(self, task: Task) -> None:
        if time.monotonic() - self._last >= SECONDS_WITHIN:
            self._last = time.monotonic()
            self.note(task.line())

    def end(self, task: Task, error: bool) -> None:
        self.note(f"{task.line()}  stopped" if error else task.line())

    def note(self, text: str) -> None:
        print(text, file=self._stream, flush=True)


class JsonLines:
    """One object a line: ``{"event": "progress", "task": "revise", "done": 50, …}``."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._last = time.monotonic()

    def start(self, task: Task) -> None:
        self._event("start", task)

    def update(self, task: Task) -> None:
        self._event("progress", task)

    def within(self, task: Task) -> None:
        if time.monotonic() - self._last >= SECONDS_WITHIN:
            self._event("progress", task)

    def end(self, task: Task, error: bool) -> None:
        self._event("stopped" if error else "end", task)

    def note(self, text: str) -> None:
        self._write({"event": "note", "text": text})

    def _event(self, event: str, task: Task) -> None:
        counts = {"done": task.done, "total": task.total, "unit": task.unit}
        figures = {"seconds": round(task.seconds, 2), "figures": task.figures}
        call = {"call": task.call} if task.call else {}
        self._last = time.monotonic()
        self._write({"event": event, "task": task.name, **counts, **figures, **call})

    def _write(self, event: dict[str, Any]) -> None:
        print(json.dumps(event, default=str), file=self._stream, flush=True)


class Bars:
    """A bar for each running task; finished ones stay on the screen with their last figures."""

    def __init__(self, stream: TextIO) -> None:
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )
        from rich.progress import Progress as RichProgress

        self._rich = RichProgress(
            TextColumn("{task.description:<10}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[unit]}", markup=False),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[figures]}", style="dim", markup=False),
            console=Console(file=stream),
        )
        self._running: list[tuple[Task, Any]] = []
        self._last = time.monotonic()

    def start(self, task: Task) -> None:
        if not self._running:
            self._rich.start()
        number = self._rich.add_task(task.name, total=task.total, unit=task.unit, figures="")
        self._running.append((task, number))

    def update(self, task: Task) -> None:
        self._last = time.monotonic()
        parts = [f"{name} {shown(value)}" for name, value in task.figures.items()]
        figures = "  ".join([f"({task.call})", *parts] if task.call else parts)
        for running, number in self._running:
            if running is task:
                self._rich.update(number, completed=task.done, figures=figures)

    def within(self, task: Task) -> None:
        if time.monotonic() - self._last >= SECONDS_BETWEEN_BARS:
            self.update(task)

    def end(self, task: Task, error: bool) -> None:
        self.update(task)
        numbers = [number for running, number in self._running if running is task]
        self._running = [pair for pair in self._running if pair[0] is not task]
        for number in numbers:
            self._rich.stop_task(number)
        if not self._running:
            self._rich.stop()
            for done in self._rich.task_ids:  # what is printed stays; the next start begins anew
                self._rich.remove_task(done)

    def note(self, text: str) -> None:
        self._rich.console.print(text, markup=False, highlight=False)


def shown(value: object) -> str:
    """A figure in few characters: floats with three digits, the rest as it is."""
    return f"{value:.3g}" if isinstance(value, float) else str(value)
