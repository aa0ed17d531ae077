"""Prompts from the laboratory or from a JSONL file of ``{"prompt": text or messages}``.

A test file's rows also carry ``kind``, the slice that they are evaluated under. Other columns are
left alone, so that a file made for another tool can be read as it is.
"""

import json
import random
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, get_args

from constitutional_ai.errors import DataError
from constitutional_ai.records import Conversation, Prompt, PromptSet, content_hash, user

LAB = "lab"
ROLES = ("system", "user", "assistant")
SET_OF_KIND: dict[str, PromptSet] = {
    "harmful": "red-team",
    "benign": "helpful",
    "borderline": "helpful",
    "facts": "helpful",
}


def load_prompts(source: str, set: PromptSet, count: int, seed: int) -> list[Prompt]:
    """``count`` prompts to train on, drawn without replacement; the same seed, the same prompts.

    ``source`` is "lab" or a JSONL file. A file with fewer rows than ``count`` gives all of them,
    once. Raises DataError with file, line and remedy.
    """
    if set not in get_args(PromptSet):
        raise ValueError(f"no prompt set is named {set!r}")
    if source == LAB:
        from constitutional_ai.lab import data

        return data.draw(set, count, seed)
    rows = [_prompt(row, set) for _, row in _rows(Path(source))]
    random.Random(seed).shuffle(rows)
    return rows[:count]


def load_test_prompts(source: str, counts: Mapping[str, int]) -> list[Prompt]:
    """``counts[kind]`` prompts of each kind to be tested on; of a file, the first of each kind.

    Raises DataError where a row's kind is missing, or none of ``counts``.
    """
    if source == LAB:
        from constitutional_ai.lab import data

        return data.test(dict(counts))
    path, found = Path(source), []
    taken: Counter[str] = Counter()
    for number, row in _rows(path):
        kind = row.get("kind")
        if not isinstance(kind, str) or kind not in counts:
            kinds = ", ".join(counts)
            raise DataError(f"{path}:{number}: kind is {kind!r}; it must be one of: {kinds}")
        taken[kind] += 1
        if taken[kind] <= counts[kind]:
            found.append(_prompt(row, SET_OF_KIND.get(kind, "helpful")))
    return found


def prompts_identity(source: str) -> str:
    """What a stage's fingerprint holds of its prompts: "lab", or a file's content hash."""
    if source == LAB:
        return LAB
    return content_hash(_read(Path(source)).decode(errors="replace"))


def _prompt(row: dict[str, Any], set: PromptSet) -> Prompt:
    conversation: Conversation = row["prompt"]
    key = (conversation, row["again"]) if row["again"] else (conversation,)
    return Prompt(
        id=content_hash(*key), prompt=conversation, set=set, kind=str(row.get("kind") or "")
    )


def _rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """(line number, row) of every line, ``prompt`` as a conversation.

    ``again`` counts earlier rows with the same prompt: two equal prompts are two rows, and keep
    ids of their own.
    """
    seen: Counter[str] = Counter()
    lines = _read(path).removeprefix(b"\xef\xbb\xbf").split(b"\n")
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line.decode())
            row = {**row, "prompt": _conversation(row["prompt"])}
        except UnicodeDecodeError:
            raise DataError(f"{path}:{number}: not UTF-8 text; save the file as UTF-8") from None
        except json.JSONDecodeError as error:
            raise DataError(f"{path}:{number}: not valid JSON: {error.msg}") from None
        except (TypeError, KeyError):
            raise DataError(
                f'{path}:{number}: expected an object with "prompt", such as {{"prompt": "Hello."}}'
            ) from None
        except ValueError as error:
            raise DataError(f"{path}:{number}: {error}") from None
        key = content_hash(row["prompt"])
        yield number, {**row, "again": seen[key]}
        seen[key] += 1
    if not seen:
        raise DataError(f'{path}: no prompts in it; write one {{"prompt": "…"}} a line')


def _conversation(prompt: Any) -> Conversation:
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
        if not content.isascii() and content.encode(errors="ignore").decode() != content:
            raise ValueError("prompt: half a surrogate pair; the text was cut in a character")
    if turns[-1]["role"] != "user":
        raise ValueError("prompt: the last message must be the user's")
    return [{"role": turn["role"], "content": turn["content"]} for turn in turns]


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(
            f"{path}: cannot be read ({error.strerror}); name a JSONL file, or {LAB!r}"
        ) from None
