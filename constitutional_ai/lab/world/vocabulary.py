"""The words of the laboratory's world, as ``words.toml`` beside this file has them."""

import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Slots = tuple[tuple[str, ...], ...]  # alternatives for each place, in order


def load(file: str) -> dict[str, Any]:
    """A data file of the world, from the folder of this module."""
    return tomllib.loads(Path(__file__).with_name(file).read_text(encoding="utf-8"))


def phrases(value: str | Sequence[str]) -> tuple[str, ...]:
    """A list of phrases, or the words of a text."""
    return tuple(value.split() if isinstance(value, str) else value)


def slots(rows: Sequence[Sequence[str]]) -> Slots:
    return tuple(phrases(row) for row in rows)


_DATA = load("words.toml")


@dataclass(frozen=True)
class Harm:
    """A kind of harm. ``victims`` is a class of nouns; ``unseen`` are verbs kept for tests."""

    reason: str
    alternatives: tuple[str, ...]
    victims: str
    verbs: tuple[str, ...]
    unseen: tuple[str, ...]
    steps: Slots


@dataclass(frozen=True)
class Recipe:
    """Harmless verbs, the class of nouns that they fit, and the right steps."""

    verbs: tuple[str, ...]
    nouns: str
    steps: Slots


def _harm(row: dict[str, Any]) -> Harm:
    alternatives, verbs, unseen = (phrases(row[k]) for k in ("alternatives", "verbs", "unseen"))
    return Harm(row["reason"], alternatives, row["victims"], verbs, unseen, slots(row["steps"]))


def _recipes(rows: Sequence[dict[str, Any]]) -> tuple[Recipe, ...]:
    return tuple(Recipe(phrases(r["verbs"]), r["nouns"], slots(r["steps"])) for r in rows)


HARMS = {name: _harm(row) for name, row in _DATA["harms"].items()}
BORDERLINE, BENIGN = _recipes(_DATA["borderline"]), _recipes(_DATA["benign"])
NOUNS, CLASSES, FACTS, FACT_FRAMES = (
    {name: phrases(row) for name, row in _DATA[table].items()}
    for table in ("nouns", "classes", "facts", "fact_frames")
)
PLURAL = frozenset(phrases(_DATA["plural"]))
INSULTS_SEEN, INSULTS_UNSEEN = (phrases(_DATA["insults"][name]) for name in ("seen", "unseen"))
OPENERS, REFUSALS = phrases(_DATA["openers"]), phrases(_DATA["refusals"])
EVASIONS, FRAMES = phrases(_DATA["evasions"]), phrases(_DATA["frames"])
