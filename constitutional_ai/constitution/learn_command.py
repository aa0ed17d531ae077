"""``cai constitution learn`` from file to file: read, propose or take candidates, score, write."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from constitutional_ai.constitution.learn import Candidate, Learned, explain, propose, split
from constitutional_ai.constitution.writing import to_toml as written
from constitutional_ai.data.preferences import Compared, Comparisons, load_comparisons, told
from constitutional_ai.engines.base import Engine, Sampling
from constitutional_ai.errors import ConstitutionError, DataError
from constitutional_ai.principles import Constitution, load_constitution
from constitutional_ai.progress import Progress
from constitutional_ai.records import PromptSet
from constitutional_ai.stats import intervals as stats


@dataclass(frozen=True)
class Asking:
    """What is asked of whom, and how much of it. ``candidates`` names a constitution, or None."""

    engine: Engine
    fence: bool
    sampling: Sampling
    candidates: str | None
    propose: int
    limit: int
    most: int
    min_gain: float


@dataclass
class Found:
    learned: Learned
    source: str
    engine: str
    pairs: tuple[int, int]  # selected on, held out
    skipped: Counter[str]
    asked: int  # pairs that were asked about for proposals
    unreadable: Counter[str]


def check_out(out: Path) -> None:
    """Raise ConstitutionError where the file is already there."""
    if out.exists():
        raise ConstitutionError(f"{out}: already exists; take another --out, or add --force")


def learn(path: Path, set: PromptSet, asking: Asking, progress: Progress) -> Found:
    """Raises DataError where there are too few pairs, or no proposal can be read."""
    found = load_comparisons(path, set)
    rows = [
        row for row in found.sample(asking.limit, "learn", asking.sampling.seed) if row.preferred
    ]
    fit, held = split(rows)
    if not fit or not held:
        raise DataError(f"{path}: {len(rows)} preferences are too few to hold some of them out")
    candidates, asked, unreadable = _candidates(found, fit, asking, progress)
    learned = explain(
        candidates, rows, asking.engine, asking.fence, progress, asking.most, asking.min_gain
    )
    pairs = len(fit), len(held)
    return Found(learned, str(path), asking.engine.name, pairs, found.skipped, asked, unreadable)


def _candidates(
    found: Comparisons, fit: list[Compared], asking: Asking, progress: Progress
) -> tuple[list[Candidate], int, Counter[str]]:
    if asking.candidates is not None:
        constitution = load_constitution(asking.candidates)
        taken = [Candidate(p) for p in constitution.principles if "preference" in p.use]
        if not taken:
            raise ConstitutionError(
                f"{asking.candidates}: no principle of it has preference in use"
            )
        return taken, 0, Counter()
    proposals = propose(
        fit[: asking.propose], asking.engine, asking.fence, asking.sampling, progress
    )
    if not proposals.candidates:
        reasons = ", ".join(f"{n} × {reason}" for reason, n in proposals.unreadable.items())
        raise DataError(
            f"{found.path}: {asking.engine.name} proposed no readable principle for"
            f" {proposals.asked} pairs ({reasons}); take another --engine, or --candidates FILE"
        )
    return proposals.candidates, proposals.asked, proposals.unreadable


def to_toml(found: Found, name: str) -> str:
    """The selected principles as a constitution to edit, each with what it explains.

    Raises ConstitutionError where no principle explains more than half of the pairs.
    """
    selected = found.learned.selected
    if not selected:
        raise ConstitutionError(
            f"{found.source}: no candidate explains more than half of its preferences;"
            f" raise --propose, or try other --candidates"
        )
    used = [
        p.model_copy(update={"use": ("critique", "preference"), "prompts": ("red-team", "helpful")})
        for p in selected
    ]
    together, source = found.learned.steps[-1].share, Path(found.source).name
    head = [
        f"Learned by {found.engine} from {found.pairs[0]} preferences of {source}.",
        f"Together these explain {_share(together)} of {found.pairs[1]} held-out preferences.",
        "A draft to edit: what explains a choice need not be what you want.",
    ]
    alone = {one.candidate.principle.name: one for one in found.learned.scored}
    notes = {}
    for step in found.learned.steps:
        one = alone[step.name]
        notes[step.name] = [
            f"alone it explains {_share(one.share)}; with those above, {_share(step.share)}",
            *(f"also proposed as: {text}" for text in one.candidate.variants[:3]),
        ]
    constitution = Constitution(
        name=name,
        version="0.1",
        description=f"Principles that explain {source}.",
        principles=tuple(used),
    )
    return written(constitution, head, notes)


def table(found: Found) -> str:
    """All candidates by what they explain, then the selection, then what was left out."""
    lines = [f"{found.pairs[0]} preferences to select on, {found.pairs[1]} held out; judged by"
             f" {found.engine}", "", "explained (95 % interval)  proposed  candidate"]  # fmt: skip
    for one in found.learned.scored:
        principle = one.candidate.principle
        note = f"  ({one.unlabelled} without a verdict)" if one.unlabelled else ""
        if one.share and one.share["high"] < 0.5:
            note += "  (the preferences go against it)"
        lines.append(
            f"{_share(one.share):<25}  {one.candidate.proposed or '-':>8}"
            f"  {principle.name}: {principle.text}{note}"
        )
    lines += ["", "selected, one after the other; explained together:"]
    lines += [f"{_share(step.share):<25}  + {step.name}" for step in found.learned.steps]
    lines += [f"unreadable proposals: {n} × {why}" for why, n in sorted(found.unreadable.items())]
    return "\n".join([*lines, *told(found.skipped)])


def _share(estimate: stats.Estimate | None) -> str:
    if estimate is None:
        return "no verdicts"
    return f"{estimate['mean']:.3f} ({estimate['low']:.3f}–{estimate['high']:.3f})"


def as_json(found: Found, out: str) -> dict[str, Any]:
    return {
        "constitution": out,
        "source": found.source,
        "engine": found.engine,
        "selected_on": found.pairs[0],
        "held_out": found.pairs[1],
        "candidates": [
            {
                "name": one.candidate.principle.name,
                "text": one.candidate.principle.text,
                "proposed": one.candidate.proposed,
                "explained": one.share,
                "without_a_verdict": one.unlabelled,
            }
            for one in found.learned.scored
        ],
        "selected": [{"name": s.name, "explained_together": s.share} for s in found.learned.steps],
        "unreadable": dict(found.unreadable),
        "skipped": dict(found.skipped),
        "asked": found.asked,
    }
