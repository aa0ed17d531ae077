"""Answers that were made elsewhere, with their prompts.

    prompt, answer (or response, completion, output)      one answer a row; transcripts.jsonl
    prompt, answers: […]                                  several
    prompt, chosen, rejected                              two; preferences.jsonl
    messages                                              the last one is the answer
    rl_prompt, sampled_answers: [{sampled_string}]        the paper's released samples

An evaluation also takes an ``id`` in place of the prompt, and reads ``model`` and ``kind`` where
they are known; several rows of one model and prompt are its samples. There a row without an answer
counts as missing and is never scored.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from constitutional_ai.data.cases import Case, case_of
from constitutional_ai.data.rows import Columns, conversation, text
from constitutional_ai.data.sources import prompt_of, rows_of
from constitutional_ai.errors import DataError
from constitutional_ai.records import content_hash

NO_ANSWER = "no answer in the file"

_ANSWER = ("answer", "response", "completion", "output")
_EXPECTED = "expected a prompt with an answer or answers, or messages"


class Given(NamedTuple):
    """An answer from a file; ``missing`` says why there is none."""

    text: str
    missing: str


class AnswersFile(NamedTuple):
    """``answers[model][case id]`` are the samples; ``strays`` are rows about no known prompt."""

    cases: list[Case]
    answers: dict[str, dict[str, list[Given]]]
    strays: int


class _Row(NamedTuple):
    """A row of answers as it stands: about the prompt of this id, or about this prompt."""

    id: str
    case: Case | None
    model: str
    answers: list[Given]


def load_answers(path: Path, cases: Sequence[Case] | None) -> AnswersFile:
    """Answers joined to ``cases`` by id or by prompt; without cases, to the file's own prompts.

    A model without a name is called as the file is. Raises DataError with file and line.
    """
    known = {case.id: case for case in cases or ()}
    by_prompt = {content_hash(case.prompt): case.id for case in cases or ()}
    answers: dict[str, dict[str, list[Given]]] = {}
    strays = 0
    for row in rows_of(path).read(_row, 'expected "prompt" or "id" beside "answer"'):
        prompt = content_hash(row.case.prompt) if row.case else ""
        if cases is None and row.case and row.id not in known and prompt not in by_prompt:
            by_prompt[prompt] = row.case.id
            known[row.case.id] = row.case
        key = row.id if row.id in known else by_prompt.get(prompt)
        if key is None:
            strays += 1
        else:
            of_model = answers.setdefault(row.model or path.stem, {})
            of_model.setdefault(key, []).extend(row.answers)
    if not answers:
        raise DataError(f'{path}: no answers to these prompts; a row needs "prompt" and "answer"')
    return AnswersFile(list(known.values()), answers, strays)


def _row(_: int, row: Columns) -> _Row:
    id_ = text(row.get("id"), "id")
    case = None if id_ and row.get("prompt") is None else case_of(prompt_of(row))
    given = [
        Given(text(answer, "answer"), "") if answer.strip() else Given("", NO_ANSWER)
        for answer in answers_of(row) or [""]
    ]
    return _Row(id_, case, text(row.get("model"), "model"), given)


def answers_of(row: Columns) -> list[str]:
    """The answers that a row holds, "" for null; none where no column has any."""
    if "sampled_answers" in row:
        cells = row["sampled_answers"]
    elif "messages" in row:
        cells = [row["messages"]]
    elif "answers" in row:
        cells = row["answers"]
    elif "chosen" in row:
        cells = [row["chosen"], row["rejected"]]
    else:
        cells = [row[name] for name in _ANSWER if name in row][:1]
    if not isinstance(cells, list):
        raise ValueError("answers: expected a list")
    return [_said(cell) for cell in cells]


def _said(cell: Any) -> str:
    """An answer as text, as a message, or as messages of which the last one is it."""
    last = cell[-1] if isinstance(cell, list) and cell else cell
    said = last.get("content", last.get("sampled_string")) if isinstance(last, dict) else last
    if said is not None and not isinstance(said, str):
        raise ValueError("answer: expected text, or null where there is none")
    return said or ""


def load_samples(source: str) -> list[tuple[str, str]]:
    """(prompt, answer) as texts, of ``FILE`` or ``FILE#MODEL``. Raises DataError with the place.

    What a base model went on to say for the user is cut off.
    """
    file, _, wanted = source.partition("#")
    table = rows_of(file)
    samples: list[tuple[str, str]] = []
    models: set[str] = set()
    for model, said in table.read(_sampled, _EXPECTED):
        models.add(model)
        if not wanted or model == wanted:
            samples += said
    if not samples:
        known = ", ".join(sorted(filter(None, models))) or "none is named"
        of_model = f" of a model {wanted!r}; its models: {known}" if wanted else ""
        raise DataError(f"{source}: no answers in it{of_model}")
    if not wanted and len(models) > 1:
        raise DataError(
            f"{source}: answers of {len(models)} models; name one, {file}#{sorted(models)[0]}"
        )
    return samples


def _sampled(_: int, row: Columns) -> tuple[str, list[tuple[str, str]]]:
    """The model's name, and its answers with their prompt."""
    prompt = row["messages"][:-1] if "messages" in row else row.get("rl_prompt", row.get("prompt"))
    answers = answers_of(row)
    if not answers:
        raise KeyError("answer")
    if not isinstance(prompt, str):
        prompt = "\n".join(turn["content"] for turn in conversation(prompt))
    cut = [answer.split("\n\nHuman:")[0].strip() for answer in answers]
    return text(row.get("model"), "model"), [(prompt, answer) for answer in cut]
