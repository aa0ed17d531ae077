"""Option log-probabilities by the slowest way: every token of the vocabulary is looked at."""

import math
from collections.abc import Sequence

import torch

from constitutional_ai.engines.local import LocalEngine
from constitutional_ai.records import Conversation


def option_logprobs(engine: LocalEngine, talk: Conversation, options: Sequence[str]) -> list[float]:
    """log P of each option: all tokens that are the word, plain or dressed, and the opening's way.

    Where an assistant's message is open, the first token in which the options' spellings differ.
    """
    spelt = [engine.tokens.continued(talk, option) for option in options]
    shared = 0
    while len({ids[shared] for ids in spelt}) == 1:
        shared += 1
    if talk[-1]["role"] == "assistant":
        after = _probabilities(engine, spelt[0][:shared])
        return [math.log(after[ids[shared]]) for ids in spelt]
    lead = "" if engine.tokens.has_template else " "  # what a reply begins with anyway
    opened, said, mass = engine.tokens.prompt(talk), "", 1.0
    found = [0.0] * len(options)
    while True:
        next_ = _probabilities(engine, opened)
        last = len(opened) == shared
        for n, option in enumerate(options):
            texts = {lead + text for text in _said(option)}
            way = {i for i, text in enumerate(_texts(engine)) if said + text in texts}
            found[n] += mass * sum(next_[i] for i in way | ({spelt[n][shared]} if last else set()))
        if last:
            return [math.log(p) for p in found]
        token = spelt[0][len(opened)]
        mass *= next_[token]
        said += engine.tokenizer.decode([token])
        opened = [*opened, token]


def _said(option: str) -> set[str]:
    """
    >>> sorted(_said("(A)"))[:3]
    [' (A', ' (A)', ' A']
    """
    word = option.strip("()")
    end = ")" if option.endswith(")") else ""
    words = {option, word, word + end, option.removesuffix(")")}
    if len(word) > 1:
        words |= {word.lower(), word[0].upper() + word[1:]}
    return {lead + said for said in words for lead in ("", " ", "**", '"')}


def _texts(engine: LocalEngine) -> list[str]:
    return [engine.tokenizer.decode([i]) for i in range(len(engine.tokenizer))]


def _probabilities(engine: LocalEngine, ids: list[int]) -> list[float]:
    with torch.no_grad():
        logits = engine.model(torch.tensor([ids])).logits[0, -1].double()
    found: list[float] = logits.softmax(-1).tolist()
    return found
