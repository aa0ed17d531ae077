"""Where principles disagree about two answers: hard principles first, then by priority."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from constitutional_ai.principles import Constitution, Principle

DECISIVE = 0.1  # a principle has an opinion where its probability is this far from 0.5


@dataclass(frozen=True)
class Resolved:
    """P(first answer better) under the whole constitution, and the principles that decided."""

    p: float
    decided_by: tuple[str, ...]


def resolve(
    by_principle: Mapping[str, float],
    constitution: Constitution,
    decisive: float = DECISIVE,
    weighted: bool = True,
) -> Resolved:
    """One probability from ``by_principle``, which maps names to probabilities in [0, 1].

    Principles that agree, and principles of equal rank, are averaged, by weight if ``weighted``.
    Where they disagree, the highest rank that has an opinion decides alone: its mean is at least
    ``decisive`` away from 0.5. Hard principles rank highest, then priority 1, 2, …, then those
    without one. Raises ConstitutionError for a name that the constitution lacks, ValueError for no
    name at all.
    """
    judged = [(constitution.principle(name), p) for name, p in by_principle.items()]
    if not judged:
        raise ValueError("no principle has judged")
    opinions = [p for _, p in judged if abs(p - 0.5) >= decisive]
    if any(p > 0.5 for p in opinions) and any(p < 0.5 for p in opinions):
        for rank in sorted({_rank(principle) for principle, _ in judged}):
            tier = [(principle, p) for principle, p in judged if _rank(principle) == rank]
            if abs(_mean(tier, weighted) - 0.5) >= decisive:
                return Resolved(_mean(tier, weighted), tuple(p.name for p, _ in tier))
    return Resolved(_mean(judged, weighted), tuple(by_principle))


def _rank(principle: Principle) -> tuple[bool, float]:
    return (not principle.hard, principle.priority or math.inf)


def _mean(judged: Sequence[tuple[Principle, float]], weighted: bool) -> float:
    weights = [principle.weight if weighted else 1.0 for principle, _ in judged]
    total = math.fsum(weight * p for weight, (_, p) in zip(weights, judged, strict=True))
    return total / math.fsum(weights)
