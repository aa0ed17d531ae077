"""The eight stages of the pipeline, a module each; here is what the generating ones share."""

import json
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol

from constitutional_ai.engines.base import Completion, Engine, Sampling
from constitutional_ai.job import Job
from constitutional_ai.records import Conversation
from constitutional_ai.store.run_folder import StageFolder, derive_seed

SELF = "self"  # the model itself, where another may be named


class Ask(Protocol):
    """Asks a model; ``goes_on`` where the next call goes on from these replies."""

    def __call__(
        self, conversations: Sequence[Conversation], goes_on: bool = False
    ) -> list[Completion]: ...


class Drawing(Protocol):
    """The settings of a stage that lets a model speak."""

    temperature: float
    max_new_tokens: int


def asker(engine: Engine, drawing: Drawing, seed: int, counts: Counter[str]) -> Ask:
    """``engine.generate`` with the stage's settings and a new seed each call.

    Answers that the token limit cut off are counted in ``counts["unfinished"]``. What failed is
    left to the caller, who knows which row it costs.
    """
    calls = 0

    def ask(conversations: Sequence[Conversation], goes_on: bool = False) -> list[Completion]:
        nonlocal calls
        calls += 1
        if not conversations:
            return []
        sampling = Sampling(
            temperature=drawing.temperature,
            max_new_tokens=drawing.max_new_tokens,
            seed=derive_seed(seed, calls),
            goes_on=goes_on,
        )
        replies = engine.generate(conversations, sampling)
        counts["unfinished"] += sum(not (reply.finished or reply.failed) for reply in replies)
        return replies

    return ask


def model_name(job: Job, model: str | Path) -> str:
    """A model as rows name it: one of the run by its path in the run folder, wherever that lies."""
    path, folder = Path(model).absolute(), job.folder.path.absolute()
    return path.relative_to(folder).as_posix() if path.is_relative_to(folder) else str(model)


class Tally:
    """Counts that the rows do not show, kept by chunk beside them, so that a resume loses none.

    A chunk that is done again overwrites its own counts: nothing is counted twice.
    """

    def __init__(self, folder: StageFolder) -> None:
        self._path = folder.path / "tally.json"
        self._chunks: dict[str, dict[str, int]] = {}
        if self._path.exists():
            self._chunks = json.loads(self._path.read_text(encoding="utf-8"))

    def keep(self, chunk: int, counts: Mapping[str, int]) -> None:
        """Store a chunk's counts; called before its rows are written."""
        self._chunks[str(chunk)] = dict(counts)
        draft = self._path.with_suffix(".tmp")
        draft.write_text(json.dumps(self._chunks), encoding="utf-8")
        os.replace(draft, self._path)

    def total(self, *names: str) -> dict[str, int]:
        """The sums of the named counts, over all chunks."""
        return {name: sum(chunk.get(name, 0) for chunk in self._chunks.values()) for name in names}
