"""What the test cases showed: a table by principle, the failures with file and line, JUnit XML."""

import re
from collections.abc import Sequence
from statistics import fmean
from typing import Any
from xml.etree import ElementTree

from constitutional_ai.constitution.cases import Check, Kind
from constitutional_ai.constitution.suite import TOGETHER, Suite
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
    """For each principle and kind of check how many went well; for the judge the mean P too."""
    names = list(dict.fromkeys(check.principle for check in checks))
    rows = []
    for name in sorted(names, key=lambda name: name == TOGETHER):
        row: dict[str, Any] = {"principle": name}
        for kind in _WHAT:
            of = [check for check in checks if check.principle == name and check.kind == kind]
            if of:
                row[kind] = stats.share(not check.failure for check in of)
        read = [c for c in checks if c.principle == name and c.p is not None]
        if read:
            row["p_good"] = fmean(check.p for check in read if check.p is not None)
            row["flipped"] = sum(check.flipped for check in read)
        rows.append(row)
    return rows


def table(checks: Sequence[Check]) -> str:
    """The rows of ``by_principle`` as text; intervals are 95 %."""
    head = [
        "principle",
        "notices",
        "mentions",
        "good clean",
        "still helps",
        "judge",
        "P(good)",
        "flips",
    ]
    rows = [head]
    for row in by_principle(checks):
        kinds = ("notices", "mentions", "clean", "helps")
        cells = [str(row["principle"]), *(_share(row.get(kind)) for kind in kinds)]
        p, flips = row.get("p_good"), row.get("flipped")
        cells += [_share(row.get("prefers"), interval=True), "" if p is None else f"{p:.2f}"]
        rows.append([*cells, "" if flips is None else str(flips)])
    kept = [i for i, _ in enumerate(head) if any(row[i] for row in rows[1:])]
    widths = [max(len(row[i]) for row in rows) for i in kept]
    return "\n".join(
        "  ".join(row[i].ljust(width) for i, width in zip(kept, widths, strict=True)).rstrip()
        for row in rows
    )


def _share(estimate: stats.Estimate | None, interval: bool = False) -> str:
    if estimate is None:
        return ""
    right = f"{round(estimate['mean'] * estimate['n'])}/{estimate['n']}"
    return f"{right} ({estimate['low']:.2f}–{estimate['high']:.2f})" if interval else right


def failures(suite: Suite, checks: Sequence[Check]) -> list[str]:
    """A line for each failed check, known ones marked; and cases that fail no longer."""
    lines = [
        f"{suite.path}:{check.case.line}: {_fate(check)} {check.case.name},"
        f" {check.principle}: {check.failure}"
        for check in checks
        if check.failure
    ]
    for case in suite.cases:
        failing = {check.principle for check in checks if check.case == case and check.failure}
        lines += [
            f"{suite.path}:{case.line}: {case.name}, {name}: known to fail ({why}), but passes now;"
            f" delete it from `known`"
            for name, why in case.known.items()
            if name not in failing
        ]
    return lines


def _fate(check: Check) -> str:
    return f"known to fail ({check.known}):" if check.known else "failed:"


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


def counted(suite: Suite, checks: Sequence[Check]) -> str:
    """The last line: how many checks went how."""
    failed = sum(check.failed for check in checks)
    known = sum(bool(check.failure and check.known) for check in checks)
    passed = len(checks) - failed - known
    known_too = f", {known} known to fail" if known else ""
    return f"{len(suite.cases)} cases, {passed} checks passed, {failed} failed{known_too}"
