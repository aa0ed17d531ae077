"""Refuses an evaluation on prompts that a model was trained on.

Two prompts are the same where their texts are, after Unicode's compatible forms, case, punctuation
and white space are evened out; system turns do not count. A paraphrase is not found.
"""

import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from constitutional_ai.data import benchmarks
from constitutional_ai.data.cases import Case, load_cases, read_rows
from constitutional_ai.errors import DataError
from constitutional_ai.records import Conversation
from constitutional_ai.settings import Settings
from constitutional_ai.world import LAB

_BETWEEN_WORDS = re.compile(r"[\W_]+")
# Where a run keeps the prompts that its models were trained on, in any of its rounds.
_RUN_ROWS = ("1-revise/revisions.jsonl", "2-finetune/*.jsonl", "3-sample/pairs.jsonl",
             "6-ppo/samples.jsonl")  # fmt: skip


def normalised(prompt: Conversation | str) -> str:
    """A prompt's words.

    >>> normalised("  How do I kill\\u00a0a “Python” process?!")
    'how do i kill a python process'
    """
    turns = [prompt] if isinstance(prompt, str) else [
        turn["content"] for turn in prompt if turn["role"] != "system"
    ]  # fmt: skip
    text = unicodedata.normalize("NFKC", "\n".join(turns)).casefold()
    # Text without a single letter, such as an emoji, is its own form.
    return _BETWEEN_WORDS.sub(" ", text).strip() or text.strip()


def refuse_overlap(cases: Sequence[Case], test: str, sources: Iterable[str]) -> None:
    """Raise DataError where a case stands in a training source: prompts, or a run folder.

    The message counts them and names the first, with file and line.
    """
    wanted = {normalised(case.prompt): case for case in cases}
    found: dict[str, str] = {}
    for path in (file for source in sources for file in _files(source)):
        for number, row in read_rows(path):
            if (key := _words(row)) in wanted:
                found.setdefault(key, f"{path}:{number}")
    if found:
        key, place = next(iter(found.items()))
        words = wanted[key].prompt[-1]["content"]
        shown = words if len(words) <= 60 else f"{words[:60]}…"
        raise DataError(
            f"{test}: {len(found)} of its {len(wanted)} prompts are in the training prompts, first"
            f" {place} ({shown!r}); a score on them would say nothing: remove them from one side"
        )


def _words(row: Mapping[str, Any]) -> str:
    """Of a row's prompt, whatever the column that holds it; "" where none does."""
    known = benchmarks.detect(row)
    try:
        prompt = known.read(row).prompt if known else row.get("prompt")
    except (KeyError, ValueError):
        return ""
    if isinstance(prompt, list):
        turns = [turn for turn in prompt if isinstance(turn, Mapping)]
        said = [str(turn.get("content")) for turn in turns if turn.get("role") != "system"]
        return normalised("\n".join(said))
    return normalised(prompt) if isinstance(prompt, str) else ""


def _files(source: str) -> list[str]:
    folder = Path(source)
    if not folder.is_dir():
        return [source]
    found = [
        file
        for pattern in _RUN_ROWS
        for file in (*folder.glob(pattern), *folder.glob(f"r[0-9]*/{pattern}"))
    ]
    if not found:
        raise DataError(f"{source}: no run folder with training rows in it; name a JSONL file")
    return sorted(map(str, found))


def run_of(model: str) -> str | None:
    """The run folder that a model folder lies in: ``RUN/6-ppo/model``, ``RUN/r2/6-ppo/model``."""
    for folder in list(Path(model).absolute().parents)[:3]:
        if (folder / "r1" / "1-revise").is_dir():
            return str(folder)
        if (folder / "1-revise").is_dir() and folder.name != "r1":
            inner = folder.parent / "r1" / "1-revise"
            return str(folder.parent if inner.is_dir() else folder)
    return None


def refuse_overlap_of_run(settings: Settings) -> None:
    """For ``cai run``, before anything is trained: its test prompts against those it trains on."""
    prompts = settings.prompts
    if prompts.test == LAB:
        return
    sources = sorted({prompts.red_team, prompts.helpful} - {LAB})
    refuse_overlap(load_cases(prompts.test, {}), prompts.test, sources)
