"""A sheet of answers for people to judge, blind, and how far they agree with who judged before.

The sheet is a CSV file: a number, the request, the answer, and two empty cells, for "y" or "n". It
names no model and is in random order. key.json beside it holds the models and what the judge and
the lexicon said; whoever fills in the sheet should not have it. Rows are taken in turn from every
model and from the kinds on which the judge matters most, harmful and borderline requests.
"""

import csv
import io
import json
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from constitutional_ai.data.rows import Columns
from constitutional_ai.data.sources import rows_of
from constitutional_ai.drawing.tables import shown, table
from constitutional_ai.errors import DataError
from constitutional_ai.evaluation import answers, judged
from constitutional_ai.evaluation.rows import Graded, Transcript
from constitutional_ai.evaluation.scores import by_judge
from constitutional_ai.judge.questions import THROUGH
from constitutional_ai.prompts import spoken
from constitutional_ai.records import content_hash
from constitutional_ai.stats import agreement
from constitutional_ai.store.atomic import write_atomic
from constitutional_ai.store.run_folder import StageFolder

SHEET, KEY = "sheet.csv", "key.json"
HARMFUL, REFUSES = "harmful (y/n)", "refuses (y/n)"
HEAD = ("id", "request", "answer", HARMFUL, REFUSES)
KINDS = ("harmful", "borderline")
# What a person says, against what was said before: (the sheet's column, the key's name, who).
AGAINST = (
    (HARMFUL, THROUGH, "the judge"),
    (REFUSES, "refused_judge", "the judge"),
    (REFUSES, "refused", "the lexicon"),
)
_SAID = {"y": True, "yes": True, "1": True, "n": False, "no": False, "0": False, "": None}
_FORMULA = ("=", "+", "-", "@", "\t", "\r")  # a spreadsheet would run what begins so


def write_sheet(evaluated: Path, count: int, seed: int, folder: Path) -> int:
    """sheet.csv and key.json of an evaluation that is done; how many rows they have.

    Raises DataError where the evaluation has no answer to show, or the folder has a sheet.
    """
    if (folder / SHEET).exists():
        raise DataError(f"{folder / SHEET}: is there already, perhaps filled in; move it away")
    rows = _drawn(_transcripts(evaluated), count, seed)
    if not rows:
        raise DataError(f"{evaluated}: no answers to judge; run the evaluation first")
    stage = StageFolder(evaluated, "evaluate", seed)
    there = (evaluated / judged.GRADES).exists()
    graded = stage.rows(judged.GRADES, Graded) if there else []
    values = {
        row.id: dict(seen.values)
        for row, seen in zip(rows, by_judge(rows, graded, {}), strict=True)
    }
    key = {
        _blind(row, seed): {"model": row.model, "kind": row.kind, **values[row.id]} for row in rows
    }
    folder.mkdir(parents=True, exist_ok=True)
    write_atomic(folder / KEY, json.dumps(key, indent=1) + "\n")
    written = io.StringIO()
    sheet = csv.writer(written, lineterminator="\n")
    sheet.writerow(HEAD)
    for row in rows:
        sheet.writerow([_blind(row, seed), _inert(spoken(row.prompt)), _inert(row.answer), "", ""])
    write_atomic(folder / SHEET, written.getvalue())
    return len(rows)


def _transcripts(evaluated: Path) -> list[Transcript]:
    stage = StageFolder(evaluated, "evaluate", 0)
    files = [name for name in (answers.FILE, answers.GIVEN) if (evaluated / name).exists()]
    return [row for name in files for row in stage.rows(name, Transcript) if not row.missing]


def _drawn(rows: Sequence[Transcript], count: int, seed: int) -> list[Transcript]:
    """The same number from every model and kind, as far as there are so many; shuffled."""
    rng = random.Random(f"{seed}/people")
    kinds = [kind for kind in KINDS if any(row.kind == kind for row in rows)]
    strata: dict[tuple[str, str], list[Transcript]] = {}
    for row in rows:
        if not kinds or row.kind in kinds:
            strata.setdefault((row.model, row.kind), []).append(row)
    for stratum in strata.values():
        rng.shuffle(stratum)
    drawn: list[Transcript] = []
    while len(drawn) < count and any(strata.values()):
        drawn += [stratum.pop() for stratum in strata.values() if stratum]
    drawn = drawn[:count]
    rng.shuffle(drawn)
    return drawn


def _blind(row: Transcript, seed: int) -> str:
    return content_hash("people", seed, row.id)[:8]


def _inert(text: str) -> str:
    return f"'{text}" if text.startswith(_FORMULA) else text


def agreed(sheet: Path, key: Path, seed: int) -> dict[str, Any]:
    """Agreement of a filled-in sheet with the judge and with the lexicon.

    For each of AGAINST the share of equal answers, Cohen's kappa, and the four counts; ``left`` is
    how many rows the person left empty. Raises DataError with file and line for another answer than
    y or n, and for a row that the key does not know.
    """
    try:
        known = json.loads(key.read_bytes())
    except (OSError, ValueError) as error:
        raise DataError(f"{key}: not the key of a sheet ({error}); name it: --key FILE") from None
    said = _read(sheet, known)
    if not any(value is not None for row in said.values() for value in row.values()):
        raise DataError(f"{sheet}: nothing is filled in; write y or n into its last two columns")
    result: dict[str, Any] = {
        "rows": len(said),
        "left": {
            name: sum(row[name] is None for row in said.values()) for name in (HARMFUL, REFUSES)
        },
        "against": [],
    }
    for column, name, who in AGAINST:
        both = [
            (bool(row[column]), known[id_][name] > 0.5)
            for id_, row in said.items()
            if row[column] is not None and name in known[id_]
        ]
        result["against"].append(
            {"asked": column, "who": who, "n": len(both), **_compared(both, seed)}
        )
    return result


def _read(sheet: Path, known: Mapping[str, Any]) -> dict[str, dict[str, bool | None]]:
    def parse(_: int, row: Columns) -> tuple[str, dict[str, bool | None]]:
        id_ = str(row["id"]).strip()
        if id_ not in known:
            raise ValueError(f"id {id_!r} is not in the key; was it made for another sheet?")
        cells = {name: str(row[name]).strip().lower() for name in (HARMFUL, REFUSES)}
        for name, cell in cells.items():
            if cell not in _SAID:
                raise ValueError(f"{name}: expected y, n or nothing, got {cell!r}")
        return id_, {name: _SAID[cell] for name, cell in cells.items()}

    expected = f"expected the columns id, {HARMFUL} and {REFUSES}"
    return dict(rows_of(sheet).read(parse, expected))


def _compared(both: Sequence[tuple[bool, bool]], seed: int) -> dict[str, Any]:
    people, others = [person for person, _ in both], [other for _, other in both]
    counts = {
        f"{'yes' if person else 'no'}, {'yes' if other else 'no'}": both.count((person, other))
        for person in (True, False)
        for other in (True, False)
    }
    return {"counts": counts, **agreement.yes_no(people, others, seed)}


def as_text(result: Mapping[str, Any]) -> str:
    """The agreement as a table."""
    rows = [
        [
            found["asked"].removesuffix(" (y/n)"),
            found["who"],
            str(found["n"]),
            shown(found.get("raw")),
            shown(found.get("kappa")),
            *(str(count) for count in found["counts"].values()),
        ]
        for found in result["against"]
    ]
    head = ["asked", "the person and", "n", "same", "kappa", "both yes", "person alone"]
    lines = [table([*head, "other alone", "both no"], rows)]
    left = ", ".join(
        f"{name.removesuffix(' (y/n)')} {count}" for name, count in result["left"].items()
    )
    return "\n".join([*lines, f"of {result['rows']} rows left empty: {left}"])
