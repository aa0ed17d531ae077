"""Puts labelled pairs to a judge and keeps what it says: the rows of ``cai judge report``.

The label that the run's settings would give needs the principles drawn for a pair. A pair is asked
under more of them, so that principles can be compared. Some pairs are asked again with the answers
swapped, behind a new fence: that shows what averaging leaves of the order.
"""

import time
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from statistics import fmean

from pydantic import Field

from constitutional_ai.data.pairs import Labelled
from constitutional_ai.engines.spec import ModelSpec
from constitutional_ai.judge.judge import Comparison, Judge, Unlabelled, Verdict, mean_orders
from constitutional_ai.judge.methods import Order, said
from constitutional_ai.principles import Principle
from constitutional_ai.records import Row, content_hash
from constitutional_ai.store.chunks import in_chunks
from constitutional_ai.store.run_folder import StageFolder

JURY = "all as a jury"  # stands among the judges' names
TRIED = 4  # pairs, or a few more, that tell how long a question takes
BATCH = 64  # questions between two steps of the progress

Counted = Callable[[int], None]  # told how many more pairs are done


class Judged(Row):
    """What one judge said of one pair; every probability is that of the better answer.

    ``p`` is the judge's as its settings ask for it: under the named principle, or the mean over the
    ``drawn`` ones. ``again`` is that of the swapped question, where it was asked.
    """

    p: float | None = None
    by_principle: dict[str, float] = Field(default_factory=dict)
    orders: dict[str, tuple[float, float]] = Field(default_factory=dict)
    drawn: list[str] = Field(default_factory=list)
    again: float | None = None
    unlabelled: str = ""
    mass: float | None = None
    unread: dict[str, int] = Field(default_factory=dict)


def examine(
    judge: Judge,
    rows: Sequence[Labelled],
    seed: int,
    folder: Path,
    tick: Counted,
    again: int = 0,
    least: int = 0,
) -> list[Judged]:
    """A row for each pair, in order; kept in ``folder``, so that an interrupted call goes on.

    The first ``again`` pairs are asked swapped, too. A pair is asked under ``least`` principles, or
    more where its label takes more. Only the same model files, pairs and settings find again what
    is kept.
    """
    asked = judge.settings.identity(), judge.constitution.hash, judge.temperature, seed, again
    made_of = content_hash(
        ModelSpec.parse(judge.name).identity(), asked, least, [asdict(row) for row in rows]
    )
    place = StageFolder(folder / made_of, "label", seed)
    swapped = {row.id for row in rows[:again]}
    size = max(1, BATCH * len(rows) // max(1, questions(judge, rows, seed, 0, least)))

    def work(chunk: Sequence[Labelled], _: int) -> list[Judged]:
        return ask(judge, chunk, seed, swapped, least)

    return in_chunks(place, "verdicts.jsonl", rows, size, work, tick, Judged)


def questions(judge: Judge, rows: Sequence[Labelled], seed: int, again: int, least: int) -> int:
    """How many questions ``examine`` puts to the judge; a line of thought or a vote is one."""
    principles = sum(len(pool(judge, row, seed, least)) for row in rows)
    principles += sum(len(labelled_under(judge, row, seed)) for row in rows[:again])
    return _each(judge) * principles


def _each(judge: Judge) -> int:
    """Questions about a pair under one principle: both orders, and samples where there are any."""
    return 2 * (judge.settings.samples if judge.settings.method in ("thoughts", "vote") else 1)


def seconds_each(judge: Judge, rows: Sequence[Labelled], seed: int) -> float:
    """How long a question takes, from a few in one batch about pairs of all lengths."""
    by_length = sorted(rows, key=lambda row: len(row.better) + len(row.worse))
    tried = by_length[:: max(1, len(rows) // TRIED)]
    asked = [_question(row, labelled_under(judge, row, seed)[:1]) for row in tried]
    judge.compare(asked[:1], seed)  # warms up
    began = time.perf_counter()
    judge.compare(asked, seed)
    return (time.perf_counter() - began) / (_each(judge) * len(asked))


def ask(
    judge: Judge,
    rows: Sequence[Labelled],
    seed: int,
    swapped: Collection[str] = (),
    least: int = 0,
) -> list[Judged]:
    """The judge on each pair, and once more, swapped, on those whose ids are in ``swapped``."""
    drawn = [labelled_under(judge, row, seed) for row in rows]
    verdicts = judge.compare([_question(r, pool(judge, r, seed, least)) for r in rows], seed)
    again = [
        replace(_question(row, under).swap(), id=f"{row.id} swapped")
        for row, under in zip(rows, drawn, strict=True)
        if row.id in swapped
    ]
    second = dict(zip((one.id for one in again), judge.compare(again, seed), strict=True))
    return [
        _judged(row, judge, under, verdict, second.get(f"{row.id} swapped"))
        for row, under, verdict in zip(rows, drawn, verdicts, strict=True)
    ]


def _question(row: Labelled, principles: Sequence[Principle]) -> Comparison:
    return Comparison(row.id, row.prompt, row.set, row.better, row.worse, tuple(principles))


def labelled_under(judge: Judge, row: Labelled, seed: int) -> Sequence[Principle]:
    """The principle that the pair's label is about, or those that a run would draw for it."""
    if row.principle:
        return [judge.constitution.principle(row.principle)]
    return judge.drawn(_question(row, ()), seed)


def pool(judge: Judge, row: Labelled, seed: int, least: int) -> list[Principle]:
    """Those of ``labelled_under``, and further drawn ones up to ``least``; in the file's order."""
    names = {principle.name for principle in labelled_under(judge, row, seed)}
    if least:
        names |= {principle.name for principle in judge.drawn(_question(row, ()), seed, least)}
    return [principle for principle in judge.constitution.principles if principle.name in names]


def _judged(
    row: Labelled,
    judge: Judge,
    drawn: Sequence[Principle],
    verdict: Verdict | Unlabelled,
    second: Verdict | Unlabelled | None,
) -> Judged:
    if isinstance(verdict, Unlabelled):
        return Judged(id=row.id, unlabelled=verdict.reason)
    names = [principle.name for principle in drawn]
    p, _ = judge.settle([one for one in verdict.opinions if one.principle.name in names])
    return Judged(
        id=row.id,
        p=p,
        by_principle=verdict.by_principle,
        orders=verdict.orders,
        drawn=names,
        again=second.swap().p_soft if isinstance(second, Verdict) else None,
        mass=verdict.mass,
        unread=dict(verdict.unread),
    )


def panel(
    judges: Mapping[str, Judge], rows: Sequence[Labelled], seed: int
) -> dict[str, list[Judged]]:
    """Each judge on the pairs, by its name; of several also what they say together."""
    by_judge = {name: ask(judge, rows, seed) for name, judge in judges.items()}
    return {**by_judge, JURY: jury(list(by_judge.values()))} if len(by_judge) > 1 else by_judge


def jury(judged: Sequence[Sequence[Judged]]) -> list[Judged]:
    """What several judges together say of each pair, as ``judge.Jury`` labels: the mean of those
    that gave a verdict.
    """
    return [_mean(of_pair) for of_pair in zip(*judged, strict=True)]


def _mean(of_pair: Sequence[Judged]) -> Judged:
    read = [one for one in of_pair if one.p is not None]
    lost = Counter(one.unlabelled for one in of_pair if one.p is None)
    if not read:
        return Judged(id=of_pair[0].id, unlabelled=lost.most_common(1)[0][0])
    again = [one.again for one in read if one.again is not None]
    return Judged(
        id=of_pair[0].id,
        p=fmean(one.p for one in read if one.p is not None),
        by_principle={n: fmean(one.by_principle[n] for one in read) for n in read[0].by_principle},
        orders={name: mean_orders([one.orders[name] for one in read]) for name in read[0].orders},
        drawn=read[0].drawn,
        again=fmean(again) if again else None,
        unread=dict(sum((Counter(one.unread) for one in of_pair), lost)),
    )


def spoken(judge: Judge, rows: Sequence[Labelled], seed: int, tick: Counted) -> dict[str, int]:
    """What the judge would have said, had it spoken: letters, and reasons why there is none.

    The log-probabilities of a judge that refuses can look like a verdict. This shows them up.
    """
    replies: Counter[str] = Counter()
    for start in range(0, len(rows), BATCH // 2):
        part = rows[start : start + BATCH // 2]
        asked = [
            judge.asked(_question(row, ()), labelled_under(judge, row, seed)[0], seed)
            for row in part
        ]
        replies.update(said(judge.engine, [Order(o) for one in asked for o in (one, one.swap())]))
        tick(len(part))
    return dict(replies.most_common())
