"""Documents of the lab's corpus as weighted tokens, and as batches of about equal length.

Worked example, with a verdict turn that weighs 1:

    <|bos|> <|user|> Which ? <|end|> <|assistant|> (   A   )   <|end|>
    0       0        0     0 0       0             0.3 1*  0.3 0.3        * = marked as the letter

What the letter weighs changes during training (``pretrain.verdict_weight``).
"""

import multiprocessing
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import count, islice
from multiprocessing.pool import Pool

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer
from torch import Tensor

from constitutional_ai.lab.training.corpus import Document, Turn
from constitutional_ai.lab.world.tokenizer import ASSISTANT, BOS, END, USER

Documents = Callable[[int, int], list[Document]]  # (seed, count), defined at top level

_VERDICT_SHARES = (0.3, 1.0, 0.3, 0.3)  # of the weight of a verdict: ( letter ) end
_ROUND = 16  # lengths are rounded up to this
_WINDOW = 4_096  # documents that are sorted by length together
_CHUNK = 1_000  # documents that a worker makes at a time


@dataclass(frozen=True)
class Corpus:
    """Documents end to end: document i is ``[ends[i-1], ends[i])`` of the three token arrays."""

    ids: NDArray[np.uint16]
    weights: NDArray[np.float32]
    letters: NDArray[np.bool_]  # the "A" or "B" of a verdict
    marks: NDArray[np.int8]  # in an answer that is judged: 1 wrong, 0 not; elsewhere -1
    ends: NDArray[np.int64]

    @property
    def lengths(self) -> NDArray[np.int64]:
        return np.diff(self.ends, prepend=0)

    def every(self, step: int) -> "list[Corpus]":
        """The corpora of documents 0, ``step``, 2 ``step``, …; of 1, ``step`` + 1, …; and so on."""
        owner = np.repeat(np.arange(len(self.ends)), self.lengths) % step
        return [self._picked(owner == n, self.lengths[n::step].cumsum()) for n in range(step)]

    def first(self, documents: int) -> "Corpus":
        """The corpus of the first ``documents`` documents."""
        ends = self.ends[:documents]
        return self._picked(slice(0, int(ends[-1])), ends)

    def _picked(self, tokens: slice | NDArray[np.bool_], ends: NDArray[np.int64]) -> "Corpus":
        ids, weights, letters, marks = self.ids, self.weights, self.letters, self.marks
        return Corpus(ids[tokens], weights[tokens], letters[tokens], marks[tokens], ends)

    @staticmethod
    def joined(parts: "list[Corpus]") -> "Corpus":
        ids, weights, letters, marks, lengths = (
            np.concatenate([getattr(part, name) for part in parts])
            for name in ("ids", "weights", "letters", "marks", "lengths")
        )
        return Corpus(ids, weights, letters, marks, lengths.cumsum())


@dataclass(frozen=True)
class Batch:
    """Right-padded rows (documents, time): the arrays of a Corpus; marks are -1 on padding."""

    ids: Tensor
    weights: Tensor
    letters: Tensor
    marks: Tensor


def encode(tokenizer: Tokenizer, documents: list[Document]) -> Corpus:
    """Tokens and loss weights of documents. Text never becomes a control token."""
    tokenizer.encode_special_tokens = True
    encoded = iter(tokenizer.encode_batch([turn.text for d in documents for turn in d]))
    ids: list[int] = []
    weights: list[float] = []
    letters: list[int] = []
    marks: list[int] = []
    ends = []
    for document in documents:
        prose = len(document) == 1 and document[0].role == "assistant"
        for number, turn in enumerate(document):
            roles = [] if prose else [USER if turn.role == "user" else ASSISTANT]
            control = [BOS] * (number == 0) + roles
            encoding = next(encoded)
            text = encoding.ids
            shares = (1.0,) * (len(text) + 1)
            if turn.verdict:
                assert len(text) == 3, f"a verdict must be three tokens, as '(A)' is: {turn.text!r}"
                shares = _VERDICT_SHARES
                letters.append(len(ids) + len(control) + 1)
            ids += [*control, *text, END]
            weights += [0.0] * len(control) + [turn.weight * share for share in shares]
            marks += [-1] * len(control) + [*_marks(encoding.offsets, turn), -1]
        ends.append(len(ids))
    lettered = np.zeros(len(ids), np.bool_)
    lettered[letters] = True
    return Corpus(
        np.array(ids, np.uint16),
        np.array(weights, np.float32),
        lettered,
        np.array(marks, np.int8),
        np.array(ends, np.int64),
    )


def _marks(offsets: list[tuple[int, int]], turn: Turn) -> list[int]:
    """The mark of each token of a turn: of the last span that it lies in."""
    marks = [-1] * len(offsets)
    for start, end, wrong in turn.marks:
        for i, (first, last) in enumerate(offsets):
            if first >= start and last <= end:
                marks[i] = int(wrong)
    return marks


def workers() -> Pool:
    """A process for each core, to make and tokenise documents."""
    # Not forked: torch's threads may be running already.
    return multiprocessing.get_context("spawn").Pool(multiprocessing.cpu_count())


def _chunk(documents: Documents, tokenizer: str, seed: int) -> Corpus:
    return encode(Tokenizer.from_str(tokenizer), documents(seed, _CHUNK))


def _texts(documents: Documents, seed: int) -> list[str]:
    return [turn.text for document in documents(seed, _CHUNK) for turn in document]


def texts(pool: Pool, documents: Documents, seeds: range) -> list[str]:
    """The text of every turn of 1,000 documents a seed, in order."""
    return [text for part in pool.imap(partial(_texts, documents), seeds) for text in part]


def make_corpus(
    pool: Pool, documents: Documents, tokenizer: Tokenizer, seed: int, tokens: int
) -> Corpus:
    """Whole chunks of 1,000 documents from seeds ``seed``, ``seed`` + 1, … up to ``tokens`` tokens.

    What comes out does not depend on how many workers there are.
    """
    work = partial(_chunk, documents, tokenizer.to_str())
    seeds = count(seed)
    parts: list[Corpus] = []
    made = 0
    while made < tokens:  # in waves, because only the documents tell how many are needed
        for part in pool.map(work, islice(seeds, 2 * multiprocessing.cpu_count()), 1):
            if made < tokens:
                parts.append(part)
                made += len(part.ids)
    return Corpus.joined(parts)


def plan(lengths: NDArray[np.int64], batch_tokens: int, seed: int) -> list[NDArray[np.int64]]:
    """Each document once, in batches of at most ``batch_tokens`` padded tokens, in random order.

    Documents of like length go together. A document longer than a batch gets one of its own.
    """
    random = np.random.default_rng(seed)
    order = random.permutation(len(lengths))
    batches: list[NDArray[np.int64]] = []
    for start in range(0, len(order), _WINDOW):
        window = order[start : start + _WINDOW]
        window = window[np.argsort(lengths[window], kind="stable")]
        rows: list[int] = []
        for document in window.tolist():
            if rows and _rounded(int(lengths[document])) * (len(rows) + 1) > batch_tokens:
                batches.append(np.array(rows))
                rows = []
            rows.append(document)
        batches.append(np.array(rows))
    return [batches[i] for i in random.permutation(len(batches))]


def collate(
    corpus: Corpus, documents: NDArray[np.int64], device: torch.device | str = "cpu"
) -> Batch:
    """The batch of these documents, padded on the right with id 0 and weight 0."""
    lengths = corpus.lengths[documents]
    shape = (len(documents), _rounded(int(lengths.max())))
    ids, weights = np.zeros(shape, np.int64), np.zeros(shape, np.float32)
    letters, marks = np.zeros(shape, np.bool_), np.full(shape, -1, np.int8)
    for row, (end, length) in enumerate(zip(corpus.ends[documents], lengths, strict=True)):
        span = slice(end - length, end)
        ids[row, :length] = corpus.ids[span]
        weights[row, :length] = corpus.weights[span]
        letters[row, :length] = corpus.letters[span]
        marks[row, :length] = corpus.marks[span]
    return Batch(*(torch.from_numpy(made).to(device) for made in (ids, weights, letters, marks)))


def batches(
    corpus: Corpus, batch_tokens: int, seed: int, device: torch.device | str = "cpu"
) -> Iterator[Batch]:
    """All batches of a corpus, each document once."""
    return (collate(corpus, rows, device) for rows in plan(corpus.lengths, batch_tokens, seed))


def _rounded(length: int) -> int:
    return -(-length // _ROUND) * _ROUND
