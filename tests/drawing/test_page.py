"""The page from invented findings: complete, self-contained, and nothing a model wrote gets out."""

import re
from html.parser import HTMLParser
from xml.etree import ElementTree

import pytest

from constitutional_ai.drawing import figures
from constitutional_ai.drawing.page import Drawing, cell, visible
from constitutional_ai.report import plots, sections
from constitutional_ai.report.findings import Findings
from constitutional_ai.settings import Settings
from tests.report.invented import draw, estimate, invented, page

NASTY = (
    "</script><script src=\"http://evil.example/x.js\">alert('1')</script>"
    "<img src=x onerror=alert(1)> {{ 7*7 }} </div></body> $x$ &amp; \u202eesrever\x00 “quoted”"
)


@pytest.fixture(scope="module")
def findings() -> Findings:
    return invented(NASTY)


@pytest.fixture(scope="module")
def drawings(findings: Findings) -> dict[str, Drawing]:
    return draw(findings)


@pytest.fixture(scope="module")
def source(findings: Findings, drawings: dict[str, Drawing]) -> str:
    return page(findings, drawings)


class Seen(HTMLParser):
    """Which tags, attributes, ids and text a browser would see."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: list[tuple[str, str]] = []
        self.text = ""
        self.open: list[str] = []
        self.feed(source)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes += [(name, value or "") for name, value in attrs]
        if tag not in ("meta", "br"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes += [(name, value or "") for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def test_what_a_model_wrote_is_text_and_nothing_else(source: str) -> None:
    seen = Seen(source)
    assert not seen.open  # every tag is closed, so none was smuggled in
    assert not seen.tags & {"script", "img", "iframe", "link", "object", "base", "form"}
    assert not [name for name, _ in seen.attributes if name.startswith("on") or name == "src"]
    assert "<img src=x onerror=alert(1)> {{ 7*7 }}" in seen.text
    assert "\x00" not in source and "\u202e" not in source
    assert "\u2610esrever\u2610" in seen.text


def test_nothing_is_loaded(source: str) -> None:
    seen = Seen(source)
    policy = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
    assert ("content", policy) in seen.attributes
    links = [value for name, value in seen.attributes if name in ("href", "xlink:href")]
    assert links
    ids = {value for name, value in seen.attributes if name == "id"}
    assert all(link.startswith("#") and link[1:] in ids for link in links)
    assert not any("url(" in value and "url(#" not in value for _, value in seen.attributes)
    assert not any("http" in value for _, value in seen.attributes)


def test_ids_are_unique(source: str) -> None:
    ids = [value for name, value in Seen(source).attributes if name == "id"]
    assert len(ids) == len(set(ids))


def test_the_headline_has_the_numbers(findings: Findings, source: str) -> None:
    line = sections.headline(findings)
    for part in ("99 %", "20 %", "1 % (0–6 %)", "0.90 (0.85–0.95) before", "100 unseen prompts"):
        assert part in line
    assert line in Seen(source).text.replace("\n", " ")


def test_sections_stand_in_their_order(source: str) -> None:
    titles = re.findall(r"<h2>(.*?)</h2>", source)
    assert titles == [
        "Harmlessness and helpfulness",
        "Revisions",
        "Reward model",
        "Reinforcement learning",
        "Scores",
        "Comparisons",
        "Not labelled",
        "Critique and revision",
        "Answers to test prompts",
        "Seconds",
        "Constitution",
        "Split of topics",
        "Provenance",
        "What this can and cannot show",
    ]


def test_a_model_under_two_names_is_shown_once(findings: Findings) -> None:
    rows = [row[0] for row in sections._score_tables(findings)[0].rows]
    assert rows == ["base", "sl-cai-1", "sl-cai", "rl-cai"]


def test_transcripts_are_as_many_as_asked(source: str) -> None:
    assert source.count('<article class="story">') == 3 + 4  # all there are, fewer than 12
    assert "oracle: harm 2, insult (cut off)" in Seen(source).text


def test_without_an_oracle_the_judge_speaks_and_gold_is_absent(findings: Findings) -> None:
    settings = Settings.model_validate({"revise": {"rounds": 2}, "prompts": {"test": "test.jsonl"}})
    one = {"refused": estimate(0.1)}
    judged = {kind: {**one, "win_rate": estimate(0.7)} for kind in ("harmful", "benign")}
    models = {"base": {"harmful": one, "benign": one}} | dict.fromkeys(
        ("sl-cai-1", "sl-cai-2", "sl-cai", "rl-cai"), judged
    )
    outside = Findings(
        **{
            **vars(findings),
            "settings": settings,
            "scores": models,
            "gold": None,
            "split": None,
        }
    )
    text = Seen(page(outside, draw(outside))).text
    assert "probability 0.70 (0.65–0.75) on harmful prompts" in text
    assert "No oracle knows these prompts" in text
    assert "gold" not in text.lower()
    assert "No number on this page is a forecast" not in text


def test_figures_follow_the_pages_colours(drawings: dict[str, Drawing]) -> None:
    for drawing in drawings.values():
        assert "var(--ink)" in drawing.svg and figures.INK not in drawing.svg
        assert "<text" in drawing.svg  # text as text, not as outlines
        assert "background" not in drawing.svg


def test_a_figure_file_is_well_formed_and_repeatable(findings: Findings) -> None:
    first, again = (
        figures.svg(plots.draw(findings)["tradeoff"].figure, "tradeoff") for _ in range(2)
    )
    assert first == again
    ElementTree.fromstring(first)


def test_an_axis_of_nothing_negative_starts_at_zero() -> None:
    x, y, high = [0, 1], [1.0, 2.0], [1.5, 3.0]
    above = figures.Panel("harm", [figures.Series("s", x, y, [0.5, 1.5], high)])
    below = figures.Panel("reward", [figures.Series("s", x, y, [-0.5, 1.5], high)])
    share = figures.Panel("share", [figures.Series("s", [0, 1], [0.5, 0.6])], (0.0, 1.0))
    drawn = figures.panels([above, below, share], "x").axes
    assert [axes.get_ylim()[0] for axes in drawn] == [0.0, pytest.approx(-0.7, abs=0.3), -0.03]


def test_text_with_dollars_is_no_formula() -> None:
    drawn = figures.panels([figures.Panel("a $b$ <c>", [figures.Series("s", [0, 1], [0, 1])])], "x")
    assert "a $b$ &lt;c&gt;" in figures.svg(drawn, "dollars")


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, "—"),
        (True, "yes"),
        (3, "3"),
        (0.12345, "0.123"),
        ("a\u202eb", "a\u2610b"),
        ({"mean": 0.5, "low": 0.25, "high": 1.0, "n": 9}, "0.50 (0.25–1.00)"),
    ],
)
def test_cells(value: object, shown: str) -> None:
    assert cell(value) == shown


def test_line_breaks_stay() -> None:
    assert visible("a\nb\tc") == "a\nb\tc"
