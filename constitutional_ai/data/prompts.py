"""Prompts to train on and to be tested on: from the laboratory, a file, or a data set of the hub.

A source is "lab", the path of a JSONL, CSV or Parquet file, ``hf:ID[:CONFIG][:SPLIT][:COLUMN]``, or
``starter:NAME``, a small file that ships with the package. What is read, and how, is in
``sources/``. Rows that gave no prompt are counted and told on stderr.
"""

import hashlib
import random
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import get_args

from constitutional_ai.data import sources
from constitutional_ai.data.arrow import HUB
from constitutional_ai.data.lines import unreadable
from constitutional_ai.data.rows import Found, Reading
from constitutional_ai.errors import DataError
from constitutional_ai.records import Prompt, PromptSet, content_hash
from constitutional_ai.world import LAB, world

SET_OF_KIND: dict[str, PromptSet] = {
    "harmful": "red-team",
    "benign": "helpful",
    "borderline": "helpful",
    "facts": "helpful",
}


def load_prompts(source: str, set: PromptSet, count: int, seed: int) -> list[Prompt]:
    """``count`` prompts to train on, drawn without replacement; the same seed, the same prompts.

    A source with fewer rows than ``count`` gives all of them, once. Raises DataError with place
    and remedy.
    """
    if set not in get_args(PromptSet):
        raise ValueError(f"no prompt set is named {set!r}")
    if source == LAB:
        return world().draw(set, count, seed)
    rows = [_prompt(found, again, set) for found, again in _counted(_read(source))]
    random.Random(seed).shuffle(rows)
    return rows[:count]


def load_test_prompts(source: str, counts: Mapping[str, int]) -> list[Prompt]:
    """``counts[kind]`` prompts of each kind to be tested on; of a source, the first of each kind.

    Raises DataError where a row's kind is missing, or none of ``counts``.
    """
    if source == LAB:
        return world().test(dict(counts))
    reading, chosen = _read(source), []
    taken: Counter[str] = Counter()
    for found, again in _counted(reading):
        kind = found.kind
        if kind not in counts:
            place = f"{source}:{found.number}"
            if reading.unit == "row":
                place = f"{source}: row {found.number}"
            kinds = ", ".join(counts)
            raise DataError(f"{place}: kind is {kind or None!r}; it must be one of: {kinds}")
        taken[kind] += 1
        if taken[kind] <= counts[kind]:
            chosen.append(_prompt(found, again, SET_OF_KIND.get(kind, "helpful")))
    return chosen


def prompts_identity(source: str) -> str:
    """What a stage's fingerprint holds of its prompts: "lab", or the hash of the content.

    Of a file it is that of its bytes, of a hub's data set that of its prompts, so that the same
    data gives the same identity on every machine.
    """
    if source == LAB:
        return LAB
    if source.startswith(HUB):
        return content_hash(*(found.prompt for found in _read(source).found))
    path = sources.located(source)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise unreadable(path, error) from None
    try:
        return content_hash(content.decode())
    except UnicodeDecodeError:  # Parquet, gzip; or text that will be refused when it is read
        return hashlib.sha256(content).hexdigest()[:16]


def _read(source: str) -> Reading:
    """What a source holds; what it holds and gives no prompt is told, never passed over."""
    reading = sources.read(source)
    if reading.left_out:
        reasons = ", ".join(f"{len(rows)} {why}" for why, rows in reading.left_out.items())
        note = f"{source}: {reading.rows - len(reading.found)} of {reading.rows} rows left out"
        print(f"{note} ({reasons}); `cai data {source}` shows them", file=sys.stderr)
    return reading


def _counted(reading: Reading) -> Iterator[tuple[Found, int]]:
    """Each prompt, and how many equal ones came before: equal prompts keep ids of their own."""
    seen: Counter[str] = Counter()
    for found in reading.found:
        key = content_hash(found.prompt)
        yield found, seen[key]
        seen[key] += 1


def _prompt(found: Found, again: int, set: PromptSet) -> Prompt:
    key = (found.prompt, again) if again else (found.prompt,)
    return Prompt(
        id=content_hash(*key),
        prompt=found.prompt,
        set=set,
        kind=found.kind,
        category=found.category,
    )
