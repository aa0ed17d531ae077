"""Trains a lab model from nothing on the lab's corpus: minutes on two cores (``cai lab pretrain``).

The recipe: Muon on the matrices and AdamW on the rest; products in bfloat16 if the processor has it
(it did for the shipped weights); one pass over as many documents as the token budget holds; a
constant learning rate that falls to zero over the last 45%. The letter of a verdict weighs little
until the model can read, then much: a judge learns better late. The result is a function of (size,
seed, tokens) on one machine and thread count. A killed run goes on from ``DIR/checkpoint``. After
the first checkpoint, ``DIR`` holds a model that can be loaded. ``harden.py`` trains on from there.
More tokens make a judge that knows more facts; on a GPU many tokens a step are cheap (``--device
cuda --batch-tokens 32768``).

Muon's learning rate matters most: at 0.02 the judge stays at chance for 10M tokens.
"""

import shutil
import time
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import LlamaForCausalLM

from constitutional_ai.errors import ModelError, TrainingDiverged
from constitutional_ai.lab.training.batches import (
    Batch,
    Corpus,
    Documents,
    batches,
    collate,
    make_corpus,
    plan,
    texts,
    workers,
)
from constitutional_ai.lab.training.corpus import documents as corpus_of_the_lab
from constitutional_ai.lab.training.cross_entropy import linear_cross_entropy
from constitutional_ai.lab.training.muon import Muon
from constitutional_ai.lab.training.probes import SEEN_WEIGHT, WRONG_WEIGHT, Probes
from constitutional_ai.lab.world.model import MAX_TOKENS, new_model, save
from constitutional_ai.lab.world.sizes import SIZES
from constitutional_ai.lab.world.tokenizer import train as train_tokenizer
from constitutional_ai.lab.world.tokenizer import wrap
from constitutional_ai.learning.attention import fast_training
from constitutional_ai.machine import autocast, device_of
from constitutional_ai.store.checkpoints import Part, State, Training

TOKENS = {"xxs": 5_000_000, "xs": 6_000_000, "s": 14_000_000}
BATCH_TOKENS = 4_096
MATRIX_LR = 0.003
OTHER_LR = 0.003
WARMUP_STEPS = 50
DECAY = 0.45  # the last share of training, over which the learning rate falls
LAST_LR = 0.02  # of the full learning rate, where the decay stops
VERDICT = (0.4, 2.8)  # weight of a verdict's letter, early and late
VERDICT_RAMP = (0.3, 0.4)  # shares of training between which it rises
CLIP = 1.0
CHECKPOINTS = 20
LOG_SECONDS = 30.0

# Seeds of the documents: a block of a million for each seed, cut by purpose.
_BLOCK, _HOLD_OUT, _TRAINING, _TOKENIZER = 1_000_000, 0, 10, 900_000
_HOLD_OUT_TOKENS, _HOLD_OUT_QUICK = 100_000, 256
_TOKENIZER_CHUNKS = 30


def pretrain(
    size: str,
    out: str | Path,
    steps: int | None = None,
    seed: int = 0,
    progress: Callable[[str], None] | None = None,
    tokens: int | None = None,
    documents: Documents = corpus_of_the_lab,
    batch_tokens: int = BATCH_TOKENS,
    device: str = "cpu",
) -> Path:
    """Train a model of a size in ``SIZES`` into the folder ``out``, and return that folder.

    ``tokens`` is the length of the corpus, which is read once; TOKENS has each size's own.
    ``batch_tokens``, padding included, are read a step. With fewer ``steps`` the whole schedule is
    shorter. ``progress`` gets each line of the log. ``documents`` replaces the corpus; worker
    processes must be able to import it. Raises ModelError if ``out`` holds the checkpoint of
    another run, SettingsError for a missing device, TrainingDiverged on a NaN.
    """
    if size not in SIZES:
        raise ModelError(f"unknown size {size!r}; there are {', '.join(SIZES)}")
    say, where = progress or (lambda line: None), device_of(device)
    out, tokens = Path(out), tokens or TOKENS[size]
    first = seed * _BLOCK
    kinds = range(first + _TOKENIZER, first + _TOKENIZER + _TOKENIZER_CHUNKS)
    with workers() as pool:
        tokenizer = train_tokenizer(texts(pool, documents, kinds))
        hold_out = make_corpus(pool, documents, tokenizer, first + _HOLD_OUT, _HOLD_OUT_TOKENS)
        corpus = make_corpus(pool, documents, tokenizer, first + _TRAINING, tokens)
    say(
        f"corpus: {len(corpus.ends):,} documents, {len(corpus.ids):,} tokens, "
        f"vocabulary {tokenizer.get_vocab_size():,}"
    )
    order = plan(corpus.lengths, batch_tokens, seed)[:steps]
    model = new_model(size, tokenizer.get_vocab_size(), seed)
    nn.Module.to(model, where)
    identity = {
        "size": size,
        "seed": str(seed),
        "steps": str(len(order)),
        "batch_tokens": str(batch_tokens),
        "corpus": f"{zlib.crc32(corpus.ids.tobytes()):08x}",
    }
    trainer = Trainer(model, out / "checkpoint", identity)
    wrapped = wrap(tokenizer, MAX_TOKENS)
    trainer.resume(say)

    def keep() -> None:
        trainer.save()
        save(model, wrapped, out)

    with fast_training(model):
        trainer.run(corpus, order, hold_out, keep, say)
        say(f"final: {held_out(model, hold_out)}")
    save(model, wrapped, out)
    shutil.rmtree(out / "checkpoint", ignore_errors=True)
    return out


def learning_rate(step: int, share: float) -> float:
    """The factor on both learning rates: linear warmup, constant, linear decay."""
    decay = max(LAST_LR, min(1.0, (1 - share) / DECAY))
    return min(1.0, (step + 1) / WARMUP_STEPS) * decay


def verdict_weight(share: float) -> float:
    """What the letter of a verdict weighs in the loss when ``share`` of training is over."""
    (early, late), (start, end) = VERDICT, VERDICT_RAMP
    return early + (late - early) * min(1.0, max(0.0, (share - start) / (end - start)))


@dataclass(frozen=True)
class Schedule:
    """``rate``: (step, share of training) → factor on both learning rates; ``verdict``: share →
    what a verdict's letter weighs.
    """

    rate: Callable[[int, float], float]
    verdict: Callable[[float], float]


FROM_NOTHING = Schedule(learning_rate, verdict_weight)


@dataclass
class Trainer:
    """A model, its optimisers, and how far they have come: all that a checkpoint holds."""

    model: LlamaForCausalLM
    folder: Path  # of checkpoints
    identity: dict[str, str]  # a checkpoint of another identity is refused
    schedule: Schedule = FROM_NOTHING
    further: Callable[[int], None] | None = None  # adds the gradients of another loss at a step
    step: int = 0
    seconds: float = 0.0
    tokens: int = 0
    probes: Probes = field(init=False)
    optimisers: list[torch.optim.Optimizer] = field(init=False)
    _training: Training = field(init=False)

    def __post_init__(self) -> None:
        self.probes = Probes(self.model.config.hidden_size).to(self.model.device)
        named = list(self.model.named_parameters())
        matrices = [p for name, p in named if p.ndim == 2 and "embed" not in name]
        rest = [p for name, p in named if p.ndim != 2 or "embed" in name]
        rest += self.probes.parameters()
        muon = Muon(matrices, lr=MATRIX_LR)
        other = torch.optim.AdamW(
            rest, lr=OTHER_LR, betas=(0.9, 0.95), weight_decay=0.0, fused=True
        )
        self.optimisers = [muon, other]
        parts = {"model": Part(self.model, muon), "probes": Part(self.probes, other)}
        self._training = Training(self.folder, parts, {})

    def run(
        self,
        corpus: Corpus,
        order: list[NDArray[np.int64]],
        hold_out: Corpus,
        keep: Callable[[], None],
        say: Callable[[str], None],
    ) -> None:
        """Train from the current step to the end of ``order``, the documents of each batch."""
        every = max(1, len(order) // CHECKPOINTS)
        quick = hold_out.first(min(_HOLD_OUT_QUICK, len(hold_out.ends)))
        logged = float("-inf")
        while self.step < len(order):
            started = time.monotonic()
            batch = collate(corpus, order[self.step], self.model.device)
            loss = self.update(batch, self.step / len(order))
            self.seconds += time.monotonic() - started
            if started - logged > LOG_SECONDS:
                logged = started
                speed = self.tokens / self.seconds
                say(
                    f"{self.seconds:.0f} s, step {self.step}/{len(order)}, {self.tokens:,} tokens, "
                    f"{speed:,.0f}/s, loss {loss:.3f}, {held_out(self.model, quick)}"
                )
            if self.step % every == 0 and self.step < len(order):
                keep()

    def update(self, batch: Batch, share: float) -> float:
        """One step of every optimiser, when ``share`` of training is over; the loss in nats."""
        for optimiser in self.optimisers:
            base = MATRIX_LR if isinstance(optimiser, Muon) else OTHER_LR
            for group in optimiser.param_groups:
                group["lr"] = base * self.schedule.rate(self.step, share)
        states = _states(self.model, batch)
        loss = weighted_loss(self.model, states[-1], batch, self.schedule.verdict(share))
        seen, wrong = self.probes.losses(states, batch)
        (loss + SEEN_WEIGHT * seen + WRONG_WEIGHT * wrong).backward()
        if self.further:
            self.further(self.step)
        norm = torch.nn.utils.clip_grad_norm_(self.model.parameters(), CLIP)
        if not torch.isfinite(loss) or not torch.isfinite(norm):
            raise TrainingDiverged(f"loss {loss.item()}, gradient {norm.item()} at {self.step}")
        for optimiser in self.optimisers:
            optimiser.step()
        for trained in (self.model, self.probes):
            trained.zero_grad(set_to_none=True)
        self.step += 1
        self.tokens += int((batch.ids != 0).sum())
        return loss.item()

    def save(self) -> None:
        """Keep everything, so that a killed run goes on from here."""
        counts = {"seconds": self.seconds, "tokens": self.tokens}
        self._training.save(self.step, {**self.identity, **counts})

    def resume(self, say: Callable[[str], None]) -> None:
        """Go on from the newest checkpoint. Raises ModelError if it belongs to another run."""
        if saved := self._training.resume(self._check):
            self.step = saved.step
            self.seconds, self.tokens = saved.state["seconds"], saved.state["tokens"]
            say(f"resumed at step {self.step}")

    def _check(self, state: State) -> None:
        for key, value in self.identity.items():
            if state.get(key) != value:
                raise ModelError(
                    f"{self.folder} is of a run with {key} {state.get(key)}, not {value};"
                    f" delete that folder or choose another --out"
                )


def _states(model: LlamaForCausalLM, batch: Batch) -> tuple[Tensor, ...]:
    """Hidden states (documents, time, width) after the embedding and after each layer."""
    with autocast(batch.ids.device):
        output = model.model(input_ids=batch.ids, use_cache=False, output_hidden_states=True)
    states: tuple[Tensor, ...] = output.hidden_states
    return states


def weighted_loss(model: LlamaForCausalLM, last: Tensor, batch: Batch, verdict: float) -> Tensor:
    """Weighted mean of -log p(token), in nats; logits only where a weight is not zero.

    ``last``: the last hidden states (documents, time, width), each of which predicts what follows.
    """
    weights = torch.where(batch.letters, batch.weights * verdict, batch.weights)[:, 1:]
    counted = weights != 0
    chosen = weights[counted]
    return linear_cross_entropy(
        last[:, :-1][counted],
        model.lm_head.weight,
        batch.ids[:, 1:][counted],
        chosen / chosen.sum(),
    )


@dataclass(frozen=True)
class HeldOut:
    """Losses on documents that were not trained on, in nats a token."""

    text: float  # weighted, without verdict letters
    judge: float  # of the verdict letters; log 2 = 0.693 is chance

    def __str__(self) -> str:
        return f"hold-out {self.text:.4f}, judge {self.judge:.4f}"


@torch.no_grad()
def held_out(model: LlamaForCausalLM, corpus: Corpus) -> HeldOut:
    """Both losses on a corpus; NaN where it has no token of a kind."""
    sums = torch.zeros(2, 2, device=model.device)  # (text, judge) x (loss, weight)
    for batch in batches(corpus, BATCH_TOKENS, 0, model.device):
        letters = batch.letters[:, 1:]
        weights = batch.weights[:, 1:]
        counted = (weights != 0) | letters
        logits = model.lm_head(_states(model, batch)[-1][:, :-1][counted].float())
        loss = F.cross_entropy(logits, batch.ids[:, 1:][counted], reduction="none")
        letter, weight = letters[counted], weights[counted]
        for row, used in enumerate((torch.where(letter, 0.0, weight), letter.float())):
            sums[row] += torch.stack([(loss * used).sum(), used.sum()])
    text, judge = (sums[:, 0] / sums[:, 1]).tolist()
    return HeldOut(text, judge)
