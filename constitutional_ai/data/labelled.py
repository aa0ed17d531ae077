"""Pairs of answers of which somebody said which is better: what a judge is measured on.

Read from JSONL, gzipped or not, in any of these shapes:

    chosen, rejected as dialogues in text or messages        HH-RLHF and its like
    prompt, chosen, rejected                                 TRL, our preferences.jsonl
    text_correct, text_incorrect                             the paper's 438 comparisons

Optional columns: ``set``; ``kind``, a slice to report by; ``principle``, the one that the label is
about; ``p_chosen``, a soft label; ``chosen_model`` and ``rejected_model``; ``ideal``, whether the
better answer beats an empty one, too (unsaid, it does on helpful prompts). A row that no judge can
be measured on keeps its place and says why, in ``flaw``.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from constitutional_ai.data import dialogues, lines
from constitutional_ai.data.rows import conversation
from constitutional_ai.errors import DataError
from constitutional_ai.records import Conversation, PromptSet, content_hash

TIE = "the label is a tie"
OTHER_PROMPTS = "the two dialogues differ before the last answer"
SAME = "the same answer twice"


@dataclass(frozen=True)
class Labelled:
    """``better`` won, by the label, with probability ``p`` ≥ ½."""

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


def load(path: str | Path, prompts: PromptSet | None = None, count: int = 0) -> list[Labelled]:
    """The rows, or the first ``count`` of them. ``prompts`` overrides every row's set.

    A row without a set of its own is taken for a red-team one. Raises DataError with file and line.
    """
    table = lines.jsonl(Path(path))
    found: list[Labelled] = []
    for number, row in table.rows:
        try:
            found.append(_labelled(row, number, prompts))
        except KeyError as error:
            raise DataError(
                f"{table.place(number)}: no column {error}; expected chosen and rejected, with a"
                " prompt or as whole dialogues, or text_correct and text_incorrect"
            ) from None
        except ValueError as error:
            raise DataError(f"{table.place(number)}: {error}") from None
        if len(found) == count:
            break
    if not found:
        raise DataError(f"{path}: no rows in it; write one labelled pair a line")
    return found


def rows(made: Iterable[Mapping[str, Any]]) -> list[Labelled]:
    """Rows that are at hand rather than in a file."""
    return [_labelled(row, number, None) for number, row in enumerate(made, 1)]


def _labelled(row: Mapping[str, Any], number: int, prompts: PromptSet | None) -> Labelled:
    prompt, better, worse, flaw = _texts(row)
    p = row.get("p_chosen", 1.0)
    if p is not None and not (isinstance(p, int | float) and 0 <= p <= 1):
        raise ValueError(f"p_chosen: expected a probability, got {p!r}")
    if p is not None and p < 0.5:
        better, worse, p = worse, better, 1 - p
    if not flaw:
        flaw = row.get("unlabelled") or (TIE if p in (None, 0.5) else SAME * (better == worse))
    named = prompts or _set(row.get("set", "red-team"))
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
        flaw=flaw,
    )


def _set(name: Any) -> PromptSet:
    for known in get_args(PromptSet):
        if name == known:
            return known  # type: ignore[no-any-return]  # get_args tells no types
    raise ValueError(f"set: expected {' or '.join(get_args(PromptSet))}, got {name!r}")


def _texts(row: Mapping[str, Any]) -> tuple[Conversation, str, str, str]:
    """(prompt, better, worse, flaw)."""
    if "text_correct" in row:
        row = {"chosen": row["text_correct"], "rejected": row["text_incorrect"]}
    chosen, rejected = row["chosen"], row["rejected"]
    if row.get("prompt"):
        prompt = conversation(row["prompt"])
        return prompt, _last(chosen, "chosen"), _last(rejected, "rejected"), ""
    parsed = dialogues.read(row)
    if parsed.answers is None:
        last = _last(chosen, "chosen"), _last(rejected, "rejected")
        return parsed.prompt, *last, parsed.left_out or OTHER_PROMPTS
    return parsed.prompt, *parsed.answers, parsed.left_out


def _last(answer: Any, column: str) -> str:
    """The answer itself: a text, the last turn of a dialogue, or the last message."""
    if isinstance(answer, str):
        return answer.rpartition("\n\nAssistant:")[2].strip()
    if isinstance(answer, list) and answer and isinstance(answer[-1], dict):
        content = answer[-1].get("content")
        if isinstance(content, str):
            return content
    raise ValueError(f"{column}: expected text, or messages of which the last is the answer")
