"""Stage 5: the reward model, fitted to the judge's soft preferences (paper, section 4.1).

Part of the pairs is held out, prompt by prompt, and only measures: how often the model is on the
label's side, and whether its probabilities mean what they say. A temperature is fitted on one half
of them and tested on the other, both ways round, and kept if it lowers the calibration error. The
error that is reported knows nothing of that choice: see ``assess``.

With ``ensemble = k`` there are ``model-2`` … ``model-k`` beside ``model``, each fitted to a
resample of the same pairs in an order of its own; PPO joins their scores (learning/reward.py).
"""

import json
import random
from collections.abc import Sequence
from typing import Any

from scipy.special import expit

from constitutional_ai.errors import DataError
from constitutional_ai.job import Job, model_name
from constitutional_ai.learning import reward_model
from constitutional_ai.learning.fitting import fitting
from constitutional_ai.learning.lora import training_dtype
from constitutional_ai.learning.policy import Policy
from constitutional_ai.learning.reward_model import LabelledPair, RewardModel
from constitutional_ai.machine import give_back
from constitutional_ai.records import HeldOut, Preference
from constitutional_ai.stats.calibration import agreement, calibration, fit_temperature
from constitutional_ai.store.atomic import write_atomic
from constitutional_ai.store.checkpoints import Log, Saving
from constitutional_ai.store.run_folder import CHECKPOINTS
from constitutional_ai.store.seeds import derive_seed

NAME = "reward"
PREFERENCES = "preferences.jsonl"
Learned = Sequence[tuple[str, LabelledPair]]  # pairs, each with its place in preferences.jsonl
CLEAR = 0.1  # a label further than this from 0.5 has a clear side


def run(job: Job) -> dict[str, Any]:
    """Write model, metrics.jsonl, held_out.jsonl, calibration.json; the manifest's counts."""
    settings, folder = job.settings.reward, job.stage(NAME).path
    rows = job.stage("label").rows(PREFERENCES, Preference)
    lines = [line for line, row in enumerate(rows, 1) if row.p_chosen is not None]
    rows = [rows[line - 1] for line in lines]
    if len(rows) < 2:
        raise DataError("preferences.jsonl has fewer than two labelled pairs; `--redo label`")
    reward = _untrained(job)
    named = [(f"{PREFERENCES}:{line}", row) for line, row in zip(lines, rows, strict=True)]
    fit = fitting(
        named, lambda row: reward.length(labelled(row)), reward.context, job.progress.note
    )
    too_long = len(rows) - len(fit)
    places, rows = [place for place, _ in fit], [row for _, row in fit]
    pairs = [labelled(row) for row in rows]
    seed = derive_seed(job.settings.seed, NAME, job.round)
    kept, held = reward_model.split(pairs, settings.held_out, seed)
    if not kept:
        raise DataError("every labelled pair has the same prompt; none is left to train on")
    learned = [(places[n], pairs[n]) for n in kept]
    _train(job, reward, "model", learned, seed)
    for number in range(2, settings.ensemble + 1):
        _fit_member(job, number, learned, seed)

    give_back()
    delta = reward_model.logits(reward, [pairs[n] for n in held])
    labels = [pairs[n].p for n in held]
    measured = assess(delta, labels)
    reward.rescale(measured["temperature"])
    predicted = expit([d / measured["temperature"] for d in delta])
    log = Log(folder / "held_out.jsonl")
    log.cut(0)
    log.write(
        *(
            HeldOut(id=rows[n].id, p=float(p), p_chosen=pairs[n].p).model_dump()
            for n, p in zip(held, predicted, strict=True)
        )
    )
    figures = _known(measured)
    text = json.dumps(figures, indent=2, allow_nan=False)
    write_atomic(folder / "calibration.json", text + "\n")
    start = job.stage("finetune").path / "model"
    reward.save_adapter(folder / "adapter", model_name(job, start))
    reward.merge()
    reward.save_pretrained(folder / "model")
    job.progress.note(
        f"reward model: on the label's side in {measured['accuracy']:.3f} of {measured['n']}"
        f" held-out pairs ({measured['accuracy_clear']:.3f} of the clear ones), calibration error"
        f" {measured['ece']:.3f}"
    )
    figures.pop("bins")
    return {"trained": len(kept), "held_out": len(held), "too_long": too_long, **figures}


def _untrained(job: Job) -> RewardModel:
    """The SL-CAI model under a zero head, ready to be trained."""
    start, options = job.stage("finetune").path / "model", job.settings.model
    reward = RewardModel.from_policy(Policy.load(start, options.device, training_dtype(options)))
    reward.prepare(options)
    return reward


def _train(job: Job, reward: RewardModel, name: str, learned: Learned, seed: int) -> None:
    """Fit one reward model, from its last checkpoint on; ``model-k`` logs in metrics-k.jsonl."""
    folder, settings = job.stage(NAME).path, job.settings.reward
    log = Log(folder / f"{name.replace('model', 'metrics')}.jsonl")
    saving = Saving(folder / CHECKPOINTS / name, settings.checkpoint_every, log)
    lines, pairs = [line for line, _ in learned], [pair for _, pair in learned]
    total = -(-len(pairs) // settings.batch_pairs) * settings.epochs
    with job.progress.task(name.replace("model", NAME), total=total, unit="steps") as tick:
        reward_model.train(reward, pairs, settings, seed, log.write, tick, lines, saving)


def _fit_member(job: Job, number: int, learned: Learned, seed: int) -> None:
    """Train and save ``model-NUMBER`` on a resample of the pairs, unless it is there already."""
    target = job.stage(NAME).path / f"model-{number}"
    if target.exists():
        return
    own = derive_seed(seed, "member", number)
    drawn = random.Random(own).choices(learned, k=len(learned))
    reward = _untrained(job)
    _train(job, reward, target.name, drawn, own)
    reward.merge()
    reward.save_pretrained(target)
    give_back()


def labelled(row: Preference) -> LabelledPair:
    """A preference row as what is trained on. The row must carry a label."""
    assert row.p_chosen is not None
    return LabelledPair(
        row.prompt, row.chosen[-1]["content"], row.rejected[-1]["content"], row.p_chosen
    )


def assess(delta: Sequence[float], labels: Sequence[float]) -> dict[str, Any]:
    """Agreement and calibration of held-out pairs, with the temperature that is to be applied.

    ``ece`` and ``bins`` are cross-fitted: whether a half is rescaled, and by what, the other half
    alone decides. So no pair is measured with a temperature that it helped to fit or to choose.
    """
    everyone, clear = agreement(delta, labels), agreement(delta, labels, CLEAR)
    before = calibration(delta, labels)
    halves = [(delta[part::2], labels[part::2]) for part in (0, 1)]
    temperature, honest, after_ece = 1.0, before, before["ece"]
    if all(len(half) >= 10 for half, _ in halves):
        fitted = [fit_temperature(*half) for half in halves]
        after_ece = _crossed(halves, fitted)["ece"]
        honest = _crossed(halves, [_chosen(*h, t) for h, t in zip(halves, fitted, strict=True)])
        if after_ece < before["ece"]:
            temperature = fit_temperature(delta, labels)
    return {
        "accuracy": everyone["accuracy"],
        "n": everyone["n"],
        "accuracy_clear": clear["accuracy"],
        "n_clear": clear["n"],
        "ece_before": before["ece"],
        "ece_after": after_ece,
        "temperature": temperature,
        **honest,
    }


Half = tuple[Sequence[float], Sequence[float]]  # Δ and soft labels of the same pairs


def _crossed(halves: Sequence[Half], temperatures: Sequence[float]) -> dict[str, Any]:
    """The calibration of all pairs, each half divided by the other's temperature."""
    rescaled = [d / temperatures[1 - part] for part in (0, 1) for d in halves[part][0]]
    return calibration(rescaled, [p for _, half in halves for p in half])


def _chosen(delta: Sequence[float], labels: Sequence[float], fitted: float) -> float:
    """The fitted temperature if it lowers the error of the pairs it was fitted to, else 1."""
    lower = calibration([d / fitted for d in delta], labels)["ece"]
    return fitted if lower < calibration(delta, labels)["ece"] else 1.0


def _known(measured: dict[str, Any]) -> dict[str, Any]:
    """Without what could not be measured, such as agreement if no label is clear."""
    return {name: value for name, value in measured.items() if value == value}  # JSON has no NaN
