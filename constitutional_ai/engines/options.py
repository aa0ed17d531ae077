"""How probable each option is as the beginning of a reply, read from a model in this process.

One forward a question, last position only. Where a tokenizer has a token with which all options
begin, such as "(", a step of one more token follows, from the keys and values of that forward, for
P("(") · P("A" | "("). Everything is added up in float32.

A model in half precision is not read from its logits: in bfloat16 they move in steps of 1/16 or
1/8, and P with them in steps of .03. What goes into its head is multiplied with the head's weights
again, in float32. The two must agree as far as half precision can. Where they do not, the model
does more after its head than multiply (a soft cap, a scale), and its own logits are taken, in
float32. So they are where the head is no plain linear layer. The laboratory's models keep to their
logits in any precision: their figures were made so.

Shapes: B rows, N tokens, V vocabulary, d the width of the last state.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from constitutional_ai.engines.batching import alike_batches, length_batches
from constitutional_ai.engines.causal import WORTH_SHARING, Transformers
from constitutional_ai.engines.decode import Decoder, decoder_of, evaluating
from constitutional_ai.engines.spelling import Begun
from constitutional_ai.engines.tokens import ChatTokens
from constitutional_ai.progress import asking

CHUNK = 16_384  # rows of the head that are float32 at a time: .1 GB at a width of 1,536
NEAR = 2**-6  # of the largest logit: four times what bfloat16 rounds off


class Question(NamedTuple):
    """A prompt, and the tokens with which a reply may begin that names an option."""

    prompt: tuple[int, ...]
    begun: Begun


def option_scores(
    model: Any, tokens: ChatTokens, questions: Sequence[Question], batch_tokens: int
) -> dict[Question, list[float]]:
    """For each question the log of each option's probability, over all tokens that begin it.

    Rounding depends on the batch, in bfloat16 so much that the same question, asked twice, would
    get two answers. A judge shown the same answer twice has to come out at ½: so equal questions
    are asked once.
    """
    scores: dict[Question, list[float]] = {}
    done = asking(len(set(questions)), "questions")
    with torch.no_grad(), evaluating(model):
        reader = _Reader(model, tokens)
        for begun in dict.fromkeys(question.begun for question in questions):
            alike = list(dict.fromkeys(q for q in questions if q.begun == begun))
            prompts = [question.prompt for question in alike]
            for rows in reader.batches(prompts, batch_tokens):
                batch = [alike[row] for row in rows]
                for question, found in zip(batch, reader.read(batch, begun), strict=True):
                    scores[question] = begun.logprobs(found)
                done(len(batch))
    return scores


class _Reader:
    """Reads the log-probabilities of chosen tokens off a model."""

    def __init__(self, model: Any, tokens: ChatTokens) -> None:
        self.head = None if tokens.one_spelling else half_head(model)
        self.decoder: Decoder
        if self.head is None:
            self.decoder = decoder_of(model, tokens.pad_id)
        else:
            self.decoder = Transformers(model, tokens.pad_id)

    def batches(self, prompts: Sequence[Sequence[int]], batch_tokens: int) -> list[list[int]]:
        """Row numbers in batches; prompts that begin alike together, where that saves reading."""
        if isinstance(self.decoder, Transformers):
            return alike_batches(prompts, batch_tokens, WORTH_SHARING)
        lengths = [len(prompt) for prompt in prompts]
        return length_batches(lengths, batch_tokens, longest_first=True)

    def read(self, batch: Sequence[Question], begun: Begun) -> list[list[dict[int, float]]]:
        """For each question, and each place of the opening, the log-probabilities of its tokens."""
        found: list[list[dict[int, float]]] = [[] for _ in batch]
        prompts = [question.prompt for question in batch]
        with entering(self.head) as states:
            if begun.opening:
                logits_BV, cache = self.decoder.read(prompts)
            else:
                logits_BV = self.decoder.last(prompts)
            for place in range(len(begun.places)):
                if place:
                    token_B = torch.full((len(batch),), begun.opening[place - 1])
                    logits_BV = self.decoder.step(token_B.to(logits_BV.device), cache)
                ids = begun.tokens(place)
                values_BN = self._logprobs(logits_BV, states)[:, ids].tolist()
                for row, values in zip(found, values_BN, strict=True):
                    row.append(dict(zip(ids, values, strict=True)))
        return found

    def _logprobs(self, logits_BV: Tensor, states: list[Tensor]) -> Tensor:
        if self.head is not None and states:
            logits_BV = precise(logits_BV, states[-1][:, -1], self.head)
        return logits_BV.float().log_softmax(dim=-1)


def half_head(model: Any) -> torch.nn.Linear | None:
    """The head of a model in half precision, if it is a plain linear layer."""
    head = model.get_output_embeddings()
    plain = type(head) is torch.nn.Linear and head.weight.dtype in (torch.bfloat16, torch.float16)
    return head if plain else None


@contextmanager
def entering(head: torch.nn.Linear | None) -> Iterator[list[Tensor]]:
    """Everything that goes into the head while the block runs, each (B, T, d)."""
    states: list[Tensor] = []
    if head is None:
        yield states
        return
    hook = head.register_forward_pre_hook(lambda _, inputs: states.append(inputs[0]))
    try:
        yield states
    finally:
        hook.remove()


def precise(logits_BV: Tensor, state_Bd: Tensor, head: torch.nn.Linear) -> Tensor:
    """The head's product in float32, or the logits as they are if they are something else."""
    state_Bd = state_Bd.float()
    parts = [F.linear(state_Bd, rows.float()) for rows in head.weight.split(CHUNK)]
    precise_BV = torch.cat(parts, dim=1)
    if head.bias is not None:
        precise_BV += head.bias.float()
    given_BV = logits_BV.float()
    if precise_BV.shape != given_BV.shape:
        return given_BV
    near = NEAR * given_BV.abs().max()
    return precise_BV if (precise_BV - given_BV).abs().max() <= near else given_BV
