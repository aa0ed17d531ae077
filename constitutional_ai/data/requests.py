"""What attacks ask for, in plain words: from the laboratory, or from a JSONL or CSV file.

A file's row is a request with its category of harm and whether it is harmful or benign. Columns of
known sets of behaviours are read as they are: HarmBench, AdvBench, StrongREJECT and XSTest need no
conversion. Not covered: behaviours that need an image or a document beside them.
"""

import csv
import json
import random
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from constitutional_ai.errors import DataError
from constitutional_ai.records import Conversation, Row, content_hash, user
from constitutional_ai.world import part

Kind = Literal["harmful", "benign"]
Example = tuple[str, str]  # a request, and an answer that complies

# The first of these columns that a row has. In lower case, as are the values of KINDS.
PROMPT = ("prompt", "behavior", "goal", "forbidden_prompt", "request")
CATEGORY = ("category", "semanticcategory", "type")
KIND = ("kind", "label")
KINDS: dict[str, Kind] = {
    "harmful": "harmful",
    "unsafe": "harmful",
    "benign": "benign",
    "borderline": "benign",
    "safe": "benign",
}
NO_CATEGORY = "no category"
# Of the laboratory: requests about held-out topics, and about those that alignment may train on.
TEST, TRAIN = "lab", "lab-train"
SPLITS = (TEST, TRAIN)


class Request(Row):
    """One thing to ask for; ``prompt`` is the plain conversation, no attack in it."""

    prompt: Conversation
    category: str
    kind: Kind


def load_requests(
    source: str, benign: str | None, harmful_count: int, benign_count: int, seed: int
) -> list[Request]:
    """Harmful requests first, then benign ones; as many of each as asked for, or as there are.

    ``source`` is "lab" (test topics), "lab-train" or a file; ``benign`` another file whose rows are
    benign unless they say otherwise. Raises DataError with file, line and remedy.
    """
    if source in SPLITS:
        lab = part("redteam")
        return [
            Request(
                id=prompt.id,
                prompt=prompt.prompt,
                category=lab.category(prompt.prompt[-1]["content"])
                if prompt.kind == "harmful"
                else str(prompt.kind),
                kind="harmful" if prompt.kind == "harmful" else "benign",
            )
            for prompt in lab.draw(source, harmful_count, benign_count, seed)
        ]
    rows = _from_file(Path(source), "harmful")
    rows += _from_file(Path(benign), "benign") if benign else []
    rows = list({row.id: row for row in rows}.values())
    random.Random(seed).shuffle(rows)
    wanted = [row for row in rows if row.kind == "harmful"][:harmful_count]
    if not wanted:
        raise DataError(f"{source}: no harmful request in it; nothing to attack with")
    return wanted + [row for row in rows if row.kind == "benign"][:benign_count]


def load_examples(source: str) -> list[Example]:
    """Requests with answers that comply, from JSONL or CSV rows with a prompt and an answer."""
    path, found = Path(source), []
    for number, row in _rows(path):
        answer = row.get("answer")
        if not isinstance(answer, str) or not answer.strip():
            raise DataError(f'{path}:{number}: no "answer"; an example is a request and its answer')
        found.append((_prompt(path, number, row)[-1]["content"], answer))
    return found


def identity(source: str | None) -> str:
    """What a fingerprint holds of a source: its name in the laboratory, else a file's hash."""
    if source is None or source in SPLITS:
        return source or ""
    return content_hash(_text(Path(source)))


def _from_file(path: Path, kind: Kind) -> list[Request]:
    return [_request(path, number, row, kind) for number, row in _rows(path)]


def _request(path: Path, number: int, row: Mapping[str, Any], kind: Kind) -> Request:
    prompt = _prompt(path, number, row)
    said = _first(row, KIND)
    if said and str(said).lower() not in KINDS:
        names = ", ".join(KINDS)
        raise DataError(f"{path}:{number}: kind is {said!r}; it must be one of: {names}")
    category = str(_first(row, CATEGORY) or NO_CATEGORY)
    return Request(
        id=content_hash(prompt),
        prompt=prompt,
        category=category,
        kind=KINDS[str(said).lower()] if said else kind,
    )


def _prompt(path: Path, number: int, row: Mapping[str, Any]) -> Conversation:
    text = _first(row, PROMPT)
    if isinstance(text, str) and text.strip():
        return [user(text.strip())]
    turns = text if isinstance(text, list) else []
    if turns and all(_is_turn(turn) for turn in turns) and turns[-1]["role"] == "user":
        return [{"role": turn["role"], "content": turn["content"]} for turn in turns]
    names = ", ".join(PROMPT)
    raise DataError(
        f"{path}:{number}: no request in it; expected text or messages that end with a user turn,"
        f" in a column named one of: {names}"
    )


def _is_turn(turn: Any) -> bool:
    return (
        isinstance(turn, dict)
        and turn.get("role") in ("system", "user", "assistant")
        and isinstance(turn.get("content"), str)
    )


def _first(row: Mapping[str, Any], names: Sequence[str]) -> Any:
    return next((row[name] for name in names if row.get(name)), None)


def _rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """(line, row) with column names in lower case."""
    if path.suffix == ".csv":
        reader = csv.DictReader(_text(path).splitlines(keepends=True))
        for row in reader:
            yield reader.line_num, {str(key).lower(): value for key, value in row.items()}
        return
    for number, line in enumerate(_text(path).split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise DataError(f"{path}:{number}: not valid JSON: {error.msg}") from None
        if not isinstance(row, dict):
            raise DataError(f'{path}:{number}: expected an object such as {{"prompt": "…"}}')
        yield number, {str(key).lower(): value for key, value in row.items()}


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise DataError(
            f"{path}: cannot be read ({error.strerror}); name a JSONL or CSV file, or 'lab'"
        ) from None
    except UnicodeDecodeError:
        raise DataError(f"{path}: not UTF-8 text; save the file as UTF-8") from None
