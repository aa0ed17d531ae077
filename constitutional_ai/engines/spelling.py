"""How a reply may begin that names an option: as texts, and as a tokenizer's tokens.

A judge that is asked for "(A)" may begin with "(A", "A", " A" or "**A". What it thinks of an
option is the probability of all these beginnings together, so they are listed here, once. In some
vocabularies "(A" is one token. In others "(" is one of its own, which begins every option. Then the
token behind it tells them apart, and P(A) = P("A") + P(" A") + … + P("(") · P("A" | "(").
"""

import math
from collections.abc import Callable, Mapping, Sequence
from itertools import takewhile
from typing import NamedTuple

LEADS = ("", " ", "**", '"')
DRESSING = " \n\t*_`\"'.:()[]"  # what may stand around an option in a reply


class Begun(NamedTuple):
    """``opening``: the tokens with which all options' own spellings begin, often none.

    ``places[k][n]``: the tokens that begin option n behind the first k tokens of the opening.
    """

    opening: tuple[int, ...]
    places: tuple[tuple[tuple[int, ...], ...], ...]

    @classmethod
    def at_once(cls, choices: Sequence[int]) -> "Begun":
        """One token for each option, and nothing before it."""
        return cls((), (tuple((choice,) for choice in choices),))

    def tokens(self, place: int) -> list[int]:
        """All tokens whose probability counts behind the first ``place`` ones of the opening."""
        ids = dict.fromkeys(token for of in self.places[place] for token in of)
        return list(dict.fromkeys([*ids, *self.opening[place : place + 1]]))

    def logprobs(self, found: Sequence[Mapping[int, float]]) -> list[float]:
        """The log of each option's probability from those of ``tokens``, by place."""
        terms: list[list[float]] = [[] for _ in self.places[0]]
        opened = 0.0
        for place, values in enumerate(found):
            for of, tokens in zip(terms, self.places[place], strict=True):
                of += [opened + values[token] for token in tokens]
            opened += sum(values[token] for token in self.opening[place : place + 1])
        return [log_sum(of) for of in terms]


def log_sum(logprobs: Sequence[float]) -> float:
    """log Σ exp; minus infinity for none. One value comes back as it is."""
    highest = max(logprobs, default=-math.inf)
    if math.isinf(highest):
        return highest
    return highest + math.log(math.fsum(math.exp(value - highest) for value in logprobs))


def spellings(option: str) -> list[str]:
    """The option itself, and other ways to begin saying it. A letter keeps its case: "a" is a word.

    >>> spellings("(A)")[:6], spellings("yes")[:4]
    (['(A)', '(A', 'A', 'A)', ' (A)', ' (A'], ['yes', 'Yes', ' yes', ' Yes'])
    """
    bare = option.strip("()[]")
    end = option[len(option.rstrip(")]")) :]
    bodies = [option, option.removesuffix(end), bare, bare + end]
    if len(bare) > 1:
        bodies += [bare.lower(), bare[:1].upper() + bare[1:]]
    return list(dict.fromkeys(lead + body for lead in LEADS for body in bodies))


def begun(options: Sequence[str], spelt: Callable[[str], Sequence[int]]) -> Begun:
    """Which tokens begin which option; ``spelt`` gives the tokens of a reply.

    A token that begins several options counts for none. Other spellings than the option's own
    count where one token holds the whole word. Raises ValueError for options whose own spellings do
    not differ before one of them ends.
    """
    opening, choices = apart([spelt(option) for option in options], options)
    claims: dict[tuple[int, int], set[int]] = {}  # (place, token) → the options that it begins
    for number, option in enumerate(options):
        for ids in map(spelt, spellings(option)):
            pairs = zip(ids, opening, strict=False)
            place = len(list(takewhile(lambda pair: pair[0] == pair[1], pairs)))
            if len(ids) == place + 1:
                claims.setdefault((place, ids[place]), set()).add(number)
    claims.update({(len(opening), token): {number} for number, token in enumerate(choices)})

    def beginning(place: int, number: int) -> tuple[int, ...]:
        return tuple(token for (at, token), of in claims.items() if (at, of) == (place, {number}))

    return Begun(
        opening,
        tuple(
            tuple(beginning(place, number) for number in range(len(options)))
            for place in range(len(opening) + 1)
        ),
    )


def apart(
    spelt: Sequence[Sequence[int]], options: Sequence[str]
) -> tuple[tuple[int, ...], list[int]]:
    """What all spellings begin with, and the token that each has next. Raises ValueError."""
    shared = takewhile(lambda column: len(set(column)) == 1, zip(*spelt, strict=False))
    opening = tuple(column[0] for column in shared)
    choices = [ids[len(opening)] for ids in spelt if len(ids) > len(opening)]
    if len(set(choices)) < len(options):
        raise ValueError(f"options must differ before one of them ends: {list(options)}")
    return opening, choices
