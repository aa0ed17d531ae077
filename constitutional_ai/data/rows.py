"""What a source gives: prompts, each with its place in the source, and what was odd on the way.

Every row of a source ends in one of three ways: it is found, it is left out and counted under a
reason, or the whole reading stops with a DataError. Rows are left out only by formats whose real
data is known to be uneven (dialogues.py); everywhere else a broken row is an error.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from constitutional_ai.records import Conversation, user

ROLES = ("system", "user", "assistant")

Columns = Mapping[str, Any]


@dataclass(frozen=True)
class Parsed:
    """One row as its format reads it. ``answers``: a human's chosen and rejected answer.

    ``odd`` says what is unusual about the row; ``left_out`` why it gives no prompt, and then
    ``prompt`` is empty.
    """

    prompt: Conversation
    kind: str = ""
    category: str = ""
    answers: tuple[str, str] | None = None
    odd: tuple[str, ...] = ()
    left_out: str = ""


@dataclass(frozen=True)
class Format:
    """What a source was taken for. ``read`` raises ValueError, or KeyError for a missing column."""

    name: str
    read: Callable[[Columns], Parsed]


@dataclass(frozen=True)
class Table:
    """Rows before anything is known of their meaning: (line or row number from 1, columns)."""

    name: str
    container: str  # "JSONL", "CSV", …
    unit: Literal["line", "row"]
    rows: Iterator[tuple[int, Columns]]

    def place(self, number: int) -> str:
        """A row as an error message names it."""
        return f"{self.name}:{number}" if self.unit == "line" else f"{self.name}: row {number}"


@dataclass(frozen=True)
class Found:
    """A prompt and where it stood."""

    number: int
    prompt: Conversation
    kind: str
    category: str
    answers: tuple[str, str] | None


@dataclass
class Reading:
    """All that a source gave. ``odd`` and ``left_out`` map what was seen to the rows' numbers."""

    source: str
    container: str
    format: str
    unit: Literal["line", "row"]
    found: list[Found] = field(default_factory=list)
    odd: dict[str, list[int]] = field(default_factory=dict)
    left_out: dict[str, list[int]] = field(default_factory=dict)

    def add(self, number: int, parsed: Parsed) -> None:
        for oddity in parsed.odd:
            self.odd.setdefault(oddity, []).append(number)
        if parsed.left_out:
            self.left_out.setdefault(parsed.left_out, []).append(number)
            return
        self.found.append(
            Found(number, parsed.prompt, parsed.kind, parsed.category, parsed.answers)
        )

    @property
    def rows(self) -> int:
        return len(self.found) + sum(map(len, self.left_out.values()))


def conversation(prompt: Any) -> Conversation:
    """Text, or messages that end with a user turn, as a conversation. Raises ValueError."""
    turns = [user(prompt)] if isinstance(prompt, str) else prompt
    if not isinstance(turns, list) or not turns:
        raise ValueError("prompt: expected text, or a list of messages")
    for turn in turns:
        if not isinstance(turn, dict) or turn.get("role") not in ROLES:
            raise ValueError(f"prompt: every message needs a role, one of: {', '.join(ROLES)}")
        content = turn.get("content")
        if not isinstance(content, str) or not content.strip():
            raise ValueError("prompt: it is empty; every message needs text as its content")
        text(content, "prompt")
    if turns[-1]["role"] != "user":
        raise ValueError("prompt: the last message must be the user's")
    return [{"role": turn["role"], "content": turn["content"]} for turn in turns]


def text(value: Any, column: str) -> str:
    """The cell as text, "" for an empty one. Raises ValueError for what no file can hold."""
    spelled = "" if value is None else str(value)
    if not spelled.isascii() and spelled.encode(errors="ignore").decode() != spelled:
        raise ValueError(f"{column}: half a surrogate pair; the text was cut in a character")
    if "\0" in spelled:
        raise ValueError(f"{column}: a NUL character in it; take it out")
    return spelled
