"""The reward model: one number for an answer, fitted to soft AI preferences.

Bai et al. 2022, section 4.1, with the judge's probabilities as targets. It starts as the SL-CAI
model under a zero head, so before training every answer scores 0. Scores are read at the answer's
end token, then standardised by a mean and a deviation that stand in the model's config. With an
adapter the head is trained beside it, and the saved folder holds the merged weights.

Shapes: B rows, T tokens, N answer tokens, P pairs, d width.
"""

import copy
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from torch import Tensor
from transformers import AutoConfig, AutoModelForSequenceClassification, AutoTokenizer

from constitutional_ai.engines import local
from constitutional_ai.engines.batching import length_batches
from constitutional_ai.engines.causal import context_of
from constitutional_ai.engines.tokens import ChatTokens
from constitutional_ai.errors import ModelError
from constitutional_ai.learning import lora, losses
from constitutional_ai.learning.batch import Answered, Batch, epochs
from constitutional_ai.learning.descent import Lessons, fit
from constitutional_ai.learning.fitting import check_fits
from constitutional_ai.learning.policy import Policy, set_training_attention
from constitutional_ai.learning.recompute import recomputing, switch_on
from constitutional_ai.machine import autocast, device_of
from constitutional_ai.progress import Tick
from constitutional_ai.records import Conversation, content_hash
from constitutional_ai.settings import ModelSettings
from constitutional_ai.stage_settings import RewardSettings
from constitutional_ai.store.atomic import write_folder
from constitutional_ai.store.checkpoints import Saving

if TYPE_CHECKING:
    from peft import PeftModel

FORWARD_TOKENS = 8192  # in one forward pass without gradient
TYPICAL = 512  # pairs whose scores set the mean and the deviation


class RewardModel:
    """A sequence classifier with one output. A ``Reward`` (learning/reward.py)."""

    def __init__(self, model: Any, tokens: ChatTokens) -> None:
        if not hasattr(model, "score"):
            raise ModelError(f"{type(model).__name__}: has no `score` head over every token")
        self.model = model.eval()
        self.tokens = tokens
        self.device: torch.device = model.device
        self.context = context_of(model)
        self.adapter: PeftModel | None = None
        self.mean: float = getattr(model.config, "reward_mean", 0.0)
        self.deviation: float = getattr(model.config, "reward_deviation", 1.0)

    @classmethod
    def from_policy(cls, policy: Policy) -> Self:
        """The policy's body under a zero head."""
        config = copy.deepcopy(policy.model.config)
        config.num_labels, config.pad_token_id = 1, policy.tokens.pad_id
        try:
            with policy.device:  # a large model's random weights are drawn slowly on a CPU
                model = AutoModelForSequenceClassification.from_config(
                    config, dtype=policy.model.dtype
                )
        except ValueError:
            kind = type(policy.model).__name__
            raise ModelError(f"{kind}: transformers has no sequence classifier for it") from None
        if policy.adapter is not None:
            policy = policy.copy()
            policy.merge()
        model.base_model.load_state_dict(policy.model.base_model.state_dict())
        model.score.float()
        torch.nn.init.zeros_(model.score.weight)
        set_training_attention(model)
        return cls(model, policy.tokens)

    @classmethod
    def load(cls, path: str | Path, device: str = "cpu", dtype: str = "float32") -> Self:
        """Raises ModelError where the folder holds no reward model, SettingsError for a device."""
        where = device_of(device)
        try:
            config = AutoConfig.from_pretrained(path)
            if config.num_labels != 1:
                raise ModelError(f"{path}: has {config.num_labels} outputs; a reward model has one")
            model = AutoModelForSequenceClassification.from_pretrained(
                path, dtype=local.resolve(dtype, config, where), use_safetensors=True
            )
            model.score.float()
            tokenizer = AutoTokenizer.from_pretrained(path)
        except (OSError, ValueError, SafetensorError) as error:
            raise ModelError(f"{path}: not a reward model: {str(error).splitlines()[0]}") from None
        model = model.to(where)
        set_training_attention(model)
        return cls(model, ChatTokens(tokenizer))

    def prepare(self, options: ModelSettings) -> None:
        """Put in an adapter, and switch gradient checkpointing on, if the run asks for them."""
        if options.lora_rank:
            self.adapter = lora.add(self.model, options, "SEQ_CLS")
        if options.gradient_checkpointing:
            switch_on(self.model)

    def copy(self) -> Self:
        """The same weights, free to go another way."""
        return copy.deepcopy(self, {id(self.tokens): self.tokens})

    def merge(self) -> None:
        """Add the adapter to the weights for good; it is a plain model afterwards."""
        if self.adapter is not None:
            self.adapter.merge_and_unload()
            self.adapter = None

    def save_adapter(self, folder: Path, base: str) -> None:
        """Adapter and head alone, as peft reads them; nothing if there is no adapter."""
        if (adapter := self.adapter) is not None:
            write_folder(folder, lambda draft: lora.save(adapter, draft, base))

    def save_pretrained(self, folder: Path) -> None:
        """A standard folder, whole or not at all."""
        assert self.adapter is None, "merge() comes first"
        config = self.model.config
        config.reward_mean, config.reward_deviation = self.mean, self.deviation
        write_folder(folder, self._write)

    def _write(self, folder: Path) -> None:
        self.model.save_pretrained(folder)
        self.tokens.tokenizer.save_pretrained(folder)

    # ---------------------------------------------------------------------------------- as a reward

    @property
    def states_width(self) -> int:
        """d, of the hidden states that ``score`` gives."""
        width: int = self.model.config.get_text_config().hidden_size
        return width

    def value_start(self, policy: Policy) -> "RewardModel":
        """Where a separate value function starts: here."""
        return self.copy()

    def __call__(self, prompts: list[Conversation], answers: list[str]) -> list[float]:
        """Standardised scores, in order; higher is better."""
        rows = [self.encode(p, a) for p, a in zip(prompts, answers, strict=True)]
        scores = [0.0] * len(rows)
        with torch.no_grad():
            for part in length_batches([len(row) for row in rows], FORWARD_TOKENS):
                some = self.at_end([rows[r] for r in part]).tolist()
                for row, score in zip(part, some, strict=True):
                    scores[row] = score
        return scores

    @torch.no_grad()
    def score(self, answered: Answered, budget: int) -> tuple[Tensor, Tensor]:
        """Standardised scores [B], and the hidden states that predict answer tokens [N, d].

        It reads the very tokens that were sampled, so that its states line up with them. An answer
        that was cut off is closed by an end token first: the model has only seen closed ones.
        """
        batch = answered.batch
        scores: list[Tensor] = []
        states: list[Tensor] = []
        # The rows come in order of length, so the parts hold them in their order.
        for rows in batch.parts(budget):
            part = batch.take(rows)
            open_B = ~answered.finished_B[rows]
            closing_B = torch.where(open_B, self.tokens.end_id, self.tokens.pad_id)
            ids_BT = F.pad(part.ids_BT, (0, 1))
            ids_BT = ids_BT.scatter(1, part.lengths_B[:, None], closing_B[:, None])
            scores_B, states_BTd = self.read(ids_BT, part.lengths_B - 1 + open_B)
            scores.append(scores_B)
            states.append(states_BTd[:, : part.width][part.mask_BS])
        return torch.cat(scores), torch.cat(states)

    # ------------------------------------------------------------------------------------- forwards

    def encode(self, prompt: Conversation, answer: str) -> list[int]:
        return self.tokens.prompt(prompt) + self.tokens.answer(answer)

    def at_end(self, rows: Sequence[Sequence[int]]) -> Tensor:
        """Standardised scores at the rows' last tokens, [B]. Has a gradient."""
        batch = Batch.of([([], list(row)) for row in rows], self.tokens.pad_id, self.device)
        return self.read(batch.ids_BT, batch.lengths_B - 1)[0]

    def read(self, ids_BT: Tensor, ends_B: Tensor) -> tuple[Tensor, Tensor]:
        """Standardised scores at the places ``ends_B``, [B], and the hidden states, [B, T, d]."""
        states_BTd = self.states(ids_BT)
        rows = torch.arange(len(ids_BT), device=ids_BT.device)
        return self.score_states(states_BTd[rows, ends_B]), states_BTd

    def states(self, ids_BT: Tensor) -> Tensor:
        """Hidden states of right-padded rows, float32, [B, T, d]."""
        with autocast(self.device), recomputing(self.model):
            states_BTd: Tensor = self.model.base_model(ids_BT, use_cache=False).last_hidden_state
        return states_BTd.float()

    def score_states(self, states_d: Tensor) -> Tensor:
        """The standardised score that any hidden states would give; the last dimension goes."""
        scores: Tensor = (self.model.score(states_d)[..., 0] - self.mean) / self.deviation
        return scores

    def length(self, pair: "LabelledPair") -> int:
        """How many tokens the longer answer of a pair takes, with the prompt."""
        return max(len(self.encode(pair.prompt, said)) for said in (pair.chosen, pair.rejected))

    # ----------------------------------------------------------------------------------- its scale

    def standardise(self, scores: Sequence[float]) -> None:
        """Take these scores of typical answers as mean 0 and deviation 1 from now on."""
        self.mean += self.deviation * float(np.mean(scores))
        self.deviation *= max(float(np.std(scores)), 1e-6)

    def rescale(self, temperature: float) -> None:
        """Divide raw scores by ``temperature``, in the head; standardised ones stay as they are."""
        with torch.no_grad():
            self.model.score.weight.div_(temperature)
        self.mean /= temperature
        self.deviation /= temperature


@dataclass(frozen=True)
class LabelledPair:
    """``p`` is the label, P(chosen better)."""

    prompt: Conversation
    chosen: str
    rejected: str
    p: float


def split(pairs: Sequence[LabelledPair], held_out: float, seed: int) -> tuple[list[int], list[int]]:
    """Row numbers to train on, and held out. Pairs that share a prompt stay on one side."""
    keys = sorted({content_hash(pair.prompt) for pair in pairs})
    random.Random(seed).shuffle(keys)
    apart = set(keys[: max(1, round(held_out * len(keys)))])
    train = [n for n, pair in enumerate(pairs) if content_hash(pair.prompt) not in apart]
    kept = [n for n, pair in enumerate(pairs) if content_hash(pair.prompt) in apart]
    return train, kept


def train(
    reward: RewardModel,
    pairs: Sequence[LabelledPair],
    settings: RewardSettings,
    seed: int,
    log: Callable[[dict[str, Any]], None],
    tick: Tick,
    names: Sequence[str] = (),
    saving: Saving | None = None,
) -> None:
    """Fit ``reward`` in place, then standardise it; one metrics row and one tick a step.

    A small penalty on the squared score fixes the level that preferences leave open. With
    ``saving`` it goes on from the last checkpoint there. Raises TrainingDiverged, with the
    ``names`` of the pairs, or else their numbers in ``pairs``, and DataError for a pair that is
    longer than the model's context.
    """
    encoded = [
        (reward.encode(pair.prompt, pair.chosen), reward.encode(pair.prompt, pair.rejected))
        for pair in pairs
    ]
    for both in encoded:
        check_fits(max(map(len, both)), reward.context)
    order = sorted(range(len(pairs)), key=lambda n: max(map(len, encoded[n])))
    size = settings.batch_pairs
    chunks = [order[start : start + size] for start in range(0, len(order), size)]
    low, high = settings.label_margin, 1 - settings.label_margin

    def loss(rows: list[int]) -> tuple[Tensor, dict[str, float]]:
        p_P = torch.tensor([pairs[row].p for row in rows], device=reward.device).clamp(low, high)
        scores_B = reward.at_end([encoded[r][0] for r in rows] + [encoded[r][1] for r in rows])
        delta_P = scores_B[: len(rows)] - scores_B[len(rows) :]
        loss = losses.preference_loss(delta_P, p_P)
        same_side = ((delta_P > 0) == (p_P > 0.5)).float().mean()
        total = loss + settings.score_l2 * scores_B.pow(2).mean()
        return total, {"loss/preference": loss.item(), "accuracy": same_side.item()}

    lessons = Lessons(
        batches=epochs(chunks, settings.epochs, seed),
        loss=loss,
        content=lambda row: (*encoded[row], pairs[row].p),
        name=lambda row: names[row] if names else f"preference pair {row}",
    )
    fit(reward.model, lessons, settings.lr, settings.warmup_steps, log, tick, saving)
    some = random.Random(seed).sample(range(len(pairs)), min(len(pairs), TYPICAL))
    typical = [pairs[n] for n in some]
    prompts = [pair.prompt for pair in typical] * 2
    answers = [pair.chosen for pair in typical] + [pair.rejected for pair in typical]
    reward.standardise(reward(prompts, answers))


def logits(reward: RewardModel, pairs: Sequence[LabelledPair]) -> list[float]:
    """Δ = r(chosen) − r(rejected) before standardisation: σ(Δ) is the modelled P(chosen better)."""
    prompts = [pair.prompt for pair in pairs]
    chosen = reward(prompts, [pair.chosen for pair in pairs])
    rejected = reward(prompts, [pair.rejected for pair in pairs])
    return [(a - b) * reward.deviation for a, b in zip(chosen, rejected, strict=True)]
