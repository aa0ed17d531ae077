"""The pages in a real browser: nothing fetched, nothing run, legible on a phone, in both schemes.

Two locks keep a transcript's markup from doing anything: it is escaped, and the page's content
policy would stop it. Each is tested with the other taken away, and every trap is first seen to
spring on a page that has neither.
"""

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from constitutional_ai.drawing import palette
from constitutional_ai.drawing.page import visible
from tests.drawing import browser as chromium
from tests.drawing.browser import Browser
from tests.report.invented import redteam_page, run_page, study_page

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(not chromium.BINARY, reason="no Chromium here: apt-get install chromium"),
]
PHONE, DESKTOP = 390, 1280  # CSS pixels
SMALLEST = 11.9  # CSS pixels: 12, less a rounding
HOST = "trap.example"
AT = f"http://{HOST}"
RUN = "document.title='sprung'"
TRAPS = {
    "script": f"</script></style></title></textarea><script>{RUN}</script>",
    "module": f"<script type=module>{RUN}</script>",
    "script of another": f"<script src={AT}/x.js></script>",
    "handler": f'<img src="x:" onerror="{RUN}">',
    "svg": f'<svg onload="{RUN}"></svg>',
    "toggle": f'<details open ontoggle="{RUN}">x</details>',
    "click": f'<b onclick="{RUN}">x</b>',
    "link": f'<a href="javascript:void({RUN})">x</a>',
    "frame": f'<iframe srcdoc="<script>parent.{RUN}</script>"></iframe>',
    "image": f"<img src={AT}/x.png>",
    "image in svg": f'<svg><image href="{AT}/x.svg"/></svg>',
    "style": f"</style><link rel=stylesheet href={AT}/x.css>",
    "import": f"<style>@import url({AT}/y.css);</style>",
    "background": f'<p style="background: url({AT}/z.png)">x</p>',
    "film": f"<video src={AT}/x.mp4 autoplay></video>",
    "other page": f"<iframe src={AT}/></iframe>",
    "object": f"<object type=text/html data={AT}/x.html></object>",
    "refresh": f'<meta http-equiv="refresh" content="0;url={AT}/gone">',
}
BEYOND_POLICY = {"refresh"}  # a policy says what a page loads, not where it goes
UNSEEN = "\x1b[31mred\x1b[0m \u202eesrever\u2066 \u200bnothing\x00 "
LONG = "W" * 3000
HOSTILE = f"{UNSEEN}{LONG} {' '.join(TRAPS.values())}"
PAGES = {"run": run_page, "redteam": redteam_page, "study": study_page}
CLICK_ALL = """
document.querySelectorAll('details').forEach(d => { d.open = true });
document.querySelectorAll('body *').forEach(
  e => e.dispatchEvent(new MouseEvent('click', {bubbles: true, cancelable: true})));
"""


@pytest.fixture(scope="module")
def network() -> Iterator[tuple[str, list[str]]]:
    with chromium.counting() as found:
        yield found


@pytest.fixture(scope="module")
def tab(
    network: tuple[str, list[str]], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Browser]:
    with Browser(tmp_path_factory.mktemp("profile"), network[0]) as found:
        yield found


@pytest.fixture(scope="module", params=PAGES)
def source(request: pytest.FixtureRequest) -> str:
    return PAGES[request.param](HOSTILE)


@pytest.fixture(scope="module")
def plain() -> str:
    return run_page("harmless")


@pytest.fixture
def look(
    tab: Browser, network: tuple[str, list[str]], tmp_path: Path
) -> Iterator[Callable[..., Browser]]:
    """Shows an HTML text from a file; ``policy`` says whether its content policy is in force."""

    def show(
        html: str, width: int = DESKTOP, scheme: str = "light", policy: bool = True
    ) -> Browser:
        path = tmp_path / "page.html"
        path.write_text(html, encoding="utf-8")
        tab.call("Page.setBypassCSP", enabled=not policy)
        network[1].clear()
        tab.show(path.as_uri(), width, scheme=scheme)
        return tab

    yield show
    tab.call("Page.setBypassCSP", enabled=False)
    tab.show("about:blank", DESKTOP)


def sprung(tab: Browser, hits: list[str], wait: float) -> list[str]:
    """What a trap did within so many seconds of a click on everything."""
    tab.js(CLICK_ALL)
    deadline = time.monotonic() + wait
    while True:
        found = [hit for hit in hits if HOST in hit]
        found += [url for url in tab.requested() if HOST in url]
        found += ["a script ran"] if tab.js("document.title") == "sprung" else []
        if found or time.monotonic() > deadline:
            return found
        time.sleep(0.05)


@pytest.mark.parametrize("trap", TRAPS)
def test_every_trap_springs_where_nothing_holds_it(
    trap: str, look: Callable[..., Browser], network: tuple[str, list[str]]
) -> None:
    tab = look(f"<!DOCTYPE html><title>quiet</title><body>{TRAPS[trap]}")
    assert sprung(tab, network[1], wait=10)


def test_escaping_holds_without_the_policy(
    source: str, look: Callable[..., Browser], network: tuple[str, list[str]]
) -> None:
    tab = look(source, policy=False)
    itself = tab.js("location.href")
    assert not sprung(tab, network[1], wait=0.5)
    assert tab.requested() == [itself]  # and nothing of our own is fetched either
    assert tab.js("location.href.split('#')[0]") == itself
    assert tab.js("document.scripts.length") == 0
    assert tab.js(f"document.body.textContent.includes({json.dumps(TRAPS['svg'])})")
    text = tab.js("document.documentElement.textContent")
    assert not set(text) & set("\x00\x1b\u200b\u202e\u2066")


def test_the_policy_holds_without_escaping(
    plain: str, look: Callable[..., Browser], network: tuple[str, list[str]]
) -> None:
    traps = "".join(html for name, html in TRAPS.items() if name not in BEYOND_POLICY)
    tab = look(plain.replace("<main>", f"<main>{traps}"))
    assert not sprung(tab, network[1], wait=1.0)
    assert tab.js("document.scripts.length") >= 3  # they are there, and were refused


# What is wider than the window; elements in a box that scrolls are not.
WIDER = """
(() => {
  const wide = document.documentElement.clientWidth, found = [];
  if (document.documentElement.scrollWidth > wide) found.push('the page');
  for (const e of document.querySelectorAll('body *')) {
    let box = e.parentElement;
    while (box && !['auto', 'scroll'].includes(getComputedStyle(box).overflowX))
      box = box.parentElement;
    if (!box && e.getBoundingClientRect().right > wide + 1) found.push(e.outerHTML.slice(0, 80));
  }
  return found;
})()
"""
# Each text with its size on the screen; an SVG's is scaled, and may be turned.
TEXTS = """
(() => {
  const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT), found = [];
  while (walker.nextNode()) {
    const e = walker.currentNode.parentElement, text = walker.currentNode.data.trim();
    if (!text || !e.checkVisibility()) continue;
    const m = e.ownerSVGElement ? e.getScreenCTM() : {a: 1, b: 0};
    const size = parseFloat(getComputedStyle(e).fontSize) * Math.hypot(m.a, m.b);
    found.push([size, text.slice(0, 60)]);
  }
  return found;
})()
"""
# Labels that reach out of their figure.
CUT = """
[...document.querySelectorAll('figure svg')].flatMap(svg => {
  const f = svg.getBoundingClientRect();
  return [...svg.querySelectorAll('text')].filter(text => {
    const t = text.getBoundingClientRect();
    return t.left < f.left - 2 || t.right > f.right + 2 || t.top < f.top - 2
        || t.bottom > f.bottom + 2;
  }).map(text => text.textContent);
})
"""
# How much of the window the headings of rows take, which stay when a table is scrolled.
HEADINGS = """
Math.max(...[...document.querySelectorAll('tbody th')].map(e => e.offsetWidth))
  / document.documentElement.clientWidth
"""


def test_legible_on_a_phone(source: str, look: Callable[..., Browser]) -> None:
    tab = look(source, PHONE)
    tab.js("document.querySelectorAll('details').forEach(d => { d.open = true })")
    assert tab.js("innerWidth") == PHONE  # a page that is too wide makes a phone zoom out
    assert tab.js(WIDER) == []
    texts = tab.js(TEXTS)
    assert len(texts) > 50
    assert [found for found in texts if found[0] < SMALLEST] == []
    assert tab.js(CUT) == []
    assert tab.js(HEADINGS) < 0.5


def test_the_measures_see_what_is_wrong(plain: str, look: Callable[..., Browser]) -> None:
    tab = look(plain, PHONE)
    assert tab.js(WIDER) == []
    tab.js("document.querySelector('.headline').style.width = '500px'")
    found = tab.js(WIDER)
    assert found[0] == "the page" and "headline" in found[1]
    tab.js("document.querySelector('figure svg').style.cssText += 'min-width: 0; width: 200px'")
    assert min(tab.js(TEXTS))[0] < SMALLEST
    tab.js("document.querySelector('figure svg text').setAttribute('x', 5000)")
    tab.js("document.querySelector('figure svg text').textContent = 'W'.repeat(200)")
    assert any(text.startswith("WWW") for text in tab.js(CUT))
    tab.js(
        "document.querySelector('tbody th span').style.cssText = 'max-width: none; width: 300px'"
    )
    assert tab.js(HEADINGS) > 0.5


INKS = """
[...new Set([...document.querySelectorAll('figure svg *')].filter(e => !e.closest('defs'))
  .flatMap(e => ['fill', 'stroke'].map(p => getComputedStyle(e)[p])))]
"""


def rgb(colour: str) -> str:
    """A colour as a browser names it."""
    return f"rgb({', '.join(str(int(colour[k : k + 2], 16)) for k in (1, 3, 5))})"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_figures_wear_the_schemes_colours(
    source: str, scheme: str, look: Callable[..., Browser]
) -> None:
    tab = look(source, scheme=scheme)
    paper = tab.js("getComputedStyle(document.body).backgroundColor")
    assert paper == rgb(palette.PAPER[scheme])
    other = {"light": "dark", "dark": "light"}[scheme]
    worn: set[Any] = set(tab.js(INKS))
    series = {rgb(colour) for colour in palette.SERIES[scheme]}
    assert len(worn & series) >= 2
    assert not worn & {rgb(colour) for colour in palette.SERIES[other]}
    ink = tab.js("getComputedStyle(document.body).color")
    labels = "[...document.querySelectorAll('figure svg text')].map(t => getComputedStyle(t).fill)"
    assert set(tab.js(labels)) == {ink}


def test_unseen_characters_are_boxes() -> None:
    assert visible(UNSEEN).count("\u2610") == 6
