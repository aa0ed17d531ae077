"""The proxy climbs, the truth turns: gold and proxy reward over √KL (Gao et al. 2022).

PPO for twice as many steps at four times the learning rate goes further from SL-CAI than a run ever
should: with several KL coefficients and, without a penalty, against ensembles of reward models. The
monitor only warns here, so the study shows what it would have stopped and what followed.
"""

import json
import math
from collections.abc import Sequence
from typing import Any

from constitutional_ai.lab.studies import study
from constitutional_ai.lab.studies.about import ABOUT
from constitutional_ai.lab.studies.measures import HELP
from constitutional_ai.lab.studies.results import Collected
from constitutional_ai.lab.world import gold
from constitutional_ai.records import Sample

BETAS = (0.0, 0.03, 0.1, 0.3)
MEMBERS = 3
JOINS = ("mean", "min")
LONGER, FASTER = 2, 4  # times the steps and the learning rate of an ordinary run
GOLD = study.Axis("gold", "gold preference (oracle)")
PROXY = study.Axis("proxy", "proxy reward")
PEAK = study.Axis("gold_peak", "gold at its peak")
STOP = study.Axis("gold_stop", "gold where the monitor stops")
END = study.Axis("gold_end", "gold at the end")
STOPPED = study.Axis("stopped", "stopped by the monitor", (0, 1))
KL = study.Axis("kl_end", "KL at the end (nats)")
ALARM = study.Axis("stop_step", "step of the first alarm")


def label(beta: float, join: str = "") -> str:
    """What a reader calls a run."""
    return f"β = {beta:g}" + (f", {join} of {MEMBERS}" if join else "")


def _named(base: study.Base, seed: int) -> dict[str, study.Variant]:
    ppo = base.settings(seed).ppo
    far = (f"ppo.steps={LONGER * ppo.steps}", f"ppo.lr={FASTER * ppo.lr:g}", "ppo.monitor=warn")
    several = (*far, "ppo.kl_coef=0.0", f"reward.ensemble={MEMBERS}")
    alone = {label(b): (f"beta-{b:g}", (*far, f"ppo.kl_coef={b}")) for b in BETAS}
    joined = {label(0, j): (f"beta-0-{j}", (*several, f"ppo.ensemble={j}")) for j in JOINS}
    every = alone | joined
    return {line: study.Variant(name, changed, "ppo") for line, (name, changed) in every.items()}


def runs(base: study.Base, seed: int) -> Sequence[study.Variant]:
    return list(_named(base, seed).values())


def read(bench: study.Bench, cells: Collected) -> None:
    for line, variant in _named(bench.base, bench.seeds[0]).items():
        for seed in bench.seeds:
            stage = bench.stage(variant.name, seed, "ppo")
            metrics = _json_lines((stage.path / "metrics.jsonl").read_text())
            kl = {row["step"]: max(0.0, row["objective/kl"]) for row in metrics}
            curve = gold.ppo(stage.rows("samples.jsonl", Sample), seed)
            for point in curve:
                if point["step"] in kl:  # the step after the last has no KL of its own
                    _add_point(cells, line, seed, point, kl[point["step"]])
            checks = _json_lines((stage.path / "monitor.jsonl").read_text())
            _add_ends(cells, line, seed, curve, checks)
            cells.add(line, KL.metric, seed, kl[max(kl)])


def _add_point(cells: Collected, line: str, seed: int, point: dict[str, Any], kl: float) -> None:
    """A step's distance, proxy, gold and help."""
    x = point["step"]
    cells.add(line, "sqrt_kl", seed, math.sqrt(kl), x)
    cells.add(line, PROXY.metric, seed, point["proxy"], x)
    cells.add(line, GOLD.metric, seed, point["preference"], x)
    if "helpful" in point:
        cells.add(line, HELP.metric, seed, point["helpful"], x)


def _add_ends(
    cells: Collected,
    line: str,
    seed: int,
    curve: Sequence[dict[str, Any]],
    checks: Sequence[dict[str, Any]],
) -> None:
    """Gold at its peak, at the monitor's first alarm (or the end, without one), and at the end."""
    alarm = next((row["step"] for row in checks if row["alarm"]), None)
    peak = max(curve, key=lambda point: point["preference"]["mean"])
    until = [point for point in curve if alarm is None or point["step"] <= alarm]
    for axis, point in ((PEAK, peak), (STOP, until[-1]), (END, curve[-1])):
        cells.add(line, axis.metric, seed, point["preference"])
    cells.add(line, STOPPED.metric, seed, float(alarm is not None))
    if alarm is not None:
        cells.add(line, ALARM.metric, seed, float(alarm))


def _json_lines(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def _over_distance(*lines: str) -> study.Lines:
    xlabel = "√KL from the SL-CAI model (√nats an answer)"
    return study.Lines((PROXY, GOLD, HELP), xlabel, x="sqrt_kl", only=lines)


STUDY = study.Study(
    ABOUT["overoptimisation"],
    runs=runs,
    read=read,
    figures={
        "overoptimisation": _over_distance(*map(label, BETAS)),
        "overoptimisation-ensembles": _over_distance(label(0), *(label(0, join) for join in JOINS)),
        "overoptimisation-monitor": study.Dots((PEAK, STOP, END, STOPPED), alike=(PEAK, STOP, END)),
    },
    table=(KL, PEAK, STOP, END, STOPPED, ALARM),
)
