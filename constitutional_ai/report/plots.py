"""Which figures a run has data for, and what they show."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.figure import Figure

from constitutional_ai.drawing import figures
from constitutional_ai.drawing.figures import Bin, Panel, Point, Series
from constitutional_ai.report.findings import Findings
from constitutional_ai.stats.intervals import Estimate, Z


@dataclass(frozen=True)
class Plot:
    figure: Figure
    title: str
    caption: str


def draw(findings: Findings) -> dict[str, Plot]:
    """Every figure that this run has data for: by name."""
    drawn: dict[str, Plot] = {}
    if tradeoff := _tradeoff(findings):
        drawn["tradeoff"] = tradeoff
    if findings.gold and findings.gold["revisions"]:
        drawn["revisions"] = _revisions(findings)
    if bins := findings.calibration.get("bins"):
        caption = (
            f"Held-out pairs, by the reward model's probability. Calibration error"
            f" {findings.calibration['ece']:.3f}."
        )
        filled = [Bin(b["predicted"], b["observed"], b["n"]) for b in bins]
        drawn["calibration"] = Plot(figures.reliability(filled), "Calibration", caption)
    if findings.ppo:
        drawn.update(_ppo(findings))
    if findings.dpo:
        drawn["dpo"] = _dpo(findings)
    return drawn


def _tradeoff(findings: Findings) -> Plot | None:
    """None where the test prompts are not of the two kinds whose scores are its axes."""
    roles = {"base": "base", "sl": "SL-CAI, by number of revisions", "rl": "RL-CAI"}
    last = str(findings.settings.revise.rounds)
    points = []
    for name, model in findings.models.items():
        kind, _, number = name.partition("-cai")
        mark = number.strip("-") or (last if kind == "sl" else "")
        if findings.in_lab:
            x, y = model["benign"]["helpful"], _rest(model["harmful"]["harmful_steps"])
        elif all("win_rate" in model.get(asked, {}) for asked in ("benign", "harmful")):
            x, y = model["benign"]["win_rate"], model["harmful"]["win_rate"]
        else:
            continue
        points.append(Point(roles[kind], x, y, mark))
    if not points:
        return None
    if findings.in_lab:
        labels = "helpfulness on benign requests", "answers to harmful requests without harm"
    else:
        labels = "P(better than base), benign prompts", "P(better than base), harmful prompts"
    caption = "Up and right is better. Bars: 95 % intervals; dotted line: the order of training."
    return Plot(figures.tradeoff(points, *labels), "", caption)


def _revisions(findings: Findings) -> Plot:
    assert findings.gold is not None
    curve = findings.gold["revisions"]
    own = _series("the revised answers", [(p["revision"], p["harm"]) for p in curve])
    rounds = range(1, findings.settings.revise.rounds + 1)
    tuned = [("base", 0), *((f"sl-cai-{k}", k) for k in rounds)]
    test = [(k, findings.scores[n]["harmful"]["harm"]) for n, k in tuned if n in findings.scores]
    models = _series("SL-CAI-k on unseen prompts", test)
    figure = figures.panels([Panel("harm (0–4)", [own, models])], "number of revisions k")
    caption = "Gold harm of the answers after k revisions, and of the models finetuned on them."
    return Plot(figure, "Harm by revision", caption)


def _ppo(findings: Findings) -> dict[str, Plot]:
    """What the policy climbs, and what it should: by step and by distance; and its health."""
    step_of = {row["step"]: float(row["step"]) for row in findings.ppo}
    kl_of = {row["step"]: float(row["objective/kl"]) for row in findings.ppo}
    if findings.gold:
        what, truth = "Proxy and gold", "what the oracle says of the same answers, which neither"
        truth += " the policy nor the monitor ever sees. Over-optimisation shows where gold turns."
    else:
        what, truth = "Proxy", "not known outside the laboratory."
    kl = "KL from the SL-CAI model (nats an answer)"
    return {
        "ppo-steps": Plot(
            figures.panels(_climb(findings, step_of), "PPO step"),
            f"{what} by step",
            f"The policy climbs the proxy, the reward model's score. Bands: 95 % intervals. The"
            f" truth is {truth}",
        ),
        "ppo-kl": Plot(
            figures.panels(_climb(findings, kl_of), kl),
            f"{what} by KL",
            "The same against the distance from where the policy began, in that distance's order.",
        ),
        "ppo-health": Plot(
            figures.panels(_health(findings), "PPO step"),
            "KL, entropy and the held-out judge",
            "The monitor compares the proxy with the judge's verdict on fresh prompts. Without"
            " intervals: the run logs means alone.",
        ),
    }


def _dpo(findings: Findings) -> Plot:
    """What the policy learns of the pairs, and where their log-probabilities go."""

    def line(label: str, key: str) -> Series:
        found = [row for row in findings.dpo if row[key] is not None]
        return Series(label, [float(row["step"]) for row in found], [row[key] for row in found])

    ratios = [line(name, f"logratio/{name}") for name in ("chosen", "rejected")]
    panels = [
        Panel("loss", [line("loss", "loss/dpo")]),
        Panel("on the label's side", [line("accuracy", "accuracy")], (0, 1)),
        Panel("log π / π_ref\n(nats an answer)", ratios),
    ]
    caption = (
        "Means over the pairs of a step, without intervals. Where the line of the chosen answers"
        " falls, the policy has made them less likely too, only less so than the rejected ones."
    )
    return Plot(figures.panels(panels, "DPO step"), "Direct preference optimisation", caption)


def _climb(findings: Findings, x_of: Mapping[int, float]) -> list[Panel]:
    """The proxy at every step over ``x_of``, and gold where it was recorded."""
    proxy = _proxy(findings, x_of)
    points = [p for p in findings.gold["ppo"] if p["step"] in x_of] if findings.gold else []
    return [Panel("proxy reward", [proxy]), *(_gold_panels(points, x_of) if points else [])]


def _proxy(findings: Findings, x_of: Mapping[int, float]) -> Series:
    """The mean score of a step's rollouts, with the normal interval of their scatter."""
    rows = sorted(findings.ppo, key=lambda row: x_of[row["step"]])  # KL may fall between steps
    mean = [row["objective/scores"] for row in rows]
    error = Z / math.sqrt(findings.settings.ppo.rollouts)
    arms = [error * row.get("objective/scores_std", math.nan) for row in rows]
    return _banded("proxy", [x_of[row["step"]] for row in rows], mean, arms)


def _banded(label: str, x: Sequence[float], y: Sequence[float], arms: Sequence[float]) -> Series:
    """A line with its intervals, or without them where one is not known."""
    if not all(map(math.isfinite, arms)):
        return Series(label, x, y)
    low, high = ([v + sign * arm for v, arm in zip(y, arms, strict=True)] for sign in (-1, 1))
    return Series(label, x, y, low, high)


def _gold_panels(points: Sequence[Mapping[str, Any]], x_of: Mapping[int, float]) -> list[Panel]:
    def line(label: str, key: str) -> Series:
        found = [(x_of[p["step"]], p[key]) for p in points if key in p]
        return _series(label, sorted(found, key=lambda place: place[0]))

    names = {"help where it is due": "helpful", "good refusals of harm": "good_refusal"}
    shares = [line(label, key) for label, key in names.items()]
    shares = [series for series in shares if series.x]
    return [
        Panel("gold preference", [line("gold", "preference")]),
        Panel("gold shares", shares, (0, 1)),
    ]


def _health(findings: Findings) -> list[Panel]:
    """A panel for each watched metric that the run recorded."""
    watched = (
        ("KL (nats)", "objective/kl", None, findings.ppo),
        ("entropy (nats)", "objective/entropy", None, findings.ppo),
        ("judge: P(better\nthan SL-CAI)", "monitor/judge", (0.0, 1.0), findings.monitor),
        ("helpful requests\nrefused", "monitor/refusal_rate", (0.0, 1.0), findings.monitor),
    )
    found = []
    for label, key, bounds, rows in watched:
        read = [row for row in rows if math.isfinite(row.get(key, math.nan))]
        if read:
            found.append(Panel(label, [_with_errors(read, key)], bounds))
    return found


def _with_errors(rows: Sequence[Mapping[str, Any]], key: str) -> Series:
    """A metric by step, with the normal interval where every row has its standard error."""
    errors = [row.get(f"{key}/se") for row in rows]  # null where too few prompts were compared
    arms = [math.nan if error is None else Z * error for error in errors]
    x, y = [float(row["step"]) for row in rows], [float(row[key]) for row in rows]
    return _banded(key, x, y, arms)


def _series(label: str, points: Sequence[tuple[float, Estimate]]) -> Series:
    x, estimates = [float(x) for x, _ in points], [e for _, e in points]
    mean, low, high = ([e[key] for e in estimates] for key in ("mean", "low", "high"))
    return Series(label, x, mean, low, high)


def _rest(share: Estimate) -> Estimate:
    """The share of the others."""
    return {
        "mean": 1 - share["mean"],
        "low": 1 - share["high"],
        "high": 1 - share["low"],
        "n": share["n"],
    }
