"""Pages say what was measured, and stand on their own."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from constitutional_ai.lab.studies import drawing, pages
from constitutional_ai.lab.studies.results import Result, load, save
from constitutional_ai.lab.studies.study import Axis, Dots, Lines, Study

VALUES = {
    ("β", "kl", 0): [0.1, 0.2, 0.3],
    ("β", "kl", 1): [0.5, 0.6, 0.7],
    ("β", "twice", 0): [0.2, 0.4, 0.6],
    ("<script>|", "kl", 0): [0.3, 0.3, 0.3],
}


def test_the_page_has_its_numbers_its_interval_and_its_origin(
    toy: Study, make_result: Any, tmp_path: Path
) -> None:
    page = pages.write(toy, make_result("toy", VALUES), tmp_path).read_text()
    assert "| β | 0 | 0.20 (-0.05 to 0.45) | 0.40 (-0.10 to 0.90) |" in page
    assert "| β | 1 | 0.60 (0.35 to 0.85) | — |" in page
    assert "Seeds 0, 1, 2: the 95% intervals are over 3 seeds" in page
    assert "n in each seed: 50." in page and "It is a toy." in page
    assert "cai study toy --out DIR" in page
    for name in ("toy", "toy-plane", "toy-dots"):
        assert (tmp_path / f"{name}.png").read_bytes().startswith(b"\x89PNG")
        assert (tmp_path / f"{name}.svg").exists() and f"({name}.png)" in page


def test_one_seed_is_said_to_be_one(toy: Study, make_result: Any) -> None:
    text = pages.markdown(toy, make_result("toy", {("β", "kl", 0): [0.5]}), [])
    assert "One seed (0)" in text and "say nothing about the seed" in text
    assert "0.50 (0.40 to 0.60)" in text


def test_axes_are_named_and_intervals_drawn(toy: Study, make_result: Any, tmp_path: Path) -> None:
    pages.write(toy, make_result("toy", VALUES), tmp_path)
    svg = (tmp_path / "toy.svg").read_text()
    for text in ("β (nats)", "2 β", "variant"):
        assert f">{text}</text>" in svg
    assert "FillBetweenPolyCollection" in svg or "PolyCollection" in svg


def test_columns_of_one_quantity_have_one_range(toy: Study, make_result: Any) -> None:
    kl, twice, other = (Axis(name, name) for name in ("kl", "twice", "other"))
    values = {
        ("β", "kl", 0): [1.0] * 3,
        ("β", "twice", 0): [5.0] * 3,
        ("β", "other", 0): [90.0] * 3,
    }
    study = replace(toy, figures={"rows": Dots((kl, twice, other), alike=(kl, twice))})
    figure = drawing.draw(study, make_result("toy", values))["rows"]
    first, second, third = (axes.get_xlim() for axes in figure.axes)
    assert first == second and first[0] < 1 < 5 < first[1] < 90
    assert third[0] > first[1]


def test_the_html_page_fetches_nothing_and_escapes(toy: Study, make_result: Any) -> None:
    html = pages.html([(toy, make_result("toy", VALUES))])
    assert not re.search(r'(?:src|href)="(?!#)', html)
    assert "<script" not in html and "&lt;script&gt;" in html
    ids = re.findall(r'\sid="([^"]+)"', html)
    assert len(ids) == len(set(ids))


def test_a_result_reads_back_as_it_was(make_result: Any, tmp_path: Path) -> None:
    result: Result = make_result("toy", VALUES)
    save(result, tmp_path / "toy.json")
    assert load(tmp_path / "toy.json") == result


def test_a_line_over_a_measured_distance_goes_from_left_to_right(
    toy: Study, make_result: Any
) -> None:
    distance = {("β", "far", x): [far] * 3 for x, far in enumerate((0.0, 0.5, 0.3))}
    gold = {("β", "kl", x): [x / 10] * 3 for x in range(3)}
    lines = Lines((Axis("kl", "gold"),), "distance", x="far")
    study = replace(toy, figures={"toy": lines})
    (line,) = drawing.draw(study, make_result("toy", distance | gold))["toy"].axes[0].lines[:1]
    assert list(line.get_xdata()) == [0.0, 0.3, 0.5]
    assert list(line.get_ydata()) == pytest.approx([0.0, 0.2, 0.1])


def test_an_interval_over_seeds_ends_where_its_metric_does(make_result: Any) -> None:
    """Student's t knows nothing of shares: without a bound these three give -0.01 to 0.09."""
    cell = make_result("toy", {("a", "share", 0): [0.02, 0.04, 0.06]}).cell("a", "share")
    assert cell.estimate["low"] < 0 == cell.within((0.0, 1.0))["low"]
    assert cell.within((0.0, 1.0))["high"] == cell.within(None)["high"] == cell.estimate["high"]
