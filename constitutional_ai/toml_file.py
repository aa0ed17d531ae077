"""A TOML file with the lines of its tables and keys, and what is wrong with it in plain English.

Lines are known where each table stands under a ``[[name]]`` of its own and each key begins a line.
In any other spelling of TOML the line is the table's, or 1.
"""

import re
import tomllib
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ValidationError

M = TypeVar("M", bound=BaseModel)

_HEADER = re.compile(r"\s*\[{1,2}\s*([^\[\],\"']+?)\s*\]{1,2}\s*(#.*)?$")
_KEY = re.compile(r"\s*([A-Za-z_]+)\s*=")


class BadToml(ValueError):
    """A file that cannot be read at all; the caller makes an error of its own kind out of it."""

    def __init__(self, line: int, reason: str, fix: str) -> None:
        super().__init__(f"{reason}; {fix}")
        self.line, self.reason, self.fix = line, reason, fix


@dataclass(frozen=True)
class Table:
    """Values with their lines; ``line`` to ``last`` is where the table stands."""

    values: dict[str, Any]
    line: int = 1
    last: int = 1
    keys: dict[str, int] = field(default_factory=dict)

    def at(self, key: str) -> int:
        """The line of a key, or of the table where the key is not found."""
        return self.keys.get(key, self.line)


@dataclass(frozen=True)
class TomlFile:
    """The parsed values and the lines of the text; lines count from 1."""

    values: dict[str, Any]
    lines: list[str]

    def head(self) -> Table:
        """What stands above the first ``[table]``, with the values of the whole file."""
        first = next((n for n, line in enumerate(self.lines, 1) if _HEADER.match(line)), None)
        last = first - 1 if first else len(self.lines)
        return Table(self.values, 1, last, self._keys(1, last))

    def tables(self, name: str) -> list[Table]:
        """All ``[[name]]`` tables in order, none where there are none. Raises BadToml."""
        rows = self.values.get(name, [])
        if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
            raise BadToml(1, f"{name} is not a list of tables", f"write [[{name}]] above each")
        opened = {n: m[1] for n, text in enumerate(self.lines, 1) if (m := _HEADER.match(text))}
        starts = [n for n, title in opened.items() if title == name]
        if len(starts) != len(rows):
            return [Table(row) for row in rows]
        following = dict(zip(opened, [*opened, len(self.lines) + 1][1:], strict=True))
        ends = [following[start] - 1 for start in starts]
        return [
            Table(row, start, end, self._keys(start + 1, end))
            for row, start, end in zip(rows, starts, ends, strict=True)
        ]

    def _keys(self, first: int, last: int) -> dict[str, int]:
        lines: dict[str, int] = {}
        for number in range(first, last + 1):
            if match := _KEY.match(self.lines[number - 1]):
                lines.setdefault(match[1], number)
        return lines


def read_toml(path: Path) -> TomlFile:
    """Raises BadToml for a file that cannot be read or is no TOML."""
    try:
        text = path.read_bytes().decode("utf-8-sig")
        return TomlFile(tomllib.loads(text), text.split("\n"))
    except OSError as error:
        reason = f"cannot be read ({error.strerror})"
        raise BadToml(1, reason, "check its name and permissions") from None
    except UnicodeDecodeError:
        raise BadToml(1, "not UTF-8 text", "save the file as UTF-8") from None
    except RecursionError:
        raise BadToml(1, "not valid TOML: nested too deeply", "write plain tables") from None
    except tomllib.TOMLDecodeError as error:
        place = re.search(r" \(at line (\d+), column \d+\)", str(error))
        line = int(place[1]) if place else text.count("\n") + 1
        reason = str(error).replace(place[0], "") if place else str(error)
        raise BadToml(line, f"not valid TOML: {reason}", "correct the line's syntax") from None
    except ValueError:  # Python reads no integer of more than 4,300 digits
        line = next(n for n, one in enumerate(text.split("\n"), 1) if re.search(r"\w{4300}", one))
        raise BadToml(line, "not valid TOML: too many digits", "write a smaller number") from None


_EXPECTED = {
    "bool_parsing": "true or false",
    "bool_type": "true or false",
    "dict_type": "a table",
    "finite_number": "a finite number",
    "float_parsing": "a number",
    "float_type": "a number",
    "greater_than": "a number above {gt}",
    "greater_than_equal": "at least {ge}",
    "int_from_float": "an integer",
    "int_parsing": "an integer",
    "int_parsing_size": "an integer of fewer digits",
    "int_type": "an integer",
    "less_than": "a number below {lt}",
    "less_than_equal": "at most {le}",
    "list_type": "a list",
    "literal_error": "{expected}",
    "model_attributes_type": "a table",
    "model_type": "a table",
    "string_too_short": "text that is not empty",
    "string_type": "text in quotes",
    "too_short": "a list of at least {min_length}",
    "tuple_type": "a list",
}


def expected(problem: Mapping[str, Any]) -> str | None:
    """What one pydantic error would rather have, in plain English; None if that is not known."""
    text = _EXPECTED.get(problem["type"])
    return text.format(**problem.get("ctx", {})) if text else None


def complaint(problem: Mapping[str, Any], key: str, known: Collection[str]) -> tuple[str, str]:
    """(reason, fix) of one pydantic error about ``key``, whose table has the ``known`` keys.

    A model's own ValueError states both, parted by a semicolon.
    """
    if problem["type"] == "extra_forbidden":
        near = get_close_matches(key.rpartition(".")[2], known, n=1)
        fix = f"did you mean {near[0]!r}?" if near else f"the keys are: {', '.join(known)}"
        return f"unknown key {key!r}", fix
    if problem["type"] == "missing":
        return f"{key} is missing", f"write {key} = …"
    if problem["type"] == "value_error":
        reason, _, fix = str(problem["ctx"]["error"]).partition("; ")
        return reason, fix
    wanted = expected(problem)
    if wanted is None:
        return f"{key} is wrong: {problem['msg']}", "see docs/constitutions.md"
    given = repr(problem["input"])
    given = given if len(given) <= 60 else f"{given[:60]} …"
    return f"{key} cannot be {given}", f"write {wanted}"


def visible(text: str) -> str:
    """Lines in which all that a terminal would obey or hide is written as an escape."""
    return "".join(c if c.isprintable() or c in "\n\t" else ascii(c)[1:-1] for c in text)


@dataclass(frozen=True)
class Finding:
    """One thing to correct in a file. ``rule`` is the rule of lint that it breaks.

    ``principle`` is the name of the principle, or "" where the whole file is meant.
    """

    rule: str
    path: str
    line: int
    principle: str
    reason: str
    fix: str
    severity: Literal["error", "warning"] = "error"

    def text(self) -> str:
        """``mine.toml:12: error[placeholder] tone: reason``, and the fix on a second line."""
        whose = f" {self.principle}:" if self.principle else ""
        head = f"{self.path}:{self.line}: {self.severity}[{self.rule}]{whose} {self.reason}"
        return f"{visible(head)}\n    fix: {visible(self.fix)}"

    def sentence(self) -> str:
        """``mine.toml:12: principle 'tone': reason; fix``."""
        whose = f"principle {self.principle!r}: " if self.principle else ""
        remedy = f"; {self.fix}" if self.fix else ""
        return visible(f"{self.path}:{self.line}: {whose}{self.reason}{remedy}")


@dataclass
class Report:
    """What is wrong in one file, in the order in which it was noticed."""

    path: str
    findings: list[Finding] = field(default_factory=list)

    def add(self, rule: str, line: int, reason: str, fix: str = "", principle: str = "") -> None:
        self.findings.append(Finding(rule, self.path, line, principle, reason, fix))

    def validated(
        self, model: type[M], table: Table, values: Mapping[str, Any], name: str = ""
    ) -> M | None:
        """The table's values as a model, or None and what is wrong with them."""
        try:
            return model.model_validate(values)
        except ValidationError as error:
            # A misspelled key comes first: it is the cause of the one that is missing.
            for problem in sorted(error.errors(), key=lambda one: one["type"] != "extra_forbidden"):
                key = ".".join(map(str, problem["loc"]))
                reason, fix = complaint(problem, key, list(model.model_fields))
                self.add("invalid", table.at(key.partition(".")[0]), reason, fix, name)
            return None
