"""The proxy climbs, the truth turns: gold and proxy reward over √KL (Gao et al. 2022).

PPO for twice as many steps at four times the learning rate, which goes as far from SL-CAI as a run
ever should not: with several KL coefficients and, without a penalty, against ensembles of reward
models. The monitor only warns here, so that one sees what it would have stopped and what followed.
"""

import json
import math
from collections.abc import Sequence
from typing import Any

from constitutional_ai.lab.studies import gold_readings as truth
from constitutional_ai.lab.studies.model_scores import HELP
from constitutional_ai.lab.studies.plan import (
    Axis,
    Base,
    Bench,
    Dots,
    Lines,
    Measurement,
    Study,
    Variant,
)
from constitutional_ai.lab.studies.results import Collected
from constitutional_ai.records import Sample

BETAS = (0.0, 0.03, 0.1, 0.3)
MEMBERS = 3
LONGER, FASTER = 2, 4  # times the steps and the learning rate of an ordinary run
GOLD = Axis("gold", "gold preference (oracle)")
PROXY = Axis("proxy", "proxy reward")
PEAK = Axis("gold_peak", "gold at its peak")
STOP = Axis("gold_stop", "gold where the monitor stops")
END = Axis("gold_end", "gold at the end")
STOPPED = Axis("stopped", "stopped by the monitor", (0, 1))
KL = Axis("kl_end", "KL at the end (nats)")
AFTER = Axis("stop_step", "step of the first alarm")


def label(beta: float, join: str = "") -> str:
    return f"β = {beta:g}" + (f", {join} of {MEMBERS}" if join else "")


def _lines() -> dict[str, str]:
    """What a reader calls a run, and its variant."""
    found = {label(beta): f"beta-{beta:g}" for beta in BETAS}
    return found | {label(0, join): f"beta-0-{join}" for join in ("mean", "min")}


def variants(base: Base, seed: int) -> Sequence[Variant]:
    ppo = base.settings(seed).ppo
    far = (f"ppo.steps={LONGER * ppo.steps}", f"ppo.lr={FASTER * ppo.lr:g}", "ppo.monitor=warn")
    plain = [Variant(f"beta-{b:g}", (*far, f"ppo.kl_coef={b}"), "ppo") for b in BETAS]
    several = (*far, "ppo.kl_coef=0.0", f"reward.ensemble={MEMBERS}")
    joined = [
        Variant(f"beta-0-{join}", (*several, f"ppo.ensemble={join}"), "ppo")
        for join in ("mean", "min")
    ]
    return [*plain, *joined]


def measurements(base: Base, seed: int) -> Sequence[Measurement]:
    return []


def read(bench: Bench, found: Collected) -> None:
    for line, variant in _lines().items():
        for seed in bench.seeds:
            stage = bench.stage(variant, seed, "ppo")
            metrics = _json_lines((stage.path / "metrics.jsonl").read_text())
            kl = {row["step"]: max(0.0, row["objective/kl"]) for row in metrics}
            curve = truth.through_training(stage.rows("samples.jsonl", Sample), seed)
            for point in curve:
                _add_point(found, line, seed, point, kl.get(point["step"]))
            checks = _json_lines((stage.path / "monitor.jsonl").read_text())
            _add_ends(found, line, seed, curve, checks)
            found.add(line, KL.metric, seed, kl[max(kl)])


def _add_point(
    found: Collected, line: str, seed: int, point: dict[str, Any], kl: float | None
) -> None:
    """A step's proxy, gold and help; the step after the last has no KL of its own."""
    if kl is None:
        return
    x = point["step"]
    found.add(line, "sqrt_kl", seed, math.sqrt(kl), x)
    found.add(line, PROXY.metric, seed, point["proxy"], x)
    found.add(line, GOLD.metric, seed, point["preference"], x)
    if "helpful" in point:
        found.add(line, HELP.metric, seed, point["helpful"], x)


def _add_ends(
    found: Collected,
    line: str,
    seed: int,
    curve: Sequence[dict[str, Any]],
    checks: Sequence[dict[str, Any]],
) -> None:
    """Gold at its peak, at the monitor's first alarm (or the end, without one), and at the end."""
    alarm = next((row["step"] for row in checks if row["alarm"]), None)
    peak = max(curve, key=lambda point: point["preference"]["mean"])
    until = [p for p in curve if alarm is None or p["step"] <= alarm]
    found.add(line, PEAK.metric, seed, peak["preference"])
    found.add(line, STOP.metric, seed, until[-1]["preference"])
    found.add(line, END.metric, seed, curve[-1]["preference"])
    found.add(line, STOPPED.metric, seed, float(alarm is not None))
    if alarm is not None:
        found.add(line, AFTER.metric, seed, float(alarm))


def _json_lines(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


STUDY = Study(
    name="overoptimisation",
    title="Over-optimisation",
    paper="Section 4.3 and Gao et al. 2022",
    question="Where does the reward part from the truth, and what holds it off?",
    variants=variants,
    measurements=measurements,
    read=read,
    figures={
        "overoptimisation": Lines(
            (PROXY, GOLD, HELP),
            "√KL from the SL-CAI model (√nats an answer)",
            x="sqrt_kl",
            only=tuple(label(beta) for beta in BETAS),
        ),
        "overoptimisation-ensembles": Lines(
            (PROXY, GOLD, HELP),
            "√KL from the SL-CAI model (√nats an answer)",
            x="sqrt_kl",
            only=(label(0), label(0, "mean"), label(0, "min")),
        ),
        "overoptimisation-monitor": Dots((PEAK, STOP, END, STOPPED), alike=(PEAK, STOP, END)),
    },
    table=(KL, PEAK, STOP, END, STOPPED, AFTER),
    caveats=(
        "Points are PPO steps, in the order of their distance: the x of a point is √ of the mean KL"
        " over seeds at that step. The monitor reads the judge's verdicts and the text, never the"
        " truth; where it raised no alarm, its gold is that at the end.",
        f"The {MEMBERS} reward models of an ensemble start from the same weights and are fitted to"
        " different resamples of the same labels, so they share what the judge gets wrong.",
    ),
)
