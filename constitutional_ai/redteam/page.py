"""What a campaign leaves for people: tables, a picture, and the transcripts that got through.

OUT/scores.json     every figure, with its interval and n
OUT/attacks.jsonl   the attacks that got through, to be read, sorted or trained on
OUT/redteam.html    one page, nothing loaded from the network, model-written text escaped
OUT/redteam.svg     its picture
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from constitutional_ai.drawing.page import Page, Section, Story, Turn, render
from constitutional_ai.prompts import spoken
from constitutional_ai.redteam import scores as measured
from constitutional_ai.redteam.attack import Attempt
from constitutional_ai.redteam.campaign import Campaign, outcomes
from constitutional_ai.report import redteam as shown
from constitutional_ai.store.atomic import write_atomic

SHOWN = 40  # transcripts in the page; attacks.jsonl holds them all


def write(campaign: Campaign, out: Path) -> dict[str, Any]:
    """Write the four files; returns the scores."""
    found = measured.scores(campaign)
    write_atomic(out / "scores.json", json.dumps(found, indent=2, ensure_ascii=False) + "\n")
    through = got_through(campaign)
    rows = [_attack_row(campaign, row) for row in through]
    write_atomic(
        out / "attacks.jsonl", "".join(json.dumps(r, ensure_ascii=False) + "\n" for r in rows)
    )
    source = shown.picture(found)
    write_atomic(out / "redteam.svg", source)
    write_atomic(out / "redteam.html", render(page(campaign, found, through, source)))
    return found


def got_through(campaign: Campaign) -> list[Attempt]:
    """The harmful requests that got what they asked for, as the campaign's order has them."""
    ended = outcomes(campaign)
    return [r for r in campaign.attempts if r.kind == "harmful" and ended[r.id] == "through"]


def page(
    campaign: Campaign, found: Mapping[str, Any], through: Sequence[Attempt], source: str
) -> Page:
    plan = campaign.plan
    sections = [
        Section("Attack success", _notes(campaign, found), [shown.drawing_of(source)]),
        Section("Figures", tables=shown.tables_of(found)),
        *shown.caught_section(found["caught"]),
        Section("What got through", _shown_of(through), stories=_stories(campaign, through)),
    ]
    return Page(
        title=f"Red team: {', '.join(plan.models)}",
        headline=shown.headline(found),
        note=f"Success is read by {found['by']}. Intervals are 95 %, over the requests; they do not"
        " cover other wordings of a family.",
        sections=[s for s in sections if s.words or s.drawings or s.tables or s.stories],
    )


def _notes(campaign: Campaign, found: Mapping[str, Any]) -> list[str]:
    plan = campaign.plan
    notes = [
        f"Requests from {plan.prompts}; judge {plan.judge}, critic {plan.critic}"
        f" under the constitution {plan.constitution} ({campaign.constitution}); temperature"
        f" {'of the model' if plan.temperature is None else f'{plan.temperature:g}'}."
    ]
    if agreed := found.get("judge_agrees_with_oracle"):
        notes.append(
            f"The judge says the same as the oracle of {shown.percent(agreed)} of the attacks."
        )
    elif plan.in_lab:
        notes.append(
            "These topics may be trained on, so the oracle was not read: success is the judge's."
        )
    if plan.judge in plan.models.values() and not campaign.truth:
        notes.append("The judge is one of the models under attack: name another with --judge.")
    if found["unread"]:
        notes.append(f"{found['unread']} verdicts could not be read and are scored nowhere.")
    if unread := sum(len(row.unread) for row in campaign.caught.values()):
        notes.append(f"{unread} critiques could not be read, and are neither a catch nor a miss.")
    for file, lost in found["failed"].items():
        reasons = "; ".join(f"{reason}: {n}" for reason, n in lost["failed_by_reason"].items())
        notes.append(f"{lost['failed']} rows of {file} are missing ({reasons}).")
    return notes


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
