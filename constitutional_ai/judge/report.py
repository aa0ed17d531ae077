"""What labelled pairs say of a judge: every figure of ``cai judge report``, as plain data.

Shares carry Wilson's interval. A pair without a verdict is left out of the judge's figures and
counted beside them; a P of exactly ½ names no winner and counts as not right.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from statistics import fmean
from typing import Any

from constitutional_ai.data.labelled import Labelled
from constitutional_ai.judge.agreement import agreement, correlations, floors, rating
from constitutional_ai.judge.certificate import fit, log_odds, measured
from constitutional_ai.judge.judge import mean_orders, position_bias
from constitutional_ai.judge.judge_pairs import Judged
from constitutional_ai.stats import intervals as stats
from constitutional_ai.stats.intervals import Estimate

Both = tuple[Labelled, Judged]  # a pair and what was said of it; the latter has a verdict


def of_file(rows: Sequence[Labelled]) -> dict[str, Any]:
    """What is known before any judge is asked: counts, and the floors over all rows."""
    return {
        "rows": len(rows),
        "left_out": dict(Counter(row.flaw for row in rows if row.flaw)),
        "sets": dict(Counter(row.set for row in rows)),
        "floors": floors(rows),
    }


def of_judge(rows: Sequence[Labelled], judged: Sequence[Judged], name: str) -> dict[str, Any]:
    """Every figure of one judge."""
    both = [(row, j) for row, j in zip(rows, judged, strict=True) if j.p is not None]
    found: dict[str, Any] = {
        "pairs": len(rows),
        "unlabelled": dict(Counter(j.unlabelled for j in judged if j.unlabelled)),
        "unlabelled_share": stats.share(j.p is None for j in judged),
        "unread": dict(sum((Counter(j.unread) for j in judged), Counter())),
    }
    if not both:
        return found
    return found | {
        "accuracy": _right(both),
        "accuracy_of_all_principles": stats.share(
            fmean(j.by_principle.values()) > 0.5 for _, j in both
        ),
        "by_kind": _by(both, lambda row, _: [row.kind] if row.kind else []),
        "by_set": _by(both, lambda row, _: [row.set]),
        "by_principle": by_principle(both),
        "calibration": calibration_of(both),
        "order": order_of(both),
        "length": length_of(both),
        "self_preference": self_preference(both, name),
        "humans": agreement([1] * len(both), [rating(_p(j)) for _, j in both]),
        "principles": principles_of(both),
    }


def _p(judged: Judged) -> float:
    assert judged.p is not None  # only pairs with a verdict come here
    return judged.p


def _right(both: Sequence[Both]) -> Estimate:
    return stats.share(_p(j) > 0.5 for _, j in both)


def _by(
    both: Sequence[Both], keys: Callable[[Labelled, Judged], Sequence[str]]
) -> dict[str, Estimate]:
    groups: dict[str, list[Both]] = {}
    for row, judged in both:
        for key in keys(row, judged):
            groups.setdefault(key, []).append((row, judged))
    return {key: _right(group) for key, group in sorted(groups.items())}


def by_principle(both: Sequence[Both]) -> dict[str, Estimate]:
    """Right under each principle alone; a pair whose label is about one counts for that only."""
    groups: dict[str, list[bool]] = {}
    for row, judged in both:
        for name, p in judged.by_principle.items():
            if row.principle in ("", name):
                groups.setdefault(name, []).append(p > 0.5)
    return {name: stats.share(flags) for name, flags in sorted(groups.items())}


def calibration_of(both: Sequence[Both]) -> dict[str, Any]:
    """ECE, Brier and bins as measured; what a temperature fitted on one half does for the other."""
    p, labels = [_p(j) for _, j in both], [row.p for row, _ in both]
    found = measured(p, labels)
    try:
        temperature, before, after = fit(p, labels, [row.id for row, _ in both])
    except ValueError:  # too few rows for two halves: then there is no such figure
        return found
    kept = ("ece", "brier", "n", "bins")
    return found | {
        "temperature": temperature,
        "held_out": {
            "before": {key: before[key] for key in kept},
            "after": {key: after[key] for key in kept},
        },
    }


def order_of(both: Sequence[Both]) -> dict[str, Any]:
    """How much hangs on which answer is shown first, before and after averaging."""
    orders = [mean_orders([j.orders[name] for name in j.drawn]) for _, j in both if j.orders]
    found: dict[str, Any] = {}
    if orders:
        found["bias"] = position_bias(orders).mean
        found["flips"] = stats.share(rating(a) * rating(b) < 0 for a, b in orders)
    asked = [(_p(j), j.again) for _, j in both if j.again is not None]
    if asked:
        found["flips_after_averaging"] = stats.share(rating(p) * rating(q) < 0 for p, q in asked)
    return found


def length_of(both: Sequence[Both]) -> dict[str, Any]:
    """How often the longer answer wins, by the judge and by the labels, and what that costs."""
    uneven = [(row, j) for row, j in both if len(row.better) != len(row.worse)]
    longer = [(row, j) for row, j in uneven if len(row.better) > len(row.worse)]
    shorter = [(row, j) for row, j in uneven if len(row.better) < len(row.worse)]
    if not uneven:
        return {}
    prefers = [_p(j) > 0.5 for _, j in longer] + [_p(j) < 0.5 for _, j in shorter]
    return {
        "judge_prefers_longer": stats.share(prefers),
        "labels_prefer_longer": stats.share(len(row.better) > len(row.worse) for row, _ in uneven),
        "right_where_longer_is_better": _right(longer) if longer else None,
        "right_where_shorter_is_better": _right(shorter) if shorter else None,
    }


def self_preference(both: Sequence[Both], name: str) -> dict[str, Any]:
    """How often the judge takes its own answer, and how often the labels do; {} without any."""
    own = [
        (row.better_model == name, _p(j))
        for row, j in both
        if row.better_model != row.worse_model and name in (row.better_model, row.worse_model)
    ]
    if not own:
        return {}
    return {
        "judge_prefers_own": stats.share((p > 0.5) if mine else (p < 0.5) for mine, p in own),
        "labels_prefer_own": stats.share(mine for mine, _ in own),
    }


def principles_of(both: Sequence[Both]) -> dict[str, Any]:
    """How the principles' log-odds correlate, and how often each agrees with the mean of all."""
    names = sorted({name for _, j in both for name in j.by_principle})
    odds = [
        dict(zip(j.by_principle, log_odds(list(j.by_principle.values())), strict=True))
        for _, j in both
    ]
    with_mean: dict[str, Any] = {}
    for name in names:
        pairs = [
            (rating(j.by_principle[name]), rating(fmean(j.by_principle.values())))
            for _, j in both
            if name in j.by_principle
        ]
        with_mean[name] = stats.share(a == b for a, b in pairs)
    return {"names": names, "correlation": correlations(odds, names), "with_mean": with_mean}


def between(judged: Mapping[str, Sequence[Judged]]) -> list[dict[str, Any]]:
    """Each two judges, or two ways of asking one, on the pairs that both gave a verdict on."""
    names = list(judged)
    found = []
    for n, first in enumerate(names):
        for second in names[n + 1 :]:
            both = [
                (a.p, b.p)
                for a, b in zip(judged[first], judged[second], strict=True)
                if a.p is not None and b.p is not None
            ]
            ratings = [(rating(a), rating(b)) for a, b in both]
            matrix = correlations([{"a": a, "b": b} for a, b in both], ["a", "b"])
            found.append(
                {
                    "first": first,
                    "second": second,
                    **agreement([a for a, _ in ratings], [b for _, b in ratings]),
                    "correlation": matrix[0][1],
                }
            )
    return found
