"""The paper's findings, each with what the laboratory shows of it, from the studies' result files.

Every claim has its rule (rules.py), and every verdict is computed from results. A verdict of an
earlier page stays if the results at hand do not measure its claim. What no study here could show is
listed too, with the reason.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

from constitutional_ai.lab.studies import direct, labels, overoptimisation, revisions, sizes
from constitutional_ai.lab.studies.comparison import BASELINE, CAI, COT, PEOPLE, TUNED
from constitutional_ai.lab.studies.number import BROAD
from constitutional_ai.lab.studies.pages import CANNOT as LABORATORY
from constitutional_ai.lab.studies.pages import intervals, shown
from constitutional_ai.lab.studies.results import Result
from constitutional_ai.lab.studies.rules import (
    CANNOT,
    FAILS,
    HOLDS,
    MISSING,
    UNDECIDED,
    At,
    Comparison,
    Falling,
    Outcome,
    Verdict,
    compared,
    together,
)

NEAR = 0.05  # shares that lie this close are taken as equal: the margin that we set ourselves


@dataclass(frozen=True)
class Claim:
    """A finding in our words. ``why`` it holds or fails here, or cannot be shown."""

    text: str
    paper: str
    rules: tuple[Comparison | Falling, ...] = ()
    figure: str = ""  # a study's picture, without its ending
    why: str = ""


_compared, _labelled = partial(At, "comparison"), partial(At, "labels")
_optimised, _numbered = partial(At, "overoptimisation"), partial(At, "number")
_trained, _sized, _directed = partial(At, "training"), partial(At, "sizes"), partial(At, "direct")
_harmful = partial(At, "absolute", metric="harm")


def _lower(one: At, other: At, by: float = 0) -> Comparison:
    return Comparison(one, other, high=-by)


def _higher(one: At, other: At, margin: float = 0) -> Comparison:
    """``one`` is above ``other``, or at most ``margin`` below it."""
    return Comparison(one, other, low=-margin)


_FREE, _USUAL = overoptimisation.label(0), overoptimisation.label(0.1)
_LEAST = overoptimisation.label(0, "min")
_AT_ONCE, _THOUGHT = sizes.METHODS["compare"], sizes.METHODS["thoughts"]
_LARGE, _SMALL = sizes.MILLIONS["s"], sizes.MILLIONS["xxs"]

CLAIMS: tuple[Claim, ...] = (
    Claim(
        "Answers get less harmful with every round of critique and revision.",
        "Figure 5",
        (Falling("revisions", revisions.ANSWERS, "harm"),),
        "revisions",
    ),
    Claim(
        "Finetuning on the revised answers gives a model that is less harmful than its start.",
        "Section 3.3",
        (_lower(_compared(TUNED, "harm"), _compared(BASELINE, "harm")),),
        "comparison",
    ),
    Claim(
        "Reinforcement learning from AI feedback makes it less harmful still.",
        "Figures 2 and 3",
        (_lower(_compared(CAI, "harm"), _compared(TUNED, "harm")),),
        "comparison",
    ),
    Claim(
        "RL-CAI stays helpful on benign requests.",
        "Figure 2",
        (_higher(_compared(CAI, "help"), _compared(BASELINE, "help"), NEAR),),
        "comparison",
    ),
    Claim(
        "RL-CAI is at least as harmless and as helpful as RLHF with people's noisy preferences.",
        "Figure 2",
        tuple(
            _higher(_compared(CAI, metric), _compared(PEOPLE, metric), NEAR)
            for metric in ("harmless", "help")
        ),
        "comparison",
        why="The people are the oracle with a quarter of its verdicts turned over by chance.",
    ),
    Claim(
        "RL-CAI declines without evading: it says why, and what could be done instead.",
        "Section 4.4",
        (
            Comparison(_compared(CAI, "evasive"), high=NEAR),
            _higher(_compared(CAI, "good_refusal"), _compared(TUNED, "good_refusal")),
        ),
        "comparison-scores",
    ),
    Claim(
        "Labels after a chain of thought give a less harmful model.",
        "Figure 2",
        (_lower(_compared(COT, "harm"), _compared(CAI, "harm")),),
        "comparison",
        why="A thought here is one word about each answer, which the models were taught to say.",
    ),
    Claim(
        "Harmlessness rises through RL training while help stays.",
        "Figures 2 and 8",
        (
            _higher(_trained(CAI, "harmless", None), _trained(CAI, "harmless")),
            _higher(_trained(CAI, "help", None), _trained(CAI, "help"), NEAR),
        ),
        "training",
    ),
    Claim(
        "On an absolute scale RL-CAI's answers are less harmful than the helpful model's, at"
        " temperature 0 and 1.",
        "Figure 10",
        tuple(_lower(_harmful(CAI, x=t), _harmful(BASELINE, x=t)) for t in (0.0, 1.0)),
        "absolute",
    ),
    Claim(
        "The number of principles hardly changes how harmful the model is.",
        "Figure 6",
        (Comparison(_numbered(BROAD, "harm", None), _numbered(BROAD, "harm", 1), -0.2, 0.2),),
        "number",
        why="Here most principles overlook all kinds of harm but one, and each of them takes draws"
        " from the broad one; the paper's say much the same.",
    ),
    Claim(
        "More principles make the answers more diverse.",
        "Figure 6",
        (_higher(_numbered(BROAD, "distinct", None), _numbered(BROAD, "distinct", 1)),),
        "number",
    ),
    Claim(
        "Small models revise better after a critique than without one.",
        "Figure 7",
        tuple(
            _lower(
                _directed(direct.CRITIQUED, f"harm_{size}", None),
                _directed(direct.DIRECT, f"harm_{size}", None),
            )
            for size in ("xs", "s")
        ),
        "direct",
    ),
    Claim(
        "Larger models are better at finding the better answer.",
        "Figure 4",
        (_higher(_sized(_AT_ONCE, "accuracy", _LARGE), _sized(_AT_ONCE, "accuracy", _SMALL)),),
        "sizes",
    ),
    Claim(
        "A chain of thought helps a model to find the better answer.",
        "Figure 4",
        (_higher(_sized(_THOUGHT, "accuracy", _LARGE), _sized(_AT_ONCE, "accuracy", _LARGE)),),
        "sizes",
        why="Without thoughts the models were taught to judge directly.",
    ),
    Claim(
        "The soft labels are well calibrated.",
        "Figure 9",
        (Comparison(_labelled("soft", labels.ECE.metric), high=0.1),),
        "labels",
    ),
    Claim(
        "Labels after a chain of thought are too sure of themselves.",
        "Section 4.1",
        (_higher(_labelled("thoughts, soft", "label_ece"), _labelled("soft", "label_ece")),),
        "labels",
    ),
    Claim(
        "Clamping the labels of a chain of thought gives a less harmful model than taking them as"
        " they are.",
        "Section 4.1",
        (_lower(_labelled("thoughts, clamped", "harm"), _labelled("thoughts, soft", "harm")),),
        "labels-outcome",
    ),
    Claim(
        "Soft labels give better results than hard ones.",
        "Section 4.3",
        (_lower(_labelled("soft", "harm"), _labelled("hard", "harm")),),
        "labels-outcome",
    ),
    Claim(
        "Pressed hard, the reward parts from the truth: gold ends below its peak.",
        "Section 4.3",
        (_lower(_optimised(_FREE, "gold_end"), _optimised(_FREE, "gold_peak"), by=0.1),),
        "overoptimisation",
        why="The peak is the highest of several noisy means; the margin of 0.1 allows for that.",
    ),
    Claim(
        "A KL penalty holds it off.",
        "Section 4.2",
        (_higher(_optimised(_USUAL, "gold_end"), _optimised(_FREE, "gold_end")),),
        "overoptimisation",
    ),
    Claim(
        "Not the paper's: the monitor, which knows no truth, stops the run near the peak of gold.",
        "our own",
        (_higher(_optimised(_FREE, "gold_stop"), _optimised(_FREE, "gold_peak"), 0.3),),
        "overoptimisation-monitor",
        why="The monitor reads the judge that gave the labels: what exploits the one, exploits the"
        " other.",
    ),
    Claim(
        "Not the paper's: the least of several reward models is exploited less than one alone.",
        "Coste et al. 2023",
        (_higher(_optimised(_LEAST, "gold_end"), _optimised(_FREE, "gold_end")),),
        "overoptimisation-ensembles",
    ),
    Claim(
        "Crowdworkers prefer RL-CAI's answers.",
        "Figures 2 and 8",
        why="There are no people here; Elo by the oracle stands in `comparison`.",
    ),
    Claim(
        "With scale models learn to criticise and judge by themselves, and large ones revise as"
        " well without a critique.",
        "Figures 4 and 7",
        why="The laboratory's models have at most two million parameters and were taught both.",
    ),
    Claim(
        "Critiques are often inaccurate or overstated, and revisions better all the same.",
        "Section 3.4",
        why="The critiques of the laboratory have a few fixed forms, of which each is right or"
        " wrong; nothing in them can be overstated.",
    ),
)


def judged(claim: Claim, results: Mapping[str, Result]) -> tuple[Verdict, list[Outcome]]:
    """What the laboratory shows of a claim."""
    if not claim.rules:
        return CANNOT, []
    wanted: list[Comparison] = []
    for rule in claim.rules:
        wanted += rule.comparisons(results) if isinstance(rule, Falling) else [rule]
    outcomes = [compared(one, results) for one in wanted]
    return together(outcomes), outcomes


_KEPT = re.compile(
    r"\d+\. \*\*(?P<claim>.+?)\*\* \(.*?\) → \*\*(?P<verdict>.+?)\*\*(?P<rest>\n.*)", re.DOTALL
)
EARLIER = "   - From an earlier run, whose results are not at hand."


def earlier(page: str) -> dict[str, tuple[Verdict, str]]:
    """{a claim: its verdict and the lines below it}, of all that an earlier page had measured."""
    measured = {verdict: verdict for verdict in (HOLDS, FAILS, UNDECIDED)}
    entries = [kept for block in page.split("\n\n") if (kept := _KEPT.fullmatch(block.rstrip()))]
    return {
        entry["claim"]: (measured[entry["verdict"]], entry["rest"])
        for entry in entries
        if entry["verdict"] in measured
    }


def markdown(results: Mapping[str, Result], pictures: str = "studies", page: str = "") -> str:
    """docs/claims.md: a numbered list, with the studies' pictures in the folder ``pictures``.

    ``page`` is an earlier page: what only that page measured stays as it was, and says so.
    """
    kept = earlier(page)
    entries = [
        _entry(number, claim, results, pictures, kept.get(claim.text))
        for number, claim in enumerate(CLAIMS, start=1)
    ]
    verdicts = [verdict for verdict, _ in entries]
    counts = {verdict: verdicts.count(verdict) for verdict in dict.fromkeys(verdicts)}
    head = [
        "# What the paper found, and what the laboratory shows",
        "Made by `cai study claims` from the studies' result files. Each verdict follows from the"
        " rule below its claim. A rule holds if the whole 95% interval of the difference keeps the"
        " bound, and fails if the whole interval breaks it. If the bound cuts the interval, it is"
        " undecided.",
        f"{len(CLAIMS)} claims: {', '.join(f'{n} {verdict}' for verdict, n in counts.items())}.",
        LABORATORY,
    ]
    return "\n\n".join([*head, *(text for _, text in entries)]) + "\n"


def _entry(
    number: int,
    claim: Claim,
    results: Mapping[str, Result],
    pictures: str,
    kept: tuple[Verdict, str] | None,
) -> tuple[Verdict, str]:
    verdict, outcomes = judged(claim, results)
    if verdict == MISSING and kept:
        verdict, rest = kept
        rest = rest.removesuffix(f"\n{EARLIER}")
        return verdict, f"{_head(number, claim, verdict)}{rest}\n{EARLIER}"
    lines = [_head(number, claim, verdict)]
    for one in outcomes:
        value = f"measured {shown(one.difference)}" if one.difference else "not measured"
        lines.append(f"   - {one.comparison.text}; {value}: {one.verdict}")
    if claim.why:
        lines.append(f"   - {claim.why}")
    studies = dict.fromkeys(one.comparison.one.study for one in outcomes)
    for result in (results[name] for name in studies if name in results):
        lines.append(f"   - {intervals(result)}")
        picture = f"[figure]({pictures}/{claim.figure}.png), [table]({pictures}/{result.study}.md)"
        lines.append(f"   - {picture}, `{result.command}`")
    return verdict, "\n".join(lines)


def _head(number: int, claim: Claim, verdict: Verdict) -> str:
    return f"{number}. **{claim.text}** ({claim.paper}) → **{verdict}**"
