"""Pairs of dialogues of which a human chose one, as in HH-RLHF: text, or lists of messages.

Both dialogues of a pair should be the same up to the last answer; that shared part is the prompt,
the two last answers the pair. Real files are uneven, so whatever is odd is told row by row:

    \\n\\nHuman: Hi.\\n\\nAssistant: Hello.\\n\\nHuman: Bye.\\n\\nAssistant: See you.   chosen
    \\n\\nHuman: Hi.\\n\\nAssistant: Hello.\\n\\nHuman: Bye.\\n\\nAssistant: No.        rejected
      the prompt: three turns, the last one the user's          the answers: "See you.", "No."

A pair whose prompts differ cannot be compared: its prompt is the chosen dialogue's, and it has no
answers. A dialogue without a usable prompt is left out and counted.
"""

import re
from collections.abc import Mapping
from itertools import pairwise
from typing import Any

from constitutional_ai.data.rows import Columns, Format, Parsed, conversation
from constitutional_ai.records import Conversation, Message

_TURN = re.compile(r"(?:\A|\n\n)(Human|Assistant):")
_SPEAKER = re.compile(r"\b(Human|Assistant): ")
_ROLES: Mapping[str, Any] = {"Human": "user", "Assistant": "assistant"}


def detect(row: Columns) -> Format | None:
    chosen, rejected = row.get("chosen"), row.get("rejected")
    if "prompt" in row:
        return None
    if isinstance(chosen, str) and isinstance(rejected, str) and _TURN.search(chosen):
        return Format("HH-RLHF dialogues", read)
    if isinstance(chosen, list) and isinstance(rejected, list):
        return Format("pairs of conversations", read)
    return None


def read(row: Columns) -> Parsed:
    """Split at the last turn. Raises ValueError where a cell is no dialogue at all."""
    odd: list[str] = []
    chosen, rejected = (_turns(row[name], name, odd) for name in ("chosen", "rejected"))
    same = chosen[:-1] == rejected[:-1]  # before anything is joined
    prompt, answer = _split(_joined(chosen, odd))
    _, worse = _split(_joined(rejected, odd))
    if answer is None or worse is None:
        odd.append("no answer at the end")
    elif not same:
        odd.append("different prompts: not comparable")
    else:
        odd += [f"empty {name} answer" for name, a in _named(answer, worse) if not a.strip()]
        odd += ["the same answer twice"] * (answer == worse)
    seen = tuple(dict.fromkeys(odd))
    reason = _unusable(prompt)
    if reason:
        return Parsed([], odd=seen, left_out=reason)
    pair = (answer, worse) if same and answer is not None and worse is not None else None
    return Parsed(conversation(prompt), answers=pair, odd=seen)


def _named(chosen: str, rejected: str) -> tuple[tuple[str, str], tuple[str, str]]:
    return ("chosen", chosen), ("rejected", rejected)


def _turns(cell: Any, name: str, odd: list[str]) -> Conversation:
    turns = _spoken(cell, name, odd) if isinstance(cell, str) else _messages(cell, name)
    if any(_SPEAKER.search(turn["content"]) for turn in turns):
        odd.append("a speaker's name inside a turn")
    return turns


def _joined(turns: Conversation, odd: list[str]) -> Conversation:
    """Two turns in a row by one speaker as one: most chat templates refuse them."""
    if any(a["role"] == b["role"] for a, b in pairwise(turns)):
        odd.append("two turns in a row by one speaker, joined")
    joined: Conversation = []
    for turn in turns:
        if joined and joined[-1]["role"] == turn["role"]:
            content = f"{joined[-1]['content']}\n\n{turn['content']}".strip()
            joined[-1] = {"role": turn["role"], "content": content}
        else:
            joined.append(turn)
    return joined


def _spoken(text: str, name: str, odd: list[str]) -> Conversation:
    before, *parts = _TURN.split(text)
    if not parts:
        raise ValueError(f'{name}: expected a dialogue such as "\\n\\nHuman: …\\n\\nAssistant: …"')
    if before.strip():
        odd.append("text before the first turn, ignored")
    return [
        {"role": _ROLES[speaker], "content": content.strip()}
        for speaker, content in zip(parts[::2], parts[1::2], strict=True)
    ]


def _messages(cell: Any, name: str) -> Conversation:
    turns: Conversation = []
    for turn in cell if isinstance(cell, list) else ():
        if not isinstance(turn, dict) or not isinstance(turn.get("content"), str):
            raise ValueError(f'{name}: expected messages of "role" and "content"')
        turns.append({"role": turn.get("role"), "content": turn["content"]})  # type: ignore[typeddict-item]  # the role is checked with the prompt
    if not turns:
        raise ValueError(f"{name}: expected a list of messages")
    return turns


def _split(turns: Conversation) -> tuple[Conversation, str | None]:
    """The turns before the last answer, and that answer; None where the user has the last word."""
    last: Message = turns[-1]
    return (turns[:-1], last["content"]) if last["role"] == "assistant" else (turns, None)


def _unusable(prompt: Conversation) -> str:
    """Why a dialogue gives no prompt; empty where it does."""
    if not prompt or prompt[-1]["role"] != "user":
        return "no user turn before the answer"
    if next(turn["role"] for turn in prompt if turn["role"] != "system") != "user":
        return "begins with the assistant"
    if not all(turn["content"].strip() for turn in prompt):
        return "an empty turn in the prompt"
    return ""
