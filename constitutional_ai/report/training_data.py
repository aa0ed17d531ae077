"""Whether the training data is worth training on: what was stopped, lost, or unsure, and why."""

from collections.abc import Mapping
from typing import Any

from constitutional_ai.drawing.page import Table
from constitutional_ai.judge.agreement import WIDE_GAP, order_warning

Manifests = Mapping[str, Mapping[str, Any]]  # by the stage's name


def stopped(manifests: Manifests) -> list[Table]:
    """Revisions that kept the answer before, by round and by principle, each with its reason."""
    made = {name: found.get("counts", {}) for name, found in manifests.items()}
    by_round = [
        [name, number, reason, count, f"{100 * count / max(counts['rows'], 1):.1f} %"]
        for name, counts in made.items()
        for number, reasons in enumerate(counts.get("rejected_by_round", []), 1)
        for reason, count in reasons.items()
    ]
    by_principle = [
        [name, principle, reason, f"{count} of {counts['steps_by_principle'][principle]}"]
        for name, counts in made.items()
        for principle, reasons in counts.get("rejected_by_principle", {}).items()
        for reason, count in reasons.items()
    ]
    title = "Revisions that kept the answer before"
    tables = [
        Table(title, ["stage", "round", "reason", "revisions", "share of rows"], by_round),
        Table(f"{title}, by principle", ["stage", "principle", "reason", "steps"], by_principle),
    ]
    return [table for table in tables if table.rows]


def unlabelled(manifests: Manifests) -> list[Table]:
    """Pairs without a label, each with its reason."""
    lost = [
        [name, reason, count, f"{100 * count / found['counts']['rows']:.1f} %"]
        for name, found in manifests.items()
        if isinstance(found.get("counts", {}).get("unlabelled"), Mapping)
        for reason, count in found["counts"]["unlabelled"].items()
    ]
    return [Table("Pairs without a label", ["stage", "reason", "pairs", "share"], lost)] * bool(
        lost
    )


def labels(manifests: Manifests) -> list[str]:
    """How steady the judge was, of each label stage that compared pairs."""
    words: list[str] = []
    for name, manifest in manifests.items():
        counts = manifest.get("counts", {})
        if "order_gap" in counts:
            said = f"{name}: {counts['labelled']:,} of {counts['rows']:,} pairs have a label"
            if "mass" in counts:
                said += f"; the judge gave its options {counts['mass']:.2f} of the probability"
            gap = counts["order_gap"]
            warning = order_warning(gap) if gap > WIDE_GAP else f"order gap {gap:.2f}"
            words.append(f"{said}; {warning}.")
    return words


def held_out_by_dpo(manifests: Manifests) -> list[str]:
    """What every DPO stage measured on the pairs that it did not learn from."""
    words = [
        "What this page calls RL-CAI was made by direct preference optimisation: there was no"
        " reward model, no sampling in training, and no monitor. The KL from SL-CAI is not known."
    ]
    for name, manifest in manifests.items():
        counts = manifest.get("counts", {})
        if "logratio_chosen" in counts:
            share = f"{counts['accuracy']:.3f}" if "accuracy" in counts else "no measurable share"
            words.append(
                f"{name}: of {counts['n']} held-out pairs with a side, {share} moved towards the"
                f" answer that the label prefers; loss {counts['loss']:.3f}, log π / π_ref"
                f" {counts['logratio_chosen']:+.1f} nats of the chosen answers and"
                f" {counts['logratio_rejected']:+.1f} of the rejected ones."
            )
    return words
