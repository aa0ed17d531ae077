"""Stage 6 with ``learner = "dpo"``: RL-CAI by direct preference optimisation.

The SL-CAI model learns from the judge's soft preferences themselves, and is its own reference
(learning/dpo.py). There is no reward model, no sampling and no monitor. Part of the pairs is held
out, prompt by prompt as stage 5 does it, and only measured: how often the policy has moved towards
the answer that the label prefers, its loss, and how far the log-probabilities of both answers have
moved. Those of the chosen answers often fall as well, which a margin alone hides.
"""

from math import nan
from statistics import fmean
from typing import Any

from scipy.special import expit

from constitutional_ai.errors import DataError
from constitutional_ai.job import Job, model_name
from constitutional_ai.learning import dpo, reward_model
from constitutional_ai.learning.fitting import fitting
from constitutional_ai.learning.policy import Policy
from constitutional_ai.learning.reward_model import LabelledPair
from constitutional_ai.machine import give_back
from constitutional_ai.records import HeldOut, Preference
from constitutional_ai.stages.finetune import sft_examples
from constitutional_ai.stages.reward import CLEAR, PREFERENCES, labelled
from constitutional_ai.stats.calibration import agreement
from constitutional_ai.store.checkpoints import Log, Saving
from constitutional_ai.store.run_folder import CHECKPOINTS
from constitutional_ai.store.seeds import derive_seed

NAME = "dpo"
Named = list[tuple[str, Preference]]  # pairs, each with its place in preferences.jsonl


def run(job: Job) -> dict[str, Any]:
    """Write the model, metrics.jsonl and held_out.jsonl; the counts of the manifest."""
    settings, folder = job.settings.dpo, job.stage(NAME).path
    start = job.stage("finetune").path / "model"
    policy = Policy.to_train(start, job.settings.model)
    named, left_out = usable(job, policy)
    pairs = [labelled(row) for _, row in named]
    seed = derive_seed(job.settings.seed, NAME, job.round)
    kept, held = reward_model.split(pairs, settings.held_out, seed)
    if not kept:
        raise DataError("every labelled pair has the same prompt; none is left to train on")
    # Both before the first step: the policy is still the reference.
    trained, apart = (
        dpo.Pairs(policy, [pairs[n] for n in rows], settings) for rows in (kept, held)
    )
    _train(job, trained, [named[n][0] for n in kept], seed)
    measured = dpo.measure(apart)
    _write_held_out(job, [named[n][1] for n in held], measured)
    policy.save_adapter(folder / "adapter", model_name(job, start))
    policy.merge()
    policy.save_pretrained(folder / "model")
    figures = assess(measured, [pairs[n] for n in held])
    job.progress.note(
        f"DPO: on the label's side in {figures.get('accuracy', nan):.3f} of {figures['n']} held-out"
        f" pairs;"
        f" log-probabilities moved by {figures['logratio_chosen']:+.1f} nats (chosen) and"
        f" {figures['logratio_rejected']:+.1f} (rejected)"
    )
    return {"trained": len(kept), "held_out": len(held), **left_out, **figures}


def usable(job: Job, policy: Policy) -> tuple[Named, dict[str, int]]:
    """The pairs to learn from and to hold out, and how many others there are, by reason.

    A label of exactly 0.5 has no side, so the losses that take sides leave it out. Raises DataError
    if fewer than two pairs are left.
    """
    rows = job.stage("label").rows(PREFERENCES, Preference)
    named = [
        (f"{PREFERENCES}:{line}", row)
        for line, row in enumerate(rows, 1)
        if row.p_chosen is not None
    ]
    sided = [pair for pair in named if job.settings.dpo.loss == "soft" or pair[1].p_chosen != 0.5]
    if len(sided) < 2:
        raise DataError("preferences.jsonl has fewer than two labelled pairs; `--redo label`")

    def length(row: Preference) -> int:
        return dpo.length(policy.tokens, labelled(row))

    fit = fitting(sided, length, policy.context, job.progress.note)
    return fit, {"ties": len(named) - len(sided), "too_long": len(sided) - len(fit)}


def assess(measured: dpo.Measured, pairs: list[LabelledPair]) -> dict[str, Any]:
    """What the manifest says of the held-out pairs; the log-ratios in nats an answer."""
    labels = [pair.p for pair in pairs]
    everyone, clear = agreement(measured.h, labels), agreement(measured.h, labels, CLEAR)
    figures = {
        **everyone,
        "accuracy_clear": clear["accuracy"],
        "n_clear": clear["n"],
        "loss": measured.loss,
        "logratio_chosen": fmean(measured.chosen),
        "logratio_rejected": fmean(measured.rejected),
    }
    return {name: value for name, value in figures.items() if value == value}  # JSON has no NaN


def _train(job: Job, pairs: dpo.Pairs, names: list[str], seed: int) -> None:
    """From the last checkpoint on, if there is one."""
    settings, folder, policy = job.settings.dpo, job.stage(NAME).path, pairs.policy
    examples = sft_examples(job, policy.tokens, policy.context) if settings.sl_mix else ()
    log = Log(folder / "metrics.jsonl")
    saving = Saving(folder / CHECKPOINTS, settings.checkpoint_every, log)
    total = len(pairs.batches) * settings.epochs
    with job.progress.task(NAME, total=total, unit="steps") as tick:
        dpo.train(pairs, seed, log.write, tick, names, saving, examples)
    give_back()


def _write_held_out(job: Job, rows: list[Preference], measured: dpo.Measured) -> None:
    """held_out.jsonl; ``p`` is σ(βh), what the policy's implicit reward makes of the pair."""
    log = Log(job.stage(NAME).path / "held_out.jsonl")
    log.cut(0)
    probable = expit([job.settings.dpo.beta * h for h in measured.h])
    log.write(
        *(
            HeldOut(id=row.id, p=float(p), p_chosen=labelled(row).p).model_dump()
            for row, p in zip(rows, probable, strict=True)
        )
    )
