"""What studies are called and ask, from ``studies.toml`` beside this file. Imports little."""

import tomllib
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class About:
    """``paper``: where the paper shows the like. ``help``: the line in ``cai study --help``."""

    name: str
    title: str
    paper: str
    question: str
    help: str = ""
    caveats: tuple[str, ...] = ()


_DATA = tomllib.loads(Path(__file__).with_name("studies.toml").read_text(encoding="utf-8"))
ABOUT = {
    name: About(name, **{**row, "caveats": tuple(row["caveats"])}) for name, row in _DATA.items()
}
