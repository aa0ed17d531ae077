"""Similarity of texts, against scikit-learn; clusters of similar ones."""

import numpy as np
from sklearn.feature_extraction.text import TfidfVectorizer

from constitutional_ai.constitution import similarity
from constitutional_ai.constitution.similarity import alike, clusters


def test_n_grams_agree_with_scikit_learn() -> None:
    """The word half of the measure, against tf-idf with the same settings."""
    texts = ["Name every price twice.", "Prices are named.", "Poems rhyme.", "Poems rhyme twice."]
    stems = [" ".join(map(similarity.stem, similarity.telling(text))) for text in texts]
    oracle = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, token_pattern=r"\S+")
    table = oracle.fit_transform(stems).toarray()
    counts = [similarity._word_grams(text) for text in texts]
    np.testing.assert_allclose(similarity._cosine(counts), table @ table.T, atol=1e-12)
    assert np.allclose(np.diag(alike(texts)), 1)


def test_clusters_are_the_texts_that_say_the_same() -> None:
    texts = ["Name the source.", "Poems rhyme.", "Naming the sources.", "Always name a source."]
    assert clusters(alike(texts), 0.35) == [[0, 2, 3], [1]]
    assert clusters(alike(texts[:1]), 0.35) == [[0]]
