"""Seconds by phase of code that is not ours to change: functions are wrapped from outside.

A phase within a phase takes its time away from the outer one, so that the phases add up.
"""

import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any


class Phases:
    """``with phases("other")`` around a turn, ``phases.wrap(owner, "name", "phase")`` for parts."""

    def __init__(self) -> None:
        self._seconds: Counter[str] = Counter()
        self._open: list[str] = []
        self._since = 0.0

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        self._note()
        self._open.append(name)
        try:
            yield
        finally:
            self._note()
            self._open.pop()

    def wrap(self, owner: Any, attribute: str, name: str | Callable[[], str]) -> None:
        """Count what ``owner.attribute`` takes as a phase; ``name`` may decide at each call."""
        inner = getattr(owner, attribute)

        @wraps(inner)
        def timed(*args: Any, **kwargs: Any) -> Any:
            with self(name if isinstance(name, str) else name()):
                return inner(*args, **kwargs)

        setattr(owner, attribute, timed)

    def take(self) -> dict[str, float]:
        """The seconds since the last call of this."""
        self._note()
        found, self._seconds = dict(self._seconds), Counter()
        return found

    def _note(self) -> None:
        _settle()
        now = time.perf_counter()
        if self._open:
            self._seconds[self._open[-1]] += now - self._since
        self._since = now


def _settle() -> None:
    """Work that was handed to a GPU belongs to the phase that handed it over."""
    import torch

    if torch.cuda.is_available():
        torch.cuda.synchronize()
