"""How alike short texts are, by the words and letters that they share; no model is needed.

Word unigrams and bigrams, and character n-grams of 3 to 5 within words, are weighted by tf·idf over
the texts at hand and compared by cosine; the mean of both counts. This sees shared wording, not
shared meaning.
"""

import re
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

Matrix = NDArray[np.float64]

# Words that do not tell one rule from another.
STOP = frozenset(
    "a an the this that these those it its he she they them their his her one ones and or but if as"
    " at by for from in into of off on onto to with about than then so such is are was were be been"
    " being am do does did has have had having can could may might must shall should will would"
    " not no never nor neither always only own same also any all each every some more most less"
    " least other others there here what which who whom whose when where why how while whether"
    " answer answers response responses reply replies assistant model please make sure you"
    " your".split()
)
_WORD = re.compile(r"[^\W_]+(?:'[^\W_]+)?")
_ENDINGS = {"ies": "y", "ing": "", "edly": "", "ed": "", "es": "", "s": ""}


def words(text: str) -> list[str]:
    """Lower-case words, in order."""
    return _WORD.findall(text.lower().replace("\u2019", "'"))


def stem(word: str) -> str:
    """A word without the commonest English endings: "insults", "insulting" → "insult"."""
    for ending, rest in _ENDINGS.items():
        if word.endswith(ending) and len(word) - len(ending) >= 3 and not word.endswith("ss"):
            word = word.removesuffix(ending) + rest
            break
    return word[:-1] if word.endswith("e") and len(word) > 3 else word


def telling(text: str) -> list[str]:
    """The words that carry meaning, in order."""
    return [word for word in words(text) if word not in STOP]


def alike(texts: Sequence[str]) -> Matrix:
    """Similarity of every two texts, [n, n] in [0, 1].

    >>> round(float(alike(["Never insult the user.", "Do not insult the user."])[0, 1]), 2)
    1.0
    """
    return (_cosine([_word_grams(t) for t in texts]) + _cosine([_char_grams(t) for t in texts])) / 2


def _word_grams(text: str) -> Counter[str]:
    stems = [stem(word) for word in telling(text)]
    return Counter(stems) + Counter(" ".join(pair) for pair in pairwise(stems))


def _char_grams(text: str) -> Counter[str]:
    padded = [f" {word} " for word in telling(text)]
    return Counter(
        word[i : i + size]
        for word in padded
        for size in (3, 4, 5)
        for i in range(len(word) - size + 1)
    )


def _cosine(counts: Sequence[Counter[str]]) -> Matrix:
    """Cosine of tf·idf: tf is 1 + ln(count); idf is smoothed as if one more text had every term."""
    terms = {term: i for i, term in enumerate(sorted({term for row in counts for term in row}))}
    table = np.zeros((len(counts), max(1, len(terms))))
    for row, count_of in zip(table, counts, strict=True):
        for term, count in count_of.items():
            row[terms[term]] = 1 + np.log(count)
    seen_in = (table > 0).sum(axis=0)
    table *= np.log((1 + len(counts)) / (1 + seen_in)) + 1
    norms = np.linalg.norm(table, axis=1, keepdims=True)
    unit = table / np.where(norms == 0, 1, norms)
    product: Matrix = np.clip(unit @ unit.T, 0, 1)
    return product


def clusters(similarity: Matrix, threshold: float) -> list[list[int]]:
    """Groups by average linkage, joined while their mean similarity is at least ``threshold``.

    Sorted by falling size; members in order.

    >>> clusters(np.array([[1.0, 0.9, 0.0], [0.9, 1.0, 0.0], [0.0, 0.0, 1.0]]), 0.5)
    [[0, 1], [2]]
    """
    from scipy.cluster.hierarchy import fcluster, linkage
    from scipy.spatial.distance import squareform

    if len(similarity) < 2:
        return [[i] for i in range(len(similarity))]
    distance = squareform(1 - similarity, checks=False)
    labels = fcluster(linkage(distance, "average"), 1 - threshold, "distance")
    groups: dict[int, list[int]] = {}
    for i, label in enumerate(labels):
        groups.setdefault(int(label), []).append(i)
    return sorted(groups.values(), key=lambda group: (-len(group), group))
