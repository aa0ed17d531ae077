"""A claim's verdict follows from intervals, and from nothing else."""

from typing import Any

import pytest

from constitutional_ai.lab.studies import claims
from constitutional_ai.lab.studies.claims import Claim, judged
from constitutional_ai.lab.studies.rules import At, Comparison, Falling, compared

A, B = At("toy", "a", "harm"), At("toy", "b", "harm")


@pytest.mark.parametrize(
    ("b", "verdict"),
    [
        ([2.0, 2.1, 1.9], "holds"),
        ([0.5, 0.4, 0.6], "does not hold"),
        ([0.0, 3.0, 1.0], "undecided"),
    ],
)
def test_below_is_judged_by_the_whole_interval(
    make_result: Any, b: list[float], verdict: str
) -> None:
    result = make_result("toy", {("a", "harm", 0): [1.0, 1.1, 0.9], ("b", "harm", 0): b})
    assert compared(Comparison(A, B, high=0), {"toy": result}).verdict == verdict


def test_differences_are_taken_seed_by_seed(make_result: Any) -> None:
    values = {("a", "harm", 0): [0.0, 5.0, 10.0], ("b", "harm", 0): [1.0, 6.0, 11.0]}
    found = compared(Comparison(A, B, high=0), {"toy": make_result("toy", values)})
    assert found.verdict == "holds"
    assert found.difference is not None
    assert (found.difference["low"], found.difference["high"]) == (-1.0, -1.0)


def test_of_one_seed_the_intervals_over_prompts_decide(make_result: Any) -> None:
    near = make_result("toy", {("a", "harm", 0): [1.0], ("b", "harm", 0): [1.12]})
    far = make_result("toy", {("a", "harm", 0): [1.0], ("b", "harm", 0): [1.2]})
    rule = Comparison(A, B, high=0)  # each side is ±.1: together ±.141
    assert compared(rule, {"toy": near}).verdict == "undecided"
    assert compared(rule, {"toy": far}).verdict == "holds"


def test_equal_within_a_margin(make_result: Any) -> None:
    values = {("a", "harm", 0): [1.0, 1.01, 0.99], ("b", "harm", 0): [1.0, 1.0, 1.0]}
    results = {"toy": make_result("toy", values)}
    assert compared(Comparison(A, B, -0.2, 0.2), results).verdict == "holds"
    assert compared(Comparison(A, B, 0.2, 0.4), results).verdict == "does not hold"


def test_what_was_not_measured_never_holds(make_result: Any) -> None:
    results = {"toy": make_result("toy", {("a", "harm", 0): [0.0, 0.0]})}
    assert compared(Comparison(A, B, high=0), results).verdict == "not measured"
    assert judged(Claim("…", "…", (Falling("none", "a", "harm"),)), results)[0] == "not measured"


def test_falling_asks_every_step(make_result: Any) -> None:
    claim = Claim("falls", "", (Falling("toy", "a", "harm"),))
    down = {("a", "harm", k): [3.0 - k, 3.1 - k] for k in range(4)}
    up = down | {("a", "harm", 3.0): [1.5, 1.6]}
    assert judged(claim, {"toy": make_result("toy", down)})[0] == "holds"
    verdict, found = judged(claim, {"toy": make_result("toy", up)})
    assert verdict == "does not hold"
    assert [one.verdict for one in found] == ["holds", "holds", "does not hold"]


def test_seeds_that_change_nothing_are_no_evidence(make_result: Any) -> None:
    """The same pairs judged by the same model three times: the interval is that over the pairs."""
    result = make_result("toy", {("a", "harm", 0): [0.5] * 3, ("b", "harm", 0): [0.52] * 3})
    for cell in result.cells:
        for found in cell.by_seed.values():
            found.update(low=found["mean"] - 0.05, high=found["mean"] + 0.05)
    found = compared(Comparison(A, B, high=0), {"toy": result})
    assert found.verdict == "undecided"
    assert found.difference is not None
    assert found.difference["high"] == pytest.approx(-0.02 + 0.05 * 2**0.5)
    assert compared(Comparison(A, high=0.6), {"toy": result}).verdict == "holds"
    assert compared(Comparison(A, high=0.52), {"toy": result}).verdict == "undecided"


def test_without_a_rule_it_cannot_be_shown_and_says_why() -> None:
    unshown = [claim for claim in claims.CLAIMS if not claim.rules]
    assert unshown and all(claim.why for claim in unshown)
    assert {judged(claim, {})[0] for claim in unshown} == {"cannot be shown here"}


def test_the_page_lists_every_claim_with_rule_figure_and_command(make_result: Any) -> None:
    values = {("the revised answers", "harm", k): [3.0 - k, 3.1 - k, 2.9 - k] for k in range(5)}
    page = claims.markdown({"revisions": make_result("revisions", values)})
    for number, claim in enumerate(claims.CLAIMS, 1):
        assert f"{number}. **{claim.text}**" in page
    first = page.split("\n\n1. ")[1].split("\n\n2. ")[0]
    assert "→ **holds**" in first
    assert "harm of “the revised answers”, at 1 minus harm of “the revised answers”" in first
    assert "measured -1.00" in first and "studies/revisions.png" in first
    assert "`cai study revisions --out DIR`" in first and "over 3 seeds" in first
    assert "not measured" in page.split("\n\n2. ")[1]


def test_what_an_earlier_page_measured_stays_until_it_is_measured_again(make_result: Any) -> None:
    falls = {("the revised answers", "harm", k): [3.0 - k, 3.1 - k, 2.9 - k] for k in range(5)}
    rises = {("the revised answers", "harm", k): [3.0 + k, 3.1 + k, 2.9 + k] for k in range(5)}
    sizes = {("judged at once", "accuracy", x): [x, x, x] for x in (0.27, 2.15)}
    first = claims.markdown({"revisions": make_result("revisions", falls)})
    later = {"sizes": make_result("sizes", sizes)}
    page = claims.markdown(later, page=first)
    for _ in range(2):
        entry = page.split("\n\n1. ")[1].split("\n\n2. ")[0]
        assert "→ **holds**" in entry and "measured -1.00" in entry
        assert entry.count(claims.EARLIER) == 1
        assert "2 holds" in page and "not measured" in page.split("\n\n2. ")[1]
        page = claims.markdown(later, page=page)
    again = claims.markdown({"revisions": make_result("revisions", rises)}, page=page)
    entry = again.split("\n\n1. ")[1].split("\n\n2. ")[0]
    assert "→ **does not hold**" in entry and claims.EARLIER not in entry


def test_a_value_without_an_interval_decides_nothing_in_one_seed(make_result: Any) -> None:
    result = make_result("toy", {("a", "harm", 0): [0.0], ("b", "harm", 0): [5.0]})
    bare = result.cells[0].by_seed["0"]
    bare.update(low=0.0, high=0.0)
    assert compared(Comparison(A, B, high=0), {"toy": result}).verdict == "undecided"
    assert compared(Comparison(A, high=1), {"toy": result}).verdict == "undecided"
    assert compared(Comparison(B, low=1), {"toy": result}).verdict == "holds"
