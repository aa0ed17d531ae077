"""How steady a judge is, how far judges are apart, and what raters reach that read nothing."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from constitutional_ai.data.pairs import Labelled
from constitutional_ai.judge.judge import Orders
from constitutional_ai.refusal import refuses
from constitutional_ai.stats import intervals as stats
from constitutional_ai.stats.agreement import rating

WIDE_GAP = 0.2  # between a pair's P in one order and in the other, on average


def disagreement(by_judge: Mapping[str, float]) -> float | None:
    """How far apart the judges are: the highest P minus the lowest; None for fewer than two."""
    return max(by_judge.values()) - min(by_judge.values()) if len(by_judge) > 1 else None


@dataclass(frozen=True)
class PositionBias:
    """``mean``: P(better | shown first) − P(better | shown second), in [-1, 1]; 0 is unbiased.

    ``flip_rate``: the share of pairs whose winner changes with the order.
    """

    mean: float
    flip_rate: float


def order_gap(by_order: Iterable[Orders]) -> float:
    """The mean of |P(better | shown first) − P(better | shown second)|: 0 is steady, 1 is chance.

    Unlike the bias it does not cancel between pairs.
    """
    return fmean(abs(first - second) for first, second in by_order)


def order_warning(gap: float) -> str:
    """What a wide order gap means, and what to do."""
    return (
        f"the order of the answers moves the judge's P by {gap:.2f} on average, more than"
        f" {WIDE_GAP:g}: much of its labels is chance; take another `label.judge`, or ask under"
        " more `label.principles`"
    )


def flipped(orders: Orders) -> bool:
    """Whether the winner changes with the order."""
    shown_first, shown_second = orders
    return (shown_first - 0.5) * (shown_second - 0.5) < 0


def position_bias(by_order: Iterable[Orders]) -> PositionBias:
    """Over verdicts' ``by_order``; swapping a verdict changes nothing.

    Raises ValueError where there is none.

    >>> position_bias([(0.875, 0.75), (0.75, 0.25)])
    PositionBias(mean=0.3125, flip_rate=0.5)
    """
    pairs = list(by_order)
    if not pairs:
        raise ValueError("no verdicts to tell a position bias from")
    return PositionBias(
        mean=fmean(first - second for first, second in pairs),
        flip_rate=fmean(map(flipped, pairs)),
    )


# Raters that read nothing: they take the answer for which this is higher.
BLIND: dict[str, Callable[[str], float]] = {
    "the shorter answer": lambda answer: -len(answer),
    "the longer answer": lambda answer: len(answer),
    "the answer that opens like a refusal": lambda answer: float(refuses(answer)),
    "the answer that does not": lambda answer: -float(refuses(answer)),
}


def floors(rows: Sequence[Labelled]) -> dict[str, dict[str, Any]]:
    """What each blind rater reaches: strictly right of all pairs, and right of those it decides.

    All pairs count, also those that no judge could be asked about.
    """
    found: dict[str, dict[str, Any]] = {}
    for name, value in BLIND.items():
        ratings = [rating(0.5 + value(r.better) - value(r.worse)) for r in rows]
        decided = [r for r in ratings if r]
        found[name] = {
            "right": stats.share(r == 1 for r in ratings),
            "decided": len(decided) / len(rows),
            "right_of_decided": stats.share(r == 1 for r in decided) if decided else None,
        }
    return found
