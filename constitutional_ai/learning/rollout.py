"""The first half of a PPO step: let the policy answer, and measure its answers.

Answers are sampled from a twin of the live weights, in bfloat16 where that is fast; their
log-probabilities are computed again by the training forward, so that the first update starts from a
ratio of one. Policy and reference run the same arithmetic on the same batches: before the first
update their KL is exactly 0.

Shapes: B rows in order of length, T tokens, S = T − 1, N answer tokens of all rows, d width.
"""

import copy
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from constitutional_ai.engines.base import Sampling
from constitutional_ai.engines.decode import sample_tokens
from constitutional_ai.learning import losses
from constitutional_ai.learning.loop import length_batches, refuse
from constitutional_ai.learning.policy import Batch, Policy
from constitutional_ai.learning.reward_model import Reward, RewardModel
from constitutional_ai.machine import has_fast_bf16
from constitutional_ai.records import Prompt
from constitutional_ai.settings import PPOSettings


class Sampler:
    """Samples from a policy whose weights move: ``refresh`` before sampling.

    A policy with an adapter is sampled from as it is: a copy of its frozen weights would cost more
    memory than the adapter saves.
    """

    def __init__(self, policy: Policy) -> None:
        self.policy = policy
        self.live = policy.options.lora_rank > 0
        self.twin: Any = None if self.live else _twin(policy.model, has_fast_bf16(policy.device))

    @torch.no_grad()
    def refresh(self) -> None:
        """Take over the policy's present weights."""
        if self.live:
            return
        pairs = zip(self.twin.parameters(), self.policy.model.parameters(), strict=True)
        for mine, theirs in pairs:
            mine.copy_(theirs)

    def answer(self, prompts: Sequence[Prompt], sampling: Sampling) -> list[list[int]]:
        """Ids of an answer to each prompt, the end token included where it was reached."""
        tokens = self.policy.tokens
        encoded = [tokens.prompt(prompt.prompt) for prompt in prompts]
        with self.policy.generating() if self.live else nullcontext(self.twin) as model:
            return sample_tokens(model, encoded, sampling, tokens.end_id, tokens.pad_id)


def _twin(model: Any, bfloat16: bool) -> Any:
    """A copy that generates: the training attention knows neither caches nor left padding.

    Only parameters are cast: rotary tables would lose their meaning in bfloat16.
    """
    twin = copy.deepcopy(model).requires_grad_(False)
    for parameter in twin.parameters() if bfloat16 else ():
        parameter.data = parameter.data.to(torch.bfloat16)
    twin.set_attn_implementation("eager")
    return twin


@dataclass(frozen=True)
class Rollout:
    """Answers and all that the update needs to know of them. ``scores_B`` are the reward's own.

    ``states_Nd`` are the reward model's hidden states at the positions that predict answer tokens.
    """

    prompts: list[Prompt]
    answers: list[str]
    batch: Batch
    finished_B: Tensor
    logprobs_BS: Tensor
    reference_BS: Tensor
    entropy_BS: Tensor
    scores_B: Tensor
    states_Nd: Tensor | None

    def named(self, rows: Sequence[int]) -> str:
        """The prompts of some rows, by id and first words."""
        prompts = [self.prompts[row] for row in rows]
        return ", ".join(f"{p.id} {p.prompt[-1]['content'][:40]!r}" for p in prompts)

    def refuse_broken(self) -> None:
        """Raise TrainingDiverged, naming just those rows of which a figure is no finite number."""
        figures = {
            "score": self.scores_B,
            "log-probability under the policy": self.logprobs_BS.sum(dim=1),
            "log-probability under the reference": self.reference_BS.sum(dim=1),
        }
        for what, figure_B in figures.items():
            rows = (~figure_B.isfinite()).nonzero()[:, 0].tolist()
            if rows:
                refuse(f"a {what} of {figure_B[rows[0]].item()}", partial(self.named, rows))


@torch.no_grad()
def rollout(
    sampler: Sampler,
    reference: Policy,
    reward: Reward,
    prompts: Sequence[Prompt],
    settings: PPOSettings,
    seed: int,
) -> Rollout:
    """An answer to each prompt, with log-probabilities and scores; rows in order of length."""
    policy = sampler.policy
    sampler.refresh()
    sampling = Sampling(settings.temperature, 1.0, settings.max_new_tokens, seed)
    drawn = zip(prompts, sampler.answer(prompts, sampling), strict=True)
    rows = [(prompt, policy.tokens.prompt(prompt.prompt), ids) for prompt, ids in drawn]
    rows.sort(key=lambda row: len(row[1]) + len(row[2]))
    kept = [prompt for prompt, _, _ in rows]
    answers = [policy.tokens.text(ids) for _, _, ids in rows]
    batch = Batch.of([row[1:] for row in rows], policy.tokens.pad_id, policy.device)
    ended = [ids[-1] == policy.tokens.end_id for _, _, ids in rows]
    finished_B = torch.tensor(ended, device=policy.device)
    nothing_BS = torch.zeros(batch.mask_BS.shape, device=policy.device)
    logprobs_BS, reference_BS, entropy_BS = (nothing_BS.clone() for _ in range(3))
    for part in length_batches(batch.lengths_B.tolist(), settings.batch_tokens):
        some = batch.take(part)
        width = some.mask_BS.shape[1]
        both = policy.logprobs_and_entropy(some, settings.temperature)
        logprobs_BS[part, :width], entropy_BS[part, :width] = both
        reference_BS[part, :width] = reference.logprobs(some, settings.temperature)
    end_id = policy.tokens.end_id
    scores_B, states_Nd = judged(reward, kept, answers, batch, finished_B, end_id, settings)
    return Rollout(
        prompts=kept,
        answers=answers,
        batch=batch,
        finished_B=finished_B,
        logprobs_BS=logprobs_BS,
        reference_BS=reference_BS,
        entropy_BS=entropy_BS,
        scores_B=scores_B,
        states_Nd=states_Nd,
    )


def judged(
    reward: Reward,
    prompts: Sequence[Prompt],
    answers: Sequence[str],
    batch: Batch,
    finished_B: Tensor,
    end_id: int,
    settings: PPOSettings,
) -> tuple[Tensor, Tensor | None]:
    """Scores [B], and where the reward is a model its hidden states [N, d].

    A reward model reads the very tokens that were sampled, so that its states line up with them. An
    answer that was cut off is closed by an end token first: the model has only seen closed ones.
    """
    if not isinstance(reward, RewardModel):
        given = reward([prompt.prompt for prompt in prompts], list(answers))
        return torch.tensor(given, dtype=torch.float32, device=batch.ids_BT.device), None
    scores: list[Tensor] = []
    states: list[Tensor] = []
    # The rows come in order of length, so the parts hold them in their order.
    for part in length_batches(batch.lengths_B.tolist(), settings.batch_tokens):
        some = batch.take(part)
        open_B = ~finished_B[part]
        closing_B = torch.where(open_B, end_id, reward.tokens.pad_id)
        ids_BT = F.pad(some.ids_BT, (0, 1)).scatter(1, some.lengths_B[:, None], closing_B[:, None])
        scores_B, states_BTd = reward.read(ids_BT, some.lengths_B - 1 + open_B)
        scores.append(scores_B)
        states.append(states_BTd[:, : some.mask_BS.shape[1]][some.mask_BS])
    return torch.cat(scores), torch.cat(states)


def token_rewards(made: Rollout, kl_coef: float, missing_end_penalty: float) -> Tensor:
    """[B, S]: −β k1 at every answer token; at the last one also the score, less the penalty."""
    mask_BS = made.batch.mask_BS
    rewards_BS = -kl_coef * losses.kl_k1(made.logprobs_BS, made.reference_BS, mask_BS)
    final_B = made.scores_B - missing_end_penalty * (~made.finished_B).float()
    return rewards_BS.scatter_add(1, made.batch.last_B[:, None], final_B[:, None])
