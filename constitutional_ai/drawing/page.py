"""The report as one HTML page: nothing from the network, every model-written character escaped.

The template stands beside this file. jinja2 escapes whatever it is given; the only markup that
passes is that of the figures, which ``figures.inline`` made.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from constitutional_ai.drawing.palette import PAPER, SERIES
from constitutional_ai.stats.intervals import Estimate

# Control and direction marks could reorder or hide what a model wrote; they are shown as a box.
_UNSEEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff]")


@dataclass(frozen=True)
class Drawing:
    """A figure in the page: ``svg`` is an element that ``figures.inline`` made."""

    title: str
    caption: str
    svg: str


@dataclass(frozen=True)
class Table:
    """``rows`` begin with their heading. A cell is text, a number, an Estimate, or None for "—"."""

    caption: str
    head: Sequence[str]
    rows: Sequence[Sequence[object]]


@dataclass(frozen=True)
class Turn:
    """A step of a shown conversation; ``label`` says who speaks or under which principle."""

    label: str
    text: str
    note: str = ""


@dataclass(frozen=True)
class Story:
    """A transcript: a prompt and what became of it, side by side in ``columns``."""

    title: str
    columns: Sequence[Sequence[Turn]]


@dataclass(frozen=True)
class Article:
    """A principle, with the prompts that derive from it."""

    name: str
    text: str
    facts: str
    prompts: Mapping[str, str]


@dataclass(frozen=True)
class Section:
    """What stands under one heading, in this order."""

    title: str
    words: Sequence[str] = ()
    drawings: Sequence[Drawing] = ()
    tables: Sequence[Table] = ()
    stories: Sequence[Story] = ()
    articles: Sequence[Article] = ()
    details: Mapping[str, str] = field(default_factory=dict)  # long texts, folded away
    boxed: bool = False

    @property
    def anchor(self) -> str:
        return re.sub(r"[^a-z0-9]+", "-", self.title.lower()).strip("-")


@dataclass(frozen=True)
class Page:
    title: str
    headline: str
    note: str
    sections: Sequence[Section]


def render(page: Page) -> str:
    """The whole HTML document."""
    loader = PackageLoader("constitutional_ai", "report")
    environment = Environment(
        loader=loader,
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(visible=visible, cell=cell, drawn=Markup)
    return environment.get_template("page.html").render(page=page, paper=PAPER, series=SERIES)


def visible(text: str) -> str:
    """Text with a box for each control or direction character, so that all of it is seen."""
    return _UNSEEN.sub("\u2610", text)


def cell(value: object) -> str:
    """A table's cell, as text.

    >>> cell({"mean": 0.5, "low": 0.25, "high": 0.75, "n": 8})
    '0.50 (0.25–0.75)'
    """
    match value:
        case None:
            return "—"
        case {"mean": mean, "low": low, "high": high}:
            return f"{mean:.2f} ({low:.2f}–{high:.2f})"
        case bool():
            return "yes" if value else "no"
        case float():
            return f"{value:.3g}"
        case _:
            return visible(str(value))


def percent(estimate: Estimate) -> str:
    """An estimate in running text.

    >>> percent({"mean": 0.014, "low": 0.003, "high": 0.04, "n": 300})
    '1 % (0–4 %)'
    """
    mean, low, high = (round(100 * estimate[key]) for key in ("mean", "low", "high"))
    return f"{mean} % ({low}–{high} %)"


def table_of(caption: str, scores: Mapping[str, Mapping[str, Any]]) -> Table:
    """{row: {column: Estimate}} as a table; the last column is the number of answers."""
    columns = list(dict.fromkeys(name for row in scores.values() for name in row))
    rows = []
    for name, found in scores.items():
        sizes = [e["n"] for e in found.values() if isinstance(e, Mapping)]
        rows.append([name, *(found.get(column) for column in columns), max(sizes, default=None)])
    return Table(caption, ["", *(column.replace("_", " ") for column in columns), "n"], rows)
