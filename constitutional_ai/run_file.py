"""A run file: one TOML file, read under ``--set`` overrides and checked against tables of settings.

An unknown key or a value of the wrong type is an error that names file, line and remedy. Which
settings there are: settings.py; it knows this module, not the other way round.
"""

import difflib
import re
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from constitutional_ai.errors import SettingsError
from constitutional_ai.toml_file import BadToml, expected, read_toml

Tables = TypeVar("Tables", bound=BaseModel)
Keys = tuple[str, ...]  # ("ppo", "kl_coef")

# Settings of earlier versions, and what became of them.
REMOVED = {
    "evaluate.harm_head": "removed: a judge reads harm from 0 to 4 (evaluate.grade)",
}
# What belongs into another file than a run's.
ELSEWHERE = dict.fromkeys(
    ("rationale", "constitution.rationale"),
    "is a key of the constitution file: write rationale = true into its head",
)
_SHIPPED = Path(__file__).parent / "runs"


@dataclass(frozen=True)
class RunFile:
    """A run file with overrides laid over it. ``origins`` maps a setting to its override."""

    path: Path
    source: str
    data: dict[str, Any]
    origins: dict[Keys, str]

    def place(self, setting: str) -> str:
        """Where a setting was given: file and line, or the override."""
        keys = tuple(setting.split("."))
        for set_keys, origin in self.origins.items():
            shorter = min(len(keys), len(set_keys))
            if keys[:shorter] == set_keys[:shorter]:
                return origin
        return f"{self.path}:{_line_of(self.source, keys)}"

    def settings(self, tables: type[Tables]) -> Tables:
        """The checked settings. Raises SettingsError with file, line and remedy."""
        known = setting_names(tables)
        self._refuse_unknown(known)
        for name, text in _texts(self.data):
            if bad := next((c for c in text if ord(c) < 32 and c not in "\n\t"), ""):
                raise SettingsError(f"{self.place(name)}: {name}: holds {bad!r}; take it out")
        try:
            return tables.model_validate(self.data)
        except ValidationError as error:
            problem = error.errors()[0]
            name = ".".join(str(part) for part in problem["loc"] if isinstance(part, str))
            complaint = _complaint(problem)
            inside = [f"{name}.{word}" for word in re.findall(r"\w+", complaint)]
            name = next((inner for inner in inside if inner in known), name)
            raise SettingsError(f"{self.place(name)}: {name}: {complaint}") from None

    def _refuse_unknown(self, known: Sequence[str]) -> None:
        """Raise SettingsError for the first unknown key, with the nearest one that exists."""
        for name, value in self.data.items():
            inner = [f"{name}.{key}" for key in value] if isinstance(value, dict) else []
            for full in [name, *inner]:
                if full in known:
                    continue
                if full in REMOVED:
                    raise SettingsError(f"{self.place(full)}: {full} was {REMOVED[full]}")
                if full in ELSEWHERE:
                    raise SettingsError(f"{self.place(full)}: {full} {ELSEWHERE[full]}")
                nearest = _nearest(full, known)
                hint = f"; did you mean {nearest!r}?" if nearest else ""
                raise SettingsError(f"{self.place(full)}: unknown setting {full!r}{hint}")


def read(path: str | Path, overrides: Sequence[str] = ()) -> RunFile:
    """Read a run file and lay overrides such as ``"ppo.kl_coef=0.2"`` over it.

    A bare name such as ``lab`` means the run file of that name that ships with the package. Raises
    SettingsError with file, line and remedy.
    """
    path = _find(path)
    try:
        file = read_toml(path)
    except BadToml as bad:
        raise SettingsError(f"{path}:{bad.line}: {bad.reason}; {bad.fix}") from None
    data = file.values
    origins: dict[Keys, str] = {}
    for override in overrides:
        keys, value = _parse_override(override)
        _put(data, keys, value, override)
        hidden = keys[0] == "http" or "://" in override  # it may hold a key
        origins[keys] = f"--set {'.'.join(keys)}" if hidden else f"--set {override}"
    return RunFile(path, "\n".join(file.lines), data, origins)


def shipped() -> list[str]:
    """The names of the run files that ship with the package."""
    return sorted(file.stem for file in _SHIPPED.glob("*.toml"))


def _texts(data: Any, name: str = "") -> Iterator[tuple[str, str]]:
    """Every text in the data, with the setting that it belongs to."""
    if isinstance(data, str):
        yield name, data
    elif isinstance(data, dict):
        for key, value in data.items():
            yield from _texts(value, f"{name}.{key}" if name else key)
    elif isinstance(data, list):
        for value in data:
            yield from _texts(value, name)


def _find(path: str | Path) -> Path:
    path = Path(path)
    if path.is_file():
        return path
    names = ", ".join(shipped())
    if str(path) in shipped():
        return _SHIPPED / f"{path}.toml"
    if path.is_dir():
        raise SettingsError(f"{path}: a folder; name a run file in it, or a shipped one: {names}")
    raise SettingsError(f"{path}: no such run file; name a file, or a shipped one: {names}")


def _parse_override(override: str) -> tuple[Keys, Any]:
    """``ppo.kl_coef=0.2`` → (("ppo", "kl_coef"), 0.2). What is no TOML value is text: ``off``."""
    name, equals, text = override.partition("=")
    keys = tuple(part.strip() for part in name.split("."))
    if not equals or not all(keys):
        raise SettingsError(f"--set {override}: expected name=value, such as ppo.kl_coef=0.2")
    try:
        parsed = tomllib.loads(f"value = {text.strip()}")
    except tomllib.TOMLDecodeError:
        return keys, text.strip()
    return keys, parsed["value"] if len(parsed) == 1 else text.strip()


def _put(data: dict[str, Any], keys: Keys, value: Any, override: str) -> None:
    if (full := ".".join(keys)) in ELSEWHERE:
        raise SettingsError(f"--set {override}: {full} {ELSEWHERE[full]}")
    table: Any = data
    for number, key in enumerate(keys[:-1], 1):
        table = table.setdefault(key, {})
        if not isinstance(table, dict):
            name = ".".join(keys[:number])
            raise SettingsError(f"--set {override}: {name} is a value and has no settings in it")
    table[keys[-1]] = value


def setting_names(tables: type[BaseModel]) -> list[str]:
    """Every setting by its full name, tables too."""
    names = []
    for name, field in tables.model_fields.items():
        names.append(name)
        if isinstance(field.default, BaseModel):
            names += [f"{name}.{key}" for key in type(field.default).model_fields]
    return names


def _nearest(full: str, known: Sequence[str]) -> str | None:
    """The key of that name in another place, or else the most alike; None when nothing is near."""
    key = full.rpartition(".")[2]
    elsewhere = [name for name in known if name.rpartition(".")[2] == key]
    alike = difflib.get_close_matches(full, known, n=1, cutoff=0.6)
    by_key = {name.rpartition(".")[2]: name for name in reversed(known)}
    close = [by_key[k] for k in difflib.get_close_matches(key, by_key, n=1, cutoff=0.8)]
    return next(iter([*elsewhere, *alike, *close]), None)


def _line_of(source: str, keys: Keys) -> int:
    """The line on which a setting, or else the table around it, is written.

    Found by parsing ever longer beginnings of the file, so it holds for every spelling that TOML
    allows; the setting begins after the last beginning that could be parsed without it.
    """
    lines = source.split("\n")
    for wanted in (keys[:length] for length in range(len(keys), 0, -1)):
        start = 1
        for end in range(1, len(lines) + 1):
            try:
                data: Any = tomllib.loads("\n".join(lines[:end]) + "\n")
            except tomllib.TOMLDecodeError:
                continue
            for key in wanted:
                data = data.get(key) if isinstance(data, dict) else None
            if data is not None:
                return start
            start = end + 1
    return 1


def _complaint(problem: Any) -> str:
    """A validation error in the words of a run file."""
    if problem["type"] == "value_error":
        return str(problem["ctx"]["error"])
    if problem["type"] in ("missing", "too_long"):  # of the one setting that is a pair
        return "expected two numbers, such as [0.4, 0.6]"
    wanted = expected(problem)
    return f"expected {wanted}, got {problem['input']!r}" if wanted else str(problem["msg"])
