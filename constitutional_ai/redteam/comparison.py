"""Attack success before and after a round, paired by request, with intervals."""

from collections import defaultdict
from collections.abc import Mapping
from typing import Any

from constitutional_ai.redteam import scores as measured
from constitutional_ai.redteam.campaign import Campaign, outcomes
from constitutional_ai.report.redteam import ALL, ANY, SEEN, UNSEEN
from constitutional_ai.stats.paired import paired

BEFORE, AFTER, BASE, CONTROL = "before", "after", "base", "control"


def compared(tested: Campaign, trained_on: set[str]) -> dict[str, Any]:
    """Attack success and over-refusal of each model, and after minus before on the same attacks.

    With a control, after minus control too.
    """
    found = measured.scores(tested)
    names = list(found["models"][BEFORE]["families"])
    groups = {"trained on": trained_on - {"plain"}, "not trained on": set(names) - trained_on}
    rows: dict[str, Any] = {
        name: {label: m["families"][name] for label, m in found["models"].items()}
        | differences(tested, {name})
        for name in names
        if name not in (ALL, ANY, SEEN, UNSEEN)
    }
    attacks = {row.family for row in tested.attempts} - {"plain"}
    for title, families in {**groups, ALL: attacks}.items():
        chosen = attacks & families
        if chosen:
            rows[title] = {
                label: measured.of_group(
                    tested,
                    [r for r in tested.attempts if r.model == label and r.family in chosen],
                )
                for label in found["models"]
            } | differences(tested, chosen)
    return {
        "by": found["by"],
        "rows": rows,
        "ratio": _ratio(rows, AFTER),
        "control_ratio": _ratio(rows, CONTROL),
        "trained_on": sorted(trained_on),
        "seed": tested.plan.seed,
        "requests": len({row.request_id for row in tested.attempts if row.kind == "harmful"}),
    }


def _ratio(rows: Mapping[str, Any], label: str) -> float | None:
    """Success over all attacks, of that before; None without such a model, where plain requests
    alone were made, or none could be read.
    """
    all_attacks = rows.get(ALL, {})
    was, now = (all_attacks.get(name, {}).get("success") for name in (BEFORE, label))
    return now["mean"] / was["mean"] if was and was["mean"] and now else None


def differences(tested: Campaign, families: set[str]) -> dict[str, Any]:
    """After minus before, and after minus control where there is one."""
    found = {"difference": difference(tested, families, BEFORE)}
    if CONTROL in tested.plan.models:
        found["against_control"] = difference(tested, families, CONTROL)
    return found


def difference(tested: Campaign, families: set[str], other: str) -> dict[str, Any] | None:
    """Success after minus that of ``other``, paired by request; None with too few read for both."""
    ended = outcomes(tested)
    by_model: dict[str, dict[str, list[float]]] = {other: {}, AFTER: {}}
    for label, found in by_model.items():
        groups: defaultdict[str, list[float]] = defaultdict(list)
        for row in tested.attempts:
            chosen = row.model == label and row.family in families and row.kind == "harmful"
            if chosen and ended[row.id] != "unread":
                groups[row.request_id].append(float(ended[row.id] == "through"))
        found.update(groups)
    if len(by_model[other].keys() & by_model[AFTER].keys()) < 2:
        return None
    result = paired(by_model[other], by_model[AFTER], tested.plan.seed)
    return {**result.estimate(), "p": result.p}


def markdown(result: dict[str, Any]) -> str:
    """The table that the command prints."""
    rows = result["rows"]
    control = any(CONTROL in row for row in rows.values())
    models = [BASE, BEFORE, AFTER, *([CONTROL] if control else [])]
    gaps = {"difference": "after − before"}
    if control:
        gaps["against_control"] = "after − control"
    head = ["attacks", *models]
    for title in gaps.values():
        head += [title, "p"]
    head += [f"benign refused {BEFORE}", *models[2:], "n"]
    lines = [head, ["---"] * len(head)]
    for name, row in rows.items():
        line = [name, *(_cell(row.get(label, {}).get("success")) for label in models)]
        for gap in (row[key] for key in gaps):
            line += [_cell(gap, signed=True), f"{gap['p']:.3g}" if gap else "—"]
        line += [_cell(row[label].get("over_refusal")) for label in models[1:]]
        lines.append([*line, str(row[BEFORE].get("success", {}).get("n", "—"))])
    table = "".join(f"| {' | '.join(line)} |\n" for line in lines)
    ratios = f"Attack success after ÷ before, all attacks: {_number(result['ratio'])}"
    if control:
        ratios += f"; control ÷ before: {_number(result['control_ratio'])}"
    return (
        f"{table}\n{ratios}. Read by {result['by']};"
        f" 95% intervals over {result['requests']} held-out requests. Trained on attacks of:"
        f" {', '.join(result['trained_on'])}.\n"
    )


def _number(value: float | None) -> str:
    return "—" if value is None else f"{value:.2f}"


def _cell(estimate: dict[str, Any] | None, signed: bool = False) -> str:
    if not estimate:
        return "—"
    sign = "+" if signed else ""
    mean, low, high = (estimate[key] for key in ("mean", "low", "high"))
    return f"{mean:{sign}.2f} ({low:{sign}.2f} to {high:{sign}.2f})"
