"""How likely a model finds what people answered: the log-likelihood of held-out dialogues.

Only the tokens of the last assistant turn count, without the end token: how long people's answers
are is not what a model should keep. Two models are compared by the sums over the dialogues that
both could read, relative to the first's. So the change is the same for a token, a character or a
byte, and models with other tokenizers can be compared. Training on another style of answer costs
likelihood, too, so a small loss need not be a loss of ability.

Not covered: models on a server or in vLLM, whose weights are not in this process.
"""

import math
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from constitutional_ai.data.prompts import read_told
from constitutional_ai.engines.base import Engine
from constitutional_ai.errors import DataError
from constitutional_ai.evaluation.each_model import each_model
from constitutional_ai.job import Job
from constitutional_ai.records import Conversation, Row, content_hash
from constitutional_ai.stats.intervals import percentiles, resamples
from constitutional_ai.stats.paired import sign_flip
from constitutional_ai.store.run_folder import StageFolder
from constitutional_ai.store.seeds import derive_seed

FILE = "likelihoods.jsonl"
BATCH_TOKENS = 2_048  # of one forward

ELSEWHERE = "the model's weights are not in this process"
TOO_LONG = "the dialogue does not fit the model's context"
NOT_FINITE = "its log-likelihood is not a finite number"


class Dialogue(NamedTuple):
    """A conversation that ends with a user turn, and what a person answered."""

    id: str
    prompt: Conversation
    answer: str


class Likelihood(Row):
    """ln P(answer) in nats, and its number of tokens; or why there is none."""

    model: str
    dialogue: str
    logprob: float | None
    tokens: int = 0
    unlabelled: str = ""


def load(source: str, count: int, seed: int) -> list[Dialogue]:
    """``count`` dialogues, drawn without replacement; of two answers the chosen one.

    Raises DataError for a source without answers.
    """
    rows = {
        content_hash(row.prompt, row.answer): row
        for row in read_told(source).prompts
        if row.answer.strip()
    }
    if not rows:
        raise DataError(
            f"{source}: no dialogue that ends with an answer; evaluate.dialogues needs rows of"
            ' "messages", or of "chosen" and "rejected"'
        )
    drawn = random.Random(derive_seed(seed, "dialogues")).sample(sorted(rows), len(rows))[:count]
    return [Dialogue(id_, rows[id_].prompt, rows[id_].answer.strip()) for id_ in drawn]


def measure(
    job: Job, folder: StageFolder, models: Mapping[str, str | Path], dialogues: Sequence[Dialogue]
) -> list[Likelihood]:
    """Every model on every dialogue, to likelihoods.jsonl; resumed chunk by chunk."""
    task = ("likelihood", "dialogues")
    return each_model(job, folder, FILE, Likelihood, models, dialogues, read, task)


def read(engine: Engine, label: str, dialogues: Sequence[Dialogue]) -> list[Likelihood]:
    """One model on some dialogues, in order."""
    from constitutional_ai.engines.causal import context_of
    from constitutional_ai.engines.local import LocalEngine
    from constitutional_ai.learning.policy import Policy

    if not isinstance(engine, LocalEngine):
        return [_row(label, one, unlabelled=ELSEWHERE) for one in dialogues]
    policy, longest = Policy(engine.model, engine.tokens), context_of(engine.model)
    encoded = [
        (engine.tokens.prompt(one.prompt), engine.tokens.answer(one.answer)[:-1])
        for one in dialogues
    ]
    fits = [n for n, (prompt, said) in enumerate(encoded) if len(prompt) + len(said) <= longest]
    found = dict(zip(fits, _logprobs(policy, [encoded[n] for n in fits]), strict=True))
    rows = []
    for number, one in enumerate(dialogues):
        value = found.get(number)
        if value is None:
            rows.append(_row(label, one, unlabelled=TOO_LONG))
        elif not math.isfinite(value):
            rows.append(_row(label, one, unlabelled=NOT_FINITE))
        else:
            rows.append(_row(label, one, value, len(encoded[number][1])))
    return rows


def _logprobs(policy: Any, encoded: Sequence[tuple[list[int], list[int]]]) -> list[float]:
    """ln P of each answer, summed over its tokens."""
    import torch

    from constitutional_ai.engines.batching import length_batches
    from constitutional_ai.learning.batch import Batch

    sums = [0.0] * len(encoded)
    lengths = [len(prompt) + len(answer) for prompt, answer in encoded]
    with torch.no_grad():
        for rows in length_batches(lengths, BATCH_TOKENS):
            batch = Batch.of([encoded[row] for row in rows], policy.tokens.pad_id, policy.device)
            of_rows = policy.logprobs(batch).double().sum(dim=1).tolist()
            for row, value in zip(rows, of_rows, strict=True):
                sums[row] = value
    return sums


def _row(
    label: str,
    one: Dialogue,
    logprob: float | None = None,
    tokens: int = 0,
    unlabelled: str = "",
) -> Likelihood:
    return Likelihood(
        id=f"{one.id} {label}",
        model=label,
        dialogue=one.id,
        logprob=logprob,
        tokens=tokens,
        unlabelled=unlabelled,
    )


def per_token(rows: Sequence[Likelihood]) -> dict[str, Any] | None:
    """A model's mean log-likelihood of a token in nats, with ``n`` dialogues; None without any."""
    known = [row for row in rows if row.logprob is not None]
    tokens = sum(row.tokens for row in known)
    if not tokens:
        return None
    return {"mean": math.fsum(r.logprob or 0 for r in known) / tokens, "n": len(known)}


def change(
    first: Sequence[Likelihood], second: Sequence[Likelihood], seed: int
) -> dict[str, Any] | None:
    """The relative change of the log-likelihood against the first model's; negative is worse.

    ``mean`` is 1 − Σ ln P₂ / Σ ln P₁ over the ``n`` dialogues that both read: −0.03 is 3% worse.
    The interval is a bootstrap over dialogues, each with its two values; ``p`` flips the signs of
    the dialogues' differences. None for fewer than two.
    """
    theirs = {row.dialogue: row.logprob for row in first if row.logprob is not None}
    both = [
        (theirs[row.dialogue], row.logprob)
        for row in second
        if row.logprob is not None and row.dialogue in theirs
    ]
    if len(both) < 2:
        return None
    values = np.array(both)
    rows = resamples(len(both), np.random.default_rng(seed))
    sums = values[rows].sum(axis=1)
    low, high = percentiles(1 - sums[:, 1] / sums[:, 0])
    totals = values.sum(axis=0)
    return {
        "mean": float(1 - totals[1] / totals[0]),
        "low": float(low),
        "high": float(high),
        "n": len(both),
        "p": sign_flip(values[:, 1] - values[:, 0], seed),
    }
