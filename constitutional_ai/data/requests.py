"""What attacks ask for, in plain words: from the laboratory, or from any source of prompts.

A row is a request with its category of harm and whether it is harmful or benign. Published test
sets are read as for an evaluation (benchmarks.py): XSTest's safe prompts are benign, and a
contextual behaviour of HarmBench carries its context.
"""

import random
from collections.abc import Iterator
from typing import Literal

from constitutional_ai.data.answers import answers_of
from constitutional_ai.data.prompts import prompts_identity, read_told
from constitutional_ai.data.rows import Columns, conversation
from constitutional_ai.data.sources import rows_of
from constitutional_ai.errors import DataError
from constitutional_ai.records import Conversation, Row, content_hash
from constitutional_ai.world import part

Kind = Literal["harmful", "benign"]
Example = tuple[str, str]  # a request, and an answer that complies

KINDS: dict[str, Kind] = {
    "harmful": "harmful",
    "unsafe": "harmful",
    "benign": "benign",
    "borderline": "benign",
    "safe": "benign",
}
NO_CATEGORY = "no category"
# Of the laboratory: requests about held-out topics, and about those that alignment may train on.
TEST, TRAIN = "lab", "lab-train"
SPLITS = (TEST, TRAIN)


class Request(Row):
    """One thing to ask for; ``prompt`` is the plain conversation, no attack in it."""

    prompt: Conversation
    category: str
    kind: Kind


def load_requests(
    source: str, benign: str | None, harmful_count: int, benign_count: int, seed: int
) -> list[Request]:
    """Harmful requests first, then benign ones; as many of each as asked for, or as there are.

    ``source`` is "lab" (test topics), "lab-train" or a file. ``benign`` is another file, whose rows
    are benign unless they say otherwise. Raises DataError with file, line and remedy.
    """
    if source in SPLITS:
        return _of_lab(source, harmful_count, benign_count, seed)
    rows = [*_read(source, "harmful"), *(_read(benign, "benign") if benign else ())]
    rows = list({row.id: row for row in rows}.values())
    random.Random(seed).shuffle(rows)
    wanted = [row for row in rows if row.kind == "harmful"][:harmful_count]
    if not wanted:
        raise DataError(f"{source}: no harmful request in it; nothing to attack with")
    return wanted + [row for row in rows if row.kind == "benign"][:benign_count]


def _of_lab(split: str, harmful: int, benign: int, seed: int) -> list[Request]:
    lab = part("redteam")
    requests = []
    for prompt in lab.draw(split, harmful, benign, seed):
        harms = prompt.kind == "harmful"
        category = lab.category(prompt.prompt[-1]["content"]) if harms else str(prompt.kind)
        kind: Kind = "harmful" if harms else "benign"
        requests.append(Request(id=prompt.id, prompt=prompt.prompt, category=category, kind=kind))
    return requests


def _read(source: str, unsaid: Kind) -> Iterator[Request]:
    """A source's requests; ``unsaid`` is the kind of those that name none."""
    reading = read_told(source)
    for row in reading.prompts:
        kind = KINDS.get(row.kind.lower()) if row.kind else unsaid
        if kind is None:
            place, names = reading.place(row.number), ", ".join(KINDS)
            raise DataError(f"{place}: kind is {row.kind!r}; it must be one of: {names}")
        category = row.category or NO_CATEGORY
        yield Request(id=content_hash(row.prompt), prompt=row.prompt, category=category, kind=kind)


def load_examples(source: str) -> list[Example]:
    """Requests with answers that comply. Raises DataError with file and line."""

    def parse(_: int, row: Columns) -> Example:
        answers = answers_of(row)
        if not answers or not answers[0].strip():
            raise ValueError('no "answer"; an example is a request and its answer')
        return conversation(row["prompt"])[-1]["content"], answers[0]

    return list(rows_of(source).read(parse, 'expected "prompt" and "answer"'))


def identity(source: str | None) -> str:
    """What a fingerprint holds of a source: its name in the laboratory, else a file's hash."""
    return source or "" if source is None or source in SPLITS else prompts_identity(source)
