"""Several reward models as one reward: the mean of their scores, or the least of them.

Members that were fitted to different resamples of the same preferences part where the data is thin,
which is where a policy goes that exploits one of them. Their mean evens that out; their least score
punishes it (Coste et al. 2023, arXiv 2310.02743). Each member's scores are standardised, so that
they can be compared. The hidden states, which PPO's value function reads, are the first member's.
"""

import copy
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from constitutional_ai.learning.reward_model import RewardModel


class Ensemble(RewardModel):
    """``members`` read an answer each; ``join`` says what becomes of their scores."""

    def __init__(self, members: Sequence[RewardModel], join: Literal["mean", "min"]) -> None:
        first = members[0]
        super().__init__(first.model, first.tokens)
        self.mean, self.deviation = first.mean, first.deviation
        self.others = list(members[1:])
        self.join = join

    def read(self, ids_BT: Tensor, ends_B: Tensor) -> tuple[Tensor, Tensor]:
        """Joined scores, [B], and the first member's hidden states, [B, T, d]."""
        first_B, states_BTd = super().read(ids_BT, ends_B)
        scores_MB = torch.stack([first_B, *(one.read(ids_BT, ends_B)[0] for one in self.others)])
        joined_B = scores_MB.mean(dim=0) if self.join == "mean" else scores_MB.amin(dim=0)
        return joined_B, states_BTd

    def copy(self) -> RewardModel:
        """The first member alone, free to go another way: where a separate value model starts."""
        twin = RewardModel(copy.deepcopy(self.model), self.tokens)
        twin.mean, twin.deviation = self.mean, self.deviation
        return twin
