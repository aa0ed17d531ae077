"""How alike short texts are: n-grams weighted by rarity, or the hidden states of a local model.

No network and no model is needed for n-grams: word unigrams and bigrams, and character n-grams of
3 to 5 within words, each weighted tf·idf over the texts at hand, compared by cosine; the mean of
both is what counts. It sees shared wording, not shared meaning; for that there is ``embedded``.
"""

import re
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from constitutional_ai.errors import ModelError

if TYPE_CHECKING:
    from constitutional_ai.engines.base import Engine

Matrix = NDArray[np.float64]

# Words that say nothing about which rule it is.
STOP = frozenset(
    "a an the this that these those it its he she they them their his her one ones and or but if as"
    " at by for from in into of off on onto to with about than then so such is are was were be been"
    " being am do does did has have had having can could may might must shall should will would"
    " not no never nor neither always only own same also any all each every some more most less"
    " least other others there here what which who whom whose when where why how while whether"
    " answer answers response responses reply replies assistant model please make sure you"
    " your".split()
)
_WORD = re.compile(r"[a-z0-9]+(?:'[a-z]+)?")


def words(text: str) -> list[str]:
    """Lower-case words, in order."""
    return _WORD.findall(text.lower().replace("\u2019", "'"))


def stem(word: str) -> str:
    """A word without the commonest English endings: "insults", "insulting" → "insult"."""
    for ending, rest in (
        ("ies", "y"),
        ("ing", ""),
        ("edly", ""),
        ("ed", ""),
        ("es", ""),
        ("s", ""),
    ):
        if word.endswith(ending) and len(word) - len(ending) >= 3 and not word.endswith("ss"):
            word = word.removesuffix(ending) + rest
            break
    return word[:-1] if word.endswith("e") and len(word) > 3 else word


def content_stems(text: str) -> list[str]:
    """The stems of the words that carry meaning, in order."""
    return [stem(word) for word in words(text) if word not in STOP]


def alike(texts: Sequence[str]) -> Matrix:
    """Similarity of every two texts, [n, n] in [0, 1], by n-grams.

    >>> round(float(alike(["Never insult the user.", "Do not insult the user."])[0, 1]), 2)
    1.0
    """
    return (_cosine([_word_grams(t) for t in texts]) + _cosine([_char_grams(t) for t in texts])) / 2


def _word_grams(text: str) -> Counter[str]:
    stems = content_stems(text)
    return Counter(stems) + Counter(" ".join(pair) for pair in pairwise(stems))


def _char_grams(text: str) -> Counter[str]:
    padded = [f" {word} " for word in words(text) if word not in STOP]
    return Counter(
        word[i : i + size]
        for word in padded
        for size in (3, 4, 5)
        for i in range(len(word) - size + 1)
    )


def _cosine(counts: Sequence[Counter[str]]) -> Matrix:
    """Cosine of tf·idf, tf as 1 + ln(count), idf smoothed as if one more text had every term."""
    terms = {term: i for i, term in enumerate(sorted({term for row in counts for term in row}))}
    table = np.zeros((len(counts), max(1, len(terms))))
    for row, found in zip(table, counts, strict=True):
        for term, count in found.items():
            row[terms[term]] = 1 + np.log(count)
    seen_in = (table > 0).sum(axis=0)
    return _cosine_of_rows(table * (np.log((1 + len(counts)) / (1 + seen_in)) + 1))


def _cosine_of_rows(table: Matrix) -> Matrix:
    norms = np.linalg.norm(table, axis=1, keepdims=True)
    unit = table / np.where(norms == 0, 1, norms)
    product: Matrix = np.clip(unit @ unit.T, -1, 1)
    return product


# Plain sentences about nothing in particular: what all texts have in common in a model's states.
_BACKGROUND = (
    "The train arrives at noon.",
    "She painted the old door green last summer.",
    "Most rivers are longer than they look on a map.",
    "He could not find the key to the cellar.",
    "Water boils sooner on a high mountain.",
    "The committee meets on the first Monday of the month.",
    "Two of the three boxes were empty.",
    "A good knife needs sharpening now and then.",
)


def embedded(engine: "Engine", texts: Sequence[str]) -> Matrix:
    """Similarity of every two texts, [n, n] in [-1, 1], by a local model's mean last hidden state.

    The mean state of a few unrelated sentences is taken off first: without that all texts are alike
    to a language model. Raises ModelError for an engine whose states cannot be seen.
    """
    model, tokens = getattr(engine, "model", None), getattr(engine, "tokenizer", None)
    if model is None or tokens is None:
        raise ModelError(
            f"{engine.name}: shows no hidden states; name a local model, or leave --engine out"
        )
    states = np.stack([_mean_state(model, tokens, text) for text in (*_BACKGROUND, *texts)])
    centre = states[: len(_BACKGROUND)].mean(axis=0)
    return _cosine_of_rows(states[len(_BACKGROUND) :] - centre)


def _mean_state(model: Any, tokenizer: Any, text: str) -> Matrix:
    import torch

    ids = tokenizer(text, return_tensors="pt", add_special_tokens=False)["input_ids"]
    with torch.no_grad():
        out = model(input_ids=ids.to(model.device), output_hidden_states=True)
    state: Matrix = out.hidden_states[-1][0].float().mean(dim=0).cpu().numpy().astype(float)
    return state


def clusters(similarity: Matrix, threshold: float) -> list[list[int]]:
    """Groups by average linkage: the two most alike are joined while at least ``threshold`` alike.

    Sorted by falling size; members in order. Cubic in the number of texts, which are hundreds.

    >>> clusters(np.array([[1.0, 0.9, 0.0], [0.9, 1.0, 0.0], [0.0, 0.0, 1.0]]), 0.5)
    [[0, 1], [2]]
    """
    groups = [[i] for i in range(len(similarity))]
    between = np.array(similarity, dtype=float)  # mean similarity of two groups
    np.fill_diagonal(between, -np.inf)
    while len(groups) > 1:
        a, b = sorted(int(i) for i in np.unravel_index(np.argmax(between), between.shape))
        if between[a, b] < threshold:
            break
        sizes = len(groups[a]), len(groups[b])
        joined = (sizes[0] * between[a] + sizes[1] * between[b]) / sum(sizes)
        between[a], between[:, a], between[a, a] = joined, joined, -np.inf
        between = np.delete(np.delete(between, b, axis=0), b, axis=1)
        groups[a] += groups.pop(b)
    return sorted((sorted(group) for group in groups), key=lambda group: (-len(group), group))
