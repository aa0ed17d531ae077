"""Two answers to one prompt, and which of them somebody prefers: what a judge is measured on.

Rows of JSONL have one of these shapes:

    chosen, rejected as dialogues in text or messages        HH-RLHF and its like
    prompt, chosen, rejected                                 TRL, our preferences.jsonl
    prompt, answers: two texts that nobody compared          our pairs.jsonl
    text_correct, text_incorrect                             the paper's 438 comparisons

Optional columns: ``set``; ``kind``, a slice to report by; ``principle``, the one that the label is
about; ``p_chosen``, a soft label; ``chosen_model`` and ``rejected_model``; ``ideal``, whether the
better answer also beats an empty one (default: on helpful prompts it does). A row that cannot be
used keeps its place, and its ``flaw`` says why.
"""

import json
import random
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from constitutional_ai.data import dialogues
from constitutional_ai.data.rows import Columns, conversation, prompt_set
from constitutional_ai.data.sources import rows_of
from constitutional_ai.errors import DataError
from constitutional_ai.records import Conversation, PromptSet, content_hash

TIE = "the label is a tie"
NO_LABEL = "the row has no verdict"
OTHER_PROMPTS = "the two dialogues differ before the last answer"
NO_LAST_ANSWER = "a dialogue does not end with an answer"
SAME = "the same answer twice"

_SIDES = ("chosen", "rejected")
_EXPECTED = (
    "expected chosen and rejected, with a prompt or as whole dialogues, or a prompt and answers,"
    " or text_correct and text_incorrect"
)


@dataclass(frozen=True)
class Labelled:
    """By the label ``better`` won with probability ``p`` ≥ ½; uncompared answers have ``p`` = ½."""

    id: str
    prompt: Conversation
    set: PromptSet
    better: str
    worse: str
    p: float = 1.0
    kind: str = ""
    principle: str = ""
    better_model: str = ""
    worse_model: str = ""
    ideal: bool = True  # the better answer beats an empty one, too
    flaw: str = ""
    number: int = 0  # of the row in its file


def load(
    path: str | Path,
    prompts: PromptSet | None = None,
    count: int = 0,
    unnamed: PromptSet = "red-team",
    compared: bool = True,
) -> list[Labelled]:
    """The rows, or the first ``count`` of them. Raises DataError with file and line.

    ``prompts`` overrides every row's set; ``unnamed`` is the set of rows that name none. Where
    ``compared``, answers that nobody compared are an error.
    """

    def parse(number: int, row: Columns) -> Labelled:
        if compared and "answers" in row:
            raise ValueError("answers: nobody has compared them; `cai label` does")
        return _labelled(number, row, prompts, unnamed)

    rows = list(islice(rows_of(path).read(parse, _EXPECTED), count or None))
    if not rows:
        raise DataError(f"{path}: no rows in it; write one labelled pair a line")
    return rows


def load_usable(
    path: str | Path, unnamed: PromptSet = "red-team", compared: bool = True
) -> tuple[list[Labelled], Counter[str]]:
    """The rows without a flaw, and how many have which; where all have one, a DataError."""
    rows = load(path, unnamed=unnamed, compared=compared)
    flaws = Counter(row.flaw for row in rows if row.flaw)
    sound = [row for row in rows if not row.flaw]
    if not sound:
        reasons = ", ".join(f"{n} × {flaw}" for flaw, n in flaws.items())
        raise DataError(f"{path}: no comparison in it can be used ({reasons})")
    return sound, flaws


def sample(rows: Sequence[Labelled], count: int, *seed: object) -> list[Labelled]:
    """``count`` rows, or all if there are fewer, drawn by the seed, in the file's order."""
    picked = list(rows)
    random.Random(content_hash(*seed)).shuffle(picked)
    return sorted(picked[:count], key=lambda row: row.number)


def left_out(flaws: Mapping[str, int]) -> list[str]:
    """A line for each reason for which rows cannot be used."""
    return [f"left out: {count} × {flaw}" for flaw, count in sorted(flaws.items())]


def labelled(rows: Iterable[Columns]) -> list[Labelled]:
    """Rows that are at hand rather than in a file."""
    return [_labelled(number, row, None, "red-team") for number, row in enumerate(rows, 1)]


def _labelled(number: int, row: Columns, prompts: PromptSet | None, unnamed: PromptSet) -> Labelled:
    prompt, better, worse, flaw = _texts(row)
    p = 0.5 if "answers" in row else row.get("p_chosen", 1.0)
    if p is not None and not (isinstance(p, int | float) and 0 <= p <= 1):
        raise ValueError(f"p_chosen: expected a probability, got {p!r}")
    if p is not None and p < 0.5:
        better, worse, p = worse, better, 1 - p
    named = prompts or prompt_set(row.get("set") or unnamed)
    return Labelled(
        id=str(row.get("id") or content_hash(number, prompt, better, worse)),
        prompt=prompt,
        set=named,
        better=better,
        worse=worse,
        p=1.0 if p is None else float(p),
        kind=str(row.get("kind") or ""),
        principle=str(row.get("principle") or ""),
        better_model=str(row.get("chosen_model") or ""),
        worse_model=str(row.get("rejected_model") or ""),
        ideal=bool(row.get("ideal", named == "helpful")),
        flaw=flaw or _flaw_of_label(row, p) or (SAME if better == worse else ""),
        number=number,
    )


def _flaw_of_label(row: Columns, p: float | None) -> str:
    if p is None or row.get("unlabelled"):
        return str(row.get("unlabelled") or NO_LABEL)
    return TIE if p == 0.5 and "answers" not in row else ""


def _texts(row: Columns) -> tuple[Conversation, str, str, str]:
    """(prompt, better, worse, flaw)."""
    if "text_correct" in row:
        row = {"chosen": row["text_correct"], "rejected": row["text_incorrect"]}
    if "answers" in row:
        if not isinstance(row["answers"], list) or len(row["answers"]) != 2:
            raise ValueError("answers: expected two texts")
        row = {"prompt": row["prompt"], **dict(zip(_SIDES, row["answers"], strict=True))}
    said = [_answer(row[name], name) for name in _SIDES]
    flaw = NO_LAST_ANSWER if None in said else ""
    better, worse = (answer or "" for answer in said)
    if row.get("prompt"):
        return _prompt(row["prompt"]), better, worse, flaw
    parsed = dialogues.read(row)
    if parsed.answers is None:
        return parsed.prompt, better, worse, flaw or parsed.left_out or OTHER_PROMPTS
    return parsed.prompt, *parsed.answers, parsed.left_out


def _answer(cell: Any, column: str) -> str | None:
    """The answer: a text, or the last turn of a dialogue; None where the user has the last word."""
    if isinstance(cell, str) and not dialogues.is_spoken(cell):
        return cell.strip()
    if not isinstance(cell, str | list):
        raise ValueError(f"{column}: expected text or messages, got {json.dumps(cell)[:60]}")
    last = dialogues.turns(cell, column)[-1]
    return last["content"] if last["role"] == "assistant" else None


def _prompt(cell: Any) -> Conversation:
    """A prompt; as text it may be a dialogue that ends with the empty turn to be filled."""
    if not dialogues.is_spoken(cell):
        return conversation(cell)
    turns = dialogues.turns(cell, "prompt")
    return conversation(turns if turns[-1]["content"] else turns[:-1])
