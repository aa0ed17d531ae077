"""Answers with their prompts, read from the files that samples are kept in.

    prompt, answer (or response, completion, output)      one answer a row; transcripts.jsonl
    prompt, answers: […]                                  several
    messages                                              the last one is the answer
    rl_prompt, sampled_answers: [{sampled_string}]        the paper's released samples

``FILE#MODEL`` takes the rows of a file whose column ``model`` says so.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from constitutional_ai.data import lines
from constitutional_ai.errors import DataError
from constitutional_ai.refusal import evades

GRAM = 4
RELATED = 0.5  # share of the telling words that two prompts have in common
COMMON = 0.1  # words in more prompts than this tell nothing
_ANSWER = ("answer", "response", "completion", "output")
_WORD = re.compile(r"\w+(?:'\w+)*")

Gram = tuple[str, ...]


def words(text: str) -> list[str]:
    """Lower-case words without punctuation; any apostrophe is a straight one."""
    return _WORD.findall(text.lower().replace("\u2019", "'"))


def grams(found: Sequence[str], n: int) -> list[Gram]:
    return list(zip(*(found[start:] for start in range(n)), strict=False))


@dataclass(frozen=True)
class Samples:
    """Answers with the prompts that they answer; ``name`` is the file's."""

    name: str
    prompts: Sequence[str]
    answers: Sequence[str]

    @cached_property
    def groups(self) -> list[list[int]]:
        """Rows by prompt, related prompts together, in a fixed order."""
        number = related(self.prompts)
        rows: defaultdict[int, list[int]] = defaultdict(list)
        for row, prompt in enumerate(self.prompts):
            rows[number[prompt]].append(row)
        return [rows[key] for key in sorted(rows)]

    @cached_property
    def phrases(self) -> list[set[Gram]]:
        """Each answer's runs of four words, less those of its prompt."""
        return [
            set(grams(words(answer), GRAM)) - set(grams(words(prompt), GRAM))
            for prompt, answer in zip(self.prompts, self.answers, strict=True)
        ]

    @cached_property
    def evasive(self) -> list[bool]:
        return [evades(answer) for answer in self.answers]

    def by_group(self, values: Sequence[float]) -> np.ndarray:
        """The mean of each group's rows: unrelated prompts count alike."""
        return np.array([np.mean([values[row] for row in rows]) for rows in self.groups])


def related(prompts: Iterable[str]) -> dict[str, int]:
    """A group's number for each prompt; prompts that share half their telling words are one group.

    >>> related(["bake bread today", "bake bread now", "fix a bicycle"])["fix a bicycle"]
    1
    """
    texts = list(dict.fromkeys(prompts))
    sets = [set(words(text)) for text in texts]
    spread = Counter(word for found in sets for word in found)
    most = max(2, COMMON * len(texts))
    telling = [{word for word in found if spread[word] <= most} or found for found in sets]
    holders: defaultdict[str, list[int]] = defaultdict(list)
    group: list[int] = []
    for n, found in enumerate(telling):
        shared = Counter(m for word in found for m in holders[word])
        near = [m for m, k in shared.items() if k >= RELATED * len(found | telling[m])]
        group.append(group[min(near)] if near else len(set(group)))
        for word in found:
            holders[word].append(n)
    return dict(zip(texts, group, strict=True))


def load(source: str) -> Samples:
    """The samples of ``FILE`` or ``FILE#MODEL``. Raises DataError with file and line."""
    file, _, model = source.partition("#")
    table = lines.jsonl(Path(file))
    found: list[tuple[str, str]] = []
    models: set[str] = set()
    for number, row in table.rows:
        name = str(row.get("model") or "")
        models.add(name)
        if model and name != model:
            continue
        try:
            found += _answers(row)
        except (KeyError, TypeError, AttributeError, ValueError, StopIteration, RuntimeError):
            raise DataError(
                f"{table.place(number)}: expected a prompt with an answer or answers, or messages"
            ) from None
    if not found:
        known = ", ".join(sorted(filter(None, models)))
        of_model = f" of a model {model!r}; its models: {known or 'none is named'}"
        raise DataError(f"{source}: no answers in it{of_model if model else ''}")
    if not model and len(models) > 1:
        raise DataError(
            f"{source}: answers of {len(models)} models; name one, {file}#{sorted(models)[0]}"
        )
    return Samples(source, [prompt for prompt, _ in found], [answer for _, answer in found])


def _answers(row: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    if "sampled_answers" in row:
        for sample in row["sampled_answers"]:
            yield _text(row["rl_prompt"]), _cut(sample["sampled_string"])
    elif "messages" in row:
        *earlier, last = row["messages"]
        yield _text(earlier), _cut(last["content"])
    elif "answers" in row:
        for answer in row["answers"]:
            yield _text(row["prompt"]), _cut(answer)
    else:
        yield _text(row["prompt"]), _cut(next(row[name] for name in _ANSWER if name in row))


def _cut(answer: Any) -> str:
    """An answer without what a base model went on to say for the user."""
    if isinstance(answer, list):
        answer = answer[-1]["content"]
    return str(answer.split("\n\nHuman:")[0].strip())


def _text(prompt: Any) -> str:
    if isinstance(prompt, str):
        return prompt
    return "\n".join(turn["content"] for turn in prompt)
