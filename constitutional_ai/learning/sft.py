"""Supervised finetuning on answers: the SL in SL-CAI (Bai et al. 2022, section 3.1).

The loss is on answer tokens only, end token included. No packing, no weight decay, no dropout.
"""

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor

from constitutional_ai.engines.batching import length_batches
from constitutional_ai.engines.tokens import ChatTokens
from constitutional_ai.learning import losses
from constitutional_ai.learning.batch import Batch, Tokens, epochs
from constitutional_ai.learning.descent import Lessons, fit
from constitutional_ai.learning.policy import Policy
from constitutional_ai.progress import Tick
from constitutional_ai.records import Conversation
from constitutional_ai.stage_settings import FinetuneSettings
from constitutional_ai.store.checkpoints import Saving

Example = tuple[Conversation, str]  # a prompt and the answer to learn


def train(
    policy: Policy,
    examples: Sequence[Example],
    settings: FinetuneSettings,
    seed: int,
    log: Callable[[dict[str, Any]], None],
    tick: Tick,
    names: Sequence[str] = (),
    saving: Saving | None = None,
) -> None:
    """Train ``policy`` in place; one metrics row and one tick a step.

    With ``saving`` it goes on from the last checkpoint there. Raises TrainingDiverged, with the
    ``names`` of the rows, or else their numbers in ``examples``.
    """
    encoded = [policy.encode(prompt, answer) for prompt, answer in examples]

    def loss(rows: list[int]) -> tuple[Tensor, dict[str, float]]:
        batch = Batch.of([encoded[r] for r in rows], policy.tokens.pad_id, policy.device)
        loss = losses.sft_loss(policy.logprobs(batch), batch.mask_BS)
        return loss, {"loss/sft": loss.item(), "tokens/answer": int(batch.mask_BS.sum())}

    lessons = Lessons(
        batches=epochs(_batches(encoded, settings), settings.epochs, seed),
        loss=loss,
        content=encoded.__getitem__,
        name=lambda row: names[row] if names else f"SFT example {row}",
    )
    fit(policy.model, lessons, settings.lr, settings.warmup_steps, log, tick, saving)


def length(tokens: ChatTokens, example: Example) -> int:
    """How many tokens an example has, end token included."""
    prompt, answer = example
    return len(tokens.prompt(prompt)) + len(tokens.answer(answer))


def steps(policy: Policy, examples: Sequence[Example], settings: FinetuneSettings) -> int:
    """How many steps ``train`` will take."""
    encoded = [policy.encode(prompt, answer) for prompt, answer in examples]
    return len(_batches(encoded, settings)) * settings.epochs


def _batches(encoded: Sequence[Tokens], settings: FinetuneSettings) -> list[list[int]]:
    lengths = [len(prompt) + len(answer) for prompt, answer in encoded]
    return length_batches(lengths, settings.batch_tokens)
