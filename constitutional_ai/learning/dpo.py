"""Direct preference optimisation from soft AI labels: RL-CAI without a reward model.

The method is Rafailov et al. 2023 (arXiv 2305.18290, equation 7). The paper's labels are hard; here
the target is the judge's probability, as it is for the reward model (Bai et al. 2022, section 4.1).
The reference is the policy as it comes, the SL-CAI model. Its log-probabilities are read once,
before the first step, in the very batches of the training. So what a batch's padding does to
low-precision arithmetic cancels, and before the first step every h is exactly 0.

Not covered: answers that the policy samples while it learns. Nothing here tells the KL from the
reference, which is an expectation over such answers.

Shapes: B rows, P pairs. h is log π/π_ref of chosen minus that of rejected, in nats.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from constitutional_ai.engines.batching import length_batches
from constitutional_ai.engines.tokens import ChatTokens
from constitutional_ai.errors import DataError
from constitutional_ai.learning import losses
from constitutional_ai.learning.batch import Batch, Tokens, accumulate, endless, epochs
from constitutional_ai.learning.descent import Lessons, check_weights, fit
from constitutional_ai.learning.policy import Policy
from constitutional_ai.learning.reward_model import LabelledPair
from constitutional_ai.learning.sft import Example
from constitutional_ai.progress import Tick
from constitutional_ai.stage_settings import DPOSettings
from constitutional_ai.store.checkpoints import Saving
from constitutional_ai.store.seeds import derive_seed

Figures = dict[str, float]
Both = tuple[Tokens, Tokens]  # prompt with the chosen answer, prompt with the rejected one


class Pairs:
    """Labelled pairs as tokens, in batches of similar length, with the reference's log-probs.

    The policy must not have been trained yet: as it is now, it is the reference.
    """

    def __init__(
        self, policy: Policy, pairs: Sequence[LabelledPair], settings: DPOSettings
    ) -> None:
        check_weights(policy.model)
        self.policy, self.settings = policy, settings
        self.tokens: list[Both] = [
            (policy.encode(pair.prompt, pair.chosen), policy.encode(pair.prompt, pair.rejected))
            for pair in pairs
        ]
        self.p = [target(pair.p, settings) for pair in pairs]
        lengths = [max(sum(map(len, row)) for row in both) for both in self.tokens]
        order, size = sorted(range(len(pairs)), key=lengths.__getitem__), settings.batch_pairs
        self.batches = [order[start : start + size] for start in range(0, len(order), size)]
        self._twice = [2 * length for length in lengths]
        self.reference: dict[int, tuple[float, float]] = {}
        with torch.no_grad():
            for part in (part for batch in self.batches for part in self.parts(batch)):
                chosen_P, rejected_P = self.logprobs(part)
                both = zip(chosen_P.tolist(), rejected_P.tolist(), strict=True)
                self.reference |= dict(zip(part, both, strict=True))

    def parts(self, rows: Sequence[int]) -> list[list[int]]:
        """The rows in parts of at most ``batch_tokens`` tokens: both answers, with padding."""
        lengths = [self._twice[row] for row in rows]
        places = length_batches(lengths, self.settings.batch_tokens)
        return [[rows[place] for place in part] for part in places]

    def logprobs(self, rows: Sequence[int]) -> tuple[Tensor, Tensor]:
        """log π(answer | prompt) of chosen and rejected, [P] each, summed over answer tokens."""
        both = [self.tokens[row][0] for row in rows] + [self.tokens[row][1] for row in rows]
        batch = Batch.of(both, self.policy.tokens.pad_id, self.policy.device)
        sums_B = losses.masked_sum(self.policy.logprobs(batch), batch.mask_BS)
        return sums_B[: len(rows)], sums_B[len(rows) :]

    def log_ratios(self, rows: Sequence[int]) -> tuple[Tensor, Tensor]:
        """log π/π_ref of chosen and rejected, [P] each. Has a gradient."""
        chosen_P, rejected_P = self.logprobs(rows)
        reference_P2 = torch.tensor([self.reference[row] for row in rows], device=chosen_P.device)
        return chosen_P - reference_P2[:, 0], rejected_P - reference_P2[:, 1]

    def loss_of(self, h_P: Tensor, p_P: Tensor) -> Tensor:
        of = losses.ipo_loss if self.settings.loss == "ipo" else losses.dpo_loss
        return of(h_P, p_P, self.settings.beta)

    def labels(self, rows: Sequence[int]) -> Tensor:
        """What these pairs are trained towards, [P]."""
        return torch.tensor([self.p[row] for row in rows], device=self.policy.device)

    def loss(self, rows: Sequence[int]) -> tuple[Tensor, Figures]:
        """The loss of some pairs, and what is logged of them; all are means over these pairs."""
        settings = self.settings
        chosen_P, rejected_P = self.log_ratios(rows)
        h_P, p_P = chosen_P - rejected_P, self.labels(rows)
        loss = self.loss_of(h_P, p_P)
        reference = [self.reference[row] for row in rows]
        return loss, {
            "loss/dpo": loss.item(),
            "accuracy": same_side(h_P, p_P).mean().item(),
            "rewards/margins": settings.beta * h_P.mean().item(),
            "logratio/chosen": chosen_P.mean().item(),
            "logratio/rejected": rejected_P.mean().item(),
            "logps/chosen": chosen_P.mean().item() + sum(c for c, _ in reference) / len(rows),
            "logps/rejected": rejected_P.mean().item() + sum(r for _, r in reference) / len(rows),
        }


def target(p: float, settings: DPOSettings) -> float:
    """What a label is trained towards: a soft one off 0 and 1 by the margin, a hard one 0 or 1.

    >>> target(0.995, DPOSettings()), target(0.6, DPOSettings(loss="hard"))
    (0.98, 1.0)
    """
    if settings.loss == "soft":
        return min(max(p, settings.label_margin), 1 - settings.label_margin)
    return float(p > 0.5)


def same_side(h_P: Tensor, p_P: Tensor) -> Tensor:
    """1 where h and the label prefer the same answer, 0 where not, ½ where either prefers none."""
    return 0.5 + 0.5 * torch.sign(h_P) * torch.sign(p_P - 0.5)


def length(tokens: ChatTokens, pair: LabelledPair) -> int:
    """How many tokens the longer answer of a pair takes, with the prompt and the end token."""
    answers = [len(tokens.answer(answer)) for answer in (pair.chosen, pair.rejected)]
    return len(tokens.prompt(pair.prompt)) + max(answers)


def train(
    pairs: Pairs,
    seed: int,
    log: Callable[[dict[str, Any]], None],
    tick: Tick,
    names: Sequence[str] = (),
    saving: Saving | None = None,
    examples: Sequence[Example] = (),
) -> None:
    """Train the policy of ``pairs`` in place; one metrics row and one tick a step.

    ``examples`` are the SFT rows of the joint objective: with ``sl_mix`` a step learns from as many
    of them as it has pairs. With ``saving`` it goes on from the last checkpoint there. Raises
    TrainingDiverged, with the ``names`` of the pairs, or else their numbers, and DataError for
    ``sl_mix`` without examples.
    """
    settings, policy = pairs.settings, pairs.policy
    if settings.sl_mix and not examples:
        raise DataError("dpo.sl_mix is set, but there are no finetuning examples to mix in")
    steps = Steps(pairs, [policy.encode(*example) for example in examples])

    def name(row: int) -> str:
        if row >= steps.first:
            return f"SFT example {row - steps.first}"
        return names[row] if names else f"preference pair {row}"

    lessons = Lessons(
        batches=steps.batches(seed),
        loss=steps.loss,
        content=steps.content,
        name=name,
        gather=steps.gather,
    )
    fit(policy.model, lessons, settings.lr, settings.warmup_steps, log, tick, saving)


@dataclass(frozen=True)
class Steps:
    """What a step learns from. Rows from ``first`` on are SFT examples, those before are pairs."""

    pairs: Pairs
    examples: Sequence[Tokens]

    @property
    def first(self) -> int:
        return len(self.pairs.tokens)

    def batches(self, seed: int) -> list[list[int]]:
        """The pairs of each step, and with ``sl_mix`` as many examples."""
        settings = self.pairs.settings
        steps = epochs(self.pairs.batches, settings.epochs, seed)
        if not settings.sl_mix:
            return steps
        mixed, own = [], derive_seed(seed, "sft")
        for number, rows in enumerate(steps):
            start = number * settings.batch_pairs
            drawn = endless(len(self.examples), start, len(rows), own)
            mixed.append([*rows, *(self.first + row for row in drawn)])
        return mixed

    def content(self, row: int) -> object:
        if row >= self.first:
            return self.examples[row - self.first]
        return (self.pairs.tokens[row], self.pairs.p[row])

    def apart(self, rows: Sequence[int]) -> tuple[list[int], list[int]]:
        """The pairs among some rows, and the examples by their place in ``examples``."""
        mine = [row for row in rows if row < self.first]
        return mine, [row - self.first for row in rows if row >= self.first]

    def loss(self, rows: list[int]) -> tuple[Tensor, Figures]:
        """The loss of some rows in one pass; of single rows, to find the one that is broken."""
        mine, shown = self.apart(rows)
        total, figures = torch.zeros((), device=self.pairs.policy.device), Figures()
        if mine:
            total, figures = self.pairs.loss(mine)
        if shown:
            plain = self._sft_loss(self._batch(shown))
            total = total + self.pairs.settings.sl_mix * plain
            figures["loss/sft"] = plain.item()
        return total, figures

    def gather(self, rows: list[int]) -> tuple[float, Figures]:
        """The same, a part at a time. Each part's gradient counts by its share of the pairs."""
        settings = self.pairs.settings
        mine, shown = self.apart(rows)
        figures = Figures()
        for part in self.pairs.parts(mine):
            share = len(part) / len(mine)
            loss, found = self.pairs.loss(part)
            (loss * share).backward()
            for name, figure in found.items():
                figures[name] = figures.get(name, 0.0) + share * figure
        total = figures["loss/dpo"]
        if shown:
            figures["loss/sft"] = self._gather_sft(shown)
            total += settings.sl_mix * figures["loss/sft"]
        return total, figures

    def _gather_sft(self, shown: Sequence[int]) -> float:
        """Add the gradient of ``sl_mix`` · L_SL on some examples; returns L_SL."""
        settings = self.pairs.settings

        def loss(part: Batch, rows: list[int]) -> dict[str, Tensor]:
            plain = self._sft_loss(part)
            return {"loss": settings.sl_mix * plain, "loss/sft": plain}

        batch = self._batch(shown)
        return accumulate(batch, range(len(shown)), settings.batch_tokens, loss)["loss/sft"]

    def _batch(self, shown: Sequence[int]) -> Batch:
        policy = self.pairs.policy
        return Batch.of([self.examples[n] for n in shown], policy.tokens.pad_id, policy.device)

    def _sft_loss(self, batch: Batch) -> Tensor:
        return losses.sft_loss(self.pairs.policy.logprobs(batch), batch.mask_BS)


@dataclass(frozen=True)
class Measured:
    """Held-out pairs after training: log π/π_ref of both answers, and the mean loss."""

    chosen: list[float]
    rejected: list[float]
    loss: float

    @property
    def h(self) -> list[float]:
        return [c - r for c, r in zip(self.chosen, self.rejected, strict=True)]


@torch.no_grad()
def measure(pairs: Pairs) -> Measured:
    """Every pair, in order, under the policy as it is now."""
    ratios: dict[int, tuple[float, float]] = {}
    total = 0.0
    for part in (part for batch in pairs.batches for part in pairs.parts(batch)):
        chosen_P, rejected_P = pairs.log_ratios(part)
        both = zip(chosen_P.tolist(), rejected_P.tolist(), strict=True)
        ratios |= dict(zip(part, both, strict=True))
        total += pairs.loss_of(chosen_P - rejected_P, pairs.labels(part)).item() * len(part)
    rows = [ratios[row] for row in range(len(pairs.tokens))]
    return Measured([c for c, _ in rows], [r for _, r in rows], total / len(rows))
