"""What a model has read, for a later call that goes on from it: a critique goes on from an answer.

Only a prompt that begins with the whole of an earlier prompt goes on from it. So what is computed
for a conversation depends on its own calls alone.

Shapes: H heads, T tokens, D width of a head.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

from constitutional_ai.engines.batching import common_length

if TYPE_CHECKING:
    from torch import Tensor

LIMIT = 2**30  # bytes of keys and values that a call may leave for the next one

Ids = tuple[int, ...]


class Row(NamedTuple):
    """A prompt and its answer, as read: keys and values of each layer, (H, T, D)."""

    ids: Ids
    keys: "list[Tensor]"
    values: "list[Tensor]"


class PrefixCache:
    """Belongs to calls of one engine that follow each other while its weights stay as they are."""

    def __init__(self) -> None:
        self.known: dict[Ids, Row] = {}  # by prompt: what the call before has read
        self.read: dict[Ids, Row] = {}  # and this one
        self.bytes = 0

    def begin(self) -> None:
        """A new call. What is older than the call before is dropped."""
        self.known, self.read, self.bytes = self.read, {}, 0

    def remember(self, prompt: Sequence[int], row: Row) -> None:
        """Leave a row to the next call, if there is room."""
        size = sum(block.nbytes for block in (*row.keys, *row.values))
        if self.bytes + size <= LIMIT:
            self.read[tuple(prompt)] = row
            self.bytes += size

    def take(self, prompts: Sequence[Sequence[int]]) -> list[tuple[int, Row] | None]:
        """For each prompt how many of its tokens are known, and from which row; each row once."""
        lengths = sorted({len(prompt) for prompt in self.known}, reverse=True)
        taken: list[tuple[int, Row] | None] = []
        for prompt in prompts:
            starts = (tuple(prompt[:length]) for length in lengths if length < len(prompt))
            row = next((self.known.pop(start) for start in starts if start in self.known), None)
            taken.append(row and (common_length(row.ids, prompt[:-1]), row))
        return taken
