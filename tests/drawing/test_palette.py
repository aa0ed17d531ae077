"""The series stay apart in greyscale and stand out from the paper, by the formulas themselves."""

from itertools import combinations

import pytest

from constitutional_ai.drawing.palette import PAPER, SERIES


def luminance(colour: str) -> float:
    """Relative luminance of an sRGB colour, 0 to 1 (IEC 61966-2-1)."""
    parts = [int(colour[k : k + 2], 16) / 255 for k in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    return sum(w * c for w, c in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def lightness(colour: str) -> float:
    """CIE L*, 0 to 100; what a conversion to greyscale keeps of a colour."""
    return 116 * luminance(colour) ** (1 / 3) - 16


def contrast(one: str, two: str) -> float:
    low, high = sorted((luminance(one), luminance(two)))
    return (high + 0.05) / (low + 0.05)


def test_the_formulas_on_known_colours() -> None:
    assert contrast("#ffffff", "#000000") == pytest.approx(21)
    assert lightness("#777777") == pytest.approx(50.03, abs=0.01)


@pytest.mark.parametrize("mode", SERIES)
def test_no_two_series_are_the_same_grey(mode: str) -> None:
    assert min(abs(lightness(a) - lightness(b)) for a, b in combinations(SERIES[mode], 2)) > 9
    first, second = SERIES[mode][:2]  # most figures have two
    assert abs(lightness(first) - lightness(second)) > 19


@pytest.mark.parametrize("mode", SERIES)
def test_every_series_stands_out_from_the_paper(mode: str) -> None:
    assert min(contrast(colour, PAPER[mode]) for colour in SERIES[mode]) >= 3
