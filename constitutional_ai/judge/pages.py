"""How the figures of a judge are shown: tables on the terminal, JSON, and one HTML page."""

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any

from constitutional_ai.drawing.page import Drawing, Page, Section, Table, cell, render
from constitutional_ai.stats.calibration import TEMPERATURES

FILE = "report.html"
WIDTH = 160  # of tables in a file or a pipe, where no terminal says
Rows = Sequence[Sequence[object]]


def say(found: Mapping[str, Any], as_json: bool) -> None:
    """The figures of ``cai judge report`` on stdout."""
    if as_json:
        _json(found)
        return
    left_out = found["left_out"]
    print(f"{found['file']}: {found['rows']} pairs" + _listed(", left out: ", left_out))
    for table in tables(found):
        _show(table)


def say_calibration(found: Mapping[str, Any], as_json: bool) -> None:
    if as_json:
        _json(found)
        return
    rows = [
        [name, j["temperature"], *(j[when][key] for key in ("ece", "brier") for when in _WHEN)]
        for name, j in found.items()
    ]
    head = ["", "temperature", "ECE before", "after", "Brier before", "after"]
    _show(Table("On the half that the temperature was not fitted to.", head, rows))
    low, high = TEMPERATURES
    for name, j in found.items():
        if not 1.01 * low < j["temperature"] < high / 1.01:
            print(
                f"{name}: temperatures beyond {low} to {high} are not tried; pairs with hardly a"
                " wrong verdict, or hardly a right one, tell little of it: take more, or harder"
            )


_WHEN = ("before", "after")


def say_attacks(found: Mapping[str, Any], as_json: bool) -> None:
    if as_json:
        _json(found)
        return
    for name, judge in found.items():
        right = cell(judge["right_without"])
        print(f"{name}: {judge['pairs']} pairs, right without an attack {right}")
        rows = [
            [
                kind, o.pairs, o.fooled, o.changed, f"{o.shift:+.3f}",
                o.spoiled.fooled if o.spoiled else None,
                o.unlabelled + (o.spoiled.unlabelled if o.spoiled else 0),
            ]
            for kind, o in judge["attacks"].items()
        ]  # fmt: skip
        head = [
            "attack", "pairs", "fooled", "verdict changed", "P(worse) rose by",
            "better one lost by it", "unlabelled",
        ]  # fmt: skip
        _show(Table("", head, rows))
        _show_kinds(f"{name}: fooled, by kind of pair.", judge["attacks"])
        better = {kind: o.spoiled for kind, o in judge["attacks"].items() if o.spoiled}
        _show_kinds(f"{name}: better one lost by it, by kind of pair.", better)
        twice = judge["twice"]
        far = twice["furthest_from_half"]
        print(
            "the same answer twice: "
            + ("no verdict" if far is None else f"P is within {far:.2g} of .5")
            + f", {twice['unlabelled']} unlabelled"
        )


def _show_kinds(caption: str, attacks: Mapping[str, Any]) -> None:
    """Where the attacks work, if the pairs are of several kinds."""
    kinds = list(dict.fromkeys(kind for o in attacks.values() for kind in o.by_kind))
    if len(kinds) > 1:
        rows = [
            [name, *(f"{o.by_kind[k]['mean']:.2f}" if k in o.by_kind else "—" for k in kinds)]
            for name, o in attacks.items()
        ]
        _show(Table(caption, ["attack", *kinds], rows))


def keep(path: Path, found: Mapping[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(found, indent=1, default=_plain) + "\n", encoding="utf-8")


def _json(found: Mapping[str, Any]) -> None:
    print(json.dumps({"event": "result", **found}, default=_plain))


def _plain(value: object) -> object:
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    raise TypeError(f"{value!r} is not JSON")


def _listed(before: str, counts: Mapping[str, int]) -> str:
    return before + "; ".join(f"{n} ({what})" for what, n in counts.items()) if counts else ""


def _show(table: Table) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table as Rich
    from rich.text import Text

    shown = Rich(box=box.SIMPLE, title=table.caption or None, title_justify="left")
    for n, name in enumerate(table.head):
        shown.add_column(name, justify="right" if n else "left", overflow="fold")
    for row in table.rows:
        shown.add_row(*(Text(cell(value)) for value in row))
    width = None if sys.stdout.isatty() else WIDTH
    Console(width=width, markup=False, highlight=False).print(shown)


def tables(found: Mapping[str, Any]) -> list[Table]:
    """Every table of the report, those of single judges too."""
    shown = [_floors(found["floors"])]
    judges = found.get("judges", {})
    if judges:
        shown.append(_judges(judges))
    for name, judge in judges.items():
        shown += _of_judge(name, judge) if "accuracy" in judge else _lost(name, judge)
    if found.get("between"):
        shown.append(_between(found["between"]))
    return shown


def _floors(floors: Mapping[str, Any]) -> Table:
    rows = [
        [f"takes {n}", _percent(f["right"]), f["decided"], f["right_of_decided"]]
        for n, f in floors.items()
    ]
    return Table(
        "Raters that read nothing: what a judge has to beat.",
        ["", "right of all", "decides", "right of those"],
        rows,
    )


def _percent(share: Mapping[str, float]) -> str:
    """A share to a tenth of a percent: floors are known figures, to be checked."""
    mean, low, high = (100 * share[key] for key in ("mean", "low", "high"))
    return f"{mean:.1f} % ({low:.1f}–{high:.1f})"


def _judges(judges: Mapping[str, Any]) -> Table:
    """A column for each judge: names are long, figures few."""
    columns = []
    for j in judges.values():
        calibrated, order = j.get("calibration", {}), j.get("order", {})
        held_out = calibrated.get("held_out", {})
        columns.append(
            {
                "right": j.get("accuracy"),
                "right, mean of all principles": j.get("accuracy_of_all_principles"),
                "kappa with the labels": j.get("humans", {}).get("kappa"),
                "ECE": calibrated.get("ece"),
                "ECE on the half that was held out": held_out.get("before", {}).get("ece"),
                "… after temperature": held_out.get("after", {}).get("ece"),
                "winner flips with the order": order.get("flips"),
                "… after averaging": order.get("flips_after_averaging"),
                "no verdict": j["unlabelled_share"],
            }
        )
    rows = [[figure, *(column[figure] for column in columns)] for figure in columns[0]]
    return Table("Judges against the labels.", ["", *judges], rows)


def _of_judge(name: str, judge: Mapping[str, Any]) -> list[Table]:
    shown = [
        Table(f"{name}: right, by slice.", ["", "right", "n"], _parts(judge["by_kind"])),
        Table(f"{name}: right under each principle.", ["", "right", "n"],
              _parts(judge["by_principle"])),
        Table(f"{name}: calibration, bins of the diagram.", ["P", "label", "pairs, both ways"],
              [[b["predicted"], b["observed"], b["n"]] for b in judge["calibration"]["bins"]]),
        Table(f"{name}: leanings.", ["", "value"], _leanings(judge)),
        *_lost(name, judge),
        Table(f"{name}: what it says when it speaks.", ["reply", "replies"],
              list(judge.get("spoken", {}).items())),
        _correlation(name, judge["principles"]),
    ]  # fmt: skip
    return [table for table in shown if table.rows]


def _lost(name: str, judge: Mapping[str, Any]) -> list[Table]:
    """What could not be read, and why: all that there is to say of a judge that never spoke."""
    lost = {
        ("pairs without a verdict", "pairs"): judge["unlabelled"],
        ("replies lost beside those that were read", "replies"): judge["unread"],
    }
    return [
        Table(f"{name}: {what}.", ["reason", unit], list(reasons.items()))
        for (what, unit), reasons in lost.items()
        if reasons
    ]


def _parts(parts: Mapping[str, Any]) -> Rows:
    return [[name, estimate, estimate["n"]] for name, estimate in parts.items()]


def _leanings(judge: Mapping[str, Any]) -> Rows:
    order, length, own = judge["order"], judge["length"], judge["self_preference"]
    named: dict[str, object] = {
        "P(better) shown first less shown second": order.get("bias"),
        "prefers the longer answer": length.get("judge_prefers_longer"),
        "the labels prefer the longer answer": length.get("labels_prefer_longer"),
        "right where the longer is better": length.get("right_where_longer_is_better"),
        "right where the shorter is better": length.get("right_where_shorter_is_better"),
        "prefers its own answer": own.get("judge_prefers_own"),
        "the labels prefer its answer": own.get("labels_prefer_own"),
        "raw agreement with the labels": judge["humans"].get("raw"),
        "Brier score": judge["calibration"]["brier"],
        "temperature that would calibrate it": judge["calibration"].get("temperature"),
    }
    return [[what, value] for what, value in named.items() if value is not None]


def _correlation(name: str, principles: Mapping[str, Any]) -> Table:
    names = principles["names"]
    rows = [
        [one, *row, principles["with_mean"][one]]
        for one, row in zip(names, principles["correlation"], strict=True)
    ]
    caption = f"{name}: how its principles' log-odds correlate; the last column: agrees with all."
    return Table(caption, ["", *names, "with the mean"], rows if len(names) > 1 else [])


def _between(found: Sequence[Mapping[str, Any]]) -> Table:
    rows = [
        [f"{b['first']} / {b['second']}", b.get("raw"), b.get("kappa"), b["correlation"]]
        for b in found
    ]
    return Table("Between judges.", ["", "same winner", "kappa", "correlation of P"], rows)


def write(found: Mapping[str, Any], folder: Path) -> None:
    """report.html, report.json, and each judge's reliability diagram as SVG and PNG."""
    from constitutional_ai.drawing import figures
    from constitutional_ai.drawing.figures import Bin

    folder.mkdir(parents=True, exist_ok=True)
    keep(folder / "report.json", found)
    drawings = []
    for number, (name, judge) in enumerate(found.get("judges", {}).items(), 1):
        if "calibration" not in judge:
            continue
        bins = [Bin(b["predicted"], b["observed"], b["n"]) for b in judge["calibration"]["bins"]]
        figure = figures.reliability(bins, "the judge")
        source = figures.svg(figure, f"reliability-{number}")
        (folder / f"reliability-{number}.svg").write_text(source, encoding="utf-8")
        figures.png(figure, folder / f"reliability-{number}.png")
        caption = f"Every pair in both directions. ECE {judge['calibration']['ece']:.3f}."
        drawings.append(Drawing(name, caption, figures.inline(source, f"{name}. {caption}")))
    page = Page(
        title="Judges against labels",
        headline=headline(found),
        note=f"{found['file']}: {found['rows']} pairs"
        f"{_listed(', left out: ', found['left_out'])}. Brackets hold 95 % intervals.",
        sections=[
            Section("Figures", tables=tables(found)),
            Section("Calibration", drawings=drawings),
            Section("How it was asked", details={"Settings": _asked(found)}),
        ],
    )
    (folder / FILE).write_text(render(page), encoding="utf-8")


def headline(found: Mapping[str, Any]) -> str:
    """The one sentence: the best judge against the best rater that reads nothing."""
    judged = {n: j["accuracy"] for n, j in found.get("judges", {}).items() if "accuracy" in j}
    floor = max(found["floors"].items(), key=lambda item: float(item[1]["right"]["mean"]))
    blind = f"Taking {floor[0]} is right in {cell(floor[1]['right'])}"
    if not judged:
        return f"{blind}; no judge gave a verdict."
    name, best = max(judged.items(), key=lambda item: float(item[1]["mean"]))
    return f"{name} agrees with the labels in {cell(best)} of its verdicts. {blind} of all pairs."


def _asked(found: Mapping[str, Any]) -> str:
    judges = {name: judge.get("asked") for name, judge in found.get("judges", {}).items()}
    return json.dumps({"constitution": found.get("constitution"), "judges": judges}, indent=1)
