"""The value function of PPO: what reward is still to come, at each token of an answer.

``SharedValue`` is a small network on the frozen reward model's hidden states, which are there
anyway because the reward model has read the answer. ``SeparateValue`` is a model of its own that
starts as the reward model (or as the policy, under a new head, where the reward is a plain
function). Neither shares parameters with the policy, so it is fitted after the policy's update, by
itself.

Shapes: B rows, S predicted positions, N answer tokens of all rows, d width of the reward model.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import torch
from torch import Tensor, nn

from constitutional_ai.errors import SettingsError
from constitutional_ai.learning import losses
from constitutional_ai.learning.loop import adamw, apply_gradients, descend, length_batches
from constitutional_ai.learning.policy import Batch, Policy, spread
from constitutional_ai.learning.reward_model import Reward, RewardModel
from constitutional_ai.settings import PPOSettings

HIDDEN = 128  # width of the shared value's one hidden layer
WARM_UP = 8  # times as many steps on the first rollout, when there is no old value to stay near


@dataclass(frozen=True)
class Target:
    """What a rollout's values are fitted to, and how.

    ``old_BS`` are the values before; on the ``first`` rollout they are nothing to stay near, so
    there is no clip. ``named`` names rows, for the error where a loss is no number.
    """

    returns_BS: Tensor
    old_BS: Tensor
    minibatches: Sequence[Sequence[int]]
    named: Callable[[Sequence[int]], str]
    first: bool = False
    lr_factor: float = 1.0


class Value(Protocol):
    """``module`` and ``optimiser`` are what a checkpoint must hold."""

    module: nn.Module
    optimiser: torch.optim.AdamW

    def predict(self, batch: Batch, states_Nd: Tensor | None) -> Tensor:
        """Values [B, S], 0 outside the answers, no gradient."""
        ...

    def fit(self, batch: Batch, states_Nd: Tensor | None, to: Target) -> dict[str, float]:
        """Move towards the returns; mean loss and clip share."""
        ...


class SharedValue:
    """Two layers on frozen states; ``value_epochs`` steps on each whole rollout."""

    def __init__(self, width: int, settings: PPOSettings, device: torch.device, seed: int) -> None:
        self.module: nn.Module = nn.Sequential(
            nn.Linear(width, HIDDEN), nn.Tanh(), nn.Linear(HIDDEN, 1)
        )
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for weight in self.module.parameters():
                bound = 1 / math.sqrt(width if weight.shape[0] == HIDDEN else HIDDEN)
                weight.uniform_(-bound, bound, generator=generator)
        self.module.to(device)
        self.settings = settings
        self.optimiser = adamw(self.module.parameters(), settings.value_lr)

    @torch.no_grad()
    def predict(self, batch: Batch, states_Nd: Tensor | None) -> Tensor:
        return self._values(batch, states_Nd)

    def fit(self, batch: Batch, states_Nd: Tensor | None, to: Target) -> dict[str, float]:
        steps = self.settings.value_epochs * (WARM_UP if to.first else 1)
        clip = math.inf if to.first else self.settings.value_clip
        rows = partial(to.named, range(len(batch.lengths_B)))
        for _ in range(steps):
            values_BS = self._values(batch, states_Nd)
            clipped = losses.value_loss(values_BS, to.old_BS, to.returns_BS, batch.mask_BS, clip)
            descend(clipped.loss, self.optimiser, self.settings.value_lr, rows)
        return {"loss": clipped.loss.item(), "clipfrac": clipped.clipfrac.item()}

    def _values(self, batch: Batch, states_Nd: Tensor | None) -> Tensor:
        assert states_Nd is not None  # make_value sees to it
        return spread(self.module(states_Nd)[:, 0], batch.mask_BS)


class SeparateValue:
    """A whole model; takes the policy's minibatches, epochs and learning rate."""

    def __init__(self, model: RewardModel, settings: PPOSettings) -> None:
        self.model = model
        self.module: nn.Module = model.model
        self.settings = settings
        self.optimiser = adamw(self.module.parameters(), settings.lr, eps=1e-5)

    @torch.no_grad()
    def predict(self, batch: Batch, states_Nd: Tensor | None) -> Tensor:
        values_BS = torch.zeros(batch.mask_BS.shape, device=batch.ids_BT.device)
        for rows in length_batches(batch.lengths_B.tolist(), self.settings.batch_tokens):
            part = batch.take(rows)
            values_BS[rows, : part.mask_BS.shape[1]] = self._values(part)
        return values_BS

    def fit(self, batch: Batch, states_Nd: Tensor | None, to: Target) -> dict[str, float]:
        clip = math.inf if to.first else self.settings.value_clip
        sums = {"loss": 0.0, "clipfrac": 0.0}
        for minibatch in to.minibatches:
            total = int(batch.mask_BS[list(minibatch)].sum())
            gathered = 0.0
            lengths = batch.lengths_B[list(minibatch)].tolist()
            for places in length_batches(lengths, self.settings.batch_tokens):
                rows = [minibatch[place] for place in places]
                part = batch.take(rows)
                width = part.mask_BS.shape[1]
                old, returns = to.old_BS[rows, :width], to.returns_BS[rows, :width]
                clipped = losses.value_loss(self._values(part), old, returns, part.mask_BS, clip)
                share = int(part.mask_BS.sum()) / total
                (clipped.loss * share).backward()
                gathered += clipped.loss.item() * share
                sums["clipfrac"] += clipped.clipfrac.item() * share
            lr = self.settings.lr * to.lr_factor
            apply_gradients(gathered, self.optimiser, lr, partial(to.named, minibatch))
            sums["loss"] += gathered
        return {name: total / len(to.minibatches) for name, total in sums.items()}

    def _values(self, batch: Batch) -> Tensor:
        scores_BT = self.model.score_states(self.model.states(batch.ids_BT))
        return scores_BT[:, :-1].masked_fill(~batch.mask_BS, 0.0)


def make_value(policy: Policy, reward: Reward, settings: PPOSettings, seed: int) -> Value:
    """The value function that ``settings.value`` asks for.

    Raises SettingsError for a shared one where the reward is no model to share with.
    """
    if settings.value == "shared":
        if not isinstance(reward, RewardModel):
            raise SettingsError(
                'ppo.value = "shared" reads the states of a reward model, and this reward is a'
                ' function; set ppo.value = "separate"'
            )
        width = reward.model.config.get_text_config().hidden_size
        return SharedValue(width, settings, policy.device, seed)
    start = reward.copy() if isinstance(reward, RewardModel) else RewardModel.from_policy(policy)
    start.prepare(policy.options)
    return SeparateValue(start, settings)
