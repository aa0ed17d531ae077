"""Supervised finetuning on answers: the SL in SL-CAI (Bai et al. 2022, section 3.1).

The loss is on answer tokens only, end token included. No packing, no weight decay, no dropout. An
interrupted training goes on from its last checkpoint, where it is given a place for them.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from torch import Tensor

from constitutional_ai.learning import losses
from constitutional_ai.learning.loop import (
    Resumable,
    adamw,
    check_weights,
    culprits,
    descend,
    epochs,
    length_batches,
    warmup_decay,
)
from constitutional_ai.learning.policy import Batch, Policy, Tokens
from constitutional_ai.progress import Tick
from constitutional_ai.records import Conversation
from constitutional_ai.settings import FinetuneSettings

Example = tuple[Conversation, str]  # a prompt and the answer to learn


def train(
    policy: Policy,
    examples: Sequence[Example],
    settings: FinetuneSettings,
    seed: int,
    log: Callable[[dict[str, Any]], None],
    tick: Tick,
    names: Sequence[str] = (),
    kept: Resumable | None = None,
) -> None:
    """Train ``policy`` in place; one metrics row and one tick a step.

    With ``kept`` it goes on from the last checkpoint there, and keeps more. Raises
    TrainingDiverged, with the ``names`` of the rows (or else their numbers in ``examples``).
    """
    encoded = [policy.encode(prompt, answer) for prompt, answer in examples]
    lengths = [len(prompt) + len(answer) for prompt, answer in encoded]
    batches = epochs(length_batches(lengths, settings.batch_tokens), settings.epochs, seed)
    check_weights(policy.model)
    optimiser = adamw(policy.model.parameters(), settings.lr)

    def rows_of(step: int) -> list[Tokens]:
        return [encoded[row] for row in batches[step]]

    def loss_on(rows: Sequence[Tokens]) -> tuple[Tensor, int]:
        batch = Batch.of(rows, policy.tokens.pad_id, policy.device)
        return losses.sft_loss(policy.logprobs(batch), batch.mask_BS), int(batch.mask_BS.sum())

    def named(rows: Sequence[int]) -> str:
        guilty = culprits(rows, lambda row: loss_on([encoded[row]])[0])
        return ", ".join(names[row] if names else f"SFT example {row}" for row in guilty)

    start = kept.begin(policy.model, optimiser, rows_of) if kept else 0
    tick(start)
    for step in range(start, len(batches)):
        loss, answer_tokens = loss_on(rows_of(step))
        lr = settings.lr * warmup_decay(step, len(batches), settings.warmup_steps)
        norm = descend(loss, optimiser, lr, partial(named, batches[step]))
        found = {"loss/sft": loss.item(), "lr": lr, "grad_norm": norm}
        log({"step": step, **found, "tokens/answer": answer_tokens})
        tick(1, loss=found["loss/sft"])
        if kept:
            kept.done(step)


def steps(policy: Policy, examples: Sequence[Example], settings: FinetuneSettings) -> int:
    """How many steps ``train`` will take."""
    lengths = [sum(map(len, policy.encode(prompt, answer))) for prompt, answer in examples]
    return len(length_batches(lengths, settings.batch_tokens)) * settings.epochs
