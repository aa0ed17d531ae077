"""The value function of PPO: the reward that is still to come, at each token of an answer.

``SharedValue`` is a small network on the frozen reward model's hidden states, which the reward
model computes anyway when it reads the answer. ``SeparateValue`` is a model of its own that starts
as the reward model, or as the policy under a new head if the reward is a plain function. Neither
shares parameters with the policy, so it is fitted by itself, after the policy's update.

Shapes: B rows, S predicted positions, N answer tokens of all rows, d width of the reward model.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import torch
from torch import Tensor, nn

from constitutional_ai.errors import SettingsError
from constitutional_ai.learning import losses
from constitutional_ai.learning.batch import Batch, accumulate, spread
from constitutional_ai.learning.descent import adamw, apply_gradients, descend
from constitutional_ai.learning.policy import Policy
from constitutional_ai.learning.reward import Reward
from constitutional_ai.learning.reward_model import RewardModel
from constitutional_ai.learning.rollout import Rollout
from constitutional_ai.stage_settings import PPOSettings
from constitutional_ai.store.checkpoints import Part

HIDDEN = 128  # width of the shared value's one hidden layer
WARM_UP = 8  # times as many steps on the first rollout, when there is no old value to stay near


@dataclass(frozen=True)
class Target:
    """What a rollout's values are fitted to, and how.

    ``old_BS`` are the values before. On the ``first`` rollout they are nothing to stay near, so
    there is no clip.
    """

    returns_BS: Tensor
    old_BS: Tensor
    minibatches: Sequence[Sequence[int]]
    first: bool = False
    lr_factor: float = 1.0


class Value(Protocol):
    part: Part

    def predict(self, made: Rollout) -> Tensor:
        """Values [B, S], 0 outside the answers, no gradient."""
        ...

    def fit(self, made: Rollout, to: Target) -> dict[str, float]:
        """Move towards the returns; the mean loss, and the share of tokens where it is clipped."""
        ...


class SharedValue:
    """Two layers on frozen states; ``value_epochs`` steps on each whole rollout."""

    def __init__(self, width: int, settings: PPOSettings, device: torch.device, seed: int) -> None:
        layers = nn.Sequential(nn.Linear(width, HIDDEN), nn.Tanh(), nn.Linear(HIDDEN, 1))
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for weight in layers.parameters():
                bound = 1 / math.sqrt(width if weight.shape[0] == HIDDEN else HIDDEN)
                weight.uniform_(-bound, bound, generator=generator)
        layers.to(device)
        self.settings = settings
        self.part = Part(layers, adamw(layers.parameters(), settings.value_lr))

    @torch.no_grad()
    def predict(self, made: Rollout) -> Tensor:
        return self._values(made)

    def fit(self, made: Rollout, to: Target) -> dict[str, float]:
        steps = self.settings.value_epochs * (WARM_UP if to.first else 1)
        clip = math.inf if to.first else self.settings.value_clip
        mask_BS, rows = made.batch.mask_BS, partial(made.named, range(len(made.answers)))
        for _ in range(steps):
            values_BS = self._values(made)
            clipped = losses.value_loss(values_BS, to.old_BS, to.returns_BS, mask_BS, clip)
            descend(clipped.loss, self.part.optimiser, self.settings.value_lr, rows)
        return {"loss": clipped.loss.item(), "clipfrac": clipped.clipfrac.item()}

    def _values(self, made: Rollout) -> Tensor:
        assert made.states_Nd is not None  # make_value sees to it
        values_N: Tensor = self.part.module(made.states_Nd)[:, 0]
        return spread(values_N, made.batch.mask_BS)


class SeparateValue:
    """A whole model; takes the policy's minibatches, epochs and learning rate."""

    def __init__(self, model: RewardModel, settings: PPOSettings) -> None:
        self.model = model
        self.settings = settings
        self.part = Part(model.model, adamw(model.model.parameters(), settings.lr, eps=1e-5))

    @torch.no_grad()
    def predict(self, made: Rollout) -> Tensor:
        values_BS = torch.zeros(made.batch.mask_BS.shape, device=made.batch.ids_BT.device)
        for rows in made.batch.parts(self.settings.batch_tokens):
            part = made.batch.take(rows)
            values_BS[rows, : part.width] = self._values(part)
        return values_BS

    def fit(self, made: Rollout, to: Target) -> dict[str, float]:
        clip = math.inf if to.first else self.settings.value_clip
        lr = self.settings.lr * to.lr_factor

        def loss(part: Batch, rows: list[int]) -> dict[str, Tensor]:
            old_BS, returns_BS = (x[rows, : part.width] for x in (to.old_BS, to.returns_BS))
            values_BS = self._values(part)
            return losses.value_loss(values_BS, old_BS, returns_BS, part.mask_BS, clip)._asdict()

        sums = {"loss": 0.0, "clipfrac": 0.0}
        for rows in to.minibatches:
            figures = accumulate(made.batch, rows, self.settings.batch_tokens, loss)
            apply_gradients(figures["loss"], self.part.optimiser, lr, partial(made.named, rows))
            sums = {name: total + figures[name] for name, total in sums.items()}
        return {name: total / len(to.minibatches) for name, total in sums.items()}

    def _values(self, batch: Batch) -> Tensor:
        scores_BT = self.model.score_states(self.model.states(batch.ids_BT))
        return scores_BT[:, :-1].masked_fill(~batch.mask_BS, 0.0)


def make_value(policy: Policy, reward: Reward, settings: PPOSettings, seed: int) -> Value:
    """The value function that ``settings.value`` asks for.

    Raises SettingsError for a shared one if the reward has no states to share.
    """
    if settings.value == "separate":
        start = reward.value_start(policy)
        start.prepare(policy.options)
        return SeparateValue(start, settings)
    if reward.states_width is None:
        raise SettingsError(
            'ppo.value = "shared" reads the states of a reward model, and this reward is a'
            ' function; set ppo.value = "separate"'
        )
    return SharedValue(reward.states_width, settings, policy.device, seed)
