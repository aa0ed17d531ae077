"""Principles as data: load a constitution from TOML, validate it, hash it, draw from it.

A principle needs only a ``name`` and a ``text``; the three prompts that a model sees derive from
the text unless they are written out. Each row that is made under a principle carries its hash.
Where principles disagree about two answers, judge/resolve.py decides. The package ``constitution``
writes, checks and compares constitutions.
"""

import random
from collections.abc import Sequence
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
    ValidationInfo,
    field_validator,
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

PROMPTS = ("critique_prompt", "revision_prompt", "preference_prompt")

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
    priority 0 means none. ``rationale`` says why it is there: for people, and for models where the
    constitution says so.
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

    def telling_why(self) -> "Principle":
        """With the rationale behind each prompt that a model is asked; itself where it has none.

        A prompt that ends with it already stays, so that a file which was written out loads alike.
        """
        if not (reason := self.rationale.strip()):
            return self
        why = f"\nWhy: {reason}"
        asked = {name: getattr(self, name) for name in PROMPTS}
        told = {name: text if text.endswith(why) else text + why for name, text in asked.items()}
        return self.model_copy(update=told)


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

    ``rationale``: whether critics, judges and the revised model are told each principle's own; its
    prompts then end with it, and so both hashes differ from those of a constitution that is silent.
    ``thoughts`` are the turns that make a judge think before it chooses, and ``scale`` is how it
    scores one answer; prompts.py has defaults for both. ``exemplars`` (``[[exemplar]]`` tables in a
    file) are shown where a run asks for them.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")
    name: str = Field(min_length=1)
    version: str = Field(min_length=1)
    description: str = ""
    rationale: bool = Field(default=False, strict=True)  # before the principles, which it changes
    thoughts: tuple[str, ...] = ()
    scale: Scale | None = None
    principles: tuple[Principle, ...] = Field(min_length=1)
    exemplars: tuple[Exemplar, ...] = Field(
        default=(), validation_alias=AliasChoices("exemplar", "exemplars")
    )

    @field_validator("principles")
    @classmethod
    def _tell_why(
        cls, principles: tuple[Principle, ...], made: ValidationInfo
    ) -> tuple[Principle, ...]:
        told = made.data.get("rationale", False)
        return tuple(p.telling_why() for p in principles) if told else principles

    @model_validator(mode="after")
    def _has_a_rationale_to_tell(self) -> "Constitution":
        if self.rationale and not any(p.rationale.strip() for p in self.principles):
            raise ValueError(
                'rationale = true, but no principle has one to show; write rationale = "…" into a'
                " [[principle]] table, or leave it out here"
            )
        return self

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
