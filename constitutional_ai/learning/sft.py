"""Supervised finetuning on answers: the SL in SL-CAI (Bai et al. 2022, section 3.1).

The loss is on answer tokens only, end token included. No packing, no weight decay, no dropout.
"""

from collections.abc import Callable, Sequence
from typing import Any

from constitutional_ai.learning import losses
from constitutional_ai.learning.loop import adamw, descend, epochs, length_batches, warmup_decay
from constitutional_ai.learning.policy import Batch, Policy
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
) -> None:
    """Train ``policy`` in place; one metrics row and one tick a step.

    Raises TrainingDiverged, naming the rows by their number in ``examples``.
    """
    encoded = [policy.encode(prompt, answer) for prompt, answer in examples]
    lengths = [len(prompt) + len(answer) for prompt, answer in encoded]
    batches = epochs(length_batches(lengths, settings.batch_tokens), settings.epochs, seed)
    optimiser = adamw(policy.model.parameters(), settings.lr)
    for step, rows in enumerate(batches):
        batch = Batch.of([encoded[row] for row in rows], policy.tokens.pad_id, policy.device)
        loss = losses.sft_loss(policy.logprobs(batch), batch.mask_BS)
        lr = settings.lr * warmup_decay(step, len(batches), settings.warmup_steps)
        norm = descend(loss, optimiser, lr, rows=f"SFT examples {rows}")
        found = {"loss/sft": loss.item(), "lr": lr, "grad_norm": norm}
        log({"step": step, **found, "tokens/answer": int(batch.mask_BS.sum())})
        tick(1, loss=found["loss/sft"])


def steps(policy: Policy, examples: Sequence[Example], settings: FinetuneSettings) -> int:
    """How many steps ``train`` will take."""
    lengths = [sum(map(len, policy.encode(prompt, answer))) for prompt, answer in examples]
    return len(length_batches(lengths, settings.batch_tokens)) * settings.epochs
