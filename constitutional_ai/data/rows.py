"""What all readers share: a table of rows, a prompt as a row gives it, checks of single cells.

A row of prompts ends in one of three ways. It gives a prompt, it is left out and counted under a
reason, or the whole reading stops with a DataError. Only dialogues (dialogues.py) are left out,
because real files of them are uneven; everywhere else a broken row is an error.
"""

import re
import unicodedata
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar, get_args

from constitutional_ai.errors import DataError
from constitutional_ai.records import Conversation, PromptSet, user

ROLES = ("system", "user", "assistant")

Columns = Mapping[str, Any]
Unit = Literal["line", "row"]
T = TypeVar("T")

_BETWEEN_WORDS = re.compile(r"[\W_]+")


@dataclass(frozen=True)
class Table:
    """Rows before anything is known of their meaning: (line or row number from 1, columns)."""

    name: str
    container: str  # "JSONL", "CSV", …
    unit: Unit
    rows: Iterator[tuple[int, Columns]]

    def place(self, number: int) -> str:
        """A row as an error message names it."""
        return f"{self.name}:{number}" if self.unit == "line" else f"{self.name}: row {number}"

    def read(self, parse: Callable[[int, Columns], T], expected: str) -> Iterator[T]:
        """What ``parse`` makes of each row and its number.

        Its ValueError becomes a DataError with the row's place. Its KeyError, a missing column,
        becomes one that says what was ``expected``.
        """
        for number, row in self.rows:
            try:
                parsed = parse(number, row)
            except KeyError:
                names = ", ".join(map(str, row)) or "none"
                raise DataError(f"{self.place(number)}: {expected}; it has: {names}") from None
            except ValueError as error:
                raise DataError(f"{self.place(number)}: {error}") from None
            yield parsed


@dataclass(frozen=True)
class PromptRow:
    """A prompt and what its row says about it; an empty text where the row says nothing.

    ``answers`` are a chosen and a rejected answer, ``answer`` is the one that a dialogue ends with,
    the chosen one of two. ``odd`` lists what is unusual about the row.
    ``left_out`` says why the row gives no prompt, and then ``prompt`` is empty.
    """

    prompt: Conversation
    kind: str = ""
    category: str = ""
    answers: tuple[str, str] | None = None
    answer: str = ""
    odd: tuple[str, ...] = ()
    left_out: str = ""
    number: int = 0
    id: str = ""
    set: str = ""
    truth: str = ""  # the right answer


@dataclass(frozen=True)
class Format:
    """What a source was taken for. ``read`` raises ValueError, or KeyError for a missing column."""

    name: str
    read: Callable[[Columns], PromptRow]


@dataclass
class Reading:
    """The prompts of a source. ``odd`` and ``left_out`` map a remark to the numbers of its rows.

    ``places`` says where a row of several joined sources stands in its own.
    """

    table: Table
    format: str
    prompts: list[PromptRow] = field(default_factory=list)
    odd: dict[str, list[int]] = field(default_factory=dict)
    left_out: dict[str, list[int]] = field(default_factory=dict)
    places: Mapping[int, str] = field(default_factory=dict)

    def place(self, number: int) -> str:
        """A row as an error message names it."""
        return self.places.get(number) or self.table.place(number)

    def add(self, row: PromptRow) -> None:
        for remark in row.odd:
            self.odd.setdefault(remark, []).append(row.number)
        if row.left_out:
            self.left_out.setdefault(row.left_out, []).append(row.number)
        else:
            self.prompts.append(row)

    @property
    def rows(self) -> int:
        return len(self.prompts) + sum(map(len, self.left_out.values()))


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


def normalised(prompt: Conversation) -> str:
    """A prompt's words, which two copies of it share whatever their spelling.

    >>> normalised([{"role": "user", "content": " How do I kill\\u00a0a “Python” process?!"}])
    'how do i kill a python process'
    """
    said = "\n".join(turn["content"] for turn in prompt if turn["role"] != "system")
    text = unicodedata.normalize("NFKC", said).casefold()
    # Text without a single letter, such as an emoji, is its own form.
    return _BETWEEN_WORDS.sub(" ", text).strip() or text.strip()


def text(value: Any, column: str) -> str:
    """The cell as text, "" for an empty one. Raises ValueError for what no file can hold."""
    spelled = "" if value is None else str(value)
    if not spelled.isascii() and spelled.encode(errors="ignore").decode() != spelled:
        raise ValueError(f"{column}: half a surrogate pair; the text was cut in a character")
    if "\0" in spelled:
        raise ValueError(f"{column}: a NUL character in it; take it out")
    return spelled


def prompt_set(name: str) -> PromptSet:
    """The prompt set of that name. Raises ValueError for any other word."""
    for known in get_args(PromptSet):
        if name == known:
            return known  # type: ignore[no-any-return]  # get_args tells no types
    raise ValueError(f"set is {name!r}; it must be {' or '.join(get_args(PromptSet))}")
