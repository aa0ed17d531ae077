"""What PPO climbs: a reward model, several of them as one, or any function of the text."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import Tensor

from constitutional_ai.learning.batch import Answered
from constitutional_ai.learning.policy import Policy
from constitutional_ai.learning.reward_model import RewardModel
from constitutional_ai.records import Conversation


class Reward(Protocol):
    """Scores answers; higher is better."""

    @property
    def states_width(self) -> int | None:
        """d, the width of the hidden states that ``score`` gives; None if it gives none."""
        ...

    def __call__(self, prompts: list[Conversation], answers: list[str]) -> list[float]:
        """Scores of texts, in order."""
        ...

    def score(self, answered: Answered, budget: int) -> tuple[Tensor, Tensor | None]:
        """Scores [B] of a rollout's answers, and a model's hidden states [N, d].

        A forward holds at most ``budget`` tokens.
        """
        ...

    def value_start(self, policy: Policy) -> RewardModel:
        """A model of its own that a separate value function may start from."""
        ...


@dataclass(frozen=True)
class FunctionReward:
    """A plain function of prompts and answers as a reward."""

    function: Callable[[list[Conversation], list[str]], list[float]]
    states_width: None = None

    def __call__(self, prompts: list[Conversation], answers: list[str]) -> list[float]:
        return self.function(prompts, answers)

    def score(self, answered: Answered, budget: int) -> tuple[Tensor, None]:
        prompts = [prompt.prompt for prompt in answered.prompts]
        scores = self.function(prompts, list(answered.answers))
        device = answered.batch.ids_BT.device
        return torch.tensor(scores, dtype=torch.float32, device=device), None

    def value_start(self, policy: Policy) -> RewardModel:
        return RewardModel.from_policy(policy)


@dataclass(frozen=True)
class Ensemble:
    """Several reward models as one: the mean of their scores, or the least of them.

    Members that were fitted to different resamples of the same preferences disagree where the data
    is thin. A policy that exploits one of them goes there. The mean evens that out; the least score
    punishes it (Coste et al. 2023, arXiv 2310.02743). Each member's scores are standardised, so
    they can be compared. The hidden states are the first member's.
    """

    members: Sequence[RewardModel]
    join: Literal["mean", "min"]

    @property
    def states_width(self) -> int:
        return self.members[0].states_width

    def __call__(self, prompts: list[Conversation], answers: list[str]) -> list[float]:
        scores: list[float] = self._joined(
            [torch.tensor(member(prompts, answers)) for member in self.members]
        ).tolist()
        return scores

    def score(self, answered: Answered, budget: int) -> tuple[Tensor, Tensor]:
        first_B, states_Nd = self.members[0].score(answered, budget)
        others = [member.score(answered, budget)[0] for member in self.members[1:]]
        return self._joined([first_B, *others]), states_Nd

    def value_start(self, policy: Policy) -> RewardModel:
        return self.members[0].copy()

    def _joined(self, scores: Sequence[Tensor]) -> Tensor:
        scores_MB = torch.stack(list(scores))
        return scores_MB.mean(dim=0) if self.join == "mean" else scores_MB.amin(dim=0)
