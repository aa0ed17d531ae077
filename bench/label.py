"""Labelling pairs a second: one forward in both orders against generate-and-parse.

    python bench/label.py [--models lab:s] [--device cuda] [--write]

Ours is the judge of the label stage: every pair under one principle, in both orders, and a soft
label from the log-probabilities of (A) and (B). Against it stand two ways that read a reply: the
tutorials' (one order, one pair at a time, an explanation of ``--reply-tokens``), and a careful one
(both orders, 64 questions a batch through ``model.generate``, greedy, 12 tokens). Same model, pairs
and questions. A reply that names no option is no label: the share that could be read is printed.

Random weights give a judge without a verdict: name models that can answer.
"""

import argparse
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import fmean, median
from typing import Any

import compare
import models
import torch

from constitutional_ai import prompts as templates
from constitutional_ai.data.prompts import load_prompts
from constitutional_ai.engines.base import Sampling
from constitutional_ai.engines.local import LocalEngine, use_threads
from constitutional_ai.engines.tokens import ChatTokens
from constitutional_ai.errors import UserError
from constitutional_ai.judge.judge import Comparison, Judge, Verdict
from constitutional_ai.judge.methods import REPLY_TOKENS
from constitutional_ai.judge.replies import choice
from constitutional_ai.principles import load_constitution
from constitutional_ai.records import Conversation, Pair, user
from constitutional_ai.stage_settings import LabelSettings

SEED = 0  # of the draw of principles
BATCH = 64  # questions that a careful user generates replies to at once
EXPLAIN = 'Reply with "A" or "B" and explain why.'


def main() -> None:
    """Read the command line, measure, print."""
    parser = compare.parser(__doc__, rounds=5)
    parser.add_argument("--models", nargs="+", default=["lab:s"])
    parser.add_argument("--pairs", type=int, default=600, help="ours, a turn")
    parser.add_argument("--their-pairs", type=int, default=12, help="one at a time, a turn")
    parser.add_argument("--their-batch-pairs", type=int, default=128, help="in batches, a turn")
    parser.add_argument("--reply-tokens", type=int, default=64, help="of a tutorial's explanation")
    options = parser.parse_args()
    if options.quick:
        options.rounds, options.pairs, options.reply_tokens = 2, 16, 8
        options.their_pairs, options.their_batch_pairs = 2, 8
    use_threads(options.threads)
    try:
        if any(spec.startswith("random:") for spec in options.models):
            raise UserError("random weights give no verdict; name a model that can answer")
        with tempfile.TemporaryDirectory() as made:
            rows = [row for spec in options.models for row in measured(spec, Path(made), options)]
    except UserError as error:
        parser.error(str(error))
    compare.finish("label", options, rows)


def measured(spec: str, made: Path, options: argparse.Namespace) -> list[compare.Row]:
    folder = models.folder_of(spec, made)
    fenced = not spec.startswith("lab:")  # the laboratory's judges were taught without a fence
    engine = LocalEngine.load(folder, device=options.device)
    most = max(options.pairs, options.their_pairs, options.their_batch_pairs)
    pairs = answered_twice(engine, most)
    judge = Judge(engine, load_constitution("lab"), LabelSettings(principles=1, fence=fenced))
    reader = Reader(folder, judge, options)
    read: dict[str, list[float]] = {"ours": [], "singly": [], "batched": []}

    def rate(name: str, label: Callable[[Sequence[Pair]], float], count: int) -> float:
        start = time.perf_counter()
        read[name].append(label(pairs[:count]))
        return count / (time.perf_counter() - start)

    def ours(some: Sequence[Pair]) -> float:
        return fmean(isinstance(verdict, Verdict) for verdict in compared(judge, some))

    ours(pairs[:2]), reader.singly(pairs[:1]), reader.batched(pairs[:2])
    found = compare.in_turns(
        {
            "ours": lambda _: rate("ours", ours, options.pairs),
            "singly": lambda _: rate("singly", reader.singly, options.their_pairs),
            "batched": lambda _: rate("batched", reader.batched, options.their_batch_pairs),
        },
        options.rounds,
    )

    def told(name: str) -> str:
        return f"{median(found[name]):.2f} pairs/s, {fmean(read[name]):.0%} read"

    return [
        compare.Row(
            f"{spec}, {case}", told("ours"), told(name), compare.ratios(found["ours"], found[name])
        )
        for name, case in (
            ("singly", f"one at a time, one order, {options.reply_tokens} tokens"),
            ("batched", f"batches of {BATCH}, both orders, {REPLY_TOKENS} tokens"),
        )
    ]


def answered_twice(engine: LocalEngine, count: int) -> list[Pair]:
    """Two answers of the model itself to each of ``count`` prompts."""
    prompts = load_prompts("lab", "red-team", count, seed=0)
    said = [
        engine.generate([p.prompt for p in prompts], Sampling(max_new_tokens=64, seed=seed))
        for seed in (1, 2)
    ]
    return [
        Pair(
            id=prompt.id,
            prompt=prompt.prompt,
            set=prompt.set,
            answers=(one.text, other.text),
            model=engine.name,
            seed=0,
        )
        for prompt, one, other in zip(prompts, *said, strict=True)
    ]


def compared(judge: Judge, pairs: Sequence[Pair]) -> Sequence[Any]:
    return judge.compare([Comparison.of(pair) for pair in pairs], SEED)


def asked(judge: Judge, pair: Pair) -> list[Conversation]:
    """The judge's own question about a pair, in both orders."""
    (principle,) = judge.constitution.draw("preference", pair.set, 1, SEED, pair.id)
    question = judge.asked(Comparison.of(pair), principle, SEED)
    return [one.question() for one in (question, question.swap())]


class Reader:
    """Labels by what the judge says. Each way returns the share of replies that could be read."""

    def __init__(self, folder: str, judge: Judge, options: argparse.Namespace) -> None:
        from transformers import AutoModelForCausalLM, AutoTokenizer
        from transformers.utils import logging

        logging.set_verbosity_error()
        self.model: Any = AutoModelForCausalLM.from_pretrained(folder).to(options.device)
        self.spelling = ChatTokens(AutoTokenizer.from_pretrained(folder))
        self.judge = judge
        self.options = options

    def singly(self, pairs: Sequence[Pair]) -> float:
        """The tutorials' way: the principles by name, one order, a reply with its explanation."""
        torch.manual_seed(0)
        usable = self.judge.constitution.usable("preference", "red-team")
        names = ", ".join(principle.name for principle in usable)
        replies = []
        for pair in pairs:
            shown = templates.compared(pair.prompt, *pair.answers)
            question = f"{shown}\nWhich answer goes better with: {names}? {EXPLAIN}"
            replies += self._replies(
                [[user(question)]],
                max_new_tokens=self.options.reply_tokens,
                do_sample=True,
                temperature=0.7,
            )
        return fmean(choice(reply) in ("A", "B") for reply in replies)

    def batched(self, pairs: Sequence[Pair]) -> float:
        """The judge's own questions in both orders, many at once."""
        questions = [question for pair in pairs for question in asked(self.judge, pair)]
        replies = []
        for start in range(0, len(questions), BATCH):
            some = questions[start : start + BATCH]
            replies += self._replies(some, max_new_tokens=REPLY_TOKENS, do_sample=False)
        return fmean(choice(reply) in ("A", "B") for reply in replies)

    def _replies(self, questions: Sequence[Conversation], **how: Any) -> list[str]:
        prompts = [self.spelling.prompt(question) for question in questions]
        width = max(map(len, prompts))
        padded = [[self.spelling.pad_id] * (width - len(p)) + p for p in prompts]
        mask = [[0] * (width - len(p)) + [1] * len(p) for p in prompts]
        device = self.model.device
        with torch.no_grad():
            out = self.model.generate(
                input_ids=torch.tensor(padded, device=device),
                attention_mask=torch.tensor(mask, device=device),
                pad_token_id=self.spelling.pad_id,
                **how,
            )
        # Behind an early end the row is filled with padding, which is no text.
        return [
            self.spelling.text([i for i in row if i != self.spelling.pad_id])
            for row in out[:, width:].tolist()
        ]


if __name__ == "__main__":
    main()
