"""RL-CAI: token-level PPO against a reward, with a KL penalty towards the SL-CAI model.

A step is ``rollout``, then ``update``. In order (Bai et al. 2022, section 4.2; the details follow
Ziegler et al. 2019 and Huang et al. 2024, arXiv 2403.17031):

1. The policy answers a batch of prompts; policy and reference give log-probabilities of the
   answers.
2. Reward of a token: −β (log π − log π_ref); the last token of an answer also gets the score, less
   a penalty where the end token is missing.
3. Values, masked GAE, advantages whitened over the batch.
4. Minibatches of the clipped policy loss, plus ``sl_mix`` times the SFT loss where that is set.
5. The value function follows the returns; β follows the KL where ``kl_target`` is set.

Everything that happens is a function of the seed and the step's number: a run that is killed and
goes on from its checkpoint writes the files of a run that was not.
"""

import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from torch import Tensor

from constitutional_ai.engines.base import Sampling
from constitutional_ai.errors import SettingsError
from constitutional_ai.learning import losses
from constitutional_ai.learning.figures import Metrics, measure, value_figures
from constitutional_ai.learning.kl import KLController
from constitutional_ai.learning.loop import (
    Checkpoints,
    Log,
    adamw,
    apply_gradients,
    check_weights,
    endless,
    length_batches,
    moving,
    pack,
    put_back,
    under,
    unpack,
    warmup_decay,
)
from constitutional_ai.learning.policy import Batch, Policy
from constitutional_ai.learning.reward_model import Reward
from constitutional_ai.learning.rollout import Rollout, Sampler, rollout, token_rewards
from constitutional_ai.learning.sft import Example
from constitutional_ai.learning.value import Target, make_value
from constitutional_ai.memory import give_back
from constitutional_ai.monitor.ppo import HeldOut, Monitor
from constitutional_ai.progress import Tick
from constitutional_ai.records import Prompt, content_hash
from constitutional_ai.settings import PPOSettings
from constitutional_ai.store.run_folder import derive_seed

LOGS = ("metrics", "samples", "monitor", "seconds")
FLOOR = 0.3  # the learning rate's share that is left at the end


@dataclass(frozen=True)
class Outcome:
    """``steps`` updates were made; ``stopped`` says why no more; ``restored``: back to which."""

    steps: int
    stopped: str
    restored: int | None
    warnings: list[str]


def train(
    policy: Policy,
    reward: Reward,
    prompts: Sequence[Prompt],
    settings: PPOSettings,
    folder: Path,
    seed: int,
    tick: Tick,
    note: Callable[[str], None],
    held_out: HeldOut | None = None,
    examples: Sequence[Example] = (),
) -> Outcome:
    """Train ``policy`` in place, going on from a checkpoint in ``folder`` if there is one.

    Writes metrics.jsonl, samples.jsonl, monitor.jsonl and seconds.jsonl there. ``examples`` are the
    SFT rows of the joint objective. Raises TrainingDiverged; the last checkpoint is kept then.
    """
    trainer = PPO(policy, reward, prompts, settings, folder, seed, held_out, examples)
    trainer.resume()
    tick(trainer.step)
    for warning in trainer.warnings:
        note(warning)
    while not trainer.finished:
        told = len(trainer.warnings)
        figures = trainer.advance()
        for warning in trainer.warnings[told:]:
            note(warning)
        give_back()
        tick(1 if figures else 0, **figures)
    return trainer.outcome()


class PPO:
    """A run's state (weights, optimisers, β, monitor, position) and what one step does to it."""

    def __init__(
        self,
        policy: Policy,
        reward: Reward,
        prompts: Sequence[Prompt],
        settings: PPOSettings,
        folder: Path,
        seed: int,
        held_out: HeldOut | None = None,
        examples: Sequence[Example] = (),
    ) -> None:
        if settings.sl_mix and not examples:
            raise SettingsError("ppo.sl_mix is set, but there are no finetuning examples to mix in")
        self.policy, self.reward, self.settings, self.seed = policy, reward, settings, seed
        check_weights(policy.model)
        self.reference = policy.reference()
        self.sampler = Sampler(policy)
        self.optimiser = adamw(policy.model.parameters(), settings.lr, eps=1e-5)
        self.value = make_value(policy, reward, settings, derive_seed(seed, "value"))
        self.kl = KLController(settings.kl_coef, settings.kl_target)
        self.pools = {s: [p for p in prompts if p.set == s] for s in ("red-team", "helpful")}
        self.examples = [policy.encode(prompt, answer) for prompt, answer in examples]
        self.logs = {name: Log(folder / f"{name}.jsonl") for name in LOGS}
        self.checkpoints = Checkpoints(folder / "checkpoints")
        self.step = 0
        self.finished = False
        self.stopped = ""
        self.warnings: list[str] = []
        self.restored: int | None = None
        self.best: dict[str, Tensor] = {}
        self.monitor = self._monitor(held_out) if held_out and settings.monitor != "off" else None

    # ------------------------------------------------------------------------------------- one step

    def advance(self) -> Metrics:
        """One step, or what ends the run. Figures to show; none where no step was made."""
        began = time.perf_counter()
        watched = {} if self.stopped else self._watch()
        if self.stopped or self.step == self.settings.steps:
            self._end()
            return {}
        watched_at = time.perf_counter()
        made = self._roll_out()
        rolled_at = time.perf_counter()
        found = {**measure(made, self.kl.coef, self.settings), **self.update(made), **watched}
        self._record(made, found)
        updated_at = time.perf_counter()
        self.logs["seconds"].write(
            {
                "step": self.step,
                "time/monitor": round(watched_at - began, 4),
                "time/rollout": round(rolled_at - watched_at, 4),
                "time/update": round(updated_at - rolled_at, 4),
            }
        )
        self.step += 1
        self._check_kl(found["objective/kl"])
        if self.step % self.settings.checkpoint_every == 0 and not self.stopped:
            self.save()
        return {"reward": found["objective/scores"], "kl": found["objective/kl"]}

    def update(self, made: Rollout) -> Metrics:
        """Steps 2 to 5 of the module's list: move policy, value and β by one rollout."""
        settings, mask_BS = self.settings, made.batch.mask_BS
        values_BS = self.value.predict(made.batch, made.states_Nd)
        rewards_BS = token_rewards(made, self.kl.coef, settings.missing_end_penalty)
        advantages_BS, returns_BS = losses.gae(
            rewards_BS, values_BS, mask_BS, settings.gamma, settings.lam
        )
        white_BS = losses.whiten(advantages_BS, mask_BS)
        minibatches = self._minibatches(len(made.answers))
        factor = warmup_decay(self.step, settings.steps, settings.warmup_steps, FLOOR)
        moved = [
            self._policy_step(made, white_BS, rows, number, settings.lr * factor)
            for number, rows in enumerate(minibatches)
        ]
        target = Target(
            returns_BS, values_BS, minibatches, made.named, first=self.step == 0, lr_factor=factor
        )
        fitted = self.value.fit(made.batch, made.states_Nd, target)
        kl = losses.masked_sum(losses.kl_k1(made.logprobs_BS, made.reference_BS, mask_BS), mask_BS)
        self.kl.update(kl.mean().item())
        return {
            **{name: float(np.mean([m[name] for m in moved])) for name in moved[0]},
            "ppo/val/loss": fitted["loss"],
            "ppo/val/clipfrac": fitted["clipfrac"],
            **value_figures(values_BS, returns_BS, mask_BS),
            "lr": settings.lr * factor,
        }

    def _policy_step(
        self, made: Rollout, advantages_BS: Tensor, minibatch: Sequence[int], number: int, lr: float
    ) -> Metrics:
        """One optimiser step on a minibatch; its gradient is gathered in parts that fit memory."""
        settings, batch = self.settings, made.batch
        total = int(batch.mask_BS[list(minibatch)].sum())
        sums = {"loss": 0.0, "clipfrac": 0.0, "approxkl": 0.0}
        for places in length_batches(
            batch.lengths_B[list(minibatch)].tolist(), settings.batch_tokens
        ):
            rows = [minibatch[place] for place in places]
            part = batch.take(rows)
            width = part.mask_BS.shape[1]
            log_ratio = losses.log_ratio(
                self.policy.logprobs(part, settings.temperature),
                made.logprobs_BS[rows, :width],
                part.mask_BS,
                settings.logratio_clamp,
            )
            clipped = losses.policy_loss(
                log_ratio, advantages_BS[rows, :width], part.mask_BS, settings.clip
            )
            share = int(part.mask_BS.sum()) / total
            (clipped.loss * share).backward()
            sums["loss"] += clipped.loss.item() * share
            sums["clipfrac"] += clipped.clipfrac.item() * share
            apart = losses.approximate_kl(log_ratio.detach(), part.mask_BS)
            sums["approxkl"] += apart.item() * share
        mixed = self._mix_in_sft(number, len(minibatch)) if settings.sl_mix else {}
        norm = apply_gradients(
            sums["loss"] + settings.sl_mix * mixed.get("loss/sft", 0.0),
            self.optimiser,
            lr,
            rows=partial(made.named, minibatch),
        )
        return {**{f"ppo/policy/{k}": v for k, v in sums.items()}, "ppo/grad_norm": norm, **mixed}

    def _mix_in_sft(self, number: int, count: int) -> Metrics:
        """Add the gradient of ``sl_mix`` · L_SL on as many examples as the minibatch has rows."""
        start = (self.step * self.settings.minibatches * self.settings.epochs + number) * count
        rows = endless(len(self.examples), start, count, derive_seed(self.seed, "sft"))
        batch = Batch.of(
            [self.examples[r] for r in rows], self.policy.tokens.pad_id, self.policy.device
        )
        found = 0.0
        for part in length_batches(batch.lengths_B.tolist(), self.settings.batch_tokens):
            some = batch.take(part)
            loss = losses.sft_loss(self.policy.logprobs(some), some.mask_BS)
            share = int(some.mask_BS.sum()) / int(batch.mask_BS.sum())
            (self.settings.sl_mix * loss * share).backward()
            found += loss.item() * share
        return {"loss/sft": found}

    def _minibatches(self, rows: int) -> list[list[int]]:
        """Every epoch all rows in a new order, cut into ``minibatches`` of nearly equal size."""
        rng = random.Random(self._seed("minibatches"))
        found = []
        for _ in range(self.settings.epochs):
            order = rng.sample(range(rows), rows)
            count = min(self.settings.minibatches, rows)
            found += [sorted(order[part::count]) for part in range(count)]
        return found

    def _draw_prompts(self) -> list[Prompt]:
        """This step's prompts, ``red_team_share`` of them red-team; each pool is used up evenly."""
        settings = self.settings
        red = round(settings.rollouts * settings.red_team_share)
        if not self.pools["red-team"] or not self.pools["helpful"]:
            red = settings.rollouts if self.pools["red-team"] else 0
        drawn = []
        for name, count in (("red-team", red), ("helpful", settings.rollouts - red)):
            seed = derive_seed(self.seed, "prompts", name)
            rows = endless(len(self.pools[name]), self.step * count, count, seed)
            drawn += [self.pools[name][row] for row in rows]
        return drawn

    def _roll_out(self) -> Rollout:
        prompts, seed = self._draw_prompts(), self._seed("rollout")
        made = rollout(self.sampler, self.reference, self.reward, prompts, self.settings, seed)
        made.refuse_broken()
        return made

    def _seed(self, what: str) -> int:
        return derive_seed(self.seed, what, self.step)

    def _record(self, made: Rollout, found: Metrics) -> None:
        self.logs["metrics"].write({"step": self.step, **found})
        if self.step % self.settings.monitor_every == 0:
            self._keep_samples(made)

    def _keep_samples(self, made: Rollout) -> None:
        self.logs["samples"].write(
            *(
                {
                    "id": content_hash("ppo", self.seed, self.step, row, prompt.id),
                    "step": self.step,
                    "set": prompt.set,
                    "prompt": prompt.prompt,
                    "answer": answer,
                    "score": score,
                }
                for row, (prompt, answer, score) in enumerate(
                    zip(made.prompts, made.answers, made.scores_B.tolist(), strict=True)
                )
            )
        )

    # ------------------------------------------------------------------------------ watch and stop

    def _monitor(self, held_out: HeldOut) -> Monitor:
        answers, _ = self._answer_held_out(held_out.prompts, "references")
        return Monitor(held_out.prompts, answers, held_out.compare)

    def _answer_held_out(
        self, prompts: Sequence[Prompt], what: str
    ) -> tuple[list[str], list[bool]]:
        """Answers, and whether each came to its end. The same draws at every check."""
        self.sampler.refresh()
        seed = derive_seed(self.seed, "monitor", what)
        sampling = Sampling(self.settings.temperature, 1.0, self.settings.max_new_tokens, seed)
        found = self.sampler.answer(prompts, sampling)
        tokens = self.policy.tokens
        return [tokens.text(ids) for ids in found], [ids[-1] == tokens.end_id for ids in found]

    def _watch(self) -> Metrics:
        """Let the monitor look, where it is due or the run is about to end."""
        last = self.step == self.settings.steps
        if self.monitor is None or not (last or self.step % self.settings.monitor_every == 0):
            return {}
        prompts = self.monitor.prompts
        answers, ended = self._answer_held_out(prompts, "checks")
        proxy = float(np.mean(self.reward([prompt.prompt for prompt in prompts], answers)))
        reason = self.monitor.check(self.step, answers, ended, proxy)
        if self.monitor.best_step == self.step:
            self.best = {k: t.clone() for k, t in moving(self.policy.model).items()}
        if reason:
            self._alarm(f"step {self.step}: {reason}")
        found = self.monitor.metrics()
        self.logs["monitor"].write({"step": self.step, **found, "alarm": reason})
        return found

    def _alarm(self, reason: str) -> None:
        if self.settings.monitor == "stop":
            self.stopped = reason
        else:
            self.warnings.append(f"reward hacking? {reason}")

    def _check_kl(self, kl: float) -> None:
        limit = self.settings.max_kl
        if limit is not None and kl > limit:
            self.stopped = f"step {self.step - 1}: KL {kl:.1f} nats is above ppo.max_kl = {limit}"

    def _end(self) -> None:
        """Keep what the policy says in the end; after a stop, return to the best check."""
        self.finished = True
        self._keep_samples(self._roll_out())
        if self.stopped and self.best and self.monitor is not None:
            put_back(self.policy.model, self.best)
            self.restored = self.monitor.best_step

    def outcome(self) -> Outcome:
        return Outcome(self.step, self.stopped, self.restored, self.warnings)

    # ---------------------------------------------------------------------------------- checkpoints

    def save(self) -> None:
        """A checkpoint from which the run goes on as if nothing had happened."""
        tensors = {
            **pack("policy", self.policy.model, self.optimiser),
            **pack("value", self.value.module, self.value.optimiser),
            **{f"best/{name}": tensor for name, tensor in self.best.items()},
        }
        state = {
            "step": self.step,
            "kl_coef": self.kl.coef,
            "warnings": self.warnings,
            "monitor": self.monitor.state() if self.monitor else None,
            "logs": {name: log.size() for name, log in self.logs.items()},
        }
        self.checkpoints.save(self.step, tensors, state)

    def resume(self) -> None:
        """Go back to the newest checkpoint, or to the beginning, and cut the logs to match."""
        found = self.checkpoints.load()
        tensors, state = found or ({}, {"logs": dict.fromkeys(self.logs, 0)})
        for name, log in self.logs.items():
            log.cut(state["logs"][name])
        if not found:
            return
        unpack("policy", tensors, self.policy.model, self.optimiser)
        unpack("value", tensors, self.value.module, self.value.optimiser)
        self.best = under("best/", tensors)
        self.step, self.kl.coef, self.warnings = state["step"], state["kl_coef"], state["warnings"]
        if self.monitor and state["monitor"]:
            self.monitor.restore(state["monitor"])
