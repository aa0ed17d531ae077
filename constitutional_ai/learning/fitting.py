"""Rows that are longer than the model's context: left out of training, counted and named.

A model computes something for places that it was never taught, and says nothing. So no row is cut
to fit either: half an answer would teach to stop in the middle.
"""

from collections.abc import Callable, Sequence
from typing import TypeVar

from constitutional_ai.errors import DataError

T = TypeVar("T")
SHOWN = 5  # rows that a note names

Named = tuple[str, T]  # "revisions.jsonl:3", and what stands there


def fitting(
    named: Sequence[Named[T]],
    length: Callable[[T], int],
    context: int,
    note: Callable[[str], None],
) -> list[Named[T]]:
    """The rows of at most ``context`` tokens; a ``note`` names the others.

    Raises DataError if none is left.
    """
    lengths = [length(row) for _, row in named]
    long = [f"{name} ({n})" for (name, _), n in zip(named, lengths, strict=True) if n > context]
    if long:
        more = f" and {len(long) - SHOWN} more" if len(long) > SHOWN else ""
        what = (
            f"{len(long)} of {len(named)} rows are longer than the model's context of {context}"
            f" tokens: {', '.join(long[:SHOWN])}{more}"
        )
        if len(long) == len(named):
            raise DataError(
                f"{what}; none is left to train on: lower max_new_tokens, shorten the prompts, or"
                " take a model with a longer context"
            )
        note(f"{what}; they are left out")
    return [row for row, n in zip(named, lengths, strict=True) if n <= context]


def check_fits(tokens: int, context: int) -> None:
    """Raise DataError for a row that ``fitting`` would have left out."""
    if tokens > context:
        raise DataError(
            f"a row of {tokens} tokens is longer than the model's context of {context}; leave it"
            " out, or take a model with a longer context"
        )
