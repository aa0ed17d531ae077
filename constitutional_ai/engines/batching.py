"""Rows of similar length together, as many as fit a budget of tokens when they are padded."""

from collections.abc import Sequence


def length_batches(
    lengths: Sequence[int], budget: int, longest_first: bool = False
) -> list[list[int]]:
    """Row numbers in batches; a batch's rows times its longest row is at most ``budget``.

    A row longer than the budget gets a batch of its own. Rows of equal length keep their order.

    >>> length_batches([5, 1, 4, 1], budget=8)
    [[1, 3], [2], [0]]
    >>> length_batches([3, 9, 4, 4], budget=12, longest_first=True)
    [[1], [2, 3, 0]]
    """
    batches: list[list[int]] = []
    for row in sorted(range(len(lengths)), key=lengths.__getitem__, reverse=longest_first):
        if batches:
            longest = max(lengths[batches[-1][0]], lengths[row])
        if not batches or longest * (len(batches[-1]) + 1) > budget:
            batches.append([])
        batches[-1].append(row)
    return batches
