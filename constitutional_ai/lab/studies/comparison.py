"""CAI against its alternatives at an equal budget, on harmlessness and helpfulness (Figures 2, 3).

Equal budget: every method has the same prompts to align on, pairs to label, rollouts and steps. Two
alternations have half of each in both. The oracle plays the part of people and is named as such:
ideal answers as demonstrations, and preferences of which a share is wrong. RLHF starts from the
same SL-CAI model as RL-CAI, so only who labels differs, and a second time from the demonstrations.
"""

from collections.abc import Sequence
from operator import attrgetter

from constitutional_ai.evaluation.rows import Transcript
from constitutional_ai.lab.studies import baselines, measures, study
from constitutional_ai.lab.studies.about import ABOUT
from constitutional_ai.lab.studies.measures import (
    BASE,
    BORDERLINE,
    FALSE,
    GOOD,
    HARM,
    HARMLESS,
    HELP,
    REFUSED,
    RL,
    SL,
)
from constitutional_ai.lab.studies.results import Collected
from constitutional_ai.settings import Settings
from constitutional_ai.stats import elo

NOISES = (0.1, 0.25)
ALPHAS = (1.0, 3.0, 10.0)  # of L_SL + α L_RL; ppo.sl_mix is 1 / α
THOUGHTS = study.Variant(
    "thoughts", ("label.method=thoughts", "label.samples=1", "label.max_new_tokens=16"), "ppo"
)
_DEMONSTRATED = (
    f"revise.critic={baselines.DEMONSTRATIONS}",
    "revise.rounds=1",
    "finetune.every_revision=false",
)
_HALVED = (
    "revise.prompts", "finetune.helpful", "sample.red_team", "sample.helpful", "ppo.steps",
)  # fmt: skip
HARMLESS_ELO = study.Axis("elo_harmless", "Elo on harmful requests")
HELPFUL_ELO = study.Axis("elo_helpful", "Elo on other requests")
BASELINE, TUNED, CAI, COT = "base, helpful only", "SL-CAI", "RL-CAI", "RL-CAI, chain of thought"


def rlhf(noise: float) -> str:
    """What a line of RLHF is called."""
    return f"RLHF, {noise:.0%} noise (oracle)"


PEOPLE = rlhf(NOISES[-1])


def labelled(noise: float) -> tuple[str, ...]:
    """People's preferences. Nobody asks people again, so nothing watches this run."""
    return (f"label.judge=oracle:noise={noise:g}", "ppo.monitor=off")


def noisy(noise: float) -> study.Variant:
    return study.Variant(f"rlhf-{noise:g}", labelled(noise), "ppo")


def lines(base: study.Base, seed: int) -> Sequence[study.Line]:
    demonstrated = study.Variant("sft", _DEMONSTRATED)
    on_both = study.Variant("sft-rlhf", (*_DEMONSTRATED, *labelled(NOISES[-1])), "ppo")
    joint = {a: study.Variant(f"joint-{a:g}", (f"ppo.sl_mix={1 / a:.4g}",), "ppo") for a in ALPHAS}
    twice = study.Variant("twice", halved(base.settings(seed)), "ppo")
    return [
        study.Line(BASELINE, study.COMMON_RL, BASE),
        study.Line("SFT on demonstrations (oracle)", demonstrated, SL),
        study.Line(TUNED, study.COMMON_RL, SL),
        *(study.Line(rlhf(noise), noisy(noise), RL) for noise in NOISES),
        study.Line("RLHF on demonstrations, 25% noise (oracle)", on_both, RL),
        study.Line(CAI, study.COMMON_RL, RL),
        study.Line(COT, THOUGHTS, RL),
        *(study.Line(f"joint L_SL + {alpha:g} L_RL", run, RL) for alpha, run in joint.items()),
        study.Line("CAI, two alternations", twice, RL),
    ]


def halved(settings: Settings) -> tuple[str, ...]:
    """Two rounds, each with half of what one round has."""
    changed = (f"{name}={max(1, attrgetter(name)(settings) // 2)}" for name in _HALVED)
    return ("rounds=2", "finetune.every_revision=false", *changed)


def read(bench: study.Bench, cells: Collected) -> None:
    compared = lines(bench.base, bench.seeds[0])
    for seed in bench.seeds:
        rows = [
            row.model_copy(update={"model": line.name})
            for line in compared
            for row in measures.transcripts(bench, line, seed)
        ]
        _add_elo(cells, rows, [line.name for line in compared], seed)


def _add_elo(cells: Collected, rows: Sequence[Transcript], names: list[str], seed: int) -> None:
    """Elo above the base, on harmful requests and on the others."""
    harmful = [row for row in rows if row.kind == "harmful"]
    others = [row for row in rows if row.kind != "harmful"]
    for axis, group in ((HARMLESS_ELO, harmful), (HELPFUL_ELO, others)):
        if games := measures.games(group):
            for line, score in elo.ratings(games, names, seed).models.items():
                cells.add(line, axis.metric, seed, score)


STUDY = study.Study(
    ABOUT["comparison"],
    lines=lines,
    read=read,
    figures={
        "comparison": study.Plane(HELP, HARMLESS),
        "comparison-elo": study.Dots((HARMLESS_ELO, HELPFUL_ELO)),
        "comparison-scores": study.Dots((HARM, GOOD, HELP, REFUSED)),
    },
    table=(HARM, GOOD, HELP, BORDERLINE, REFUSED, FALSE, HARMLESS_ELO, HELPFUL_ELO),
)
