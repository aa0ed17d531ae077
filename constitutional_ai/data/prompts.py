"""Prompts to train on: from the laboratory, a file, a data set of the hub, or a starter file.

What is read, and how, is in sources.py. Rows that give no prompt are counted on stderr.
"""

import hashlib
import random
import sys
from collections import Counter
from collections.abc import Iterator
from typing import get_args

from constitutional_ai.data import sources
from constitutional_ai.data.arrow import HUB
from constitutional_ai.data.lines import unreadable
from constitutional_ai.data.rows import Reading
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
    prompts = list(_prompts(read_told(source), set))
    random.Random(seed).shuffle(prompts)
    return prompts[:count]


def _prompts(reading: Reading, set: PromptSet) -> Iterator[Prompt]:
    """A prompt that stands several times keeps an id of its own each time."""
    seen: Counter[str] = Counter()
    for row in reading.prompts:
        key = content_hash(row.prompt)
        again = seen[key]
        seen[key] += 1
        yield Prompt(
            id=content_hash(row.prompt, again) if again else key,
            prompt=row.prompt,
            set=set,
            kind=row.kind,
            category=row.category,
        )


def prompts_identity(source: str) -> str:
    """What a fingerprint holds of a source: "lab", or the hash of the content.

    Of a file it hashes the bytes, of a hub's data set the prompts, so that the same data has the
    same identity on every machine; of part of a source also which part, of several joined ones all.
    """
    if source == LAB:
        return LAB
    if len(parts := sources.joined(source)) > 1:
        return content_hash(*map(prompts_identity, parts))
    source, *which = sources.part_of(source)
    if any(which):
        return content_hash(prompts_identity(source), *filter(None, which))
    if source.startswith(HUB):
        return content_hash(*(row.prompt for row in read_told(source).prompts))
    path = sources.located(source)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise unreadable(path, error) from None
    try:
        return content_hash(content.decode())
    except UnicodeDecodeError:  # Parquet, gzip; or text that will be refused when it is read
        return hashlib.sha256(content).hexdigest()[:16]


def read_told(source: str) -> Reading:
    """A source's prompts; how many rows give none is said on stderr."""
    reading = sources.read(source)
    if reading.left_out:
        reasons = ", ".join(f"{len(rows)} {why}" for why, rows in reading.left_out.items())
        note = f"{source}: {reading.rows - len(reading.prompts)} of {reading.rows} rows left out"
        print(f"{note} ({reasons}); `cai data {source}` shows them", file=sys.stderr)
    return reading
