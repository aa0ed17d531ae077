"""Principles as data: load a constitution from TOML, validate it, hash it, draw from it.

A principle needs only a ``name`` and a ``text``; the three prompts that a model sees derive from
the text unless they are written out. Each row that is made under a principle carries its hash.
Where principles disagree about two answers, ``resolve`` decides: hard principles first, then by
priority. The package ``constitution`` writes, checks and compares constitutions.
"""

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import (
    AliasChoices,
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    model_validator,
)

from constitutional_ai.errors import ConstitutionError
from constitutional_ai.records import PromptSet, content_hash
from constitutional_ai.toml_file import BadToml, Report, Table, TomlFile, read_toml

Use = Literal["critique", "preference"]
M = TypeVar("M", bound=BaseModel)

# Fields that came later. They enter the hash only where they are set, so a constitution that does
# not use them keeps the hash that older rows carry.
_ADDED = ("priority", "hard", "rationale", "exemplars", "thoughts", "scale")

DECISIVE = 0.1  # a principle has an opinion where its probability is this far from 0.5

# What each kind of principle asks, where the constitution does not write its own prompts.
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
    """One rule. ``kind`` "do" says what to do, "dont" describes a fault.

    ``use`` names the phases that may draw it, ``prompts`` the prompt sets; ``weight`` is how often
    it is drawn. Where principles disagree, ``hard`` ones decide first, then ``priority`` 1, 2, …;
    priority 0 means none. ``rationale`` is for people: no model sees it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    name: str = Field(min_length=1)
    text: str = Field(min_length=1)
    kind: Literal["do", "dont"] = "do"
    critique_prompt: str = ""
    revision_prompt: str = ""
    preference_prompt: str = ""
    weight: float = Field(default=1.0, gt=0, le=1e6, allow_inf_nan=False)
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
        """The fields that the hash depends on."""
        return {k: v for k, v in self.model_dump().items() if v or k not in _ADDED}


def derived_prompts(text: str, kind: str) -> dict[str, str]:
    """The three prompts that derive from a principle's text; none for an unknown kind."""
    return {
        field: template.format(text=text.strip())
        for field, template in _DERIVED.get(kind, {}).items()
    }


class Scale(BaseModel):
    """How a judge scores one answer: the prompt, the options of its reply, the value of each."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    prompt: str = Field(min_length=1)
    options: tuple[str, ...] = Field(min_length=2)
    values: tuple[Annotated[float, Field(allow_inf_nan=False)], ...] = Field(min_length=2)

    @model_validator(mode="after")
    def _paired(self) -> "Scale":
        if len(self.options) != len(self.values):
            counts = f"{len(self.options)} options but {len(self.values)} values"
            raise ValueError(f"the scale has {counts}; write a value for each option")
        return self


class WorkedRevision(BaseModel):
    """An answer, its critique and a better answer, for a model that only continues text.

    ``principle`` names the principle that the critique follows. Without a name it is the one that
    is drawn for the request that follows.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    prompt: str = Field(min_length=1)
    answer: str = Field(min_length=1)
    critique: str = Field(min_length=1)
    revision: str = Field(min_length=1)
    principle: str = ""


class WorkedComparison(BaseModel):
    """Two answers and which one is better, for a judge that only continues text."""

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

    ``thoughts`` are the turns that make a judge think before it chooses, and ``scale`` is how it
    scores one answer; prompts.py has defaults for both. ``exemplars`` (``[[exemplar]]`` tables in a
    file) are shown where a run asks for them.
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
                raise ValueError(
                    f"an exemplar names {exemplar.principle!r}, which is no principle here;"
                    " write the name of a principle of this file, or none"
                )
        return self

    @property
    def hash(self) -> str:
        own = {k: v for k, v in self.model_dump().items() if v or k not in _ADDED}
        return content_hash({**own, "principles": [p.hashed() for p in self.principles]})

    def principle(self, name: str) -> Principle:
        """The principle of that name. Raises ConstitutionError where there is none."""
        for principle in self.principles:
            if principle.name == name:
                return principle
        names = ", ".join(p.name for p in self.principles)
        raise ConstitutionError(f"{self.name} has no principle named {name!r}; it has: {names}")

    def worked_revisions(self, count: int) -> list[WorkedRevision]:
        """The first ``count``. Raises ConstitutionError where there are fewer."""
        worked = [one for one in self.exemplars if isinstance(one, WorkedRevision)]
        return self._first(worked, count, "revise.exemplars", "prompt, answer, critique, revision")

    def worked_comparisons(self, count: int) -> list[WorkedComparison]:
        """The first ``count``. Raises ConstitutionError where there are fewer."""
        worked = [one for one in self.exemplars if isinstance(one, WorkedComparison)]
        return self._first(worked, count, "label.exemplars", "prompt, first, second, better")

    def _first(self, worked: list[M], count: int, setting: str, keys: str) -> list[M]:
        if len(worked) < count:
            raise ConstitutionError(
                f"{self.name} has {len(worked)} such exemplars, and {setting} = {count} asks for"
                f" more; write [[exemplar]] tables with {keys}"
            )
        return worked[:count]

    def usable(self, use: Use, prompts: PromptSet) -> list[Principle]:
        """What this phase may draw for this prompt set. Raises ConstitutionError for nothing."""
        pool = [p for p in self.principles if use in p.use and prompts in p.prompts]
        if not pool:
            raise ConstitutionError(
                f"{self.name} has no principle for {use} of {prompts} prompts:"
                f" add one, or widen the `use` or `prompts` of another"
            )
        return pool

    def draw(self, use: Use, prompts: PromptSet, count: int, *seed: object) -> list[Principle]:
        """``count`` different principles (or all), drawn by weight; the seed decides the draw."""
        pool = self.usable(use, prompts)
        return weighted_sample(pool, count, random.Random(content_hash(*seed)))


def weighted_sample(pool: Sequence[Principle], count: int, rng: random.Random) -> list[Principle]:
    """Without replacement, by Efraimidis and Spirakis (2006): the largest u^(1/weight) win."""
    keys = {p.name: rng.random() ** (1 / p.weight) for p in pool}
    return sorted(pool, key=lambda p: keys[p.name], reverse=True)[:count]


@dataclass(frozen=True)
class Resolved:
    """P(first answer better) under the whole constitution, and the principles that decided."""

    p: float
    decided_by: tuple[str, ...]


def resolve(
    by_principle: Mapping[str, float],
    constitution: Constitution,
    decisive: float = DECISIVE,
    weighted: bool = True,
) -> Resolved:
    """One probability from ``by_principle``, which maps names to probabilities in [0, 1].

    Principles that agree, and principles of equal rank, are averaged, by weight if ``weighted``.
    Where they disagree, the highest rank that has an opinion decides alone: its mean is at least
    ``decisive`` away from 0.5. Hard principles rank highest, then priority 1, 2, …, then those
    without one. Raises ConstitutionError for a name that the constitution lacks, ValueError for no
    name at all.
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


# ---- from a file ------------------------------------------------------------------------------


@dataclass(frozen=True)
class Drafted:
    """A principle that could be read, and the table that it was read from."""

    principle: Principle
    table: Table

    def at(self, key: str) -> int:
        """The line of a key; the line of ``text`` for a prompt that derives from it."""
        return self.table.keys.get(key, self.table.at("text"))


@dataclass
class Draft:
    """A file as its author left it: what could be read, and a report of all that is wrong."""

    report: Report
    file: TomlFile = field(default_factory=lambda: TomlFile({}, []))
    drafted: list[Drafted] = field(default_factory=list)
    constitution: Constitution | None = None


def load_constitution(path: str | Path) -> Constitution:
    """Read and validate a constitution file.

    A bare name such as ``lab`` means the file of that name that ships with the package. Raises
    ConstitutionError with file, line and remedy for the first problem; lint reports all of them.
    """
    draft = read_draft(path)
    if draft.report.findings:
        raise ConstitutionError(draft.report.findings[0].sentence())
    assert draft.constitution is not None
    return draft.constitution


def read_draft(path: str | Path) -> Draft:
    """Read as much of a file as can be read. Raises ConstitutionError only for a missing file."""
    path = find_constitution(path)
    report = Report(str(path))
    draft = Draft(report)
    try:
        file = draft.file = read_toml(path)
        principles, exemplars = file.tables("principle"), file.tables("exemplar")
    except BadToml as error:
        report.add("invalid", error.line, error.reason, error.fix)
        return draft
    for table in principles:
        _read_principle(draft, table)
    _report_equal_names(draft)
    if not principles:
        report.add("invalid", 1, "it has no principles", "write [[principle]] tables")
    elif draft.drafted:
        draft.constitution = _read_whole(draft, exemplars)
    return draft


def _read_principle(draft: Draft, table: Table) -> None:
    name = str(table.values.get("name", "")) or "without a name"
    if not str(table.values.get("text", "")).strip():
        fix = "write what it asks for, or delete it"
        draft.report.add("empty-text", table.at("text"), "it has no text", fix, name)
    elif principle := draft.report.validated(Principle, table, table.values, name):
        draft.drafted.append(Drafted(principle, table))


def _report_equal_names(draft: Draft) -> None:
    seen: dict[str, int] = {}
    for drafted in draft.drafted:
        name, line = drafted.principle.name, drafted.at("name")
        if name in seen:
            reason = f"the name is already in line {seen[name]}"
            draft.report.add("name-collision", line, reason, "rename one of the two", name)
        seen.setdefault(name, line)


def _read_whole(draft: Draft, exemplars: Sequence[Table]) -> Constitution | None:
    head = draft.file.head()
    if "principles" in head.values:
        line, fix = head.at("principles"), "did you mean 'principle'?"
        draft.report.add("invalid", line, "unknown key 'principles'", fix)
    values = {key: value for key, value in head.values.items() if key != "principle"}
    unique = {drafted.principle.name: drafted.principle for drafted in draft.drafted}
    values["principles"] = tuple(unique.values())
    if exemplars:
        worked = []
        for table in exemplars:
            compared = _kind_of_exemplar(table.values) == "comparison"
            model = WorkedComparison if compared else WorkedRevision
            worked.append(draft.report.validated(model, table, table.values))
        values["exemplar"] = tuple(filter(None, worked))
    return draft.report.validated(Constitution, head, values)


def find_constitution(path: str | Path) -> Path:
    """The file itself, or the shipped one of that bare name. Raises ConstitutionError."""
    path = Path(path)
    if path.is_file():
        return path
    folder = Path(__file__).parent / "constitutions"
    shipped = folder / f"{path.name}.toml"
    if path.suffix == "" and len(path.parts) == 1 and shipped.is_file():
        return shipped
    names = sorted(file.stem for file in folder.glob("*.toml") if "." not in file.stem)
    raise ConstitutionError(
        f"{path}: no such constitution file; name a file, or a shipped one: {', '.join(names)}"
    )
