"""What the test cases showed: a table by principle, failures with file and line, JUnit XML."""

import re
from collections.abc import Sequence
from statistics import fmean
from typing import Any
from xml.etree import ElementTree

from constitutional_ai.constitution.cases import Check, Kind
from constitutional_ai.constitution.suite import TOGETHER, Suite
from constitutional_ai.drawing.tables import table
from constitutional_ai.stats import intervals as stats

# Characters that XML 1.0 cannot hold, not even escaped.
_NOT_XML = re.compile("[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_WHAT: dict[Kind, str] = {
    "notices": "critic notices the bad answer",
    "mentions": "critique mentions what it should",
    "clean": "critic finds the good answer clean",
    "prefers": "judge prefers the good answer",
    "helps": "revision of the good answer still helps",
}


def by_principle(checks: Sequence[Check]) -> list[dict[str, Any]]:
    """For each principle, the share of checks that went well by kind, and the judge's mean P."""
    names = dict.fromkeys(check.principle for check in checks)
    rows = []
    for name in sorted(names, key=lambda name: name == TOGETHER):
        of = [check for check in checks if check.principle == name]
        row: dict[str, Any] = {"principle": name}
        for kind in _WHAT:
            if went_well := [not check.failure for check in of if check.kind == kind]:
                row[kind] = stats.share(went_well)
        if read := [check.p for check in of if check.p is not None]:
            row["p_good"] = fmean(read)
            row["flipped"] = sum(check.flipped for check in of)
        rows.append(row)
    return rows


def text(suite: Suite, checks: Sequence[Check]) -> str:
    """The table by principle, what failed, and how many checks went how."""
    failed = sum(check.failed for check in checks)
    known = sum(bool(check.failure and check.known) for check in checks)
    known_too = f", {known} known to fail" if known else ""
    passed = len(checks) - failed - known
    counts = f"{len(suite.cases)} cases, {passed} checks passed, {failed} failed{known_too}"
    return "\n".join([_table(checks), "", *_failures(suite, checks), counts])


def _table(checks: Sequence[Check]) -> str:
    """The rows of ``by_principle``; intervals are 95%. A column without figures is left out."""
    rows = by_principle(checks)
    columns = {
        "notices": [_share(row.get("notices")) for row in rows],
        "mentions": [_share(row.get("mentions")) for row in rows],
        "good clean": [_share(row.get("clean")) for row in rows],
        "still helps": [_share(row.get("helps")) for row in rows],
        "judge": [_share(row.get("prefers"), interval=True) for row in rows],
        "P(good)": [f"{row['p_good']:.2f}" if "p_good" in row else "" for row in rows],
        "flips": [str(row.get("flipped", "")) for row in rows],
    }
    filled = {name: cells for name, cells in columns.items() if any(cells)}
    names = [str(row["principle"]) for row in rows]
    return table(["principle", *filled], list(zip(names, *filled.values(), strict=True)))


def _share(estimate: stats.Estimate | None, interval: bool = False) -> str:
    if estimate is None:
        return ""
    right = f"{round(estimate['mean'] * estimate['n'])}/{estimate['n']}"
    return f"{right} ({estimate['low']:.2f}–{estimate['high']:.2f})" if interval else right


def _failures(suite: Suite, checks: Sequence[Check]) -> list[str]:
    """A line for each failed check, known ones marked; and known failures that pass now."""
    lines = []
    for check in checks:
        if check.failure:
            fate = f"known to fail ({check.known}):" if check.known else "failed:"
            place = f"{suite.path}:{check.case.line}"
            lines.append(f"{place}: {fate} {check.case.name}, {check.principle}: {check.failure}")
    failing = {(check.case.name, check.principle) for check in checks if check.failure}
    for case in suite.cases:
        for name, why in case.known.items():
            if (case.name, name) not in failing:
                lines.append(
                    f"{suite.path}:{case.line}: {case.name}, {name}: known to fail ({why}), but"
                    " passes now; delete it from `known`"
                )
    return lines


def as_json(suite: Suite, checks: Sequence[Check], engine: str, hash: str) -> dict[str, Any]:
    """All of it for machines."""
    return {
        "cases": suite.path,
        "constitution": hash,
        "engine": engine,
        "checks": len(checks),
        "failed": sum(check.failed for check in checks),
        "known": sum(bool(check.failure and check.known) for check in checks),
        "by_principle": by_principle(checks),
        "failures": [
            {
                "case": check.case.name,
                "line": check.case.line,
                "principle": check.principle,
                "check": check.kind,
                "failure": check.failure,
                "known": check.known,
            }
            for check in checks
            if check.failure
        ],
    }


def junit(suite: Suite, checks: Sequence[Check], name: str) -> str:
    """JUnit XML as CI servers read it: a test case for each check, known failures as skipped."""
    root = ElementTree.Element(
        "testsuite",
        name=_xml(name),
        tests=str(len(checks)),
        failures=str(sum(check.failed for check in checks)),
        errors="0",
        skipped=str(sum(bool(check.failure and check.known) for check in checks)),
    )
    for check in checks:
        entry = ElementTree.SubElement(
            root,
            "testcase",
            classname=_xml(f"{name}.{check.principle}"),
            name=_xml(f"{check.case.name}: {_WHAT[check.kind]}"),
            file=_xml(suite.path),
            line=str(check.case.line),
        )
        if check.failed:
            place = f"{suite.path}:{check.case.line}: {check.failure}"
            failure = ElementTree.SubElement(entry, "failure", message=_xml(check.failure))
            failure.text = _xml(place)
        elif check.failure:
            ElementTree.SubElement(entry, "skipped", message=_xml(check.known))
    ElementTree.indent(root)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ElementTree.tostring(root, "unicode") + "\n"


def _xml(text: str) -> str:
    return _NOT_XML.sub("\ufffd", text)
