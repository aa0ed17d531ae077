"""RL-CAI: token-level PPO against a reward, with a KL penalty towards the SL-CAI model.

A step, in order (Bai et al. 2022, section 4.2; the details follow Ziegler et al. 2019 and Huang et
al. 2024, arXiv 2403.17031):

1. The policy answers a batch of prompts; policy and reference give log-probabilities of the
   answers (learning/rollout.py).
2. Reward of a token: −β (log π − log π_ref). The last token of an answer also gets the score,
   minus a penalty if the end token is missing.
3. Values, masked GAE, advantages whitened over the batch.
4. Minibatches of the clipped policy loss, plus ``sl_mix`` times the SFT loss if that is set.
5. The value function follows the returns; β follows the KL if ``kl_target`` is set.

Everything is a function of the seed and the step's number: a run that is killed and goes on from
its checkpoint writes the same files as a run that was not.
"""

import random
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from torch import Tensor

from constitutional_ai.engines.base import Sampling
from constitutional_ai.errors import SettingsError
from constitutional_ai.learning import losses
from constitutional_ai.learning.batch import Batch, Tokens, accumulate, endless
from constitutional_ai.learning.descent import adamw, apply_gradients, check_weights, warmup_decay
from constitutional_ai.learning.figures import Metrics, measure, value_figures
from constitutional_ai.learning.policy import Policy
from constitutional_ai.learning.reward import Reward
from constitutional_ai.learning.rollout import Rollout, Sampler, rollout, token_rewards
from constitutional_ai.learning.sft import Example
from constitutional_ai.learning.value import Target, make_value
from constitutional_ai.machine import give_back
from constitutional_ai.monitor.ppo import Monitor, Probe
from constitutional_ai.progress import Tick
from constitutional_ai.records import Prompt, Sample, content_hash
from constitutional_ai.stage_settings import PPOSettings
from constitutional_ai.store.checkpoints import Log, Part, Training, moving, put_back, under
from constitutional_ai.store.seeds import derive_seed

LOGS = ("metrics", "samples", "monitor", "seconds")
FLOOR = 0.3  # the learning rate's share that is left at the end


@dataclass(frozen=True)
class Inputs:
    """What a run of PPO takes. ``examples`` are the SFT rows of the joint objective.

    metrics.jsonl, samples.jsonl, monitor.jsonl, seconds.jsonl and the checkpoints go to ``folder``.
    """

    policy: Policy  # trained in place
    reward: Reward
    prompts: Sequence[Prompt]
    settings: PPOSettings
    folder: Path
    seed: int
    probe: Probe | None = None
    examples: Sequence[Example] = ()


@dataclass(frozen=True)
class Outcome:
    """``steps`` updates were made. ``stopped`` says why there were no more.

    ``restored`` is the step whose weights the policy has, if it went back to an earlier one.
    """

    steps: int
    stopped: str
    restored: int | None
    warnings: list[str]


class KLController:
    """β, fixed, or adapted so that the KL of an answer approaches ``target`` nats.

    Ziegler et al. 2019, section 2.2: e = clip(KL / target − 1, −0.2, 0.2); β ← β (1 + 0.1 e).
    """

    def __init__(self, coef: float, target: float | None) -> None:
        self.coef = coef
        self.target = target

    def update(self, kl: float) -> None:
        if self.target is not None:
            error = min(max(kl / self.target - 1, -0.2), 0.2)
            self.coef *= 1 + 0.1 * error


def train(inputs: Inputs, tick: Tick, note: Callable[[str], None]) -> Outcome:
    """Train the policy, going on from a checkpoint if there is one.

    Raises TrainingDiverged; the last checkpoint is kept then.
    """
    return PPO(inputs, note).run(tick)


class PPO:
    """A run's state: weights, optimisers, β, monitor, the number of steps made."""

    def __init__(self, inputs: Inputs, note: Callable[[str], None] = lambda warning: None) -> None:
        policy, settings, seed = inputs.policy, inputs.settings, inputs.seed
        if settings.sl_mix and not inputs.examples:
            raise SettingsError("ppo.sl_mix is set, but there are no finetuning examples to mix in")
        check_weights(policy.model)
        self.inputs, self.settings, self.seed, self.note = inputs, settings, seed, note
        self.policy, self.reference = policy, policy.reference()
        self.sampler = Sampler(policy)
        self.optimiser = adamw(policy.model.parameters(), settings.lr, eps=1e-5)
        self.value = make_value(policy, inputs.reward, settings, derive_seed(seed, "value"))
        self.kl = KLController(settings.kl_coef, settings.kl_target)
        self.pools = {s: [p for p in inputs.prompts if p.set == s] for s in ("red-team", "helpful")}
        self.examples = [policy.encode(prompt, answer) for prompt, answer in inputs.examples]
        self.logs = {name: Log(inputs.folder / f"{name}.jsonl") for name in LOGS}
        parts = {"policy": Part(policy.model, self.optimiser), "value": self.value.part}
        self.training = Training(inputs.folder / "checkpoints", parts, self.logs)
        self.monitor: Monitor | None = None
        self.best: dict[str, Tensor] = {}  # the weights of the monitor's best check
        self.steps = 0
        self.stopped = ""
        self.warnings: list[str] = []
        self.seconds: dict[str, float] = {}

    def run(self, tick: Tick) -> Outcome:
        """All steps from the last checkpoint on."""
        self.start()
        tick(self.steps)
        for step in range(self.steps, self.settings.steps):
            watched = self.watch(step)
            if self.stopped:
                break
            figures = self.one_step(step, watched)
            too_far = self._check_kl(step, figures["objective/kl"])
            if not too_far and self.steps % self.settings.checkpoint_every == 0:
                self.save()
            give_back()
            tick(1, reward=figures["objective/scores"], kl=figures["objective/kl"])
            if too_far:
                break
        else:
            self.watch(self.settings.steps)
        return self.end()

    def start(self) -> None:
        """Ask the start model for the monitor's references, then go back to the last checkpoint."""
        probe = self.inputs.probe
        if probe and self.settings.monitor != "off":
            answers, _ = self._answer_held_out(probe.prompts, "references")
            self.monitor = Monitor(probe.prompts, answers, probe.compare)
        saved = self.training.resume()
        if saved is None:
            return
        self.steps, self.best = saved.step, under("best/", saved.tensors)
        self.kl.coef, self.warnings = saved.state["kl_coef"], saved.state["warnings"]
        for warning in self.warnings:
            self.note(warning)
        if self.monitor and saved.state["monitor"]:
            self.monitor.restore(saved.state["monitor"])

    def save(self) -> None:
        """A checkpoint from which the run goes on as if nothing had happened."""
        state = {
            "kl_coef": self.kl.coef,
            "warnings": self.warnings,
            "monitor": self.monitor.state() if self.monitor else None,
        }
        best = {f"best/{name}": tensor for name, tensor in self.best.items()}
        self.training.save(self.steps, state, best)

    def end(self) -> Outcome:
        """Keep what the policy says in the end; after a stop, return to the best check."""
        self._keep_samples(self.steps, self.roll_out(self.steps))
        restored = None
        if self.stopped and self.best and self.monitor:
            put_back(self.policy.model, self.best)
            restored = self.monitor.best_step
        return Outcome(self.steps, self.stopped, restored, self.warnings)

    # ------------------------------------------------------------------------------------- one step

    def one_step(self, step: int, watched: Metrics) -> Metrics:
        """Roll out, update, write down. ``watched`` are the monitor's figures of this step."""
        with self._timed("rollout"):
            made = self.roll_out(step)
        with self._timed("update"):
            figures = measure(made, self.kl.coef, self.settings)
            figures |= self.update(step, made) | watched
            self._record(step, made, figures)
        self.logs["seconds"].write({"step": step, **self.seconds})
        self.steps = step + 1
        return figures

    def roll_out(self, step: int) -> Rollout:
        """Step 1 of the module's list."""
        made = rollout(
            self.sampler,
            self.reference,
            self.inputs.reward,
            self._draw_prompts(step),
            self.settings,
            derive_seed(self.seed, "rollout", step),
        )
        made.refuse_broken()
        return made

    def update(self, step: int, made: Rollout) -> Metrics:
        """Steps 2 to 5 of the module's list: move policy, value and β by one rollout."""
        settings, mask_BS = self.settings, made.batch.mask_BS
        values_BS = self.value.predict(made)
        rewards_BS = token_rewards(made, self.kl.coef, settings.missing_end_penalty)
        advantages_BS, returns_BS = losses.gae(
            rewards_BS, values_BS, mask_BS, settings.gamma, settings.lam
        )
        white_BS = losses.whiten(advantages_BS, mask_BS)
        minibatches = self._minibatches(step, len(made.answers))
        factor = warmup_decay(step, settings.steps, settings.warmup_steps, FLOOR)
        moved = [
            self._policy_step(made, white_BS, rows, settings.lr * factor, step, number)
            for number, rows in enumerate(minibatches)
        ]
        target = Target(returns_BS, values_BS, minibatches, first=step == 0, lr_factor=factor)
        fitted = self.value.fit(made, target)
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
        self,
        made: Rollout,
        advantages_BS: Tensor,
        rows: list[int],
        lr: float,
        step: int,
        number: int,
    ) -> Metrics:
        """One optimiser step on a minibatch, the ``number``-th of this PPO step."""
        settings = self.settings

        def loss(part: Batch, some: list[int]) -> dict[str, Tensor]:
            log_ratio_BS = losses.log_ratio(
                self.policy.logprobs(part, settings.temperature),
                made.logprobs_BS[some, : part.width],
                part.mask_BS,
                settings.logratio_clamp,
            )
            clipped = losses.policy_loss(
                log_ratio_BS, advantages_BS[some, : part.width], part.mask_BS, settings.clip
            )
            approxkl = losses.approximate_kl(log_ratio_BS.detach(), part.mask_BS)
            return {**clipped._asdict(), "approxkl": approxkl}

        figures = accumulate(made.batch, rows, settings.batch_tokens, loss)
        mixed = self._mix_in_sft(self._draw_examples(step, number, len(rows)))
        total = figures["loss"] + settings.sl_mix * mixed.get("loss/sft", 0.0)
        norm = apply_gradients(total, self.optimiser, lr, partial(made.named, rows))
        named = {f"ppo/policy/{name}": figure for name, figure in figures.items()}
        return {**named, "ppo/grad_norm": norm, **mixed}

    def _mix_in_sft(self, examples: Sequence[Tokens]) -> Metrics:
        """Add the gradient of ``sl_mix`` · L_SL on these examples."""
        if not examples:
            return {}
        batch = Batch.of(examples, self.policy.tokens.pad_id, self.policy.device)

        def loss(part: Batch, rows: list[int]) -> dict[str, Tensor]:
            plain = losses.sft_loss(self.policy.logprobs(part), part.mask_BS)
            return {"loss": self.settings.sl_mix * plain, "loss/sft": plain}

        figures = accumulate(batch, range(len(examples)), self.settings.batch_tokens, loss)
        return {"loss/sft": figures["loss/sft"]}

    # --------------------------------------------------------------------------- what a step draws

    def _draw_prompts(self, step: int) -> list[Prompt]:
        """A step's prompts, ``red_team_share`` of them red-team; each pool is used up evenly."""
        settings = self.settings
        red = round(settings.rollouts * settings.red_team_share)
        if not self.pools["red-team"] or not self.pools["helpful"]:
            red = settings.rollouts if self.pools["red-team"] else 0
        drawn = []
        for name, count in (("red-team", red), ("helpful", settings.rollouts - red)):
            seed = derive_seed(self.seed, "prompts", name)
            rows = endless(len(self.pools[name]), step * count, count, seed)
            drawn += [self.pools[name][row] for row in rows]
        return drawn

    def _draw_examples(self, step: int, number: int, count: int) -> list[Tokens]:
        """As many SFT examples as a minibatch has rows; none without ``sl_mix``."""
        if not self.settings.sl_mix:
            return []
        start = (step * self.settings.minibatches * self.settings.epochs + number) * count
        rows = endless(len(self.examples), start, count, derive_seed(self.seed, "sft"))
        return [self.examples[row] for row in rows]

    def _minibatches(self, step: int, rows: int) -> list[list[int]]:
        """Every epoch all rows in a new order, cut into ``minibatches`` of nearly equal size."""
        rng = random.Random(derive_seed(self.seed, "minibatches", step))
        count = min(self.settings.minibatches, rows)
        cut: list[list[int]] = []
        for _ in range(self.settings.epochs):
            order = rng.sample(range(rows), rows)
            cut += [sorted(order[part::count]) for part in range(count)]
        return cut

    # --------------------------------------------------------------------------------- the monitor

    def watch(self, step: int) -> Metrics:
        """Let the monitor look, if it is due or the run is about to end; it may stop the run."""
        due = step == self.settings.steps or step % self.settings.monitor_every == 0
        with self._timed("monitor"):
            if self.monitor is None or not due:
                return {}
            prompts = self.monitor.prompts
            answers, ended = self._answer_held_out(prompts, "checks")
            texts = [prompt.prompt for prompt in prompts]
            proxy = float(np.mean(self.inputs.reward(texts, answers)))
            alarm = self.monitor.check(step, answers, ended, proxy)
            if self.monitor.best_step == step:
                self.best = {k: t.clone() for k, t in moving(self.policy.model).items()}
            if alarm and self.settings.monitor == "stop":
                self.stopped = f"step {step}: {alarm}"
            elif alarm:
                self.warnings.append(f"reward hacking? step {step}: {alarm}")
                self.note(self.warnings[-1])
            figures = self.monitor.metrics()
            self.logs["monitor"].write({"step": step, **figures, "alarm": alarm})
            return figures

    def _check_kl(self, step: int, kl: float) -> bool:
        """Whether the run must stop because the policy is too far from the reference."""
        limit = self.settings.max_kl
        too_far = limit is not None and kl > limit
        if too_far:
            self.stopped = f"step {step}: KL {kl:.1f} nats is above ppo.max_kl = {limit}"
        return too_far

    def _answer_held_out(
        self, prompts: Sequence[Prompt], what: str
    ) -> tuple[list[str], list[bool]]:
        """Answers, and whether each came to its end. The same draws at every check."""
        self.sampler.refresh()
        seed = derive_seed(self.seed, "monitor", what)
        sampling = Sampling(self.settings.temperature, 1.0, self.settings.max_new_tokens, seed)
        answers = [answer for _, answer in self.sampler.answer(prompts, sampling)]
        tokens = self.policy.tokens
        return [tokens.text(ids) for ids in answers], [ids[-1] == tokens.end_id for ids in answers]

    # ------------------------------------------------------------------------------------ the files

    def _record(self, step: int, made: Rollout, figures: Metrics) -> None:
        self.logs["metrics"].write({"step": step, **figures})
        if step % self.settings.monitor_every == 0:
            self._keep_samples(step, made)

    def _keep_samples(self, step: int, made: Rollout) -> None:
        rows = zip(made.prompts, made.answers, made.scores_B.tolist(), strict=True)
        samples = [
            Sample(
                id=content_hash("ppo", self.seed, step, row, prompt.id),
                step=step,
                set=prompt.set,
                prompt=prompt.prompt,
                answer=answer,
                score=score,
            )
            for row, (prompt, answer, score) in enumerate(rows)
        ]
        self.logs["samples"].write(*(sample.model_dump() for sample in samples))

    @contextmanager
    def _timed(self, what: str) -> Iterator[None]:
        began = time.perf_counter()
        yield
        self.seconds[f"time/{what}"] = round(time.perf_counter() - began, 4)
