"""Principles as data: load a constitution from TOML, validate it, hash it, draw from it.

A principle needs only a ``name`` and a ``text``; the three prompts that a model sees derive from
the text unless they are written out. Hashes go into every row that is made under a principle.
"""

import random
import re
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from constitutional_ai.errors import ConstitutionError
from constitutional_ai.records import PromptSet, content_hash

Use = Literal["critique", "preference"]

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
    often.
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

    @model_validator(mode="before")
    @classmethod
    def _derive_prompts(cls, data: Any) -> Any:
        if not isinstance(data, dict) or not str(data.get("text", "")).strip():
            return data
        data = dict(data)
        for field, template in _DERIVED.get(data.get("kind", "do"), {}).items():
            data[field] = data.get(field) or template.format(text=str(data["text"]).strip())
        return data

    @property
    def hash(self) -> str:
        return content_hash(self.model_dump())


class Constitution(BaseModel):
    """A named, versioned set of principles."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    name: str = Field(min_length=1)
    version: str = Field(min_length=1)
    description: str = ""
    principles: tuple[Principle, ...] = Field(min_length=1)

    @property
    def hash(self) -> str:
        return content_hash(self.model_dump())

    def principle(self, name: str) -> Principle:
        """The principle of that name. Raises ConstitutionError when there is none."""
        for principle in self.principles:
            if principle.name == name:
                return principle
        names = ", ".join(p.name for p in self.principles)
        raise ConstitutionError(f"{self.name} has no principle named {name!r}; it has: {names}")

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


def load_constitution(path: str | Path) -> Constitution:
    """Read and validate a constitution file.

    A bare name such as ``lab`` means the file of that name that ships with the package. Raises
    ConstitutionError with file, line and remedy.
    """
    path = _find(path)
    try:
        source = path.read_text(encoding="utf-8-sig")
        data = tomllib.loads(source)
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConstitutionError(f"{path}: not valid TOML: {error}") from None
    rows = data.pop("principle", [])
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise ConstitutionError(f"{path}:1: principle: expected tables, each under [[principle]]")
    lines = _lines_of_principles(source, len(rows))
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
        raise ConstitutionError(f"{path}:1: {_first(error)}") from None


def _lines_of_principles(source: str, count: int) -> list[int]:
    """The line of each ``[[principle]]``; all are 1 where they are spelled in another way."""
    lines = [
        number
        for number, line in enumerate(source.splitlines(), 1)
        if re.match(r"\s*\[\[\s*principle\s*\]\]", line)
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


def _find(path: str | Path) -> Path:
    path = Path(path)
    if path.is_file():
        return path
    shipped = Path(__file__).parent / "constitutions" / f"{path.name}.toml"
    if path.suffix == "" and len(path.parts) == 1 and shipped.is_file():
        return shipped
    raise ConstitutionError(f"{path}: no such constitution file")
