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
    rows = sorted(range(len(lengths)), key=lengths.__getitem__, reverse=longest_first)
    return _cut(rows, lengths, budget)


def alike_batches(prompts: Sequence[Sequence[int]], budget: int, least: int) -> list[list[int]]:
    """As ``length_batches``, longest first; prompts that begin alike stay side by side."""
    lengths = [len(prompt) for prompt in prompts]
    groups = alike(prompts, least)
    groups.sort(key=lambda group: max(lengths[row] for row in group), reverse=True)
    return _cut([row for group in groups for row in group], lengths, budget)


def alike(prompts: Sequence[Sequence[int]], least: int) -> list[list[int]]:
    """Row numbers in groups that begin alike: half of a prompt, and ``least`` tokens, or more.

    What all prompts begin with does not count.

    >>> alike([[1, 1, 5], [1, 2, 6], [1, 1, 7]], least=1)
    [[0, 2], [1]]
    """
    if not prompts:
        return []
    told = [tuple(prompt) for prompt in prompts]
    opening = common_length(min(told), max(told)) if len(told) > 1 else 0
    rests = [prompt[opening:] for prompt in told]
    groups: list[list[int]] = []
    shared = 0  # tokens that the last group begins with
    for row in sorted(range(len(rests)), key=rests.__getitem__):
        if groups:
            first = rests[groups[-1][0]]
            common = min(shared, common_length(first, rests[row]))
            if common >= max(least, min(len(first), len(rests[row])) / 2):
                groups[-1].append(row)
                shared = common
                continue
        groups.append([row])
        shared = len(rests[row])
    return groups


def common_length(one: Sequence[int], other: Sequence[int]) -> int:
    """How many ids both begin with."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((n for n, (a, b) in pairs if a != b), min(len(one), len(other)))


def _cut(rows: Sequence[int], lengths: Sequence[int], budget: int) -> list[list[int]]:
    batches: list[list[int]] = []
    longest = 0
    for row in rows:
        longest = max(longest, lengths[row])
        if not batches or longest * (len(batches[-1]) + 1) > budget:
            batches.append([])
            longest = lengths[row]
        batches[-1].append(row)
    return batches
