"""Counts that a stage's rows do not show."""

import json
from collections.abc import Mapping

from constitutional_ai.store.atomic import write_atomic
from constitutional_ai.store.run_folder import StageFolder


class Tally:
    """Counts by chunk, on disk beside the rows, so that a resume loses none.

    A chunk that is made again overwrites its own counts, so nothing is counted twice.
    """

    def __init__(self, folder: StageFolder) -> None:
        self._path = folder.path / "tally.json"
        self._chunks: dict[str, dict[str, int]] = {}
        if self._path.exists():
            self._chunks = json.loads(self._path.read_text(encoding="utf-8"))

    def keep(self, chunk: int, counts: Mapping[str, int]) -> None:
        """Store a chunk's counts; called before its rows are written."""
        self._chunks[str(chunk)] = dict(counts)
        write_atomic(self._path, json.dumps(self._chunks))

    def total(self, *names: str) -> dict[str, int]:
        """The sums of the named counts, over all chunks."""
        return {name: sum(chunk.get(name, 0) for chunk in self._chunks.values()) for name in names}
