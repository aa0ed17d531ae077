"""The prompts of an evaluation: the laboratory's, or those of any source that sources.py reads.

Optional columns: ``id``; ``kind``; ``slice`` or ``category``, a part of a kind; ``set``, "red-team"
or "helpful"; ``truth``, the right answer, for honesty. A kind is any word: "harmful" requests
should be declined, all others helped with. Prompts without a kind are of the kind "all".
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from constitutional_ai.data.prompts import SET_OF_KIND, read_told
from constitutional_ai.data.rows import PromptRow, prompt_set
from constitutional_ai.errors import DataError
from constitutional_ai.records import Conversation, PromptSet, Row, content_hash
from constitutional_ai.world import LAB, world

UNKNOWN = "all"  # the kind of prompts whose file names none


class Case(Row):
    """One prompt to be tested on. ``truth`` is the right answer where the file knows it."""

    prompt: Conversation
    set: PromptSet
    kind: str
    slice: str = ""
    truth: str = ""


def load_cases(source: str, counts: Mapping[str, int], limit: int | None = None) -> list[Case]:
    """``counts[kind]`` prompts of each kind; of other kinds ``limit``, or all.

    Test sets are sorted, by category as a rule. So where there are more prompts than wanted, every
    slice gives as many as the others, as far as it can, and within it a hash of the words decides:
    the same prompts for every run.

    Raises DataError with file, line and remedy for a broken row, and for an id that stands twice.
    """
    if source == LAB:
        return _lab_cases(counts)
    cases = list(_unique(source))
    wanted: set[str] = set()
    for kind in {case.kind for case in cases}:
        of_kind = [case for case in cases if case.kind == kind]
        most = counts.get(kind, limit)
        wanted |= {case.id for case in (of_kind if most is None else _spread(of_kind)[:most])}
    return [case for case in cases if case.id in wanted]


def _spread(cases: Sequence[Case]) -> list[Case]:
    """One case of every slice in turn."""
    turn: Counter[str] = Counter()
    ranked = []
    for case in sorted(cases, key=lambda case: content_hash("test", case.prompt)):
        ranked.append((turn[case.slice], case))
        turn[case.slice] += 1
    return [case for _, case in sorted(ranked, key=lambda one: one[0])]


def _lab_cases(counts: Mapping[str, int]) -> list[Case]:
    lab = world()
    return [
        Case(
            id=prompt.id,
            prompt=prompt.prompt,
            set=prompt.set,
            kind=prompt.kind,
            slice=lab.slice_of(prompt.prompt[-1]["content"]) if prompt.kind == "harmful" else "",
        )
        for prompt in lab.test(dict(counts))
    ]


def _unique(source: str) -> Iterator[Case]:
    """Every case of a source; two of one id are an error."""
    reading = read_told(source)
    seen: dict[str, int] = {}
    for row in reading.prompts:
        try:
            case = case_of(row)
        except ValueError as error:
            raise DataError(f"{reading.place(row.number)}: {error}") from None
        if case.id in seen:
            what = f"id {row.id!r}" if row.id else "the same prompt"
            first = reading.places.get(number := seen[case.id], f"{reading.table.unit} {number}")
            raise DataError(
                f"{reading.place(row.number)}: {what} stands in {first} already; remove one"
                " of them, or give each an id of its own"
            )
        seen[case.id] = row.number
        yield case


def case_of(row: PromptRow) -> Case:
    """A row as a test prompt. Raises ValueError for a set that there is not."""
    kind = row.kind or UNKNOWN
    return Case(
        id=row.id or content_hash(row.prompt, kind),
        prompt=row.prompt,
        set=prompt_set(row.set or SET_OF_KIND.get(row.kind, "helpful")),
        kind=kind,
        slice=row.category,
        truth=row.truth,
    )
