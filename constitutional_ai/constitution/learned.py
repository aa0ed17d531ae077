"""What ``cai constitution learn`` found: as a constitution to edit, as a table, for machines."""

from pathlib import Path
from typing import Any

from constitutional_ai.constitution import writing
from constitutional_ai.constitution.learn import Learned
from constitutional_ai.data.pairs import left_out
from constitutional_ai.errors import ConstitutionError
from constitutional_ai.principles import Constitution
from constitutional_ai.stats import intervals as stats

BOTH = {"use": ("critique", "preference"), "prompts": ("red-team", "helpful")}


def to_toml(learned: Learned, name: str) -> str:
    """The selected principles as a constitution to edit, each with what it explains.

    Raises ConstitutionError where no principle explains more than half of the pairs.
    """
    if not learned.steps:
        raise ConstitutionError(
            f"{learned.source}: no candidate explains more than half of its preferences;"
            f" raise --propose, or try other --candidates"
        )
    source = Path(learned.source).name
    head = [
        f"Learned by {learned.engine} from {learned.selected_on} preferences of {source}.",
        f"Together these explain {_share(learned.steps[-1].share)} of {learned.held_out} held-out"
        " preferences.",
        "A draft to edit: what explains a choice need not be what you want.",
    ]
    by_name = {one.candidate.principle.name: one for one in learned.scored}
    notes, principles = {}, []
    for step in learned.steps:
        alone = by_name[step.name]
        notes[step.name] = [
            f"alone it explains {_share(alone.share)}; with those above, {_share(step.share)}",
            *(f"also proposed as: {text}" for text in alone.candidate.variants[:3]),
        ]
        principles.append(alone.candidate.principle.model_copy(update=BOTH))
    constitution = Constitution(
        name=name,
        version="0.1",
        description=f"Principles that explain {source}.",
        principles=tuple(principles),
    )
    return writing.to_toml(constitution, head, notes)


def table(learned: Learned) -> str:
    """All candidates by what they explain, then the selection, then what was left out."""
    lines = [
        f"{learned.selected_on} preferences to select on, {learned.held_out} held out; judged by"
        f" {learned.engine}",
        "",
        "explained (95 % interval)  proposed  candidate",
    ]
    for one in learned.scored:
        principle = one.candidate.principle
        note = f"  ({one.unlabelled} without a verdict)" if one.unlabelled else ""
        if one.share and one.share["high"] < 0.5:
            note += "  (the preferences go against it)"
        lines.append(
            f"{_share(one.share):<25}  {one.candidate.proposed or '-':>8}"
            f"  {principle.name}: {principle.text}{note}"
        )
    lines += ["", "selected, one after the other; explained together:"]
    lines += [f"{_share(step.share):<25}  + {step.name}" for step in learned.steps]
    unreadable = sorted(learned.unreadable.items())
    lines += [f"unreadable proposals: {count} × {why}" for why, count in unreadable]
    return "\n".join([*lines, *left_out(learned.skipped)])


def _share(estimate: stats.Estimate | None) -> str:
    if estimate is None:
        return "no verdicts"
    return f"{estimate['mean']:.3f} ({estimate['low']:.3f}–{estimate['high']:.3f})"


def as_json(learned: Learned, out: str) -> dict[str, Any]:
    return {
        "constitution": out,
        "source": learned.source,
        "engine": learned.engine,
        "selected_on": learned.selected_on,
        "held_out": learned.held_out,
        "candidates": [
            {
                "name": one.candidate.principle.name,
                "text": one.candidate.principle.text,
                "proposed": one.candidate.proposed,
                "explained": one.share,
                "without_a_verdict": one.unlabelled,
            }
            for one in learned.scored
        ],
        "selected": [
            {"name": step.name, "explained_together": step.share} for step in learned.steps
        ],
        "unreadable": dict(learned.unreadable),
        "skipped": dict(learned.skipped),
        "asked": learned.asked,
    }
