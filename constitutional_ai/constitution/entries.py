"""A principle in the making: its words, a name, and whether it asks for something or forbids it."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Self

from constitutional_ai.constitution.similarity import telling, words

_PROHIBITION = re.compile(
    r"^(?:(?:the |an? )?(?:answer|response|reply|assistant|model|bot|ai|it|you|we)?\s*"
    r"(?:should|must|may|will|shall|can|does|do)?\s*(?:never|not|n't)|do not|don't|never|avoid"
    r"|refrain from)\s+",
    re.IGNORECASE,
)
_DOUBLED = frozenset("admit begin commit forget omit permit prefer refer submit transmit".split())


@dataclass
class Entry:
    """``fields`` are those of a Principle; it stood in ``origin``, at ``line`` unless that is 0."""

    fields: dict[str, Any]
    line: int = 0
    notes: list[str] = field(default_factory=list)
    origin: str = ""

    @classmethod
    def of(cls, text: str, name: str = "", line: int = 0) -> Self:
        return cls({"name": name, "text": text}, line)

    @property
    def name(self) -> str:
        return str(self.fields["name"])

    @property
    def place(self) -> str:
        return f"{self.origin}:{self.line}" if self.line else self.origin

    def extend(self, text: str) -> None:
        self.fields["text"] = f"{self.fields['text']} {text}".strip()

    def settled(self) -> Self:
        """With the kind that its words show, and a name made of them where it has none."""
        text = str(self.fields["text"])
        self.fields["name"] = slug(self.name) or slug(" ".join(telling(text)[:4])) or "principle"
        if ruled_out := what_is_ruled_out(text):
            self.fields |= {"kind": "dont", "text": ruled_out}
        return self


def what_is_ruled_out(text: str) -> str:
    """A prohibition as the thing that it forbids; "" for any other sentence.

    >>> what_is_ruled_out("Never reveal a customer's address.")
    "Revealing a customer's address."
    >>> what_is_ruled_out("The answer should be short.")
    ''
    """
    match = _PROHIBITION.match(text)
    if match is None:
        return ""
    rest = text[match.end() :].split(" ")
    verb = next((i for i, word in enumerate(rest) if not word.endswith("ly")), 0)
    rest[verb] = gerund(rest[verb])
    said = " ".join(rest)
    return said[:1].upper() + said[1:]


def gerund(verb: str) -> str:
    """The -ing form of an English verb.

    >>> [gerund(verb) for verb in ("give", "get", "lie", "help", "insult", "be", "see", "mocking")]
    ['giving', 'getting', 'lying', 'helping', 'insulting', 'being', 'seeing', 'mocking']
    """
    word = verb.lower()
    if word.endswith("ing") and len(word) > 5:
        return verb
    if word.endswith("ie"):
        return verb[:-2] + "ying"
    if word.endswith("e") and not word.endswith(("ee", "oe", "ye")) and word != "be":
        return verb[:-1] + "ing"
    doubled = re.fullmatch(r"[^aeiou]*[aeiou][^aeiouwxyh]", word) or word in _DOUBLED
    return verb + (verb[-1] if doubled else "") + "ing"


def slug(text: str) -> str:
    """A name as files and rows carry it: "Be honest!" → "be-honest"."""
    return "-".join(words(text.replace("'", "").replace("\u2019", "")))


def unique_names(entries: Sequence[Entry]) -> None:
    """Number names that would collide: the second "honest" becomes "honest-2"."""
    taken: set[str] = set()
    for entry in entries:
        name, number = entry.name, 1
        while entry.name.casefold() in taken:
            number += 1
            entry.fields["name"] = f"{name}-{number}"
        taken.add(entry.name.casefold())
