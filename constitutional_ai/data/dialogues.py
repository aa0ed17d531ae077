"""Pairs of dialogues of which a human chose one, as in HH-RLHF: text, or lists of messages.

Both dialogues of a pair should be the same up to the last answer. That shared part is the prompt,
and the two last answers are the pair:

    \\n\\nHuman: Hi.\\n\\nAssistant: Hello.\\n\\nHuman: Bye.\\n\\nAssistant: See you.   chosen
    \\n\\nHuman: Hi.\\n\\nAssistant: Hello.\\n\\nHuman: Bye.\\n\\nAssistant: No.        rejected
      the prompt: three turns, the last one the user's          the answers: "See you.", "No."

Real files are uneven, so whatever is odd is reported row by row. A pair whose prompts differ cannot
be compared: its prompt is the chosen dialogue's, and it has no answers. A dialogue without a usable
prompt is left out and counted.
"""

import re
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from constitutional_ai.data.rows import Columns, Format, PromptRow, conversation
from constitutional_ai.records import Conversation

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


def read(row: Columns) -> PromptRow:
    """Split at the last turn. Raises ValueError where a cell is no dialogue at all."""
    chosen, rejected = (turns(row[name], name) for name in ("chosen", "rejected"))
    odd = _oddities(row, (chosen, rejected))
    same = chosen[:-1] == rejected[:-1]  # before anything is joined
    prompt, answer = _split(_joined(chosen))
    _, worse = _split(_joined(rejected))
    if answer is None or worse is None:
        odd.append("no answer at the end")
    elif not same:
        odd.append("different prompts: not comparable")
    else:
        both = (("chosen", answer), ("rejected", worse))
        odd += [f"empty {name} answer" for name, said in both if not said.strip()]
        odd += ["the same answer twice"] * (answer == worse)
    reason = _unusable(prompt)
    if reason:
        return PromptRow([], odd=tuple(odd), left_out=reason)
    pair = (answer, worse) if same and answer is not None and worse is not None else None
    return PromptRow(conversation(prompt), answers=pair, answer=answer or "", odd=tuple(odd))


def turns(cell: Any, column: str) -> Conversation:
    """The turns of a dialogue, in text or as messages. Raises ValueError."""
    return _spoken(cell, column) if isinstance(cell, str) else _messages(cell, column)


def is_spoken(cell: Any) -> bool:
    """Whether a text is a dialogue from its first word on."""
    return isinstance(cell, str) and _TURN.match(f"\n\n{cell.lstrip()}") is not None


def _oddities(row: Columns, dialogues: Sequence[Conversation]) -> list[str]:
    odd = []
    texts = [row[name] for name in ("chosen", "rejected") if isinstance(row[name], str)]
    if any(_TURN.split(text)[0].strip() for text in texts):
        odd.append("text before the first turn, ignored")
    if any(_SPEAKER.search(turn["content"]) for turns in dialogues for turn in turns):
        odd.append("a speaker's name inside a turn")
    if any(a["role"] == b["role"] for turns in dialogues for a, b in pairwise(turns)):
        odd.append("two turns in a row by one speaker, joined")
    return odd


def _joined(turns: Conversation) -> Conversation:
    """Two turns in a row by one speaker as one, because most chat templates refuse them."""
    joined: Conversation = []
    for turn in turns:
        if joined and joined[-1]["role"] == turn["role"]:
            content = f"{joined[-1]['content']}\n\n{turn['content']}".strip()
            joined[-1] = {"role": turn["role"], "content": content}
        else:
            joined.append(turn)
    return joined


def _spoken(text: str, column: str) -> Conversation:
    _, *parts = _TURN.split(text)
    if not parts:
        example = '"\\n\\nHuman: …\\n\\nAssistant: …"'
        raise ValueError(f"{column}: expected a dialogue such as {example}")
    return [
        {"role": _ROLES[speaker], "content": content.strip()}
        for speaker, content in zip(parts[::2], parts[1::2], strict=True)
    ]


def _messages(cell: Any, column: str) -> Conversation:
    turns: Conversation = []
    for turn in cell if isinstance(cell, list) else ():
        if not isinstance(turn, dict) or not isinstance(turn.get("content"), str):
            raise ValueError(f'{column}: expected messages of "role" and "content"')
        turns.append({"role": turn.get("role"), "content": turn["content"]})  # type: ignore[typeddict-item]  # the role is checked with the prompt
    if not turns:
        raise ValueError(f"{column}: expected a list of messages")
    return turns


def _split(turns: Conversation) -> tuple[Conversation, str | None]:
    """The turns before the last answer, and that answer; None where the user has the last word."""
    last = turns[-1]
    return (turns[:-1], last["content"]) if last["role"] == "assistant" else (turns, None)


def _unusable(prompt: Conversation) -> str:
    """Why a dialogue gives no prompt; empty where it gives one."""
    if not prompt or prompt[-1]["role"] != "user":
        return "no user turn before the answer"
    if next(turn["role"] for turn in prompt if turn["role"] != "system") != "user":
        return "begins with the assistant"
    if not all(turn["content"].strip() for turn in prompt):
        return "an empty turn in the prompt"
    return ""
