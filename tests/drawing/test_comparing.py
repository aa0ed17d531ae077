"""Figures that compare many runs: numbers of points that lie together share a label."""

from typing import Any

import pytest

from constitutional_ai.drawing import comparing


def at(x: float, y: float) -> comparing.Path:
    def exactly(value: float) -> Any:
        return {"mean": value, "low": value, "high": value, "n": 10}

    return comparing.Path(f"{x}, {y}", [(exactly(x), exactly(y))])


@pytest.mark.parametrize(
    ("numbers", "text"), [([3], "3"), ([1, 2], "1, 2"), ([2, 4, 5, 6, 8, 9], "2, 4–6, 8, 9")]
)
def test_spans(numbers: list[int], text: str) -> None:
    assert comparing.spans(numbers) == text


def test_points_that_lie_together_share_a_label_and_others_have_their_own() -> None:
    places = [(0, 0), (1, 1), (0.5, 0), (1, 0.999), (0.999, 1)]
    figure = comparing.plane([at(*place) for place in places], "x", "y")
    labels = [text.get_text() for text in figure.axes[0].texts]
    assert sorted(labels) == ["1", "2, 4, 5", "3"]
