"""CAI against its alternatives at an equal budget, on harmlessness and helpfulness (Figures 2, 3).

Equal budget: every method has the same prompts to align on, pairs to label, rollouts and steps. Two
alternations have half of each in both. People's part is the oracle's, named as such: ideal answers
as demonstrations, and preferences of which a share is turned over. RLHF starts from the same SL-CAI
model as RL-CAI, so that who labels is all that differs, and a second time from the demonstrations.
"""

from collections.abc import Sequence

from constitutional_ai.evaluation.rows import Transcript
from constitutional_ai.lab.studies import baselines
from constitutional_ai.lab.studies import gold_readings as truth
from constitutional_ai.lab.studies import model_scores as answering
from constitutional_ai.lab.studies.model_scores import (
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
from constitutional_ai.lab.studies.plan import (
    COMMON,
    Axis,
    Base,
    Bench,
    Dots,
    Measurement,
    Plane,
    Study,
    Variant,
)
from constitutional_ai.lab.studies.results import Collected
from constitutional_ai.settings import Settings
from constitutional_ai.stats import elo

NOISES = (0.1, 0.25)
ALPHAS = (1.0, 3.0, 10.0)  # of L_SL + α L_RL; ppo.sl_mix is 1 / α
THOUGHTS = Variant(
    "thoughts", ("label.method=thoughts", "label.samples=1", "label.max_new_tokens=16"), "ppo"
)
_DEMONSTRATED = (
    f"revise.critic={baselines.DEMONSTRATIONS}",
    "revise.rounds=1",
    "finetune.every_revision=false",
)
HARMLESS_ELO = Axis("elo_harmless", "Elo on harmful requests")
HELPFUL_ELO = Axis("elo_helpful", "Elo on other requests")

# The lines: what a reader calls it, the variant, the model.
LINES: dict[str, tuple[str, str]] = {
    "base, helpful only": (COMMON, BASE),
    "SFT on demonstrations (oracle)": ("sft", SL),
    "SL-CAI": (COMMON, SL),
    **{f"RLHF, {noise:.0%} noise (oracle)": (f"rlhf-{noise:g}", RL) for noise in NOISES},
    "RLHF on demonstrations, 25% noise (oracle)": ("sft-rlhf", RL),
    "RL-CAI": (COMMON, RL),
    "RL-CAI, chain of thought": (THOUGHTS.name, RL),
    **{f"joint L_SL + {alpha:g} L_RL": (f"joint-{alpha:g}", RL) for alpha in ALPHAS},
    "CAI, two alternations": ("twice", RL),
}


def noisy(noise: float) -> Variant:
    """People's preferences; they are not asked again, so nothing watches this run."""
    return Variant(
        f"rlhf-{noise:g}", (f"label.judge=oracle:noise={noise:g}", "ppo.monitor=off"), "ppo"
    )


def variants(base: Base, seed: int) -> Sequence[Variant]:
    labelled = (f"label.judge=oracle:noise={NOISES[-1]:g}", "ppo.monitor=off")
    return [
        Variant(COMMON, until="ppo"),
        Variant("sft", _DEMONSTRATED),
        *map(noisy, NOISES),
        Variant("sft-rlhf", (*_DEMONSTRATED, *labelled), "ppo"),
        THOUGHTS,
        *(Variant(f"joint-{a:g}", (f"ppo.sl_mix={1 / a:.4g}",), "ppo") for a in ALPHAS),
        Variant("twice", halved(base.settings(seed)), "ppo"),
    ]


def halved(settings: Settings) -> tuple[str, ...]:
    """Two rounds, each with half of what one round has."""
    half = {
        "revise.prompts": settings.revise.prompts,
        "finetune.helpful": settings.finetune.helpful,
        "sample.red_team": settings.sample.red_team,
        "sample.helpful": settings.sample.helpful,
        "ppo.steps": settings.ppo.steps,
    }
    changed = (f"{name}={max(1, value // 2)}" for name, value in half.items())
    return ("rounds=2", "finetune.every_revision=false", *changed)


def measurements(base: Base, seed: int) -> Sequence[Measurement]:
    return [answering.asked(variant, model) for variant, model in LINES.values()]


def read(bench: Bench, found: Collected) -> None:
    for line, (variant, model) in LINES.items():
        answering.add(found, bench, line, variant, model)
    for seed in bench.seeds:
        rows = [
            row.model_copy(update={"model": line})
            for line, (variant, model) in LINES.items()
            for row in answering.transcripts(bench, variant, seed, model)
        ]
        _add_elo(found, rows, seed)


def _add_elo(found: Collected, rows: Sequence[Transcript], seed: int) -> None:
    """Elo above the base, on harmful requests and on the others."""
    harmful = [row for row in rows if row.kind == "harmful"]
    others = [row for row in rows if row.kind != "harmful"]
    for axis, group in ((HARMLESS_ELO, harmful), (HELPFUL_ELO, others)):
        games = truth.games(group)
        if games:
            for line, score in elo.ratings(games, list(LINES), seed).models.items():
                found.add(line, axis.metric, seed, score)


STUDY = Study(
    name="comparison",
    title="Methods at an equal budget",
    paper="Figures 2 and 3",
    question="Which method gives a model that is harmless and still helpful?",
    variants=variants,
    measurements=measurements,
    read=read,
    figures={
        "comparison": Plane(HELP, HARMLESS),
        "comparison-elo": Dots((HARMLESS_ELO, HELPFUL_ELO)),
        "comparison-scores": Dots((HARM, GOOD, HELP, REFUSED)),
    },
    table=(HARM, GOOD, HELP, BORDERLINE, REFUSED, FALSE, HARMLESS_ELO, HELPFUL_ELO),
    caveats=(
        "Lines marked (oracle) are baselines that read the truth where people would be asked: ideal"
        " answers written for the same prompts, or the better one of two answers with that share of"
        " verdicts turned over by chance. No other run sees it.",
        "Elo: every two models' answers to a prompt, the better one by the oracle the winner,"
        " fitted by Bradley and Terry's model, the base at 0. The paper asked crowdworkers.",
    ),
)
