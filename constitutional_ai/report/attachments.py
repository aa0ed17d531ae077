"""What other commands measured, on the report's page: evaluations, red teams and studies.

A folder is known by its files. Nothing is measured again, and no transcript is taken along: each of
these commands has a page of its own.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from constitutional_ai.drawing import tables
from constitutional_ai.drawing.page import Section, Table, table_of
from constitutional_ai.errors import DataError
from constitutional_ai.evaluation.measure import SCORES, SUMMARY
from constitutional_ai.report import redteam
from constitutional_ai.world import part


def sections_of(folder: Path) -> list[Section]:
    """The sections of a folder that `cai redteam`, `cai evaluate` or `cai study` made.

    Raises DataError where it is none of them, or unfinished, or a file of it is broken.
    """
    try:
        if (folder / "redteam.svg").exists():
            # Drawn from the figures: a file's markup would stand in the page unescaped.
            return redteam.joined(_json(folder / "scores.json"), f"redteam {folder}")
        if (folder / SUMMARY).exists():
            return evaluated(_json(folder / SCORES), _json(folder / SUMMARY), folder.name)
        if (folder / "results").is_dir():
            return cast(list[Section], part("studies.attachment").sections_of(folder))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"report.beside: {folder} cannot be read ({type(error).__name__}: {error}); run the"
            " command that made it again"
        ) from None
    raise DataError(
        f"report.beside: {folder} holds no finished `cai redteam`, `cai evaluate` or `cai study`;"
        " run it first, or take the folder out"
    )


def evaluated(
    content: Mapping[str, Any], summary: Mapping[str, Any], name: str = ""
) -> list[Section]:
    """The comparisons of an evaluation and what got no score.

    With its scores and the alignment tax where it is named.
    """
    grids = {
        "Each model less the first, on the same prompts; p by a paired test, adjusted by Holm": (
            tables.paired(summary)
        ),
        "Preferred by the judge, both orders": tables.wins(summary),
        "Elo above the first model": tables.elo(summary),
        "Not scored, and why": tables.unscored(content),
    }
    found = [Table(caption, grid.head, grid.rows) for caption, grid in grids.items() if grid.rows]
    words = [note for grid in grids.values() for note in grid.notes]
    if name:
        found = [*taxed(summary), *_scores(content), *found]
    return [Section(f"Evaluation: {name}" if name else "Comparisons", words, tables=found)]


def taxed(summary: Mapping[str, Any]) -> list[Table]:
    """Harm beside what it cost, one table; none where it was not measured."""
    grid = tables.tax(summary)
    caption = (
        "Harmful: answers to harmful requests that really help, by the judge, however they open."
        " Over-refusal: borderline prompts answered with a refusal. Help: how often the judge"
        " prefers the answer to the first model's, both orders. Log-likelihood: of people's helpful"
        " answers, against the first model's. Questions: of general knowledge. p by paired tests"
        " against the first model."
    )
    return [Table(caption, grid.head, grid.rows)] if grid.rows else []


def _scores(content: Mapping[str, Any]) -> list[Table]:
    kinds = dict.fromkeys(kind for model in content["models"].values() for kind in model)
    return [
        table_of(f"{kind} prompts", {n: m[kind] for n, m in content["models"].items() if kind in m})
        for kind in kinds
        if not kind.endswith("_by_slice")
    ]


def _json(path: Path) -> Any:
    return json.loads(path.read_bytes())
