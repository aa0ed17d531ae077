"""What labelled pairs say of a judge: every figure of ``cai judge report``, as plain data.

Shares carry Wilson's interval. A pair without a verdict is left out of the judge's figures and
counted beside them. A P of exactly ½ names no winner and counts as not right.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from statistics import fmean
from typing import Any

from constitutional_ai.data.pairs import Labelled
from constitutional_ai.errors import UserError
from constitutional_ai.judge.agreement import flipped, floors, position_bias
from constitutional_ai.judge.certificate import fit
from constitutional_ai.judge.judge import Judge, mean_orders
from constitutional_ai.judge.judge_pairs import (
    JURY,
    Judged,
    examine,
    jury,
    questions,
    seconds_each,
    spoken,
)
from constitutional_ai.judge.open import Bench
from constitutional_ai.progress import Progress
from constitutional_ai.stats import intervals as stats
from constitutional_ai.stats.agreement import agreement, correlations, rating
from constitutional_ai.stats.calibration import log_odds, measured
from constitutional_ai.stats.intervals import Estimate

SMALL = 200  # questions that are asked before anybody would look for how long they take

Both = tuple[Labelled, Judged, float]  # a pair, what was said of it, and its P(better)


@dataclass(frozen=True)
class Asking:
    """How ``cai judge report`` asks: what is kept where, and on how many pairs more is asked."""

    folder: Path
    again: int  # pairs that are asked again, swapped
    spoken: int  # pairs on which the verdict is heard, too
    principles: int  # a pair is asked under so many, or more where its label takes more; 0: all
    progress: Progress


def measure(
    bench: Bench, rows: Sequence[Labelled], methods: Sequence[str], asking: Asking
) -> dict[str, Any]:
    """Every judge by every method on the pairs that a judge can be asked about, and their jury."""
    named = list(dict.fromkeys(methods or [bench.settings.label.method]))
    usable = [row for row in rows if not row.flaw]
    if not usable:
        raise UserError("no pair is left that a judge could be asked about")
    judges: dict[str, Any] = {}
    judged: dict[str, list[Judged]] = {}
    for method in named:
        by = "" if len(named) == 1 else f", {method}"
        for spec in bench.engines:
            judge, name = bench.judge(spec, method), spec + by
            judged[name], heard = _asked(judge, name, usable, bench.settings.seed, asking)
            judges[name] = of_judge(usable, judged[name], spec) | {
                "spoken": heard,
                "asked": {"method": method, "temperature": judge.temperature},
            }
        if len(bench.engines) > 1:
            together = jury([judged[spec + by] for spec in bench.engines])
            asked = {"method": method, "judges": list(bench.engines)}
            judges[JURY + by] = of_judge(usable, together, JURY) | {"asked": asked}
    return {
        "asked_of": len(usable),
        "constitution": f"{bench.constitution.name} {bench.constitution.hash}",
        "judges": judges,
        "between": between(judged),
    }


def _asked(
    judge: Judge, name: str, rows: Sequence[Labelled], seed: int, asking: Asking
) -> tuple[list[Judged], dict[str, int]]:
    """(what the judge says of the pairs, what its replies on some of them come to)."""
    every = len(judge.constitution.principles)
    least = asking.principles or every
    asked, all_ = (questions(judge, rows, seed, asking.again, n) for n in (least, every))
    note = f"{name}: {asked:,} questions about {len(rows):,} pairs, in both orders"
    if asked > SMALL:
        note += f", about {_time(asked * seconds_each(judge, rows, seed))}"
    if asked < all_:
        note += f"; {least} principles each; --all-principles asks {all_:,}"
    asking.progress.note(note)
    with asking.progress.task(name, total=len(rows), unit="pairs") as tick:
        judged = examine(judge, rows, seed, asking.folder, tick, asking.again, least)
    heard = rows[: asking.spoken]
    with asking.progress.task(f"{name} speaks", total=len(heard), unit="pairs") as tick:
        return judged, spoken(judge, heard, seed, tick)


def _time(seconds: float) -> str:
    """A rough time in words.

    >>> _time(40), _time(300), _time(9000)
    ('40 s', '5 min', '2.5 h')
    """
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 90 * 60 else f"{seconds / 3600:.1f} h"


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
    both = [(row, j, j.p) for row, j in zip(rows, judged, strict=True) if j.p is not None]
    figures: dict[str, Any] = {
        "pairs": len(rows),
        "unlabelled": dict(Counter(j.unlabelled for j in judged if j.unlabelled)),
        "unlabelled_share": stats.share(j.p is None for j in judged),
        "unread": dict(sum((Counter(j.unread) for j in judged), Counter())),
    }
    if not both:
        return figures
    return figures | {
        "accuracy": _right(both),
        "accuracy_of_all_principles": stats.share(_mean(j) > 0.5 for _, j, _ in both),
        "by_kind": stats.share_by((row.kind, p > 0.5) for row, _, p in both if row.kind),
        "by_set": stats.share_by((row.set, p > 0.5) for row, _, p in both),
        # a pair whose label is about one principle counts for that one only
        "by_principle": stats.share_by(
            (name, p > 0.5)
            for row, j, _ in both
            for name, p in j.by_principle.items()
            if row.principle in ("", name)
        ),
        "calibration": calibration_of(both),
        "order": order_of(both),
        "mass": mass_of(both),
        "length": length_of(both),
        "self_preference": self_preference(both, name),
        "humans": agreement([1] * len(both), [rating(p) for *_, p in both]),
        "principles": principles_of(both),
    }


def _right(both: Sequence[Both]) -> Estimate:
    return stats.share(p > 0.5 for *_, p in both)


def _mean(judged: Judged) -> float:
    return fmean(judged.by_principle.values())


def calibration_of(both: Sequence[Both]) -> dict[str, Any]:
    """ECE, Brier and bins as measured; what a temperature fitted on one half does for the other."""
    p, labels = [p for *_, p in both], [row.p for row, *_ in both]
    figures = measured(p, labels)
    try:
        temperature, before, after = fit(p, labels, [row.id for row, *_ in both])
    except ValueError:  # too few rows for two halves: then there is no such figure
        return figures
    return figures | {"temperature": temperature, "held_out": {"before": before, "after": after}}


def order_of(both: Sequence[Both]) -> dict[str, Any]:
    """How much depends on which answer is shown first, before and after averaging."""
    orders = [mean_orders([j.orders[name] for name in j.drawn]) for _, j, _ in both if j.orders]
    figures: dict[str, Any] = {}
    if orders:
        figures["bias"] = position_bias(orders).mean
        figures["gap"] = stats.mean((abs(first - second) for first, second in orders), seed=0)
        figures["flips"] = stats.share(map(flipped, orders))
    if again := [(p, j.again) for _, j, p in both if j.again is not None]:
        figures["flips_after_averaging"] = stats.share(map(flipped, again))
    return figures


def mass_of(both: Sequence[Both]) -> Estimate | None:
    """The probability that the judge gave to its options, on average; None if not measured."""
    masses = [j.mass for _, j, _ in both if j.mass is not None]
    return stats.mean(masses, seed=0) if masses else None


def length_of(both: Sequence[Both]) -> dict[str, Any]:
    """How often the longer answer wins, by the judge and by the labels, and what that costs."""
    longer = [one for one in both if len(one[0].better) > len(one[0].worse)]
    shorter = [one for one in both if len(one[0].better) < len(one[0].worse)]
    if not longer + shorter:
        return {}
    prefers = [p > 0.5 for *_, p in longer] + [p < 0.5 for *_, p in shorter]
    return {
        "judge_prefers_longer": stats.share(prefers),
        "labels_prefer_longer": stats.share_of(len(longer), len(longer + shorter)),
        "right_where_longer_is_better": _right(longer) if longer else None,
        "right_where_shorter_is_better": _right(shorter) if shorter else None,
    }


def self_preference(both: Sequence[Both], name: str) -> dict[str, Any]:
    """How often the judge takes its own answer, and how often the labels do; {} without any."""
    own = [
        (row.better_model == name, p)
        for row, _, p in both
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
    names = sorted({name for _, j, _ in both for name in j.by_principle})
    odds = [
        dict(zip(j.by_principle, log_odds(list(j.by_principle.values())), strict=True))
        for _, j, _ in both
    ]
    with_mean = stats.share_by(
        (name, rating(p) == rating(_mean(j)))
        for _, j, _ in both
        for name, p in j.by_principle.items()
    )
    return {"names": names, "correlation": correlations(odds, names), "with_mean": with_mean}


def between(judged: Mapping[str, Sequence[Judged]]) -> list[dict[str, Any]]:
    """Each two judges, or two ways of asking one, on the pairs that both gave a verdict on."""
    rows = []
    for first, second in combinations(judged, 2):
        both = [
            {"a": a.p, "b": b.p}
            for a, b in zip(judged[first], judged[second], strict=True)
            if a.p is not None and b.p is not None
        ]
        correlation = correlations(both, ["a", "b"])[0][1]
        agreed = agreement([rating(row["a"]) for row in both], [rating(row["b"]) for row in both])
        rows.append({"first": first, "second": second, **agreed, "correlation": correlation})
    return rows
