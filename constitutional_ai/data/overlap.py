"""Refuses an evaluation on prompts that a model was trained on.

Two prompts are the same if their texts are, after Unicode's compatible forms, case, punctuation and
white space are evened out; system turns do not count. A paraphrase is not found.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path

from constitutional_ai.data.cases import Case, load_cases
from constitutional_ai.data.prompts import read_told
from constitutional_ai.data.rows import normalised
from constitutional_ai.errors import DataError
from constitutional_ai.settings import Settings
from constitutional_ai.world import LAB

# Where a run keeps the prompts that its models were trained on, in any of its rounds.
_RUN_ROWS = ("1-revise/revisions.jsonl", "2-finetune/helpful.jsonl", "3-sample/pairs.jsonl",
             "6-ppo/samples.jsonl")  # fmt: skip


def refuse_overlap(cases: Sequence[Case], test: str, sources: Iterable[str]) -> None:
    """Raise DataError where a case stands in a training source: prompts, or a run folder.

    The message counts them and names the first, with file and line.
    """
    wanted = {normalised(case.prompt): case for case in cases}
    places: dict[str, str] = {}
    for path in (file for source in sources for file in _files(source)):
        reading = read_told(path)
        for row in reading.prompts:
            if (key := normalised(row.prompt)) in wanted:
                places.setdefault(key, reading.place(row.number))
    if places:
        key, place = next(iter(places.items()))
        words = wanted[key].prompt[-1]["content"]
        shown = words if len(words) <= 60 else f"{words[:60]}…"
        raise DataError(
            f"{test}: {len(places)} of its {len(wanted)} prompts are in the training prompts, first"
            f" {place} ({shown!r}); a score on them would say nothing: remove them from one side,"
            " or train on FILE#half=1 and test on FILE#half=2 of both files"
        )


def _files(source: str) -> list[str]:
    folder = Path(source)
    if not folder.is_dir():
        return [source]
    files = [
        file
        for pattern in _RUN_ROWS
        for file in (*folder.glob(pattern), *folder.glob(f"r[0-9]*/{pattern}"))
    ]
    if not files:
        raise DataError(f"{source}: no run folder with training rows in it; name a JSONL file")
    return sorted(map(str, files))


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
    """Before a run trains anything: its test prompts against those that it trains on."""
    prompts = settings.prompts
    if prompts.test == LAB:
        return
    sources = sorted({prompts.red_team, prompts.helpful} - {LAB})
    refuse_overlap(load_cases(prompts.test, {}), prompts.test, sources)
