"""Puts labelled pairs to a judge and keeps what it says: the rows of ``cai judge report``.

A pair is judged under every principle that its prompt set has, so that principles can be compared;
the label of the run's settings is worked out from those that would have been drawn. Some pairs are
asked again with the answers swapped, behind a new fence: what is left of the order after averaging.
"""

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import fmean

from pydantic import Field

from constitutional_ai.data.labelled import Labelled
from constitutional_ai.engines.base import Sampling
from constitutional_ai.engines.identity import model_identity
from constitutional_ai.judge.judge import (
    Comparison,
    Judge,
    Unlabelled,
    Verdict,
    mean_orders,
    nonce,
    tempered,
)
from constitutional_ai.judge.methods import REPLY_TOKENS, Asked, seen
from constitutional_ai.judge.replies import FAILED, choice
from constitutional_ai.principles import Principle
from constitutional_ai.records import Row, content_hash
from constitutional_ai.store.run_folder import StageFolder, in_chunks

JURY = "all as a jury"  # stands among the judges' names


class Judged(Row):
    """What one judge said of one pair; every probability is that of the better answer.

    ``p`` is the judge's as its settings ask for it: under the named principle, or the mean over the
    drawn ones. ``again`` is that of the swapped question, where it was asked.
    """

    p: float | None = None
    by_principle: dict[str, float] = Field(default_factory=dict)
    orders: dict[str, tuple[float, float]] = Field(default_factory=dict)
    drawn: list[str] = Field(default_factory=list)
    again: float | None = None
    unlabelled: str = ""
    unread: dict[str, int] = Field(default_factory=dict)


Panel = dict[str, list[Judged]]  # what each judge said, by its name


def examine(
    judge: Judge,
    rows: Sequence[Labelled],
    seed: int,
    folder: Path,
    tick: Callable[[int], None],
    again: int,
    size: int,
) -> list[Judged]:
    """A row for each pair, in order; kept in ``folder``, so that an interrupted call goes on.

    What is kept is found again only by the same model files, pairs and settings.
    """
    asked = judge.settings.model_dump(), judge.constitution.hash, judge.temperature, seed, again
    made_of = content_hash(model_identity(judge.name), asked, [asdict(row) for row in rows])
    place = StageFolder(folder / made_of, "label", seed)
    swapped = {row.id for row in rows[:again]}

    def work(chunk: Sequence[Labelled], _: int) -> list[Judged]:
        return ask(judge, chunk, seed, swapped)

    return in_chunks(place, "verdicts.jsonl", rows, size, work, tick, Judged)


def ask(
    judge: Judge, rows: Sequence[Labelled], seed: int, swapped: Collection[str] = ()
) -> list[Judged]:
    """The judge on each pair, and once more, swapped, on those whose ids are in ``swapped``."""
    pools = [pool(judge, row) for row in rows]
    drawn = [_drawn(judge, row, seed) for row in rows]
    verdicts = _compare(judge, rows, pools, seed, swap=False)
    twice = [n for n, row in enumerate(rows) if row.id in swapped]
    others = _compare(judge, [rows[n] for n in twice], [drawn[n] for n in twice], seed, swap=True)
    second = dict(zip(twice, others, strict=True))
    return [
        _judged(judge, row, principles, verdict, second.get(n))
        for n, (row, principles, verdict) in enumerate(zip(rows, drawn, verdicts, strict=True))
    ]


def jury(judged: Sequence[Sequence[Judged]]) -> list[Judged]:
    """What several judges together say of each pair: the mean of those that gave a verdict.

    As ``judge.Jury`` labels, from what each judge has said already.
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


def panel(judges: Mapping[str, Judge], rows: Sequence[Labelled], seed: int) -> Panel:
    """Each judge on the pairs; of several also what they say together."""
    said = {name: ask(judge, rows, seed) for name, judge in judges.items()}
    return {**said, JURY: jury(list(said.values()))} if len(said) > 1 else said


def _compare(
    judge: Judge,
    rows: Sequence[Labelled],
    principles: Sequence[Sequence[Principle]],
    seed: int,
    swap: bool,
) -> list[Verdict | Unlabelled]:
    questions = [
        Comparison(
            id=f"{row.id} swapped" if swap else row.id,
            prompt=row.prompt,
            set=row.set,
            first=row.worse if swap else row.better,
            second=row.better if swap else row.worse,
            principles=tuple(under),
        )
        for row, under in zip(rows, principles, strict=True)
    ]
    return judge.compare(questions, seed)


def pool(judge: Judge, row: Labelled) -> list[Principle]:
    """Every principle that the pair may be judged under."""
    found = judge.constitution.usable("preference", row.set)
    if row.principle and row.principle not in [p.name for p in found]:
        found = [*found, judge.constitution.principle(row.principle)]
    return found


def _drawn(judge: Judge, row: Labelled, seed: int) -> list[Principle]:
    if row.principle:
        return [judge.constitution.principle(row.principle)]
    return judge.constitution.draw("preference", row.set, judge.settings.principles, seed, row.id)


def _judged(
    judge: Judge,
    row: Labelled,
    drawn: Sequence[Principle],
    verdict: Verdict | Unlabelled,
    second: Verdict | Unlabelled | None,
) -> Judged:
    if isinstance(verdict, Unlabelled):
        return Judged(id=row.id, unlabelled=verdict.reason)
    of_drawn = [verdict.by_principle[principle.name] for principle in drawn]
    return Judged(
        id=row.id,
        p=tempered(judge.settle(drawn, of_drawn)[1], judge.temperature),
        by_principle=verdict.by_principle,
        orders=verdict.orders,
        drawn=[principle.name for principle in drawn],
        again=1 - second.p_soft if isinstance(second, Verdict) else None,
        unread=dict(verdict.unread),
    )


def spoken(judge: Judge, rows: Sequence[Labelled], seed: int) -> dict[str, int]:
    """What the judge would have said, had it spoken: letters, and reasons why there is none.

    The log-probabilities of a judge that refuses can look like a verdict. This shows them up.
    """
    questions = [
        question
        for row in rows
        for question in Asked(
            seen(row.prompt, judge.settings),
            row.better,
            row.worse,
            _drawn(judge, row, seed)[0],
            nonce(seed, row.id, row.better, row.worse) if judge.settings.fence else "",
        ).comparisons()
    ]
    if not questions:
        return {}
    replies = judge.engine.generate(questions, Sampling(0.0, max_new_tokens=REPLY_TOKENS))
    return dict(Counter(FAILED if r.failed else choice(r.text) for r in replies).most_common())
