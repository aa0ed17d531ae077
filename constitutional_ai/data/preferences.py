"""Compared answers from a file, whoever made it: this tool's rows, TRL's, or HH-RLHF dialogues.

A row is JSON with ``chosen`` and ``rejected``: text or messages beside a ``prompt``, or without one
two dialogues that begin alike, as messages or as "\\n\\nHuman: … \\n\\nAssistant: …". Or it has
``answers``, two texts of which none is preferred. Rows that cannot be used are counted by reason,
never dropped in silence.
"""

import gzip
import json
import random
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

from constitutional_ai.errors import DataError
from constitutional_ai.records import (
    Conversation,
    Message,
    PromptSet,
    assistant,
    content_hash,
    user,
)

NOT_ALIKE = "the two dialogues do not begin alike"
NO_LABEL = "the row has no verdict"
NO_LAST_ANSWER = "a dialogue does not end with an answer"
_TURN = re.compile(r"\n\n(Human|Assistant):")


@dataclass(frozen=True)
class Compared:
    """Two answers; ``chosen`` is the preferred one where ``preferred`` is true."""

    id: str
    line: int
    prompt: Conversation
    set: PromptSet
    chosen: str
    rejected: str
    preferred: bool


@dataclass
class Comparisons:
    """The rows that can be used, and how many cannot, by reason."""

    path: str
    rows: list[Compared] = field(default_factory=list)
    skipped: Counter[str] = field(default_factory=Counter)

    def sample(self, count: int, *seed: object) -> list[Compared]:
        """``count`` rows, or all if there are fewer, drawn by the seed, in the file's order."""
        picked = list(self.rows)
        random.Random(content_hash(*seed)).shuffle(picked)
        return sorted(picked[:count], key=lambda row: row.line)


def load_comparisons(path: str | Path, set: PromptSet = "red-team") -> Comparisons:
    """Read a JSONL file, gzipped or not; ``set`` is that of rows that name none.

    Raises DataError with file and line for what is no such row, and where no row can be used.
    """
    path = Path(path)
    found = Comparisons(str(path))
    for number, row in _json_lines(path):
        try:
            read = _compared(row, number, set)
        except ValueError as error:
            raise DataError(f"{path}:{number}: {error}") from None
        if isinstance(read, str):
            found.skipped[read] += 1
        else:
            found.rows.append(read)
    if not found.rows:
        reasons = ", ".join(f"{n} × {reason}" for reason, n in found.skipped.items())
        raise DataError(f"{path}: no comparison in it can be used ({reasons or 'it is empty'})")
    return found


def _json_lines(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    try:
        data = path.read_bytes()
        if data[:2] == b"\x1f\x8b":
            data = gzip.decompress(data)
    except (OSError, EOFError) as error:
        raise DataError(f"{path}: cannot be read ({error}); name a JSONL file") from None
    for number, line in enumerate(data.split(b"\n"), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise DataError(f"{path}:{number}: not valid JSON: {error}") from None
        if not isinstance(row, dict):
            raise DataError(f"{path}:{number}: expected an object with `chosen` and `rejected`")
        yield number, row


def _compared(row: dict[str, Any], line: int, set: PromptSet) -> Compared | str:
    """The row, or why it cannot be used. Raises ValueError for what is no comparison at all."""
    if row.get("unlabelled") or ("p_chosen" in row and row["p_chosen"] is None):
        return NO_LABEL
    preferred = "answers" not in row
    given = row.get("prompt")
    if preferred:
        sides = [_turns(row.get(name), name, not given) for name in ("chosen", "rejected")]
    else:
        texts = row["answers"]
        if not isinstance(texts, list) or len(texts) != 2:
            raise ValueError("answers: expected two texts")
        sides = [_turns(text, "answers", False) for text in texts]
    if given:
        prompt = _turns(given, "prompt", True)
    else:
        if sides[0][:-1] != sides[1][:-1] or len(sides[0]) < 2:
            return NOT_ALIKE
        prompt = sides[0][:-1]
    if any(side[-1]["role"] != "assistant" for side in sides):
        return NO_LAST_ANSWER
    said = [side[-1]["content"] for side in sides]
    which = row.get("set", set)
    if which not in get_args(PromptSet):
        raise ValueError(f"set: {which!r} is none of {', '.join(get_args(PromptSet))}")
    id_ = str(row.get("id") or content_hash(prompt, *said))
    return Compared(id_, line, prompt, which, said[0], said[1], preferred)


def _turns(value: Any, name: str, dialogue: bool) -> Conversation:
    """Messages, or text: where ``dialogue``, with its speakers marked in it. Raises ValueError."""
    if isinstance(value, str):
        parts = _TURN.split("\n\n" + value.lstrip()) if dialogue else []
        if len(parts) < 3:
            said = value if name != "prompt" else value.strip()
            return [user(said) if name == "prompt" else assistant(said)]
        turns = [
            (user if who == "Human" else assistant)(said.strip())
            for who, said in zip(parts[1::2], parts[2::2], strict=True)
        ]
        # A prompt may end with the word that the answer is to follow: "\n\nAssistant:".
        return turns[:-1] if name == "prompt" and not turns[-1]["content"] else turns
    if isinstance(value, list) and value and all(_is_message(turn) for turn in value):
        return [Message(role=turn["role"], content=turn["content"]) for turn in value]
    raise ValueError(f"{name}: expected text or messages, got {json.dumps(value)[:60]}")


def _is_message(turn: object) -> bool:
    return (
        isinstance(turn, dict)
        and turn.get("role") in ("system", "user", "assistant")
        and isinstance(turn.get("content"), str)
    )


def told(skipped: Counter[str]) -> Sequence[str]:
    """A line for each reason for which rows were left out."""
    return [f"left out: {count} × {reason}" for reason, count in sorted(skipped.items())]
