"""The probes of pretraining: what they ask for, and that inner layers learn it."""

import numpy as np
import torch
from tokenizers import Tokenizer

from constitutional_ai.lab.training import batches
from constitutional_ai.lab.training.corpus import Turn
from constitutional_ai.lab.training.probes import Probes, seen_before
from constitutional_ai.lab.world import tokenizer
from constitutional_ai.lab.world.model import new_model


def bpe() -> Tokenizer:
    return tokenizer.train(["a cat and a horse and an elephant (A)"], 300)


def test_a_word_counts_as_seen_from_its_second_place_on() -> None:
    ids = torch.tensor([[9, 7, 9, 9, 8], [5, 6, 7, 8, 9]])
    assert seen_before(ids).int().tolist() == [[0, 0, 1, 1, 0], [0, 0, 0, 0, 0]]


def test_marks_reach_the_tokens_of_their_span_and_the_later_one_counts() -> None:
    turn = Turn("user", "Is a cat an elephant?", marks=((3, 20, False), (12, 20, True)))
    corpus = batches.encode(bpe(), [[turn, Turn("assistant", "no", 1.0)]])
    pieces = bpe().encode(turn.text).tokens
    expected = [-1, -1]  # the start of the document and of the turn
    for start, _ in bpe().encode(turn.text).offsets:
        expected.append(-1 if start < 3 or start >= 20 else int(start >= 12))
    assert len(pieces) > 5
    assert corpus.marks[: len(expected)].tolist() == expected
    assert set(corpus.marks[len(expected) :].tolist()) == {-1}


def test_padding_and_unmarked_batches_cost_nothing() -> None:
    corpus = batches.encode(bpe(), [[Turn("assistant", "a cat", 1.0)]])
    batch = batches.collate(corpus, np.array([0]))
    states = tuple(torch.randn(1, batch.ids.shape[1], 8) for _ in range(5))
    seen, wrong = Probes(8).losses(states, batch)
    assert wrong == 0
    assert seen.item() == torch.log(torch.tensor(2.0))  # untrained: one bit a word


def test_half_of_the_heads_start_as_finders_of_the_same_word_that_overlook_themselves() -> None:
    model = new_model("s", 300, 0)
    model.set_attn_implementation("eager")
    ids = torch.stack([torch.randperm(290)[:40] + 5 for _ in range(32)])
    ids[:, 30] = ids[:, 7]
    with torch.no_grad():
        attention = model.model(ids, output_attentions=True).attentions[0][:, :, 30].mean(0)
    same, itself = attention[:, 7], attention[:, 30]  # by head; blind attention gives each 1/31
    assert same[:3].min() > 5 / 31
    assert same[:3].min() > 3 * itself[:3].max()
    assert same[3:].max() < 2 / 31
