"""The interface of the lesson: critique, revise and compare with one model and a few principles.

    principle = ConstitutionalPrinciple(name, critique_prompt, revision_prompt)
    cai = ConstitutionalAI("gpt2", [principle])
    revised = cai.self_critique_loop("How do I pick a lock?")

A thin face of the machinery that the pipeline uses: the local engine and the templates in
prompts.py. It deviates from the lesson's listing in three ways. A model's chat template is used
where there is one. Every method takes a list too, and then works through it in batches. And
``preference`` is the letter that the model's log-probabilities favour under all principles, each
answer having stood first once, instead of free text that may name neither.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any, TypeVar, overload

from constitutional_ai import prompts
from constitutional_ai.engines.base import Sampling
from constitutional_ai.engines.local import LocalEngine
from constitutional_ai.judge.judge import nonce
from constitutional_ai.principles import Principle
from constitutional_ai.prompts import finds_nothing
from constitutional_ai.records import Conversation, user
from constitutional_ai.store.seeds import derive_seed
from constitutional_ai.world import is_model

Text = TypeVar("Text", str, list[str])  # one text, or a list of them: what goes in comes out


@dataclass(frozen=True)
class ConstitutionalPrinciple:
    """A principle as the lesson writes it. Comparisons name it, as the lesson's do."""

    name: str
    critique_prompt: str
    revision_prompt: str

    def as_principle(self) -> Principle:
        return Principle(
            name=self.name,
            text=self.name,
            critique_prompt=self.critique_prompt,
            revision_prompt=self.revision_prompt,
        )


class ConstitutionalAI:
    """``model_name`` is a folder, a hub id or "lab:s"; ``principles`` may be a constitution's.

    Calls draw one after another from ``seed``: the same calls in the same order give the same
    texts. Answers end where the model's context does; ModelError where a prompt alone does not fit.
    """

    def __init__(
        self,
        model_name: str | Path,
        principles: Sequence[ConstitutionalPrinciple | Principle],
        *,
        seed: int = 0,
        temperature: float = 0.7,
        dtype: str = "auto",
        device: str = "auto",
    ) -> None:
        self.engine = LocalEngine(model_name, dtype=dtype, device=device)
        self.model = self.engine.model
        self.tokenizer = self.engine.tokenizer
        self.principles = list(principles)
        self.device = next(self.model.parameters()).device
        self.seed = seed
        self.temperature = temperature
        # The laboratory's models were taught to compare answers without a fence around them.
        self._fenced = not is_model(model_name)
        self._calls = count()

    def generate_response(self, prompt: Text, max_new_tokens: int = 256) -> Text:
        """The model's answer."""
        asked = [[user(text)] for text in _listed(prompt)]
        return _like(prompt, self._generate(asked, max_new_tokens))

    def critique(
        self, prompt: Text, response: Text, principle: ConstitutionalPrinciple | Principle
    ) -> Text:
        """What the model finds wrong with its response under the principle."""
        rule = _principle(principle)
        pairs = zip(_listed(prompt), _listed(response), strict=True)
        asked = [prompts.critique([user(text)], answer, rule) for text, answer in pairs]
        return _like(prompt, self._generate(asked))

    def revise(
        self,
        prompt: Text,
        response: Text,
        critique: Text,
        principle: ConstitutionalPrinciple | Principle,
    ) -> Text:
        """The response, rewritten after its critique."""
        rule = _principle(principle)
        triples = zip(_listed(prompt), _listed(response), _listed(critique), strict=True)
        asked = [
            prompts.revision([user(text)], answer, found, rule) for text, answer, found in triples
        ]
        return _like(prompt, self._generate(asked))

    def self_critique_loop(self, prompt: Text, max_iterations: int = 3) -> Text:
        """Answer, then critique and revise under one principle after another.

        Ends when a critique finds nothing, such as "no issues" or "response is appropriate"; in a
        list, each row by itself.
        """
        texts = _listed(prompt)
        answers = self.generate_response(texts)
        rows = list(range(len(texts)))  # those that still have issues
        for i in range(max_iterations):
            principle = self.principles[i % len(self.principles)]
            critiques = self.critique(
                [texts[r] for r in rows], [answers[r] for r in rows], principle
            )
            found = {r: c for r, c in zip(rows, critiques, strict=True) if not finds_nothing(c)}
            rows = list(found)
            if not rows:
                break
            revised = self.revise(
                [texts[r] for r in rows],
                [answers[r] for r in rows],
                list(found.values()),
                principle,
            )
            for r, answer in zip(rows, revised, strict=True):
                answers[r] = answer
        return _like(prompt, answers)

    @overload
    def generate_preference_pair(self, prompt: str) -> dict[str, Any]: ...
    @overload
    def generate_preference_pair(self, prompt: list[str]) -> list[dict[str, Any]]: ...
    def generate_preference_pair(
        self, prompt: str | list[str]
    ) -> dict[str, Any] | list[dict[str, Any]]:
        """Two responses and which of them the principles favour.

        Keys ``prompt``, ``response_a``, ``response_b``, ``preference`` ("A" or "B"), and ``p_a``:
        the probability that A is better, the mean over principles and over both orders.
        """
        texts = [prompt] if isinstance(prompt, str) else prompt
        firsts, seconds = self.generate_response(texts), self.generate_response(texts)
        rows = [
            {
                "prompt": text,
                "response_a": first,
                "response_b": second,
                "preference": "A" if p_a >= 0.5 else "B",
                "p_a": p_a,
            }
            for text, first, second, p_a in zip(
                texts, firsts, seconds, self._compare(texts, firsts, seconds), strict=True
            )
        ]
        return rows[0] if isinstance(prompt, str) else rows

    def _generate(self, conversations: list[Conversation], max_new_tokens: int = 256) -> list[str]:
        seed = derive_seed(self.seed, next(self._calls))
        sampling = Sampling(self.temperature, max_new_tokens=max_new_tokens, seed=seed)
        return [completion.text for completion in self.engine.generate(conversations, sampling)]

    def _compare(self, texts: list[str], firsts: list[str], seconds: list[str]) -> list[float]:
        """P(first is better), a mean over every principle with the answers in either order."""
        questions: list[Conversation] = []
        for text, first, second in zip(texts, firsts, seconds, strict=True):
            fence = nonce(self.seed, "lesson", text, first, second) if self._fenced else ""
            for rule in map(_principle, self.principles):
                questions += [
                    prompts.comparison([user(text)], first, second, rule, fence),
                    prompts.comparison([user(text)], second, first, rule, fence),
                ]
        scores = self.engine.option_logprobs(questions, prompts.OPTIONS)
        shown_first = [1 / (1 + math.exp(b - a)) for a, b in scores]
        votes = [1 - p if n % 2 else p for n, p in enumerate(shown_first)]
        each = 2 * len(self.principles)
        return [sum(votes[n : n + each]) / each for n in range(0, len(votes), each)]


def _principle(principle: ConstitutionalPrinciple | Principle) -> Principle:
    return principle if isinstance(principle, Principle) else principle.as_principle()


def _listed(text: str | list[str]) -> list[str]:
    return [text] if isinstance(text, str) else text


def _like(asked: Text, answers: list[str]) -> Text:
    """One answer for one question, a list for a list."""
    return answers[0] if isinstance(asked, str) else answers
