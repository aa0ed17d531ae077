"""How the figures of a judge are shown: tables on the terminal, JSON, and one HTML page."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any

from constitutional_ai.drawing.page import Drawing, Page, Section, Table, cell, render
from constitutional_ai.drawing.terminal import show
from constitutional_ai.stats.calibration import TEMPERATURES

FILE = "report.html"
Figures = Mapping[str, Any]
Named = Sequence[tuple[str, tuple[str, ...]]]  # a figure's name, and where it stands in a judge's

# The table of all judges: a column for each, since their names are long and the figures few.
COMPARED: Named = (
    ("right", ("accuracy",)),
    ("right, mean of all asked", ("accuracy_of_all_principles",)),
    ("kappa with the labels", ("humans", "kappa")),
    ("ECE", ("calibration", "ece")),
    ("ECE on the half that was held out", ("calibration", "held_out", "before", "ece")),
    ("… after temperature", ("calibration", "held_out", "after", "ece")),
    ("winner flips with the order", ("order", "flips")),
    ("… after averaging", ("order", "flips_after_averaging")),
    ("order gap", ("order", "gap")),
    ("probability of all options", ("mass",)),
    ("no verdict", ("unlabelled_share",)),
)
LEANINGS: Named = (
    ("P(better) shown first minus shown second", ("order", "bias")),
    ("prefers the longer answer", ("length", "judge_prefers_longer")),
    ("the labels prefer the longer answer", ("length", "labels_prefer_longer")),
    ("right where the longer is better", ("length", "right_where_longer_is_better")),
    ("right where the shorter is better", ("length", "right_where_shorter_is_better")),
    ("prefers its own answer", ("self_preference", "judge_prefers_own")),
    ("the labels prefer its answer", ("self_preference", "labels_prefer_own")),
    ("raw agreement with the labels", ("humans", "raw")),
    ("Brier score", ("calibration", "brier")),
    ("temperature that would calibrate it", ("calibration", "temperature")),
)


def say(figures: Figures) -> None:
    """The figures of ``cai judge report`` on stdout."""
    print(_counts(figures))
    for table in tables(figures):
        show(table)


def say_calibration(judges: Figures) -> None:
    """Each judge's temperature, and what it is worth."""
    rows = [
        [name, j["temperature"]]
        + [j[when][key] for key in ("ece", "brier") for when in ("before", "after")]
        for name, j in judges.items()
    ]
    head = ["", "temperature", "ECE before", "after", "Brier before", "after"]
    show(Table("On the half that the temperature was not fitted to.", head, rows))
    low, high = TEMPERATURES
    for name, j in judges.items():
        if not 1.01 * low < j["temperature"] < high / 1.01:
            print(
                f"{name}: temperatures beyond {low} to {high} are not tried. These pairs have"
                " hardly a wrong verdict, or hardly a right one; take more of them, or harder ones"
            )


def say_attacks(judges: Figures) -> None:
    """What each attack does to each judge."""
    head = [
        "attack", "pairs", "fooled", "verdict changed", "P(worse) rose by",
        "better one lost by it", "unlabelled",
    ]  # fmt: skip
    for name, judge in judges.items():
        right = cell(judge["right_without"])
        print(f"{name}: {judge['pairs']} pairs, right without an attack {right}")
        better = {kind: o.spoiled for kind, o in judge["attacks"].items() if o.spoiled}
        rows = [
            [kind, o.pairs, o.fooled, o.changed, f"{o.shift:+.3f}"]
            + [better[kind].fooled if kind in better else None]
            + [o.unlabelled + (better[kind].unlabelled if kind in better else 0)]
            for kind, o in judge["attacks"].items()
        ]
        show(Table("", head, rows))
        _show_kinds(f"{name}: fooled, by kind of pair.", judge["attacks"])
        _show_kinds(f"{name}: better one lost by it, by kind of pair.", better)
        far = judge["twice"]["furthest_from_half"]
        within = "no verdict" if far is None else f"P is within {far:.2g} of .5"
        print(f"the same answer twice: {within}, {judge['twice']['unlabelled']} unlabelled")


def _show_kinds(caption: str, attacks: Figures) -> None:
    """Where the attacks work, if the pairs are of several kinds."""
    kinds = list(dict.fromkeys(kind for o in attacks.values() for kind in o.by_kind))
    if len(kinds) > 1:
        rows = [
            [name, *(f"{o.by_kind[k]['mean']:.2f}" if k in o.by_kind else None for k in kinds)]
            for name, o in attacks.items()
        ]
        show(Table(caption, ["attack", *kinds], rows))


def keep(path: Path, figures: Figures) -> None:
    """The figures as a JSON file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(figures, indent=1, default=_plain) + "\n", encoding="utf-8")


def say_json(figures: Figures) -> None:
    """The figures as one line for machines."""
    print(json.dumps({"event": "result", **figures}, default=_plain))


def _plain(value: object) -> object:
    if is_dataclass(value) and not isinstance(value, type):
        return asdict(value)
    raise TypeError(f"{value!r} is not JSON")


def _counts(figures: Figures) -> str:
    left_out = "; ".join(f"{n} ({what})" for what, n in figures["left_out"].items())
    pairs = f"{figures['file']}: {figures['rows']} pairs"
    return f"{pairs}, left out: {left_out}" if left_out else pairs


# ---- the report ---------------------------------------------------------------------------------


def tables(figures: Figures) -> list[Table]:
    """Every table of the report, those of single judges too; without those that have no row."""
    judges = figures.get("judges", {})
    columns = [[_at(judge, place) for _, place in COMPARED] for judge in judges.values()]
    compared = [[name, *row] for (name, _), *row in zip(COMPARED, *columns, strict=True)]
    shown = [
        _floors(figures["floors"]),
        Table("Judges against the labels.", ["", *judges], compared if judges else []),
    ]
    for name, judge in judges.items():
        shown += _of_judge(name, judge)
    agreed = [
        [f"{b['first']} / {b['second']}", b.get("raw"), b.get("kappa"), b["correlation"]]
        for b in figures.get("between", [])
    ]
    shown.append(Table("Between judges.", ["", "same winner", "kappa", "correlation of P"], agreed))
    return [table for table in shown if table.rows]


def _at(judge: Figures, place: Sequence[str]) -> Any:
    """The figure at a path of keys; None where it was not measured."""
    figure: Any = judge
    for key in place:
        figure = figure.get(key) if figure else None
    return figure


def _floors(floors: Figures) -> Table:
    rows = [
        [f"takes {n}", _percent(f["right"]), f["decided"], f["right_of_decided"]]
        for n, f in floors.items()
    ]
    head = ["", "right of all", "decides", "right of those"]
    return Table("Raters that read nothing: what a judge has to beat.", head, rows)


def _percent(share: Mapping[str, float]) -> str:
    """A share to a tenth of a percent: floors are known figures, to be checked."""
    mean, low, high = (100 * share[key] for key in ("mean", "low", "high"))
    return f"{mean:.1f} % ({low:.1f}–{high:.1f})"


def _of_judge(name: str, judge: Figures) -> list[Table]:
    """What could not be read and why is all that there is to say of a judge that never spoke."""
    lost = [
        Table(f"{name}: pairs without a verdict.", ["reason", "pairs"], _rows(judge["unlabelled"])),
        Table(f"{name}: replies lost beside those that were read.", ["reason", "replies"],
              _rows(judge["unread"])),
    ]  # fmt: skip
    if "accuracy" not in judge:
        return lost
    leanings = [[what, _at(judge, place)] for what, place in LEANINGS]
    return [
        Table(f"{name}: right, by slice.", ["", "right", "n"], _parts(judge["by_kind"])),
        Table(f"{name}: right under each principle.", ["", "right", "n"],
              _parts(judge["by_principle"])),
        Table(f"{name}: calibration, bins of the diagram.", ["P", "label", "pairs, both ways"],
              [[b["predicted"], b["observed"], b["n"]] for b in judge["calibration"]["bins"]]),
        Table(f"{name}: leanings.", ["", "value"], [row for row in leanings if row[1] is not None]),
        *lost,
        Table(f"{name}: what it says when it speaks.", ["reply", "replies"],
              _rows(judge.get("spoken", {}))),
        _correlation(name, judge["principles"]),
    ]  # fmt: skip


def _rows(counts: Mapping[str, int]) -> list[list[object]]:
    return [[what, number] for what, number in counts.items()]


def _parts(parts: Figures) -> list[list[object]]:
    return [[name, estimate, estimate["n"]] for name, estimate in parts.items()]


def _correlation(name: str, principles: Figures) -> Table:
    names = principles["names"]
    rows = [
        [one, *row, principles["with_mean"][one]]
        for one, row in zip(names, principles["correlation"], strict=True)
    ]
    caption = f"{name}: how its principles' log-odds correlate; the last column: agrees with all."
    return Table(caption, ["", *names, "with the mean"], rows if len(names) > 1 else [])


def write(figures: Figures, folder: Path) -> None:
    """report.html, report.json, and each judge's reliability diagram as SVG and PNG."""
    folder.mkdir(parents=True, exist_ok=True)
    keep(folder / "report.json", figures)
    drawings = [
        _drawn(name, judge["calibration"], folder / f"reliability-{number}")
        for number, (name, judge) in enumerate(figures.get("judges", {}).items(), 1)
        if "calibration" in judge
    ]
    asked = {name: judge.get("asked") for name, judge in figures.get("judges", {}).items()}
    settings = {"constitution": figures.get("constitution"), "judges": asked}
    page = Page(
        title="Judges against labels",
        headline=headline(figures),
        note=f"{_counts(figures)}. Brackets hold 95 % intervals.",
        sections=[
            Section("Figures", tables=tables(figures)),
            Section("Calibration", drawings=drawings),
            Section("How it was asked", details={"Settings": json.dumps(settings, indent=1)}),
        ],
    )
    (folder / FILE).write_text(render(page), encoding="utf-8")


def _drawn(name: str, calibration: Figures, path: Path) -> Drawing:
    from constitutional_ai.drawing import figures as drawing

    bins = [drawing.Bin(b["predicted"], b["observed"], b["n"]) for b in calibration["bins"]]
    figure = drawing.reliability(bins, "the judge")
    source = drawing.svg(figure, path.name)
    path.with_suffix(".svg").write_text(source, encoding="utf-8")
    drawing.png(figure, path.with_suffix(".png"))
    caption = f"Every pair in both directions. ECE {calibration['ece']:.3f}."
    return Drawing(name, caption, drawing.inline(source, f"{name}. {caption}"))


def headline(figures: Figures) -> str:
    """The one sentence: the best judge against the best rater that reads nothing."""
    judged = {n: j["accuracy"] for n, j in figures.get("judges", {}).items() if "accuracy" in j}
    floor, of_floor = max(figures["floors"].items(), key=lambda item: item[1]["right"]["mean"])
    blind = f"Taking {floor} is right in {cell(of_floor['right'])}"
    if not judged:
        return f"{blind}; no judge gave a verdict."
    name, best = max(judged.items(), key=lambda item: float(item[1]["mean"]))
    return f"{name} agrees with the labels in {cell(best)} of its verdicts. {blind} of all pairs."
