"""Do our PPO and TRL 1.12.0's compute the same? On one rollout, recorded from TRL's own run.

    make bench-env
    python bench/parity.py [--model lab:xxs] [--json FILE]

TRL's PPOTrainer makes one rollout and trains on it, in float32. Its formulas stand inside its
``train``, so they are not called but watched: two functions that it calls look into the calling
frame and copy what is there. Then ours compute the same from the same ids, masks, values, rewards
and log-probabilities. Nothing of TRL's is written down here.

Two differences are of design; each is checked to be exactly that, and no more:
whitening    TRL divides by the sample's deviation, ours by the population's: √((n − 1) / n) apart.
the score    TRL gives it one place behind the end token, as a token of its own with a value; ours
             gives it at the end token. With γ = 1 the advantage of a token k before the end then
             differs by λᵏ (1 − λ) (V_behind − score), in answers that ended; in others not at all.
"""

import argparse
import json
import os
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

import compare
import models
import turns

from constitutional_ai.errors import UserError

FORMULA = 1e-5  # what the formulas may differ by
FORWARD = 1e-4  # what two forward passes over other paddings may: sums in another order
TRL = "1.12.0"
ROWS, TOKENS, EPOCHS = 16, 28, 3
KL_COEF, CLIP, GAMMA, LAMBDA = 0.1, 0.2, 1.0, 0.95

Found = dict[str, tuple[float, float]]  # name → (largest difference, what it may be)


def main() -> None:
    """Run again over TRL's environment, record, compare, print; exit code 1 where they differ."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--model", default="lab:xxs")
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args()
    try:
        overlays = turns.trl_overlays(TRL)
    except UserError as error:
        parser.error(str(error))
    if overlays and str(overlays[0]) not in sys.path:
        path = os.pathsep.join(map(str, [*overlays, compare.ROOT]))
        os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, "PYTHONPATH": path})
    facts, found = run(options.model)
    print(f"{compare.versions(TRL)}\n" + "\n".join(f"{k}: {v}" for k, v in facts.items()))
    for name, (difference, limit) in found.items():
        print(f"{name:<40}{difference:>12.2e}  {'ok' if difference <= limit else f'> {limit}'}")
    if options.json:
        options.json.write_text(json.dumps({"facts": facts, "found": found}), encoding="utf-8")
    if any(not difference <= limit for difference, limit in found.values()):  # NaN is none
        sys.exit(1)


def run(model: str) -> tuple[dict[str, float], Found]:
    """What the rollout held, and how far apart the two are on it."""
    import trl

    from constitutional_ai import machine

    assert trl.__version__ == TRL, trl.__version__
    machine.has_fast_bf16 = lambda device: False  # rounding to bfloat16 would hide differences
    os.environ["ACCELERATE_MIXED_PRECISION"] = "no"
    with tempfile.TemporaryDirectory() as made:
        job = prepare(model, Path(made))
        recorded = record(job, Path(made))
        found = {**formulas(recorded), **score_place(recorded), **forwards(job, recorded)}
    rollout, last = recorded.rollout, recorded.updates[-1]
    mask = ~rollout["padding_mask"]
    facts = {
        "answers": len(mask),
        "answers that ended": int(rollout["contain_eos_token"].sum()),
        "answer tokens": int(mask.sum()),
        "mean KL of an answer, nats": round(float(rollout["kl"].sum(dim=1).mean()), 3),
        "largest advantage": round(float(rollout["advantages"][mask].abs().max()), 3),
        "updates": len(recorded.updates),
        "policy clip share, last update": float(last["pg_clipfrac"]),
        "value clip share, last update": float(last["vf_clipfrac"]),
    }
    return facts, found


def prepare(model: str, made: Path) -> dict[str, Any]:
    from constitutional_ai.data.prompts import load_prompts
    from constitutional_ai.engines.local import load
    from constitutional_ai.engines.tokens import ChatTokens

    policy = models.folder_of(model, made)
    spelling = ChatTokens(load(policy, device="cpu")[1])
    prompts = load_prompts("lab", "red-team", ROWS, seed=0)
    return {
        "policy": policy,
        # A reference and a value that are others than policy and reward, so that neither the KL nor
        # the difference of value and score is zero.
        "reference": models.write_neighbour(policy, made / "reference"),
        "reward": models.write_reward_model(policy, made / "reward"),
        "value": models.write_reward_model(policy, made / "value", seed=1),
        "ids": [spelling.prompt(prompt.prompt) for prompt in prompts],
        "rollouts": ROWS,
        "rounds": 1,
        "epochs": EPOCHS,
        "max_new_tokens": TOKENS,
        "device": "cpu",
        "attention": "eager",
    }


# --------------------------------------------------------------------------------------- recording


@dataclass
class Recorded:
    """TRL's own variables, by their names: of the rollout, and of each update."""

    rollout: dict[str, Any] = field(default_factory=dict)
    updates: list[dict[str, Any]] = field(default_factory=list)


def record(job: dict[str, Any], folder: Path) -> Recorded:
    """One rollout of TRL's and ``EPOCHS`` updates on it, each of the whole batch."""
    import ppo_trl
    from trl.experimental.ppo import ppo_trainer

    recorded = Recorded()
    whiten, mean = ppo_trainer.masked_whiten, ppo_trainer.masked_mean

    def watched_whiten(*args: Any, **kwargs: Any) -> Any:
        white = whiten(*args, **kwargs)
        recorded.rollout = {**tensors_of(sys._getframe(1)), "white": white.clone()}
        return white

    def watched_mean(*args: Any, **kwargs: Any) -> Any:
        value = mean(*args, **kwargs)
        caller = sys._getframe(1)
        # Its last call in an update is for the clip share; all losses stand by then.
        if caller.f_code.co_name == "train" and "pg_loss" in caller.f_locals:
            recorded.updates.append({**tensors_of(caller), "pg_clipfrac": value.clone()})
        return value

    ppo_trainer.masked_whiten, ppo_trainer.masked_mean = watched_whiten, watched_mean
    trainer = ppo_trl.make(
        job,
        folder,
        **{**ppo_trl.TUNED, **ppo_trl.micro_batches(ROWS, ROWS)},
        total_episodes=ROWS,
        learning_rate=2e-3,  # so far that the clips decide
        kl_coef=KL_COEF,
        cliprange=CLIP,
        cliprange_value=CLIP,
        gamma=GAMMA,
        lam=LAMBDA,
        disable_tqdm=True,
    )
    trainer.train()
    return recorded


def tensors_of(frame: FrameType) -> dict[str, Any]:
    """Copies of all tensors in a frame, by name, and the rows that are being worked on."""
    import torch

    found = frame.f_locals
    tensors = {k: v.detach().clone() for k, v in found.items() if isinstance(v, torch.Tensor)}
    if "micro_batch_inds" in found:
        tensors["rows"] = torch.from_numpy(found["micro_batch_inds"].copy())
    return tensors


# --------------------------------------------------------------------------------------- comparing


def formulas(recorded: Recorded) -> Found:
    """Ours on TRL's masks, rewards, values. Its value mask reaches one place behind the end."""
    from constitutional_ai.learning import losses

    rollout, found = recorded.rollout, {}
    mask, value_mask = ~rollout["padding_mask"], ~rollout["padding_mask_p1"]
    kl = losses.kl_k1(rollout["logprobs"], rollout["ref_logprobs"], mask)
    found["KL penalty of each token"] = apart(-KL_COEF * kl, rollout["non_score_reward"], mask)
    advantages, returns = losses.gae(
        rollout["rewards"], rollout["values"], value_mask, GAMMA, LAMBDA
    )
    found["advantages"] = apart(advantages, rollout["advantages"], value_mask)
    found["returns"] = apart(returns, rollout["returns"], value_mask)
    n = int(mask.sum())
    white = losses.whiten(advantages, mask) * ((n - 1) / n) ** 0.5
    found["whitened advantages"] = apart(white, rollout["white"], mask)
    for number, update in enumerate(recorded.updates):
        # Minibatches of the whole rollout in another order.
        rows = update["rows"]
        policy = losses.policy_loss(
            losses.log_ratio(update["new_logprobs"], update["mb_logprobs"], mask[rows], 10.0),
            update["mb_advantage"],
            mask[rows],
            CLIP,
        )
        value = losses.value_loss(
            update["vpred"], update["mb_values"], update["mb_return"], value_mask[rows], CLIP
        )
        found[f"policy loss, update {number}"] = apart(policy.loss, update["pg_loss"])
        found[f"policy clip share, update {number}"] = apart(policy.clipfrac, update["pg_clipfrac"])
        found[f"value loss, update {number}"] = apart(value.loss, update["vf_loss"])
        found[f"value clip share, update {number}"] = apart(value.clipfrac, update["vf_clipfrac"])
    return {name: (difference, FORMULA) for name, difference in found.items()}


def score_place(recorded: Recorded) -> Found:
    """The score at the end token, as ours has it: as far from TRL's as the module says."""
    import torch

    from constitutional_ai.learning import losses

    rollout = recorded.rollout
    mask, values, scores = ~rollout["padding_mask"], rollout["values"], rollout["scores"]
    last, width = rollout["sequence_lengths"], mask.shape[1]
    rewards = rollout["non_score_reward"].scatter_add(1, last[:, None], scores[:, None])
    ours, _ = losses.gae(rewards, values, mask, GAMMA, LAMBDA)
    behind = values.gather(1, (last + 1).clamp(max=width - 1)[:, None])[:, 0]
    gap = torch.where(last + 1 < width, (1 - LAMBDA) * (behind - scores), 0.0)
    before_end = (last[:, None] - torch.arange(width)).clamp(min=0)
    told = rollout["advantages"] - gap[:, None] * LAMBDA**before_end
    return {"advantages, score at the end token": (apart(ours, told, mask), FORMULA)}


def forwards(job: dict[str, Any], recorded: Recorded) -> Found:
    """Our log-probabilities, scores and values of the same ids, from the same folders."""
    import torch

    from constitutional_ai.learning.policy import Batch, Policy
    from constitutional_ai.learning.reward_model import RewardModel

    rollout, policy = recorded.rollout, Policy.load(job["policy"], "cpu")
    reference = Policy.load(job["reference"], "cpu")
    reward, value = RewardModel.load(job["reward"]), RewardModel.load(job["value"])
    mask, start = ~rollout["padding_mask"], int(rollout["queries"].shape[1])
    rows = [
        ([i for i in ids[:start].tolist() if i != policy.tokens.pad_id], ids[start:][kept].tolist())
        for ids, kept in zip(rollout["query_responses"], mask, strict=True)
    ]
    batch = Batch.of(rows, policy.tokens.pad_id, policy.device)
    with torch.no_grad():
        logprobs_N = policy.logprobs(batch)[batch.mask_BS]
        reference_N = reference.logprobs(batch)[batch.mask_BS]
        values_N = value.score_states(value.states(batch.ids_BT))[:, :-1][batch.mask_BS]
        scores_B = reward.at_end([prompt + answer for prompt, answer in rows])
    penalty = 2.0 * (~rollout["contain_eos_token"]).float()  # TRL has taken it off already
    found = {
        "log-probabilities of the answers": apart(logprobs_N, rollout["logprobs"][mask]),
        "those of the reference": apart(reference_N, rollout["ref_logprobs"][mask]),
        "values": apart(values_N, rollout["values"][mask]),
        "scores": apart(scores_B - penalty, rollout["scores"]),
    }
    return {name: (difference, FORWARD) for name, difference in found.items()}


def apart(ours: Any, theirs: Any, mask: Any = None) -> float:
    """The largest difference, over a mask where one is given; of a share or a loss, its own."""
    difference = (ours - theirs).abs()
    return float((difference if mask is None else difference[mask]).max())


if __name__ == "__main__":
    main()
