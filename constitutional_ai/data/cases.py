"""The prompts of an evaluation, and answers that were made elsewhere.

Prompts come from whatever ``sources/`` reads. Columns: ``prompt`` (text or messages); and where
they are known ``id``, ``kind``, ``slice``, ``truth`` (the right answer, for honesty), ``set``
("red-team" or "helpful"). A kind is any word: "harmful" requests should be declined, all others
helped with. Published safety sets are read as they are: of XSTest, safe prompts are the kind
"borderline", the others "harmful", and its types are the slices. Other columns are left alone.

A file of answers is JSONL with ``prompt`` or ``id``, ``answer``, and where they are known ``model``
and ``kind``; several rows of one model and prompt are its samples. A row without an answer is kept
as one that is missing: it is counted, never scored.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from constitutional_ai.data import arrow, benchmarks, lines
from constitutional_ai.data.prompts import SET_OF_KIND
from constitutional_ai.data.rows import Parsed, conversation, text
from constitutional_ai.data.sources import located
from constitutional_ai.errors import DataError
from constitutional_ai.records import Conversation, PromptSet, Row, content_hash
from constitutional_ai.world import LAB, world

UNKNOWN = "all"  # the kind of prompts whose file names none
NO_ANSWER = "no answer in the file"


class Case(Row):
    """One prompt to be tested on. ``truth`` is the right answer where the file knows it."""

    prompt: Conversation
    set: PromptSet
    kind: str
    slice: str = ""
    truth: str = ""


class Given(NamedTuple):
    """An answer from a file; ``missing`` says why there is none."""

    text: str
    missing: str


class AnswersFile(NamedTuple):
    """``answers[model][case id]`` are the samples; ``strays`` are rows about no known prompt."""

    cases: list[Case]
    answers: dict[str, dict[str, list[Given]]]
    strays: int


def load_cases(source: str, counts: Mapping[str, int]) -> list[Case]:
    """The prompts of the laboratory ("lab") or of a file; of a kind in ``counts`` the first few.

    Raises DataError with file, line and remedy for a broken row, and for an id that stands twice.
    """
    if source == LAB:
        return _lab_cases(counts)
    taken: Counter[str] = Counter()
    found = []
    for case in _unique(source):
        taken[case.kind] += 1
        if (limit := _limit(counts, case.kind)) is None or taken[case.kind] <= limit:
            found.append(case)
    return found


def _limit(counts: Mapping[str, int], kind: str) -> int | None:
    """A defaultdict holds for every kind."""
    try:
        return counts[kind]
    except KeyError:
        return None


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
    """Every case of a source, none of whose ids stands twice."""
    seen: dict[str, int] = {}
    for number, row in read_rows(source):
        case = _case(source, number, row)
        if case.id in seen:
            what = "the same prompt" if row.get("id") in (None, "") else f"id {row['id']!r}"
            raise DataError(
                f"{source}:{number}: {what} stands in line {seen[case.id]} already; remove one of"
                " them, or give each an id of its own"
            )
        seen[case.id] = number
        yield case
    if not seen:
        raise DataError(f'{source}: no prompts in it; write one {{"prompt": "…"}} a line')


def _case(source: str, number: int, row: Mapping[str, Any]) -> Case:
    try:
        parsed = _parsed(row)
        set_ = _set(text(row.get("set"), "set")) or SET_OF_KIND.get(parsed.kind, "helpful")
        given = text(row.get("id"), "id")
        truth = text(row.get("truth"), "truth").strip()
    except KeyError as error:
        raise DataError(f"{source}:{number}: a column {error} is missing") from None
    except ValueError as error:
        raise DataError(f"{source}:{number}: {error}") from None
    kind = parsed.kind or UNKNOWN
    return Case(
        id=given or content_hash(parsed.prompt, kind),
        prompt=parsed.prompt,
        set=set_,
        kind=kind,
        slice=parsed.category,
        truth=truth,
    )


def _set(named: str) -> PromptSet | None:
    match named:
        case "":
            return None
        case "red-team":
            return "red-team"
        case "helpful":
            return "helpful"
    raise ValueError(f"set is {named!r}; it must be red-team or helpful")


def _parsed(row: Mapping[str, Any]) -> Parsed:
    """A row of a published set, or of our own columns. Raises KeyError and ValueError."""
    if known := benchmarks.detect(row):
        return known.read(row)
    slice_ = text(row.get("slice"), "slice") or text(row.get("category"), "category")
    return Parsed(
        conversation(row["prompt"]), text(row.get("kind"), "kind").strip(), slice_.strip()
    )


def load_answers(path: Path, cases: Sequence[Case] | None) -> AnswersFile:
    """Answers made elsewhere, joined to ``cases`` by id or by prompt; without cases, its own.

    A model without a name is called as the file is. Raises DataError as ``load_cases`` does.
    """
    known = {case.id: case for case in cases or ()}
    by_prompt = {content_hash(case.prompt): case.id for case in cases or ()}
    answers: dict[str, dict[str, list[Given]]] = {}
    strays = 0
    for number, row in read_rows(str(path)):
        given = text(row.get("id"), "id")
        if row.get("prompt") is None and not given:
            raise DataError(f'{path}:{number}: expected "prompt" or "id" beside "answer"')
        case = None if row.get("prompt") is None else _case(str(path), number, {**row, "id": None})
        key = given if given in known else by_prompt.get(content_hash(case.prompt) if case else "")
        if key is None and cases is None and case is not None:
            key = by_prompt[content_hash(case.prompt)] = case.id
            known[key] = case
        if key is None:
            strays += 1
            continue
        model = text(row.get("model"), "model") or path.stem
        answers.setdefault(model, {}).setdefault(key, []).append(_given(path, number, row))
    if not answers:
        raise DataError(f'{path}: no answers to these prompts; a row needs "prompt" and "answer"')
    return AnswersFile(list(known.values()), answers, strays)


def _given(path: Path, number: int, row: Mapping[str, Any]) -> Given:
    answer = row.get("answer")
    if answer is not None and not isinstance(answer, str):
        raise DataError(f"{path}:{number}: answer: expected text, or null where there is none")
    if answer is None or not answer.strip():
        return Given("", NO_ANSWER)
    try:
        return Given(text(answer, "answer"), "")
    except ValueError as error:
        raise DataError(f"{path}:{number}: {error}") from None


def read_rows(source: str) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """(line or row number, columns) of every row, whatever the source's container."""
    if source.startswith(arrow.HUB):
        return arrow.hub(source).rows
    path = located(source)
    endings = [ending for ending in path.suffixes if ending.lower() != ".gz"]
    match endings[-1:]:
        case [".parquet"]:
            return arrow.parquet(path).rows
        case [".csv" | ".tsv"]:
            return lines.delimited(path).rows
        case _:
            return lines.jsonl(path).rows
