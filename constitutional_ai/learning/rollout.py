"""The first half of a PPO step: let the policy answer, and measure its answers.

Answers are sampled from a twin of the live weights, in bfloat16 where that is fast. The training
forward computes their log-probabilities again, so that the first update starts from a ratio of one.
Policy and reference run the same arithmetic on the same batches: before the first update their KL
is exactly 0.

Shapes: B rows in order of length, S = T − 1 predicted positions, N answer tokens, d width.
"""

import copy
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from constitutional_ai.engines.base import Sampling
from constitutional_ai.engines.decode import sample_tokens
from constitutional_ai.learning import losses
from constitutional_ai.learning.batch import Answered, Batch, Tokens
from constitutional_ai.learning.descent import refuse
from constitutional_ai.learning.policy import Policy
from constitutional_ai.learning.reward import Reward
from constitutional_ai.machine import has_fast_bf16
from constitutional_ai.records import Prompt
from constitutional_ai.stage_settings import PPOSettings


class Sampler:
    """Samples from a policy whose weights move: ``refresh`` before sampling.

    A policy with an adapter is sampled from as it is: a copy of its frozen weights would cost more
    memory than the adapter saves.
    """

    def __init__(self, policy: Policy) -> None:
        self.policy = policy
        self.live = policy.adapter is not None
        self.twin: Any = None if self.live else _twin(policy.model, has_fast_bf16(policy.device))

    @torch.no_grad()
    def refresh(self) -> None:
        """Take over the policy's present weights."""
        if self.live:
            return
        pairs = zip(self.twin.parameters(), self.policy.model.parameters(), strict=True)
        for mine, theirs in pairs:
            mine.copy_(theirs)

    def answer(self, prompts: Sequence[Prompt], sampling: Sampling) -> list[Tokens]:
        """Ids of each prompt and of an answer to it, which ends in the end token if it finished."""
        tokens = self.policy.tokens
        asked = [tokens.prompt(prompt.prompt) for prompt in prompts]
        with self.policy.generating() if self.live else nullcontext(self.twin) as model:
            answers = sample_tokens(model, asked, sampling, tokens.end_id, tokens.pad_id)
        return list(zip(asked, answers, strict=True))


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
class Rollout(Answered):
    """Answers and all that the update needs to know of them. ``scores_B`` are the reward's own.

    ``states_Nd`` are the reward model's hidden states at the positions that predict answer tokens.
    """

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
        """Raise TrainingDiverged, naming just those rows that have a figure that is not finite."""
        figures = {
            "score": self.scores_B,
            "log-probability under the policy": self.logprobs_BS.sum(dim=1),
            "log-probability under the reference": self.reference_BS.sum(dim=1),
        }
        for what, figure_B in figures.items():
            rows = (~figure_B.isfinite()).nonzero()[:, 0].tolist()
            if rows:
                refuse(f"a {what} of {figure_B[rows[0]].item()}", partial(self.named, rows))


def rollout(
    sampler: Sampler,
    reference: Policy,
    reward: Reward,
    prompts: Sequence[Prompt],
    settings: PPOSettings,
    seed: int,
) -> Rollout:
    """An answer to each prompt, with log-probabilities and scores; rows in order of length."""
    answered = _answer(sampler, prompts, settings, seed)
    logprobs_BS, entropy_BS, reference_BS = _read(sampler.policy, reference, answered, settings)
    scores_B, states_Nd = reward.score(answered, settings.batch_tokens)
    return Rollout(
        **vars(answered),
        logprobs_BS=logprobs_BS,
        reference_BS=reference_BS,
        entropy_BS=entropy_BS,
        scores_B=scores_B,
        states_Nd=states_Nd,
    )


def _answer(
    sampler: Sampler, prompts: Sequence[Prompt], settings: PPOSettings, seed: int
) -> Answered:
    policy = sampler.policy
    sampler.refresh()
    sampling = Sampling(settings.temperature, 1.0, settings.max_new_tokens, seed)
    drawn = list(zip(prompts, sampler.answer(prompts, sampling), strict=True))
    drawn.sort(key=lambda row: sum(map(len, row[1])))
    rows = [tokens for _, tokens in drawn]
    ended = [ids[-1] == policy.tokens.end_id for _, ids in rows]
    return Answered(
        prompts=[prompt for prompt, _ in drawn],
        answers=[policy.tokens.text(ids) for _, ids in rows],
        batch=Batch.of(rows, policy.tokens.pad_id, policy.device),
        finished_B=torch.tensor(ended, device=policy.device),
    )


@torch.no_grad()
def _read(
    policy: Policy, reference: Policy, answered: Answered, settings: PPOSettings
) -> tuple[Tensor, Tensor, Tensor]:
    """The policy's log-probabilities and entropies, the reference's log-probabilities; [B, S]."""
    batch = answered.batch
    nothing_BS = torch.zeros(batch.mask_BS.shape, device=policy.device)
    logprobs_BS, entropy_BS, reference_BS = (nothing_BS.clone() for _ in range(3))
    for rows in batch.parts(settings.batch_tokens):
        part = batch.take(rows)
        both = policy.logprobs_and_entropy(part, settings.temperature)
        logprobs_BS[rows, : part.width], entropy_BS[rows, : part.width] = both
        reference_BS[rows, : part.width] = reference.logprobs(part, settings.temperature)
    return logprobs_BS, entropy_BS, reference_BS


def token_rewards(made: Rollout, kl_coef: float, missing_end_penalty: float) -> Tensor:
    """[B, S]: −β k1 at every answer token; the last one also gets the score minus the penalty."""
    mask_BS = made.batch.mask_BS
    rewards_BS = -kl_coef * losses.kl_k1(made.logprobs_BS, made.reference_BS, mask_BS)
    final_B = made.scores_B - missing_end_penalty * (~made.finished_B).float()
    return rewards_BS.scatter_add(1, made.batch.last_B[:, None], final_B[:, None])
