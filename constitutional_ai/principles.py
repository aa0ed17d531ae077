"""Principles as data: load a constitution from TOML, validate it, hash it, draw from it.

A principle needs only a ``name`` and a ``text``; the three prompts that a model sees derive from
the text unless they are written out. Hashes go into every row that is made under a principle.
Where principles disagree about two answers, ``resolve`` settles it: hard ones first, then by
priority. Writing, checking and comparing constitutions is the business of ``drafting/``.
"""

import math
import random
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import (
    AliasChoices,
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    ValidationError,
    model_validator,
)

from constitutional_ai.errors import ConstitutionError
from constitutional_ai.records import PromptSet, content_hash

Use = Literal["critique", "preference"]
T = TypeVar("T")

# Fields that came later. Unset they stay out of the hash, so that a constitution which does not use
# them keeps the hash under which rows were made before there were such fields.
_ADDED = ("priority", "hard", "rationale", "exemplars", "thoughts", "scale")

DECISIVE = 0.1  # how far from .5 a principle's probability must lie to have an opinion

# What each kind of principle asks, where the constitution does not say it in its own words.
_DERIVED = {
    "do": {
        "critique_prompt": "Identify specific ways in which the response above falls short of this"
        " principle: {text}",
        "revision_prompt": "Please rewrite the response so that it follows this principle and keeps"
        " what was already good: {text}",
        "preference_prompt": "Which answer follows this principle better? {text}",
    },
    "dont": {
        "critique_prompt": "Identify specific ways in which the response above does what this"
        " principle rules out: {text}",
        "revision_prompt": "Please rewrite the response so that nothing in it is ruled out by this"
        " principle, and stay as helpful as that allows: {text}",
        "preference_prompt": "Which answer has less of what this principle rules out? {text}",
    },
}


class Principle(BaseModel):
    """One rule. ``kind`` is "do" (to be followed) or "dont" (the text describes what is ruled out).

    ``use`` says in which phase it may be drawn, ``prompts`` for which prompt sets, ``weight`` how
    often. ``priority`` 1 is heard first where principles disagree, 0 last; ``hard`` ones are heard
    before all others. ``rationale`` is for people: no model is shown it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    name: str = Field(min_length=1)
    text: str = Field(min_length=1)
    kind: Literal["do", "dont"] = "do"
    critique_prompt: str = ""
    revision_prompt: str = ""
    preference_prompt: str = ""
    weight: float = Field(default=1.0, gt=0)
    use: tuple[Use, ...] = ("critique", "preference")
    prompts: tuple[PromptSet, ...] = ("red-team", "helpful")
    priority: int = Field(default=0, ge=0)
    hard: bool = False
    rationale: str = ""

    @model_validator(mode="before")
    @classmethod
    def _derive_prompts(cls, data: Any) -> Any:
        if not isinstance(data, dict) or not str(data.get("text", "")).strip():
            return data
        derived = derived_prompts(str(data["text"]), data.get("kind", "do"))
        return data | {field: data.get(field) or prompt for field, prompt in derived.items()}

    @property
    def hash(self) -> str:
        return content_hash(self.hashed())

    def hashed(self) -> dict[str, Any]:
        """What the hash depends on."""
        return {k: v for k, v in self.model_dump().items() if v or k not in _ADDED}


def derived_prompts(text: str, kind: str) -> dict[str, str]:
    """The three prompts that follow from a principle's text; none for a kind that is unknown."""
    return {
        field: template.format(text=text.strip())
        for field, template in _DERIVED.get(kind, {}).items()
    }


class Scale(BaseModel):
    """How a judge scores a single answer: the prompt, the options of its reply, their values."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    prompt: str = Field(min_length=1)
    options: tuple[str, ...] = Field(min_length=2)
    values: tuple[float, ...] = Field(min_length=2)

    @model_validator(mode="after")
    def _paired(self) -> "Scale":
        if len(self.options) != len(self.values):
            raise ValueError(f"{len(self.options)} options but {len(self.values)} values")
        return self


class WorkedRevision(BaseModel):
    """An answer, what is wrong with it, and a better one, for a model that only continues text.

    ``principle`` is what the critique goes by; without one, whichever is drawn for the request that
    follows.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    prompt: str = Field(min_length=1)
    answer: str = Field(min_length=1)
    critique: str = Field(min_length=1)
    revision: str = Field(min_length=1)
    principle: str = ""


class WorkedComparison(BaseModel):
    """Two answers, and which one is better: shown to a judge that only continues text."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    prompt: str = Field(min_length=1)
    first: str = Field(min_length=1)
    second: str = Field(min_length=1)
    better: Literal["first", "second"]
    principle: str = ""


def _kind_of_exemplar(data: Any) -> str:
    compared = "better" in data or "first" in data if isinstance(data, dict) else False
    return "comparison" if compared or isinstance(data, WorkedComparison) else "revision"


Exemplar = Annotated[
    Annotated[WorkedRevision, Tag("revision")] | Annotated[WorkedComparison, Tag("comparison")],
    Discriminator(_kind_of_exemplar),
]


class Constitution(BaseModel):
    """A named, versioned set of principles.

    ``thoughts`` are the turns that make a judge think before it chooses, ``scale`` is how it scores
    one answer; both have defaults in prompts.py. ``exemplars`` (in a file ``[[exemplar]]`` tables)
    are shown where a run asks for them.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    name: str = Field(min_length=1)
    version: str = Field(min_length=1)
    description: str = ""
    thoughts: tuple[str, ...] = ()
    scale: Scale | None = None
    principles: tuple[Principle, ...] = Field(min_length=1)
    exemplars: tuple[Exemplar, ...] = Field(
        default=(), validation_alias=AliasChoices("exemplar", "exemplars")
    )

    @model_validator(mode="after")
    def _exemplars_name_principles(self) -> "Constitution":
        names = {"", *(principle.name for principle in self.principles)}
        for exemplar in self.exemplars:
            if exemplar.principle not in names:
                raise ValueError(f"an exemplar names no principle of it: {exemplar.principle!r}")
        return self

    @property
    def hash(self) -> str:
        own = {k: v for k, v in self.model_dump().items() if v or k not in _ADDED}
        return content_hash({**own, "principles": [p.hashed() for p in self.principles]})

    def principle(self, name: str) -> Principle:
        """The principle of that name. Raises ConstitutionError when there is none."""
        for principle in self.principles:
            if principle.name == name:
                return principle
        names = ", ".join(p.name for p in self.principles)
        raise ConstitutionError(f"{self.name} has no principle named {name!r}; it has: {names}")

    def worked_revisions(self, count: int) -> list[WorkedRevision]:
        """The first ``count``. Raises ConstitutionError where there are fewer."""
        found = [one for one in self.exemplars if isinstance(one, WorkedRevision)]
        return self._first(found, count, "revise.exemplars", "prompt, answer, critique, revision")

    def worked_comparisons(self, count: int) -> list[WorkedComparison]:
        """The first ``count``. Raises ConstitutionError where there are fewer."""
        found = [one for one in self.exemplars if isinstance(one, WorkedComparison)]
        return self._first(found, count, "label.exemplars", "prompt, first, second, better")

    def _first(self, found: list[T], count: int, setting: str, keys: str) -> list[T]:
        if len(found) < count:
            raise ConstitutionError(
                f"{self.name} has {len(found)} such exemplars, and {setting} = {count} asks for"
                f" more; write [[exemplar]] tables with {keys}"
            )
        return found[:count]

    def usable(self, use: Use, prompts: PromptSet) -> list[Principle]:
        """The principles that may be drawn in this phase for this prompt set."""
        found = [p for p in self.principles if use in p.use and prompts in p.prompts]
        if not found:
            raise ConstitutionError(
                f"{self.name} has no principle for {use} of {prompts} prompts:"
                f" add one, or widen the `use` or `prompts` of another"
            )
        return found

    def draw(self, use: Use, prompts: PromptSet, count: int, *seed: object) -> list[Principle]:
        """``count`` different principles (all, if fewer), drawn by weight; the same seed, the same
        draw.
        """
        pool = self.usable(use, prompts)
        return weighted_sample(pool, count, random.Random(content_hash(*seed)))


def weighted_sample(pool: Sequence[Principle], count: int, rng: random.Random) -> list[Principle]:
    """Without replacement, by Efraimidis and Spirakis (2006): the largest u^(1/weight) win."""
    keys = {p.name: rng.random() ** (1 / p.weight) for p in pool}
    return sorted(pool, key=lambda p: keys[p.name], reverse=True)[:count]


@dataclass(frozen=True)
class Resolved:
    """P(first answer better) by the whole constitution, and the principles that decided it."""

    p: float
    decided_by: tuple[str, ...]


def resolve(
    by_principle: Mapping[str, float],
    constitution: Constitution,
    decisive: float = DECISIVE,
    weighted: bool = True,
) -> Resolved:
    """One probability from those under each principle, told by ``by_principle`` (names to [0, 1]).

    Principles that agree, and principles of equal rank, are averaged: by weight, where ``weighted``
    says so. Where they disagree
    the highest rank with an opinion (its mean at least ``decisive`` away from .5) decides alone:
    hard ones before all others, then priority 1, 2, …, and last those without a priority. Raises
    ConstitutionError for a name that the constitution does not have, ValueError without any.
    """
    judged = [(constitution.principle(name), p) for name, p in by_principle.items()]
    if not judged:
        raise ValueError("no principle has judged")
    opinions = [p for _, p in judged if abs(p - 0.5) >= decisive]
    if any(p > 0.5 for p in opinions) and any(p < 0.5 for p in opinions):
        for rank in sorted({_rank(principle) for principle, _ in judged}):
            tier = [(principle, p) for principle, p in judged if _rank(principle) == rank]
            if abs(_mean(tier, weighted) - 0.5) >= decisive:
                return Resolved(_mean(tier, weighted), tuple(p.name for p, _ in tier))
    return Resolved(_mean(judged, weighted), tuple(by_principle))


def _rank(principle: Principle) -> tuple[bool, float]:
    return (not principle.hard, principle.priority or math.inf)


def _mean(judged: Sequence[tuple[Principle, float]], weighted: bool) -> float:
    weights = [principle.weight if weighted else 1.0 for principle, _ in judged]
    total = math.fsum(weight * p for weight, (_, p) in zip(weights, judged, strict=True))
    return total / math.fsum(weights)


def load_constitution(path: str | Path) -> Constitution:
    """Read and validate a constitution file.

    A bare name such as ``lab`` means the file of that name that ships with the package. Raises
    ConstitutionError with file, line and remedy.
    """
    path = find_constitution(path)
    try:
        source = path.read_text(encoding="utf-8-sig")
        data = tomllib.loads(source)
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConstitutionError(f"{path}: not valid TOML: {error}") from None
    rows = data.pop("principle", [])
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise ConstitutionError(f"{path}:1: principle: expected tables, each under [[principle]]")
    lines = lines_of("principle", source, len(rows))
    principles = [_principle(path, row, line) for row, line in zip(rows, lines, strict=True)]
    seen: dict[str, int] = {}
    for principle, line in zip(principles, lines, strict=True):
        if principle.name in seen:
            raise ConstitutionError(
                f"{path}:{line}: principle {principle.name!r} is already defined in line"
                f" {seen[principle.name]}; rename one of them"
            )
        seen[principle.name] = line
    try:
        return Constitution(principles=tuple(principles), **data)
    except ValidationError as error:
        line, place = 1, error.errors()[0]["loc"]
        if place[:1] == ("exemplar",) and len(place) > 1:
            line = lines_of("exemplar", source, len(data["exemplar"]))[int(place[1])]
        raise ConstitutionError(f"{path}:{line}: {_first(error)}") from None


def lines_of(table: str, source: str, count: int) -> list[int]:
    """The line of each ``[[table]]``; all are 1 where they are spelled in another way."""
    lines = [
        number
        for number, line in enumerate(source.splitlines(), 1)
        if re.match(rf"\s*\[\[\s*{table}\s*\]\]", line)
    ]
    return lines if len(lines) == count else [1] * count


def _principle(path: Path, row: dict[str, Any], line: int) -> Principle:
    if not str(row.get("text", "")).strip():
        name = row.get("name", "?")
        raise ConstitutionError(
            f"{path}:{line}: principle {name!r} has an empty text; write what it asks"
        )
    try:
        return Principle(**row)
    except ValidationError as error:
        raise ConstitutionError(f"{path}:{line}: {_first(error)}") from None


def _first(error: ValidationError) -> str:
    problem = error.errors()[0]
    where = ".".join(str(part) for part in problem["loc"]) or "constitution"
    return f"{where}: {problem['msg']}"


def find_constitution(path: str | Path) -> Path:
    """The file itself, or the shipped one of that bare name. Raises ConstitutionError."""
    path = Path(path)
    if path.is_file():
        return path
    shipped = Path(__file__).parent / "constitutions" / f"{path.name}.toml"
    if path.suffix == "" and len(path.parts) == 1 and shipped.is_file():
        return shipped
    raise ConstitutionError(f"{path}: no such constitution file")
