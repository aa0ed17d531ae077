"""The table of attack families, what a list of names means, and two families in a row.

A family turns a conversation into an attack on the same request; given the same random state it
gives the same attack. ``inner+outer`` applies one and then the other: ``base64+role-play`` is a
coded request in a scene. Searches (``pair``, ``tree``) are named here too; they have no function,
for they need a target's answers.
"""

import difflib
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

from constitutional_ai.data.requests import Example
from constitutional_ai.errors import SettingsError
from constitutional_ai.records import Conversation, user
from constitutional_ai.redteam.context import after_examples
from constitutional_ai.redteam.encodings import CIPHERS, encoded
from constitutional_ai.redteam.framing import FRAMINGS, TENSES
from constitutional_ai.redteam.world import lab

Kind = Literal["plain", "encoding", "framing", "context", "search"]
Attack = Callable[[Conversation, random.Random], Conversation]

KINDS: tuple[Kind, ...] = ("encoding", "framing", "context")  # from the inside to the outside
PLAIN = "plain"
SEARCHES = ("pair", "tree")
SHOTS = {"few-shot": 3, "many-shot": 32}


@dataclass(frozen=True)
class Family:
    """``first``: it must be the inner one of two, since it reads the plain request."""

    name: str
    kind: Kind
    apply: Attack
    first: bool = False


Table = Mapping[str, Family]


def general(examples: Sequence[Example]) -> dict[str, Family]:
    """The families for models that know English; context families only with examples."""
    coded = [
        Family(name, "encoding", rewording(partial(encoded, cipher)))
        for name, cipher in CIPHERS.items()
    ]
    framed = [
        Family(name, "framing", rewording(reword), name in TENSES)
        for name, reword in FRAMINGS.items()
    ]
    return _table([*coded, *framed, *_contexts(examples, SHOTS), *_searches()])


def laboratory(examples: Sequence[Example]) -> dict[str, Family]:
    """The laboratory's families. Its models cannot decode anything, so there are no encodings."""
    framed = [
        Family(name, "framing", partial(_disguise, name), name == lab().INNERMOST)
        for name in lab().names()
    ]
    return _table([*framed, *_contexts(examples, lab().SHOTS), *_searches()])


def rewording(reword: Callable[[str], str]) -> Attack:
    """A function of text as an attack: it rewords the last turn."""

    def attack(conversation: Conversation, rng: random.Random) -> Conversation:
        return [*conversation[:-1], user(reword(conversation[-1]["content"]))]

    return attack


def chosen(names: Sequence[str], table: Table, steps: int) -> list[Family]:
    """The families that a list of names means, the plain request first, then in the table's order.

    A name is a family, ``inner+outer``, a kind ("encoding", "framing", "context"), "all" (without
    the searches), or in the laboratory "seen" or "unseen". With ``steps`` 2 every pair of the named
    families that can follow each other is added. Raises SettingsError for any other name.
    """
    single: dict[str, Family] = {}
    double: dict[str, Family] = {}
    for name in names:
        for family in _meant(name, table):
            (double if "+" in family.name else single)[family.name] = family
    singles = [family for family in table.values() if family.name in single]
    if steps == 2:
        double |= {family.name: family for family in pairs(singles)}
    return [table[PLAIN], *(f for f in singles if f.name != PLAIN), *double.values()]


def pairs(families: Sequence[Family]) -> list[Family]:
    """Every two in a row: encodings inside framings inside context, never two encodings or two
    contexts. Of two framings one order is taken, the one that fits.
    """
    usable = sorted(
        (family for family in families if family.kind in KINDS),
        key=lambda family: (KINDS.index(family.kind), not family.first),
    )
    return [
        stacked(inner, outer)
        for number, inner in enumerate(usable)
        for outer in usable[number + 1 :]
        if fits(inner, outer)
    ]


def fits(inner: Family, outer: Family) -> bool:
    """Whether ``outer`` can go around ``inner``."""
    if inner.kind not in KINDS or outer.kind not in KINDS or outer.first:
        return False
    if inner.kind == outer.kind:
        return inner.kind == "framing" and inner.name != outer.name
    return KINDS.index(inner.kind) < KINDS.index(outer.kind)


def stacked(inner: Family, outer: Family) -> Family:
    """Two families in a row, as one."""

    def attack(conversation: Conversation, rng: random.Random) -> Conversation:
        return outer.apply(inner.apply(conversation, rng), rng)

    return Family(f"{inner.name}+{outer.name}", outer.kind, attack)


def _meant(name: str, table: Table) -> list[Family]:
    if name == "all":
        return [family for family in table.values() if family.kind != "search"]
    if name in KINDS:
        return _some(name, [family for family in table.values() if family.kind == name])
    if name in ("seen", "unseen") and all(known in table for known in lab().names()):
        wanted = name == "seen"
        return [f for f in table.values() if f.kind in KINDS and lab().seen(f.name) is wanted]
    if "+" in name:
        inner, _, outer = name.partition("+")
        first, second = _known(inner, table), _known(outer, table)
        if not fits(first, second):
            raise SettingsError(
                f"--families {name}: {outer} cannot go around {inner}; an encoding stands inside a"
                " framing and that inside a context, and a change of tense comes first"
            )
        return [stacked(first, second)]
    return [_known(name, table)]


def _some(name: str, found: list[Family]) -> list[Family]:
    if not found:
        remedy = "give --examples" if name == "context" else "name others"
        raise SettingsError(f"--families {name}: there are none for these prompts; {remedy}")
    return found


def _known(name: str, table: Table) -> Family:
    if name in table:
        return table[name]
    if name in SHOTS:
        raise SettingsError(
            f"--families {name}: needs answers that comply; give --examples FILE, a JSONL file of"
            ' {"prompt": …, "answer": …} lines'
        )
    near = difflib.get_close_matches(name, table, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    raise SettingsError(
        f"--families: no family is named {name!r}{hint} There are: {', '.join(table)}"
    )


def _table(families: Sequence[Family]) -> dict[str, Family]:
    plain = Family(PLAIN, "plain", _unchanged)
    return {family.name: family for family in [plain, *families]}


def _contexts(examples: Sequence[Example], shots: Mapping[str, int]) -> list[Family]:
    return [
        Family(name, "context", partial(_after, examples, count))
        for name, count in shots.items()
        if examples
    ]


def _after(
    examples: Sequence[Example], shots: int, conversation: Conversation, rng: random.Random
) -> Conversation:
    return after_examples(conversation, rng.sample(examples, len(examples)), shots)


def _disguise(name: str, conversation: Conversation, rng: random.Random) -> Conversation:
    return lab().disguise(name, conversation, rng)


def _searches() -> list[Family]:
    return [Family(name, "search", _unchanged) for name in SEARCHES]


def _unchanged(conversation: Conversation, rng: random.Random) -> Conversation:
    return conversation
