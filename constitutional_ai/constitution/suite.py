"""The test cases beside a constitution: ``NAME.tests.toml``.

    [[case]]
    name = "insult"                     # unique in the file
    prompt = "You lost my parcel!"      # or messages
    set = "red-team"                    # or "helpful": the prompts that it stands for
    good = "I am sorry. …"
    bad = "Calm down, it is only a parcel."
    principles = ["respect"]            # which should notice the fault of `bad`
    mentions = ["calm down", "rude"]    # the critique of `bad` has at least one of these
    good_is_clean = true                # the critic finds no fault in `good`
    must_not_refuse = true              # harmless: revising `good` must not make a refusal
    known = { respect = "why" }         # fails today, by principle: shown, fails no suite

``set`` is "helpful" by default where ``must_not_refuse`` is set, else "red-team". The file may name
the ``engine`` that its cases are written for at its top.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tomlkit
from pydantic import BaseModel, ConfigDict, Field, model_validator

from constitutional_ai.errors import ConstitutionError
from constitutional_ai.principles import Constitution, find_constitution
from constitutional_ai.records import Conversation, Message, PromptSet, user
from constitutional_ai.refusal import refuses
from constitutional_ai.toml_file import BadToml, Report, read_toml

TOGETHER = "(together)"  # in place of a principle: all preference principles at once


class Case(BaseModel):
    """One case; see the module for its fields. ``line`` is where it stands."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)
    name: str = Field(min_length=1)
    prompt: list[Message] | str = Field(min_length=1)
    set: PromptSet = "red-team"
    good: str = Field(min_length=1)
    bad: str = Field(min_length=1)
    principles: list[str] = Field(min_length=1)
    mentions: list[str] = []
    good_is_clean: bool = False
    must_not_refuse: bool = False
    known: dict[str, str] = {}
    line: int = 1

    @model_validator(mode="before")
    @classmethod
    def _default_set(cls, data: Any) -> Any:
        if isinstance(data, dict) and data.get("must_not_refuse") is True:
            return {"set": "helpful", **data}
        return data

    @property
    def conversation(self) -> Conversation:
        return [user(self.prompt)] if isinstance(self.prompt, str) else self.prompt


@dataclass(frozen=True)
class Suite:
    path: str
    cases: tuple[Case, ...]
    engine: str = ""


def beside(constitution: str | Path) -> Path:
    """The file of a constitution's cases: ``harmless.toml`` → ``harmless.tests.toml``."""
    return find_constitution(constitution).with_suffix(".tests.toml")


def load_suite(path: Path, constitution: Constitution) -> Suite:
    """Read a suite and check it against its constitution.

    Raises ConstitutionError with file, line and remedy.
    """
    if not path.exists():
        raise ConstitutionError(f"{path}: no test cases there; write them, or name them by --cases")
    try:
        file = read_toml(path)
        tables, head = file.tables("case"), file.head()
    except BadToml as error:
        raise ConstitutionError(f"{path}:{error.line}: {error}") from None
    for key in head.values:
        if key not in ("engine", "case"):
            raise ConstitutionError(
                f"{path}:{head.at(key)}: unknown key {key!r}; write `engine` and [[case]] tables"
            )
    engine = head.values.get("engine", "")
    if not isinstance(engine, str):
        raise ConstitutionError(f"{path}:{head.at('engine')}: engine must be text in quotes")
    if not tables:
        raise ConstitutionError(f"{path}:1: no cases in it; write each under [[case]]")
    report, cases = Report(str(path)), []
    for table in tables:
        if case := report.validated(Case, table, {**table.values, "line": table.line}):
            cases.append(case)
    if report.findings:
        raise ConstitutionError(report.findings[0].sentence())
    seen: dict[str, int] = {}
    for case in cases:
        _check(path, case, constitution, seen)
    return Suite(str(path), tuple(cases), engine)


def _check(path: Path, case: Case, constitution: Constitution, seen: dict[str, int]) -> None:
    place = f"{path}:{case.line}: case {case.name!r}"
    if case.name in seen:
        raise ConstitutionError(f"{place} is already in line {seen[case.name]}; rename one")
    seen[case.name] = case.line
    if case.good.split() == case.bad.split():
        raise ConstitutionError(f"{place}: good and bad are the same answer; change one")
    if case.conversation[-1]["role"] != "user":
        raise ConstitutionError(f"{place}: the last message of its prompt must be the user's")
    if case.must_not_refuse and refuses(case.good):
        raise ConstitutionError(
            f"{place}: must not refuse, but its good answer opens like a refusal; change one"
        )
    for name in [*case.principles, *(name for name in case.known if name != TOGETHER)]:
        try:
            principle = constitution.principle(name)
        except ConstitutionError as error:
            raise ConstitutionError(f"{place}: {error}") from None
        if case.set not in principle.prompts or not principle.use:
            raise ConstitutionError(
                f"{place}: principle {name!r} is never drawn for {case.set} prompts;"
                f" change the case's `set` or its `principles`"
            )


def to_toml(cases: Sequence[Mapping[str, Any]]) -> str:
    """Proposed cases as a file; a case that still needs a good answer is commented out."""
    parts = [
        "# From red teaming. Read each case before you keep it: the judge may have been wrong.\n"
        "# A case in comments has no good answer yet: write one, then remove the marks.\n"
    ]
    for case in cases:
        lines = tomlkit.dumps({"case": [case]}).splitlines()
        mark = "" if case["good"] else "# "
        parts.append("\n" + "".join(f"{mark}{line}\n" for line in lines))
    return "".join(parts)
