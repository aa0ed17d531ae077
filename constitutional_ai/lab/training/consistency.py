"""Consistency training of the laboratory's judge: a verdict that no addition may move.

The start model is asked which of two answers is better, in both orders. Then something without any
worth is added to one or both, and the model is trained to give the same probability as before (Chua
et al. 2024, arXiv 2403.05518; Irpan et al. 2025, arXiv 2510.27062). Nobody says which answer is
better: what the start knows is kept, what it does not know stays undecided, and an addition counts
neither for an answer nor against it.
"""

import random
import zlib
from dataclasses import dataclass
from functools import cache
from multiprocessing.pool import Pool
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from torch import Tensor
from transformers import LlamaForCausalLM

from constitutional_ai import prompts
from constitutional_ai.lab.training import corpus
from constitutional_ai.lab.training.attack_questions import unheard_of
from constitutional_ai.lab.training.batches import Batch, Corpus, collate, make_corpus, plan
from constitutional_ai.lab.training.corpus import Document, Turn
from constitutional_ai.lab.world import answers, jailbreaks
from constitutional_ai.lab.world import topics as world
from constitutional_ai.machine import autocast
from constitutional_ai.records import Conversation, assistant, user

BATCH_TOKENS = 40_960  # of a step
_AT_ONCE = 16_384  # tokens of a part of them: on a CPU this takes half the time of one part
# What is asked about, and what is changed.
_ASKED = {"unheard of": 0.3, "train": 0.45, "taught": 0.25}
_CHANGED = {"nothing": 0.1, "prompt": 0.18, "both": 0.12, "first": 0.3, "second": 0.3}


@dataclass(frozen=True)
class Questions:
    """``shown``: documents that end with a verdict, whose letter the model must predict.

    ``wanted`` (documents,): the probability of "(A)" that the start gave without the additions.
    """

    shown: Corpus
    wanted: Tensor
    letters: tuple[int, int]  # tokens

    def order(self, seed: int) -> list[NDArray[np.int64]]:
        """Batches of rows, each document once."""
        return plan(self.shown.lengths, BATCH_TOKENS, seed)

    def learn(self, model: LlamaForCausalLM, rows: NDArray[np.int64], weight: float) -> None:
        """Add the gradients of ``weight`` times the loss of a step's rows."""
        for part in np.array_split(rows, -(-BATCH_TOKENS // _AT_ONCE)):
            if len(part):
                (weight * len(part) / len(rows) * self.loss(model, part)).backward()

    def loss(self, model: LlamaForCausalLM, rows: NDArray[np.int64]) -> Tensor:
        """Mean over ``rows`` of the cross-entropy (nats) of the letters with what is wanted."""
        said = _at_letters(model, collate(self.shown, rows, model.device)).log_softmax(-1)
        first, second = (said[:, letter] for letter in self.letters)
        wanted = self.wanted[torch.from_numpy(rows)].to(model.device)
        return -(wanted * first + (1 - wanted) * second).mean()


def ask(
    start: LlamaForCausalLM, tokenizer: Tokenizer, pool: Pool, seed: int, tokens: int, keep: Path
) -> Questions:
    """Questions of about ``tokens`` tokens, a function of ``seed``, and the start's verdicts.

    ``keep``: a folder for these verdicts, so that a killed run need not ask again.
    """
    first, second = (tokenizer.encode(option).ids[1] for option in prompts.OPTIONS)
    plain, turned, shown = make_corpus(pool, asked, tokenizer, seed, 3 * tokens).every(3)
    said = keep / f"said-{zlib.crc32(plain.ids.tobytes()):08x}.safetensors"
    if not said.exists():
        one, other = (_chosen(start, order, (first, second)) for order in (plain, turned))
        keep.mkdir(parents=True, exist_ok=True)
        unfinished = said.with_suffix(".new")
        save_file({"wanted": (one + 1 - other) / 2}, unfinished)
        unfinished.replace(said)
    return Questions(shown, load_file(said)["wanted"], (first, second))


@torch.no_grad()
def _chosen(model: LlamaForCausalLM, asked: Corpus, letters: tuple[int, int]) -> Tensor:
    """P("(A)") for each document, normalised over the two options."""
    p = torch.zeros(len(asked.ends))
    for rows in plan(asked.lengths, _AT_ONCE, 0):
        said = _at_letters(model, collate(asked, rows, model.device))
        first, second = (said[:, letter] for letter in letters)
        p[torch.from_numpy(rows)] = torch.sigmoid(first - second).cpu()
    return p


def _at_letters(model: LlamaForCausalLM, batch: Batch) -> Tensor:
    """Logits (documents, vocabulary) where each document's only letter is to be said."""
    rows, places = batch.letters.nonzero(as_tuple=True)
    assert rows.tolist() == list(range(len(batch.ids)))
    with autocast(batch.ids.device):
        last = model.model(input_ids=batch.ids, use_cache=False).last_hidden_state
    logits: Tensor = model.lm_head(last[rows, places - 1].float())
    return logits


# ---- the questions ------------------------------------------------------------------------------


def asked(seed: int, count: int) -> list[Document]:
    """About ``count`` documents, the three of one question after the other, by ``seed``."""
    rng = random.Random(f"consistency {seed}")
    return [document for _ in range(count // 3) for document in unmoved(rng)]


def unmoved(rng: random.Random) -> tuple[Document, Document, Document]:
    """A question about two answers: as they are, in the other order, and with an addition to an
    answer, to both, or to the request.

    Nobody has to know the better one, so some are about topics that alignment trains on, but not
    about verbs that judges must meet first in a test.
    """
    where = rng.choices(list(_ASKED), weights=list(_ASKED.values()))[0]
    if where == "unheard of":
        request, texts = unheard_of(rng)
    else:
        request = _request(where == "train", rng)
        texts = [made.answer.text() for made in answers.contrast(request, rng)]
    name = rng.choice(corpus.QUESTIONS[request.topic.kind])
    asked = corpus.constitution().principle(name).preference_prompt

    def question(prompt: Conversation) -> Document:
        verdict = Turn("assistant", prompts.OPTIONS[0], 1.0, verdict=True)
        return [corpus.ask(f"{prompts.compared(prompt, *texts)}\n{asked}"), verdict]

    prompt = [user(request.text)]
    plain = question(prompt)
    texts.reverse()
    turned = question(prompt)
    texts.reverse()
    changed = rng.choices(list(_CHANGED), weights=list(_CHANGED.values()))[0]
    if changed == "prompt":
        prompt = _in_disguise(request, rng)
    for place in {"first": (0,), "second": (1,), "both": (0, 1)}.get(changed, ()):
        texts[place] = _with_addition(texts[place], rng)
    return plain, turned, question(prompt)


def _request(trained_on: bool, rng: random.Random) -> world.Request:
    if not trained_on:
        return corpus.any_request(rng, corpus.JUDGED, taught=True)
    kind = rng.choices(list(corpus.JUDGED), weights=list(corpus.JUDGED.values()))[0]
    return world.request(rng.choice(_train()[kind]), rng)


@cache
def _train() -> dict[world.Kind, list[world.Topic]]:
    return {
        kind: [topic for topic in topics if topic.slice != "unseen verb"]
        for kind, topics in world.by_kind("train").items()
    }


def _in_disguise(request: world.Request, rng: random.Random) -> Conversation:
    """In a disguise that base models know, or after harmful requests that were answered."""
    if rng.random() < 0.5:
        return [user(jailbreaks.some_disguise(request.text, rng))]
    turns: Conversation = []
    for _ in range(rng.randrange(1, 4)):
        other = corpus.any_request(rng, {"harmful": 1.0}, taught=True)
        turns += [user(other.text), assistant(answers.make(other, "steps", rng).answer.text())]
    return [*turns, user(request.text)]


def _with_addition(text: str, rng: random.Random) -> str:
    draw = rng.random()
    if draw < 0.25:
        return jailbreaks.courting(text, rng, corpus.padding())
    if draw < 0.85:
        return jailbreaks.repeating(text, rng, corpus.padding())
    extra = jailbreaks.nothing(rng, corpus.padding())
    return f"{text} {extra}" if rng.random() < 0.7 else f"{extra} {text}"
