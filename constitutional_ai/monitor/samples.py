"""Answers as the monitor looks at them: by prompt, by their phrases, by whether they evade."""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from constitutional_ai.data.answers import load_samples
from constitutional_ai.refusal import evades

GRAM = 4
RELATED = 0.5  # share of the telling words that two prompts have in common
COMMON = 0.1  # words in more prompts than this tell nothing
_WORD = re.compile(r"\w+(?:'\w+)*")

Gram = tuple[str, ...]


def words(text: str) -> list[str]:
    """Lower-case words without punctuation; any apostrophe is a straight one."""
    return _WORD.findall(text.lower().replace("\u2019", "'"))


def grams(said: Sequence[str], n: int) -> list[Gram]:
    return list(zip(*(said[start:] for start in range(n)), strict=False))


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
        """Each answer's runs of four words that its prompt does not have."""
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
    spread = Counter(word for of_prompt in sets for word in of_prompt)
    most = max(2, COMMON * len(texts))
    telling = [{word for word in own if spread[word] <= most} or own for own in sets]
    holders: defaultdict[str, list[int]] = defaultdict(list)
    group: list[int] = []
    for n, own in enumerate(telling):
        shared = Counter(m for word in own for m in holders[word])
        near = [m for m, k in shared.items() if k >= RELATED * len(own | telling[m])]
        group.append(group[min(near)] if near else len(set(group)))
        for word in own:
            holders[word].append(n)
    return dict(zip(texts, group, strict=True))


def load(source: str) -> Samples:
    """The samples of ``FILE`` or ``FILE#MODEL``. Raises DataError with file and line."""
    samples = load_samples(source)
    return Samples(source, [prompt for prompt, _ in samples], [answer for _, answer in samples])
