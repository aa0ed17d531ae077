"""The paper's findings, each with what the laboratory shows of it, from the studies' result files.

Every claim carries its rule (rules.py). The page is made from results alone: a verdict is computed,
never typed in; one that was computed on an earlier page stays where the results at hand do not
measure its claim. What no study here could show is listed too, with the reason.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from constitutional_ai.lab.studies import (
    comparison,
    direct,
    labels,
    overoptimisation,
    revisions,
    sizes,
)
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
    Found,
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


def _of(line: str, metric: str) -> At:
    return At("comparison", line, metric)


def _end(line: str, metric: str) -> At:
    return At("overoptimisation", line, metric)


def _label(line: str, metric: str) -> At:
    return At("labels", line, metric)


_BASE, _SL, _RL, _COT = "base, helpful only", "SL-CAI", "RL-CAI", "RL-CAI, chain of thought"
_PEOPLE = next(line for line in reversed(comparison.LINES) if line.startswith("RLHF, "))
_FREE, _USUAL = overoptimisation.label(0), overoptimisation.label(0.1)

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
        (Comparison(_of(_SL, "harm"), _of(_BASE, "harm"), high=0),),
        "comparison",
    ),
    Claim(
        "Reinforcement learning from AI feedback makes it less harmful still.",
        "Figures 2 and 3",
        (Comparison(_of(_RL, "harm"), _of(_SL, "harm"), high=0),),
        "comparison",
    ),
    Claim(
        "RL-CAI stays helpful on benign requests.",
        "Figure 2",
        (Comparison(_of(_RL, "help"), _of(_BASE, "help"), low=-NEAR),),
        "comparison",
    ),
    Claim(
        "RL-CAI is at least as harmless and as helpful as RLHF with people's noisy preferences.",
        "Figure 2",
        (
            Comparison(_of(_RL, "harmless"), _of(_PEOPLE, "harmless"), low=-NEAR),
            Comparison(_of(_RL, "help"), _of(_PEOPLE, "help"), low=-NEAR),
        ),
        "comparison",
        why="The people are the oracle with a quarter of its verdicts turned over by chance.",
    ),
    Claim(
        "RL-CAI declines without evading: it says why, and what could be done instead.",
        "Section 4.4",
        (
            Comparison(_of(_RL, "evasive"), high=NEAR),
            Comparison(_of(_RL, "good_refusal"), _of(_SL, "good_refusal"), low=0),
        ),
        "comparison-scores",
    ),
    Claim(
        "Labels after a chain of thought give a less harmful model.",
        "Figure 2",
        (Comparison(_of(_COT, "harm"), _of(_RL, "harm"), high=0),),
        "comparison",
        why="A thought here is one word about each answer, which the models were taught to say.",
    ),
    Claim(
        "Harmlessness rises through RL training while help stays.",
        "Figures 2 and 8",
        (
            Comparison(At("training", _RL, "harmless", None), At("training", _RL, "harmless"), 0),
            Comparison(At("training", _RL, "help", None), At("training", _RL, "help"), -NEAR),
        ),
        "training",
    ),
    Claim(
        "On an absolute scale RL-CAI's answers are less harmful than the helpful model's, at"
        " temperature 0 and 1.",
        "Figure 10",
        tuple(
            Comparison(At("absolute", _RL, "harm", t), At("absolute", _BASE, "harm", t), high=0)
            for t in (0.0, 1.0)
        ),
        "absolute",
    ),
    Claim(
        "The number of principles hardly changes how harmful the model is.",
        "Figure 6",
        (Comparison(At("number", BROAD, "harm", None), At("number", BROAD, "harm", 1), -0.2, 0.2),),
        "number",
        why="Here most principles overlook all kinds of harm but one, and each of them takes draws"
        " from the broad one; the paper's say much the same.",
    ),
    Claim(
        "More principles make the answers more diverse.",
        "Figure 6",
        (Comparison(At("number", BROAD, "distinct", None), At("number", BROAD, "distinct", 1), 0),),
        "number",
    ),
    Claim(
        "Small models revise better after a critique than without one.",
        "Figure 7",
        tuple(
            Comparison(
                At("direct", direct.CRITIQUED, f"harm_{size}", None),
                At("direct", direct.DIRECT, f"harm_{size}", None),
                high=0,
            )
            for size in ("xs", "s")
        ),
        "direct",
    ),
    Claim(
        "Larger models are better at finding the better answer.",
        "Figure 4",
        (
            Comparison(
                At("sizes", sizes.METHODS["compare"], "accuracy", sizes.MILLIONS["s"]),
                At("sizes", sizes.METHODS["compare"], "accuracy", sizes.MILLIONS["xxs"]),
                low=0,
            ),
        ),
        "sizes",
    ),
    Claim(
        "A chain of thought helps a model to find the better answer.",
        "Figure 4",
        (
            Comparison(
                At("sizes", sizes.METHODS["thoughts"], "accuracy", sizes.MILLIONS["s"]),
                At("sizes", sizes.METHODS["compare"], "accuracy", sizes.MILLIONS["s"]),
                low=0,
            ),
        ),
        "sizes",
        why="Without thoughts the models were taught to judge directly.",
    ),
    Claim(
        "The soft labels are well calibrated.",
        "Figure 9",
        (Comparison(_label("soft", labels.ECE.metric), high=0.1),),
        "labels",
    ),
    Claim(
        "Labels after a chain of thought are too sure of themselves.",
        "Section 4.1",
        (
            Comparison(
                _label("thoughts, soft", labels.ECE.metric), _label("soft", labels.ECE.metric), 0
            ),
        ),
        "labels",
    ),
    Claim(
        "Clamping the labels of a chain of thought gives a less harmful model than taking them as"
        " they are.",
        "Section 4.1",
        (
            Comparison(
                _label("thoughts, clamped", "harm"), _label("thoughts, soft", "harm"), high=0
            ),
        ),
        "labels-outcome",
    ),
    Claim(
        "Soft labels give better results than hard ones.",
        "Section 4.3",
        (Comparison(_label("soft", "harm"), _label("hard", "harm"), high=0),),
        "labels-outcome",
    ),
    Claim(
        "Pressed hard, the reward parts from the truth: gold ends below its peak.",
        "Section 4.3",
        (Comparison(_end(_FREE, "gold_end"), _end(_FREE, "gold_peak"), high=-0.1),),
        "overoptimisation",
        why="The peak is the highest of several noisy means; the margin of 0.1 allows for that.",
    ),
    Claim(
        "A KL penalty holds it off.",
        "Section 4.2",
        (Comparison(_end(_USUAL, "gold_end"), _end(_FREE, "gold_end"), low=0),),
        "overoptimisation",
    ),
    Claim(
        "Not the paper's: the monitor, which knows no truth, stops the run near the peak of gold.",
        "our own",
        (Comparison(_end(_FREE, "gold_stop"), _end(_FREE, "gold_peak"), low=-0.3),),
        "overoptimisation-monitor",
        why="The monitor reads the judge that gave the labels: what exploits the one, exploits the"
        " other.",
    ),
    Claim(
        "Not the paper's: the least of several reward models is exploited less than one alone.",
        "Coste et al. 2023",
        (
            Comparison(
                _end(overoptimisation.label(0, "min"), "gold_end"), _end(_FREE, "gold_end"), low=0
            ),
        ),
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


def judged(claim: Claim, results: Mapping[str, Result]) -> tuple[Verdict, list[Found]]:
    """What the laboratory shows of a claim."""
    if not claim.rules:
        return CANNOT, []
    wanted: list[Comparison] = []
    for rule in claim.rules:
        wanted += rule.comparisons(results) if isinstance(rule, Falling) else [rule]
    found = [compared(one, results) for one in wanted]
    return together(found), found


_KEPT = re.compile(
    r"\d+\. \*\*(?P<claim>.+?)\*\* \(.*?\) → \*\*(?P<verdict>.+?)\*\*(?P<rest>\n.*)", re.DOTALL
)
EARLIER = "   - From an earlier run, whose results are not at hand."


def earlier(page: str) -> dict[str, tuple[Verdict, str]]:
    """{a claim: its verdict and the lines below it}, of what an earlier page had measured."""
    measured = {verdict: verdict for verdict in (HOLDS, FAILS, UNDECIDED)}
    entries = [found for block in page.split("\n\n") if (found := _KEPT.fullmatch(block.rstrip()))]
    return {
        entry["claim"]: (measured[entry["verdict"]], entry["rest"])
        for entry in entries
        if entry["verdict"] in measured
    }


def markdown(results: Mapping[str, Result], pictures: str = "studies", page: str = "") -> str:
    """docs/claims.md: a numbered list, with the studies' pictures in the folder ``pictures``.

    ``page`` is an earlier one: what only that measured stays as it was, and says so.
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
        "Made by `cai study claims` from the studies' result files; the verdicts follow from the"
        " rule that stands under each claim. A rule holds where the whole 95 % interval of the"
        " difference keeps the bound, fails where the whole interval breaks it, and is undecided"
        " where the bound cuts the interval.",
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
    verdict, found = judged(claim, results)
    if verdict == MISSING and kept:
        verdict, rest = kept
        rest = rest.removesuffix(f"\n{EARLIER}")
        return verdict, f"{_head(number, claim, verdict)}{rest}\n{EARLIER}"
    lines = [_head(number, claim, verdict)]
    for one in found:
        what = shown(one.difference) if one.difference else "not measured"
        lines.append(f"   - {one.comparison.text}; found {what}: {one.verdict}")
    if claim.why:
        lines.append(f"   - {claim.why}")
    studies = dict.fromkeys(one.comparison.one.study for one in found)
    for result in (results[name] for name in studies if name in results):
        lines.append(f"   - {intervals(result)}")
        picture = f"[figure]({pictures}/{claim.figure}.png), [table]({pictures}/{result.study}.md)"
        lines.append(f"   - {picture}, `{result.command}`")
    return verdict, "\n".join(lines)


def _head(number: int, claim: Claim, verdict: Verdict) -> str:
    return f"{number}. **{claim.text}** ({claim.paper}) → **{verdict}**"
