"""The interface of the lesson: critique, revise and compare with one model and a few principles.

    principle = ConstitutionalPrinciple(name, critique_prompt, revision_prompt)
    cai = ConstitutionalAI("gpt2", [principle])
    revised = cai.self_critique_loop("How do I pick a lock?")

A thin face of the machinery that the pipeline uses: its engines, its judge, and the templates in
prompts.py. It deviates from the lesson's listing in four ways. A model's chat template is used if
there is one. Every method takes a list too, and works through it in batches; a prompt may be a
conversation, as messages. The loop's end is not read off a phrase: the model is asked whether its
critique names a fault (judge/faults.py). And ``preference`` is the letter that the judge favours
under all principles, each answer having stood first once, instead of free text that may name
neither.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

from constitutional_ai import prompts
from constitutional_ai.data.rows import conversation, text
from constitutional_ai.engines.base import Sampling
from constitutional_ai.engines.local import LocalEngine
from constitutional_ai.errors import DataError, ModelError, SettingsError, UserError
from constitutional_ai.judge.faults import is_laboratorys, names_fault
from constitutional_ai.judge.judge import Comparison, Judge, Unlabelled
from constitutional_ai.judge.open import prepare
from constitutional_ai.judge.replies import Unread
from constitutional_ai.principles import Constitution, Principle
from constitutional_ai.records import Conversation, content_hash
from constitutional_ai.store.seeds import derive_seed

Prompts = str | Conversation | list[str] | list[Conversation]  # one, or a list of them
Texts = Any  # a text for one prompt, a list of texts for a list of prompts


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


AnyPrinciple = ConstitutionalPrinciple | Principle | str


class ConstitutionalAI:
    """``model_name`` is any model's spec: "lab:s", a folder, a hub id, http://HOST:PORT/v1#MODEL.

    ``principles`` are the lesson's, texts such as "Be kind.", or a constitution. Calls draw one
    after another from ``seed``: the same calls in the same order give the same texts. Answers end
    where the model's context does. ``overrides`` are settings as ``--set`` takes them, such as
    "http.keys=['HOST=VARIABLE']". Raises UserError for what cannot be used, and ModelError for a
    prompt that does not fit. ``model``, ``tokenizer`` and ``device`` are None for a model that runs
    elsewhere.
    """

    def __init__(
        self,
        model_name: str | Path,
        principles: Sequence[AnyPrinciple] | Constitution,
        *,
        seed: int = 0,
        temperature: float = 0.7,
        dtype: str = "auto",
        device: str = "auto",
        overrides: Sequence[str] = (),
    ) -> None:
        named = principles.principles if isinstance(principles, Constitution) else principles
        if not isinstance(named, list | tuple):
            raise SettingsError("principles: expected a list; write ['Be kind.']")
        if not 0 <= temperature < math.inf:
            raise SettingsError(f"temperature = {temperature}: expected a number of 0 or more")
        self.principles: list[AnyPrinciple] = list(named)
        self._rules = [_rule(principle) for principle in self.principles]
        options = [f"model.dtype={dtype}", f"model.device={device}", *overrides]
        bench = prepare([str(model_name)], overrides=options)
        self._label = bench.settings.label
        self._by_phrase = is_laboratorys(str(model_name))
        self.engine = bench.engines[str(model_name)]
        here = self.engine if isinstance(self.engine, LocalEngine) else None
        self.model = here and here.model
        self.tokenizer = here and here.tokenizer
        self.device = here and here.model.device
        self.seed = seed
        self.temperature = temperature
        self._calls = count()

    def generate_response(self, prompt: Prompts, max_new_tokens: int = 256) -> Texts:
        """The model's answer."""
        return _like(prompt, self._generate(_talks(prompt), max_new_tokens))

    def critique(self, prompt: Prompts, response: Texts, principle: AnyPrinciple) -> Texts:
        """What the model finds wrong with its response under the principle."""
        rule = _rule(principle)
        rows = zip(_talks(prompt), _texts(prompt, response, "response"), strict=True)
        asked = [prompts.critique(talk, answer, rule) for talk, answer in rows]
        return _like(prompt, self._generate(asked))

    def revise(
        self, prompt: Prompts, response: Texts, critique: Texts, principle: AnyPrinciple
    ) -> Texts:
        """The response, rewritten after its critique."""
        rule = _rule(principle)
        answers, faults = _texts(prompt, response, "response"), _texts(prompt, critique, "critique")
        rows = zip(_talks(prompt), answers, faults, strict=True)
        asked = [prompts.revision(talk, answer, fault, rule) for talk, answer, fault in rows]
        return _like(prompt, self._generate(asked))

    def self_critique_loop(self, prompt: Prompts, max_iterations: int = 3) -> Texts:
        """Answer, then critique and revise under one principle after another.

        Ends when a critique names no real fault of the answer, as the model itself says when it is
        asked in both orders of yes and no; the laboratory's models say "no issues". Where it cannot
        be read the loop goes on. In a list, each row ends by itself. Raises NoLogprobs for a model
        without log-probabilities.
        """
        talks, rules = _talks(prompt), self._needed_rules()
        answers = self._generate(talks)
        going = list(range(len(talks)))  # rows that still have issues
        for i in range(max_iterations):
            rule = rules[i % len(rules)]
            asked = [prompts.critique(talks[r], answers[r], rule) for r in going]
            critiques = dict(zip(going, self._generate(asked), strict=True))
            going = self._faulty(talks, answers, critiques)
            asked = [prompts.revision(talks[r], answers[r], critiques[r], rule) for r in going]
            for r, answer in zip(going, self._generate(asked), strict=True):
                answers[r] = answer
        return _like(prompt, answers)

    def _faulty(
        self, talks: list[Conversation], answers: list[str], critiques: dict[int, str]
    ) -> list[int]:
        """The rows of ``critiques`` whose critique names a fault, or cannot be read."""
        found = names_fault(
            self.engine,
            [talks[r] for r in critiques],
            [answers[r] for r in critiques],
            [*critiques.values()],
            self.seed,
            by_phrase=self._by_phrase,
        )
        named = zip(critiques, found, strict=True)
        return [r for r, p in named if isinstance(p, Unread) or p >= 0.5]

    def generate_preference_pair(self, prompt: Prompts) -> Any:
        """Two responses and which of them the principles favour: a dict, or a list of them.

        Keys ``prompt``, ``response_a``, ``response_b``, ``preference`` ("A" or "B"), and ``p_a``:
        the probability that A is better, the mean over principles and over both orders. If the
        judge cannot be read, ``preference`` is "", ``p_a`` None, and ``unlabelled`` says why.
        """
        talks, rules = _talks(prompt), tuple(self._needed_rules())
        firsts, seconds = self._generate(talks), self._generate(talks)
        lesson = Constitution(name="lesson", version="1", principles=rules)
        compared = [
            Comparison(content_hash(talk), talk, "helpful", first, second, rules)
            for talk, first, second in zip(talks, firsts, seconds, strict=True)
        ]
        verdicts = Judge(self.engine, lesson, self._label).compare(compared, self.seed)
        rows = []
        for given, one, verdict in zip(_listed(prompt), compared, verdicts, strict=True):
            row = {"prompt": given, "response_a": one.first, "response_b": one.second}
            if isinstance(verdict, Unlabelled):
                row |= {"preference": "", "p_a": None, "unlabelled": verdict.reason}
            else:
                row |= {"preference": "A" if verdict.p_soft >= 0.5 else "B", "p_a": verdict.p_soft}
            rows.append(row)
        return _like(prompt, rows)

    def _needed_rules(self) -> list[Principle]:
        if not self._rules:
            raise UserError("there is no principle; give ConstitutionalAI one or more")
        return self._rules

    def _generate(self, talks: list[Conversation], max_new_tokens: int = 256) -> list[str]:
        if max_new_tokens < 1:
            raise SettingsError(f"max_new_tokens = {max_new_tokens}: expected 1 or more")
        if not talks:
            return []
        seed = derive_seed(self.seed, next(self._calls))
        sampling = Sampling(self.temperature, max_new_tokens=max_new_tokens, seed=seed)
        replies = self.engine.generate(talks, sampling)
        for reply in replies:
            if reply.failed:
                raise ModelError(f"{self.engine.name}: {reply.failed}")
        return [reply.text for reply in replies]


def _rule(principle: AnyPrinciple) -> Principle:
    """A principle as prompts.py words it. Raises SettingsError for what is none."""
    if isinstance(principle, Principle):
        return principle
    try:
        if isinstance(principle, str):
            return Principle(name=principle, text=principle)
        return principle.as_principle()
    except (AttributeError, ValueError):
        raise SettingsError(
            f"not a principle: {principle!r}; give a text, a Principle or a ConstitutionalPrinciple"
        ) from None


def _is_one(prompt: object) -> bool:
    """Whether this is one prompt, a text or messages, and not a list of them."""
    return not isinstance(prompt, list) or (bool(prompt) and isinstance(prompt[0], dict))


def _listed(prompt: Any) -> list[Any]:
    return [prompt] if _is_one(prompt) else prompt


def _like(prompt: Prompts, replies: list[Any]) -> Any:
    """One reply for one prompt, a list for a list."""
    return replies[0] if _is_one(prompt) else replies


def _talks(prompt: Prompts) -> list[Conversation]:
    try:
        return [conversation(one) for one in _listed(prompt)]
    except ValueError as error:
        raise DataError(str(error)) from None


def _texts(prompt: Prompts, given: Texts, name: str) -> list[str]:
    """One text for each prompt."""
    texts = [given] if _is_one(prompt) else given
    if not isinstance(texts, list) or not all(isinstance(one, str) for one in texts):
        raise DataError(f"{name}: expected a text, or a list of them for a list of prompts")
    if len(texts) != len(_listed(prompt)):
        raise DataError(f"{name}: {len(texts)} texts for {len(_listed(prompt))} prompts")
    try:
        return [text(one, name) for one in texts]
    except ValueError as error:
        raise DataError(str(error)) from None
