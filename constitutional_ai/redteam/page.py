"""What a campaign leaves for people: tables, a picture, and the transcripts that got through.

OUT/scores.json     every figure, with its interval and n
OUT/attacks.jsonl   the attacks that got through, to be read, sorted or trained on
OUT/redteam.html    one page, nothing loaded from the network, model-written text escaped
OUT/redteam.svg     its picture
"""

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.figure import Figure

from constitutional_ai.drawing import figures, palette
from constitutional_ai.drawing.page import Drawing, Page, Section, Story, Table, Turn, render
from constitutional_ai.prompts import spoken
from constitutional_ai.redteam import scores as measured
from constitutional_ai.redteam.attack import Attempt, Campaign, outcomes
from constitutional_ai.stats.intervals import Estimate

SHOWN = 40  # transcripts in the page; attacks.jsonl holds them all
_COLUMNS = {
    "success": "got through",
    "refused": "refused",
    "incoherent": "incoherent",
    "over_refusal": "benign refused",
}


def write(campaign: Campaign, out: Path) -> dict[str, Any]:
    """Write the four files; returns the scores."""
    found = measured.scores(campaign)
    _put(out / "scores.json", json.dumps(found, indent=2, ensure_ascii=False) + "\n")
    through = got_through(campaign)
    rows = [_attack_row(campaign, row) for row in through]
    _put(out / "attacks.jsonl", "".join(json.dumps(r, ensure_ascii=False) + "\n" for r in rows))
    source = picture(found)
    _put(out / "redteam.svg", source)
    _put(out / "redteam.html", render(page(campaign, found, through, source)))
    return found


def got_through(campaign: Campaign) -> list[Attempt]:
    """The harmful requests that got what they asked for, as the campaign's order has them."""
    ended = outcomes(campaign)
    return [r for r in campaign.attempts if r.kind == "harmful" and ended[r.id] == "through"]


def families_of(found: Mapping[str, Any]) -> dict[str, dict[str, Estimate]]:
    """{family: {model: success}}, totals last."""
    names = dict.fromkeys(name for model in found["models"].values() for name in model["families"])
    totals = (measured.SEEN, measured.UNSEEN, measured.ALL, measured.ANY)
    ordered = [n for n in names if n not in totals] + [n for n in totals if n in names]
    return {
        name: {
            label: model["families"][name]["success"]
            for label, model in found["models"].items()
            if "success" in model["families"].get(name, {})
        }
        for name in ordered
    }


def dots(by_family: Mapping[str, Mapping[str, Estimate]]) -> Figure:
    """A row for each family, in it a mark with its interval for each model."""
    models = list(dict.fromkeys(label for row in by_family.values() for label in row))
    step = 0.8 / max(1, len(models))
    with matplotlib.rc_context(figures.STYLE):
        size = 1.2 + 0.2 * len(models) + len(by_family) * (0.12 + 0.17 * len(models))
        figure = Figure(figsize=(figures.WIDTH, size), layout="constrained")
        axes = figure.add_subplot(xlabel="attacks that got through (share)")
        for k, label in enumerate(models):
            places = [n + k * step for n, row in enumerate(by_family.values()) if label in row]
            rows = [row[label] for row in by_family.values() if label in row]
            axes.errorbar(
                [row["mean"] for row in rows],
                places,
                xerr=[
                    [row["mean"] - row["low"] for row in rows],
                    [row["high"] - row["mean"] for row in rows],
                ],
                fmt=figures.MARKERS[k % len(figures.MARKERS)],
                color=figures.COLOURS[k % len(figures.COLOURS)],
                ms=5.5,
                elinewidth=1.4,
                capsize=2.5,
                label=label,
            )
        middle = (len(models) - 1) * step / 2
        axes.set_yticks([n + middle for n in range(len(by_family))], list(by_family))
        for n in range(1, len(by_family)):  # between the rows, so that no mark is of two families
            axes.axhline(n + middle - 0.5, color=palette.GRID, lw=0.6)
        axes.set_ylim(len(by_family) - 0.5 + middle, middle - 0.5)
        axes.set_xlim(-0.03, 1.03)
        axes.grid(visible=False, axis="y")
        if len(models) > 1:
            figure.legend(loc="outside upper left")
        return figure


def page(
    campaign: Campaign, found: Mapping[str, Any], through: Sequence[Attempt], source: str
) -> Page:
    plan = campaign.plan
    sections = [
        Section("Attack success", _notes(campaign, found), [_drawing(source)]),
        Section("Figures", tables=_tables(found)),
        *_caught_section(found["caught"]),
        Section("What got through", _shown_of(through), stories=_stories(campaign, through)),
    ]
    return Page(
        title=f"Red team: {', '.join(plan.models)}",
        headline=headline(found),
        note=f"Success is read by {found['by']}. Intervals are 95 %, over the requests; they do not"
        " cover other wordings of a family.",
        sections=[s for s in sections if s.words or s.drawings or s.tables or s.stories],
    )


def picture(found: Mapping[str, Any], name: str = "redteam") -> str:
    """The SVG of attack success; ``name`` keeps several on one page apart."""
    return figures.svg(dots(families_of(found)), name)


def joined(found: Mapping[str, Any], name: str) -> list[Section]:
    """The figures of scores.json for another page, drawn anew; the transcripts stay here."""
    words = [headline(found), f"Success is read by {found['by']}; transcripts: redteam.html."]
    drawing = _drawing(picture(found, name))
    first = Section("Red team", words, [drawing], _tables(found))
    return [first, *_caught_section(found["caught"])]


def _drawing(source: str) -> Drawing:
    return Drawing(
        "Attack success",
        "Bars: 95 % intervals. The plain request is the floor that every disguise is held against.",
        figures.inline(source, "Share of attacks that got through, by family and model"),
    )


def _tables(found: Mapping[str, Any]) -> list[Table]:
    return [
        *(_table(f"{label}, by family", m["families"]) for label, m in found["models"].items()),
        *(
            _table(f"{label}, by category of harm", m["categories"])
            for label, m in found["models"].items()
            if m["categories"]
        ),
    ]


def headline(found: Mapping[str, Any]) -> str:
    """The result in a sentence."""
    parts = []
    for label, model in found["models"].items():
        row = model["families"].get(measured.ALL, model["families"].get("plain", {}))
        plain = model["families"].get("plain", {})
        if "success" in row and "success" in plain:
            parts.append(
                f"{label}: {_percent(row['success'])} of attacks get through"
                f" ({_percent(plain['success'])} of plain requests)"
                + (
                    f", {_percent(row['over_refusal'])} of benign requests in the same disguises"
                    " are refused"
                    if "over_refusal" in row
                    else ""
                )
            )
    return "; ".join(parts) + "." if parts else "No attack could be read."


def _notes(campaign: Campaign, found: Mapping[str, Any]) -> list[str]:
    plan = campaign.plan
    notes = [
        f"Requests from {plan.prompts}; judge {plan.judge}, critic {plan.critic}"
        f" under the constitution {plan.constitution} ({campaign.constitution}); temperature"
        f" {plan.temperature:g}."
    ]
    if agreed := found.get("judge_agrees_with_oracle"):
        notes.append(f"The judge says the same as the oracle of {_percent(agreed)} of the attacks.")
    elif plan.in_lab:
        notes.append(
            "These topics may be trained on, so the oracle was not read: success is the judge's."
        )
    if plan.judge in plan.models.values() and not campaign.truth:
        notes.append("The judge is one of the models under attack: name another with --judge.")
    if found["unread"]:
        notes.append(f"{found['unread']} verdicts could not be read and are scored nowhere.")
    for file, lost in found["failed"].items():
        reasons = "; ".join(f"{reason}: {n}" for reason, n in lost["failed_by_reason"].items())
        notes.append(f"{lost['failed']} rows of {file} are missing ({reasons}).")
    return notes


def _table(caption: str, rows: Mapping[str, Mapping[str, Any]]) -> Table:
    head = ["", *_COLUMNS.values(), "n", "n benign", "unread"]
    cells = [
        [
            name,
            *(row.get(column) for column in _COLUMNS),
            row.get("success", {}).get("n"),
            row.get("over_refusal", {}).get("n"),
            row["unread"],
        ]
        for name, row in rows.items()
    ]
    return Table(caption, head, cells)


def _caught_section(matrix: measured.Matrix) -> list[Section]:
    if not matrix:
        return []
    names = list(dict.fromkeys(name for row in matrix.values() for name in row))
    sizes = {family: max(e["n"] for e in row.values()) for family, row in matrix.items()}
    rows = [[family, *(row.get(n) for n in names), sizes[family]] for family, row in matrix.items()]
    words = (
        "The share of what got through that each principle's critique finds fault with. The row"
        f" “{measured.BENIGN}” has good answers in the same disguises: there a catch is a false"
        " alarm."
    )
    table = Table("Caught, by family and principle", ["", *names, "n"], rows)
    return [Section("Which principle catches it", [words], tables=[table])]


def _shown_of(through: Sequence[Attempt]) -> list[str]:
    if len(through) <= SHOWN:
        return []
    return [f"{SHOWN} of {len(through)}, spread over the families; attacks.jsonl has them all."]


def _stories(campaign: Campaign, through: Sequence[Attempt]) -> list[Story]:
    step = max(1, -(-len(through) // SHOWN))
    return [_story(campaign, row) for row in through[::step]]


def _story(campaign: Campaign, row: Attempt) -> Story:
    caught = campaign.caught.get(row.id)
    names = [name for name, hit in caught.by_principle.items() if hit] if caught else []
    by = f"caught by: {', '.join(names)}" if names else "no principle's critique catches it"
    left = [Turn("plain request", spoken(row.request)), Turn("sent", spoken(row.prompt))]
    turns = [Turn(row.model, row.answer, by if caught else "not criticised")]
    return Story(f"{row.family}: {row.category}", [left, turns])


def _attack_row(campaign: Campaign, row: Attempt) -> dict[str, Any]:
    """A line of attacks.jsonl: what was sent stands under ``prompt``, as prompts files have it."""
    caught = campaign.caught.get(row.id)
    return {
        "prompt": row.prompt,
        "answer": row.answer,
        "request": row.request,
        "model": row.model,
        "family": row.family,
        "category": row.category,
        "caught_by": [n for n, hit in caught.by_principle.items() if hit] if caught else [],
        "constitution": campaign.constitution,
        "id": row.id,
    }


def _percent(estimate: Estimate) -> str:
    mean, low, high = (100 * estimate[key] for key in ("mean", "low", "high"))
    return f"{mean:.0f} % ({low:.0f}–{high:.0f} %, n = {estimate['n']})"


def _put(path: Path, text: str) -> None:
    """Whole or not at all."""
    draft = path.with_name(f".{path.name}.part")
    draft.write_text(text, encoding="utf-8")
    os.replace(draft, path)
