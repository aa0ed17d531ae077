"""The paper's findings, each with what the laboratory shows of it, from the studies' result files.

The claims and their rules stand in ``claims.toml`` beside this file; every verdict is computed from
results (rules.py). A verdict of an earlier page stays if the results at hand do not measure its
claim. What no study here could show is listed too, with the reason.
"""

import math
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from constitutional_ai.lab.studies.pages import CANNOT as LABORATORY
from constitutional_ai.lab.studies.pages import intervals, shown
from constitutional_ai.lab.studies.results import Result
from constitutional_ai.lab.studies.rules import (
    CANNOT,
    FAILS,
    HOLDS,
    MISSING,
    UNDECIDED,
    At,
    Comparison,
    Falling,
    Outcome,
    Verdict,
    compared,
    together,
)


@dataclass(frozen=True)
class Claim:
    """A finding in our words. ``why`` it holds or fails here, or cannot be shown."""

    text: str
    paper: str
    rules: tuple[Comparison | Falling, ...] = ()
    figure: str = ""  # a study's picture, without its ending
    why: str = ""


def _claim(row: dict[str, Any]) -> Claim:
    rules = tuple(_rule(**rule) for rule in row.pop("rules", ()))
    return Claim(rules=rules, **row)


def _rule(
    study: str,
    falling: tuple[str, str] | None = None,
    one: tuple[Any, ...] = (),
    minus: tuple[Any, ...] = (),
    low: float = -math.inf,
    high: float = math.inf,
) -> Comparison | Falling:
    if falling:
        return Falling(study, *falling)
    return Comparison(_at(study, *one), _at(study, *minus) if minus else None, low, high)


def _at(study: str, line: str, metric: str, x: float | str = 0.0) -> At:
    return At(study, line, metric, None if isinstance(x, str) else x)


_DATA = tomllib.loads(Path(__file__).with_name("claims.toml").read_text(encoding="utf-8"))
CLAIMS = tuple(map(_claim, _DATA["claims"]))


def judged(claim: Claim, results: Mapping[str, Result]) -> tuple[Verdict, list[Outcome]]:
    """What the laboratory shows of a claim."""
    if not claim.rules:
        return CANNOT, []
    wanted: list[Comparison] = []
    for rule in claim.rules:
        wanted += rule.comparisons(results) if isinstance(rule, Falling) else [rule]
    outcomes = [compared(one, results) for one in wanted]
    return together(outcomes), outcomes


_KEPT = re.compile(
    r"\d+\. \*\*(?P<claim>.+?)\*\* \(.*?\) → \*\*(?P<verdict>.+?)\*\*(?P<rest>\n.*)", re.DOTALL
)
EARLIER = "   - From an earlier run, whose results are not at hand."


def earlier(page: str) -> dict[str, tuple[Verdict, str]]:
    """{a claim: its verdict and the lines below it}, of all that an earlier page had measured."""
    measured = {verdict: verdict for verdict in (HOLDS, FAILS, UNDECIDED)}
    entries = [kept for block in page.split("\n\n") if (kept := _KEPT.fullmatch(block.rstrip()))]
    return {
        entry["claim"]: (measured[entry["verdict"]], entry["rest"])
        for entry in entries
        if entry["verdict"] in measured
    }


def markdown(results: Mapping[str, Result], pictures: str = "studies", page: str = "") -> str:
    """docs/claims.md: a numbered list, with the studies' pictures in the folder ``pictures``.

    ``page`` is an earlier page: what only that page measured stays as it was, and says so.
    """
    kept = earlier(page)
    entries = [
        _entry(number, claim, results, pictures, kept.get(claim.text))
        for number, claim in enumerate(CLAIMS, start=1)
    ]
    verdicts = [verdict for verdict, _ in entries]
    counts = {verdict: verdicts.count(verdict) for verdict in dict.fromkeys(verdicts)}
    head = [
        "# What the paper found, and what the laboratory shows",
        "Made by `cai study claims` from the studies' result files. Each verdict follows from the"
        " rule below its claim. A rule holds if the whole 95% interval of the difference keeps the"
        " bound, and fails if the whole interval breaks it. If the bound cuts the interval, it is"
        " undecided.",
        f"{len(CLAIMS)} claims: {', '.join(f'{n} {verdict}' for verdict, n in counts.items())}.",
        LABORATORY,
    ]
    return "\n\n".join([*head, *(text for _, text in entries)]) + "\n"


def _entry(
    number: int,
    claim: Claim,
    results: Mapping[str, Result],
    pictures: str,
    kept: tuple[Verdict, str] | None,
) -> tuple[Verdict, str]:
    verdict, outcomes = judged(claim, results)
    if verdict == MISSING and kept:
        verdict, rest = kept
        rest = rest.removesuffix(f"\n{EARLIER}")
        return verdict, f"{_head(number, claim, verdict)}{rest}\n{EARLIER}"
    lines = [_head(number, claim, verdict)]
    for one in outcomes:
        value = f"measured {shown(one.difference)}" if one.difference else "not measured"
        lines.append(f"   - {one.comparison.text}; {value}: {one.verdict}")
    if claim.why:
        lines.append(f"   - {claim.why}")
    studies = dict.fromkeys(one.comparison.one.study for one in outcomes)
    for result in (results[name] for name in studies if name in results):
        lines.append(f"   - {intervals(result)}")
        picture = f"[figure]({pictures}/{claim.figure}.png), [table]({pictures}/{result.study}.md)"
        lines.append(f"   - {picture}, `{result.command}`")
    return verdict, "\n".join(lines)


def _head(number: int, claim: Claim, verdict: Verdict) -> str:
    return f"{number}. **{claim.text}** ({claim.paper}) → **{verdict}**"
