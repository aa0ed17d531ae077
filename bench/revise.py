"""Critique-revision rows a second: the revise stage against one prompt at a time.

    python bench/revise.py [--models lab:s random:0.1b] [--device cuda] [--write]

The other side is the loop that tutorials print: for each prompt an answer, then a critique and a
revision a round, each through one call of ``model.generate`` as transformers loads the model. Both
sides have the same weights, prompts, principles, templates, temperature and limit. Every row takes
all of its rounds on both sides (``--stop-when-clean``: ends where a critique finds nothing).
"""

import argparse
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

import compare
import models
import torch

from constitutional_ai import prompts as templates
from constitutional_ai.data.prompts import load_prompts
from constitutional_ai.engines.ask import asker
from constitutional_ai.engines.base import Completion
from constitutional_ai.engines.local import LocalEngine, use_threads
from constitutional_ai.engines.prefix import PrefixCache
from constitutional_ai.errors import UserError
from constitutional_ai.principles import Constitution, Principle, load_constitution
from constitutional_ai.prompts import finds_nothing
from constitutional_ai.records import Conversation, Prompt
from constitutional_ai.stage_settings import ReviseSettings
from constitutional_ai.stages.revise import revise

TEMPERATURE = 0.7


def main() -> None:
    """Read the command line, measure, print."""
    parser = compare.parser(__doc__, rounds=5)
    parser.add_argument("--models", nargs="+", default=["lab:s", "random:0.1b"])
    parser.add_argument("--rows", type=int, default=0, help="ours, a turn; 0: 300, 64 if random")
    parser.add_argument("--their-rows", type=int, default=0, help="a turn; 0: 6, 2 if random")
    parser.add_argument("--revisions", type=int, default=2, help="critiques and revisions a row")
    parser.add_argument("--max-new-tokens", type=int, default=64)
    parser.add_argument("--stop-when-clean", action="store_true")
    options = parser.parse_args()
    if options.quick:
        options.rounds, options.rows, options.their_rows = 2, 8, 1
        options.revisions, options.max_new_tokens = 1, 8
    use_threads(options.threads)
    try:
        with tempfile.TemporaryDirectory() as made:
            rows = [measured(spec, Path(made), options) for spec in options.models]
    except UserError as error:
        parser.error(str(error))
    compare.finish("revise", options, rows)


def measured(spec: str, made: Path, options: argparse.Namespace) -> compare.Row:
    folder, random_ = models.folder_of(spec, made), spec.startswith("random:")
    constitution = load_constitution("lab")
    ours_at_once = options.rows or (64 if random_ else 300)
    theirs_at_once = options.their_rows or (2 if random_ else 6)
    total = options.rounds * max(ours_at_once, theirs_at_once)
    prompts = load_prompts("lab", "red-team", total, seed=0)
    ours, theirs = Stage(folder, constitution, options), Loop(folder, constitution, options)

    def rate(side: "Stage | Loop", at_once: int, turn: int) -> float:
        start = time.perf_counter()
        side.rows(prompts[turn * at_once : (turn + 1) * at_once], turn)
        return at_once / (time.perf_counter() - start)

    for side in (ours, theirs):  # what is allocated and compiled once
        side.rows(prompts[:1], -1)
    ours.tokens.clear()
    theirs.tokens.clear()
    found = compare.in_turns(
        {
            "ours": lambda turn: rate(ours, ours_at_once, turn),
            "theirs": lambda turn: rate(theirs, theirs_at_once, turn),
        },
        options.rounds,
    )
    said, they_said = ours.tokens_a_row, theirs.tokens_a_row
    return compare.Row(
        f"{spec}, {options.revisions} revisions, {options.max_new_tokens} tokens",
        f"{median(found['ours']):.2f} rows/s, {ours_at_once} at once, {said:.0f} tokens a row",
        f"{median(found['theirs']):.3f} rows/s, one at a time, {they_said:.0f} tokens a row",
        compare.ratios(found["ours"], found["theirs"]),
    )


class Counted:
    """What a side said, so that both can be seen to have done the same work."""

    def __init__(self) -> None:
        self.tokens: Counter[str] = Counter()

    @property
    def tokens_a_row(self) -> float:
        return self.tokens["said"] / self.tokens["rows"]


class Stage(Counted):
    """Ours: stages/revise.py over the local engine."""

    def __init__(self, folder: str, constitution: Constitution, options: argparse.Namespace):
        super().__init__()
        self.engine = LocalEngine.load(folder, device=options.device)
        self.constitution = constitution
        self.settings = ReviseSettings(
            rounds=options.revisions,
            temperature=TEMPERATURE,
            max_new_tokens=options.max_new_tokens,
            stop_when_clean=options.stop_when_clean,
        )

    def rows(self, prompts: Sequence[Prompt], turn: int) -> None:
        ask = asker(self.engine, self.settings, turn, Counter(), PrefixCache())

        def counted(talks: Sequence[Conversation]) -> list[Completion]:
            found = ask(talks)
            self.tokens["said"] += sum(one.tokens for one in found)
            return found

        self.tokens["rows"] += len(prompts)
        revise(
            prompts,
            counted,
            counted,
            self.constitution,
            rounds=self.settings.rounds,
            stop_when_clean=self.settings.stop_when_clean,
            seed=turn,
        )


class Loop(Counted):
    """Theirs: one prompt at a time, with the model as ``from_pretrained`` gives it."""

    def __init__(self, folder: str, constitution: Constitution, options: argparse.Namespace):
        from transformers import AutoModelForCausalLM, AutoTokenizer
        from transformers.utils import logging

        from constitutional_ai.engines.tokens import ChatTokens

        super().__init__()
        logging.set_verbosity_error()
        self.model: Any = AutoModelForCausalLM.from_pretrained(folder).to(options.device)
        self.spelling = ChatTokens(AutoTokenizer.from_pretrained(folder))
        self.principles = constitution.usable("critique", "red-team")
        self.options = options

    def rows(self, prompts: Sequence[Prompt], turn: int) -> None:
        torch.manual_seed(turn)
        self.tokens["rows"] += len(prompts)
        for prompt in prompts:
            self._self_critique(prompt.prompt)

    def _self_critique(self, prompt: Conversation) -> str:
        answer = self._say(prompt)
        for number in range(self.options.revisions):
            principle: Principle = self.principles[number % len(self.principles)]
            critique = self._say(templates.critique(prompt, answer, principle))
            if self.options.stop_when_clean and finds_nothing(critique):
                break
            answer = self._say(templates.revision(prompt, answer, critique, principle))
        return answer

    def _say(self, conversation: Conversation) -> str:
        ids = torch.tensor([self.spelling.prompt(conversation)], device=self.model.device)
        with torch.no_grad():
            out = self.model.generate(
                input_ids=ids,
                attention_mask=torch.ones_like(ids),
                max_new_tokens=self.options.max_new_tokens,
                temperature=TEMPERATURE,
                do_sample=True,
            )
        said = out[0, ids.shape[1] :].tolist()
        self.tokens["said"] += len(said)
        return self.spelling.text(said)


if __name__ == "__main__":
    main()
