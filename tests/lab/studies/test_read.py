"""What every study reads from the files that runs and measurements leave, against sums by hand.

The files are invented (invented.py); nothing is trained or asked.
"""

import math
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from constitutional_ai.lab.studies import (
    absolute,
    attacks,
    claims,
    comparison,
    direct,
    labels,
    number,
    overoptimisation,
    principles,
    revisions,
    sizes,
    training,
)
from constitutional_ai.lab.studies.all_studies import STUDIES
from constitutional_ai.lab.studies.results import Result
from constitutional_ai.lab.studies.rules import MISSING
from constitutional_ai.lab.studies.running import collect
from constitutional_ai.lab.studies.study import Bench, Lines, Plane, Study
from constitutional_ai.redteam.scores import BENIGN
from constitutional_ai.stats.intervals import Estimate
from tests.lab.studies.invented import (
    HARM,
    SEEDS,
    invented,
    labelled,
    put,
    revised,
    right,
    sampled,
    transcripts,
    watched,
)

Make = Callable[[Study], Bench]
COMMON = "common"


def collected(study: Study, bench: Bench) -> Result:
    return Result(
        study=study.name, seeds=SEEDS, file=bench.base.file, overrides=bench.base.overrides,
        model="lab:s", command="", version="0", cells=collect(study, bench).cells(), runs=[],
    )  # fmt: skip


@pytest.fixture
def make(tmp_path: Path) -> Make:
    return lambda study: invented(tmp_path, [study])


def at(found: Result, line: str, metric: str, x: float = 0) -> list[float | None]:
    """A cell's value in each seed, None in a seed that has none."""
    cell = found.cell(line, metric, x)
    by_seed: Mapping[str, Estimate] = cell.by_seed if cell else {}
    return [by_seed[str(seed)]["mean"] if str(seed) in by_seed else None for seed in SEEDS]


def along(found: Result, line: str, metric: str, *x: float) -> list[list[float | None]]:
    """Its value at each x, in each seed."""
    return [at(found, line, metric, place) for place in x]


# ---- every study ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Result]:
    """What every study reads where all runs left the same."""
    bench = invented(tmp_path_factory.mktemp("studies"), STUDIES)
    return {study.name: collected(study, bench) for study in STUDIES}


@pytest.mark.parametrize("study", STUDIES, ids=lambda study: str(study.name))
def test_figures_and_table_show_what_is_collected(study: Study, results: dict[str, Result]) -> None:
    """Each metric that they name, each line that is picked, and what takes the place of x."""
    result = results[study.name]
    places = {(cell.line, cell.metric, cell.x) for cell in result.cells}
    known = {metric for _, metric, _ in places}
    assert [axis.metric for axis in study.table if axis.metric not in known] == []
    for name, drawn in study.figures.items():
        axes = (drawn.x,) if isinstance(drawn, Plane) else drawn.axes
        only = drawn.only if isinstance(drawn, Lines) else ()
        other = drawn.y.metric if isinstance(drawn, Plane) else ""
        other = drawn.x if isinstance(drawn, Lines) else other
        for metric in (axis.metric for axis in axes):
            assert metric in known, name
            for line in only or result.lines([metric]):
                points = result.line(line, metric)
                assert points, (name, line, metric)
                assert not other or {(line, other, cell.x) for cell in points} <= places, name


def test_every_claim_with_a_rule_is_measured(results: dict[str, Result]) -> None:
    ruled = [claim for claim in claims.CLAIMS if claim.rules]
    unmeasured = [c.text for c in ruled if claims.judged(c, results)[0] == MISSING]
    assert ruled and unmeasured == []


# ---- study by study ------------------------------------------------------------------------------


def test_revisions(make: Make) -> None:
    bench = make(revisions.STUDY)
    revised(bench.stage(COMMON, 1, "revise"), (3, 2, 0), (1,))  # the second was revised no further
    transcripts(bench.measured(COMMON, 1, "answers base T1"), "base", (1, 0))
    transcripts(bench.measured(COMMON, 1, "answers sl-cai-1 T1"), "sl-cai-1", (3, 2), (0, 0))
    found = collected(revisions.STUDY, bench)
    assert along(found, revisions.ANSWERS, "harm", 0, 1, 2) == [[2, 2], [1, 1.5], [0, 0.5]]
    assert at(found, revisions.ANSWERS, "good_refusal", 2) == [1, 0.5]
    assert at(found, revisions.ANSWERS, "harmful_steps", 2) == [0, 0.5]
    assert along(found, revisions.MODELS, "harm", 0, 1, 2) == [[1.5, 0.5], [1.5, 2.5], [1.5, 1.5]]
    assert at(found, revisions.MODELS, "good_refusal", 0) == [0, 0.5]
    assert along(found, revisions.MODELS, "help", 0, 1) == [[0.5, 0.5], [0.5, 1]]
    assert at(found, revisions.MODELS, "refused", 1) == [0.5, 0]


def test_number(make: Make) -> None:
    bench = make(number.STUDY)
    revised(bench.stage("broad-2", 1, "revise"), (3, 3), (1, 1))
    revised(bench.stage("chance-4", 0, "revise"), (0, 2), (0, 2))
    revised(bench.stage(COMMON, 0, "revise"), (3, 0), (3, 3))
    revised(bench.stage("broad-1", 0, "revise"), (1, "one two three"), (1, "one two"))
    transcripts(bench.measured("chance-1", 0, "answers sl-cai T1"), "sl-cai", (0, 0))
    found = collected(number.STUDY, bench)
    broad, chance = number.BROAD, number.CHANCE
    assert along(found, broad, "revised_harm", 1, 2, 4, 9) == [[0, 0], [0, 2], [0, 0], [1.5, 0]]
    assert along(found, chance, "revised_harm", 4, 9) == [[2, 0], [1.5, 0]]
    assert at(found, broad, "distinct", 1)[0] == 2 / 3  # two of three pairs of words differ
    assert at(found, chance, "harm", 1) == [0, 1.5] and at(found, broad, "harm", 1) == [1.5, 1.5]
    assert {cell.x for cell in found.cells} == {1, 2, 4, 9}


def test_direct(make: Make) -> None:
    bench = make(direct.STUDY)
    revised(bench.stage("size-xs", 1, "revise"), (3, 2, 1), (3, 3, 2))
    revised(bench.stage("direct-xs", 0, "revise"), (1, 0, 0), (2, 3, 3))
    found = collected(direct.STUDY, bench)
    assert along(found, direct.CRITIQUED, "harm_xs", 0, 1, 2) == [[2, 3], [1, 2.5], [0, 1.5]]
    assert along(found, direct.DIRECT, "harm_xs", 0, 1, 2) == [[1.5, 2], [1.5, 1], [1.5, 0]]
    assert at(found, direct.DIRECT, "good_refusal_xs", 1) == [0.5, 0]
    assert along(found, direct.DIRECT, "harm_s", 0, 1, 2) == [[2, 2], [1, 1], [0, 0]]


def test_sizes(make: Make) -> None:
    bench = make(sizes.STUDY)
    skills = {"harm": (3, 4), "helpful": (0, 0), "honest": (1, 6)}
    counts = {name: {"right": count, "n": n} for name, (count, n) in skills.items()}
    put(bench.measured("size-xxs", 1, "judge thoughts"), sizes.FILE, [counts])
    revised(bench.stage("size-s", 0, "revise"), (3, 1, 1), (3, 3, 2))
    transcripts(bench.measured("size-s", 0, "answers sl-cai T1"), "sl-cai", (3, 0), (0, 0))
    found = collected(sizes.STUDY, bench)
    once, thoughts = sizes.METHODS["compare"], sizes.METHODS["thoughts"]
    assert along(found, thoughts, "accuracy", 0.27, 2.15) == [[0.5, 0.4], [0.5, 0.5]]  # 4 of 10
    assert at(found, thoughts, "accuracy harm", 0.27) == [0.5, 0.75]
    assert at(found, thoughts, "accuracy helpful", 0.27) == [0.5, None]  # none could be read
    assert along(found, once, "accuracy", *sizes.MILLIONS.values()) == [[0.5, 0.5]] * 3
    assert at(found, sizes.FIRST, "revised_harm", 2.15) == [3, 2]
    assert at(found, sizes.LAST, "revised_harm", 2.15) == [1.5, 0]
    assert at(found, "SL-CAI", "good_refusal", 2.15) == [0.5, 0]
    assert along(found, "SL-CAI", "help", 0.52, 2.15) == [[0.5, 0.5], [1, 0.5]]


def test_labels(make: Make) -> None:
    bench = make(labels.STUDY)
    for seed, wrong in ((0, 0), (1, 1)):
        pairs = [(p, 0, 1) for p in (0.55, 0.65, 0.75, 0.85, 0.95)] + [(0.95, wrong, 1 - wrong)]
        labelled(bench.stage(COMMON, seed, "label"), *pairs)
    sure = [(1.0, 0, 1), (1.0, 0, 1), (1.0, 0, 1), (1.0, 1, 0)]
    labelled(bench.stage("label-hard", 1, "label"), *sure, (0.7, 0, 0), (None, 0, 1))
    put(bench.stage("thoughts-soft", 1, "reward"), "calibration.json", [{"ece": 0.25}])
    transcripts(bench.measured("label-clamped", 1, "answers rl-cai T1"), "rl-cai", (0, 1))
    found = collected(labels.STUDY, bench)
    assert [at(found, "soft", "p", x)[0] for x in range(5)] == [0.55, 0.65, 0.75, 0.85, 0.95]
    assert along(found, "soft", "right", 0, 4) == [[1, 1], [1, 0.5]]
    errors = 0.45 + 0.35 + 0.25 + 0.15  # then .05 of each of the last two answers, or .45
    assert at(found, "soft", "label_ece") == pytest.approx([(errors + 0.1) / 6, (errors + 0.9) / 6])
    assert at(found, "hard", "label_ece")[1] == 0.25  # a tie and what has no label are left out
    assert at(found, "hard", "label_accuracy")[1] == 0.75
    assert at(found, "thoughts, soft", "reward_ece") == [0.125, 0.25]
    assert at(found, "clamped", "harm") == [1.5, 0.5] and at(found, "hard", "harm") == [1.5, 1.5]
    assert found.lines(["label_ece"]) == found.lines(["harm"]) == list(labels.LINES)


def test_labels_keep_their_bins_where_a_seed_has_none(make: Make) -> None:
    bench = make(labels.STUDY)
    labelled(bench.stage(COMMON, 0, "label"), (0.55, 0, 1), (0.95, 0, 1))
    labelled(bench.stage(COMMON, 1, "label"), (0.55, 0, 1), (0.65, 0, 1), (0.95, 0, 1))
    found = collected(labels.STUDY, bench)
    assert along(found, "soft", "p", 0, 1, 4) == [[0.55, 0.55], [None, 0.65], [0.95, 0.95]]


def test_training(make: Make) -> None:
    bench = make(training.STUDY)
    sampled(bench.stage("thoughts", 1, "ppo"), {0: ((3, 1, 2), (0, 1)), 4: ((), (1, 1, 0, 1))})
    sampled(bench.stage("rlhf-0.25", 0, "ppo"), {8: ((0, 3), (0, 0))})
    found = collected(training.STUDY, bench)
    own, people = "RL-CAI, chain of thought", "RLHF, 25% noise (oracle)"
    usual = 1 - 1.5 / 4
    assert along(found, own, "harmless", 0, 4) == [[usual, 0.5], [usual, None]]  # none was harmful
    assert at(found, own, "help", 4) == [0.5, 0.25] and at(found, own, "refused", 4) == [0.5, 0.75]
    assert along(found, people, "good_refusal", 0, 8) == [[None, 0], [0.5, 0]]
    assert along(found, "RL-CAI", "harmless", 0, 8) == [[usual, usual]] * 2
    assert found.lines(["harmless"]) == list(training.LINES)


def test_absolute(make: Make) -> None:
    bench = make(absolute.STUDY)
    cold, warm = (f"answers rl-cai T{temperature}" for temperature in (0, 1))
    transcripts(bench.measured("rlhf-0.25", 1, cold), "rl-cai", (3, 1, 0, 0), (0, 0))
    transcripts(bench.measured(COMMON, 0, warm), "rl-cai", (0, 0, 0, 1))
    found = collected(absolute.STUDY, bench)
    people = "RLHF, 25% noise (oracle)"
    assert along(found, people, "harm", 0, 1) == [[1.5, 1], [1.5, 1.5]]
    assert along(found, people, "harmful_steps", 0, 1) == [[1, 0.5], [1, 1]]
    assert along(found, people, "help", 0, 1) == [[0.5, 1], [0.5, 0.5]]
    assert along(found, "RL-CAI", "harm", 0, 1) == [[1.5, 1.5], [0.25, 1.5]]
    assert along(found, "SL-CAI", "harm", 0, 1) == [[1.5, 1.5]] * 2
    assert found.lines(["harm"]) == list(absolute.COMPARED)


def test_comparison(make: Make) -> None:
    """One model is better than all others on both harmful requests, one worse on three of six."""
    bench = make(comparison.STUDY)
    transcripts(bench.measured(COMMON, 0, "answers rl-cai T1"), "rl-cai", (0, 0))
    transcripts(bench.measured(COMMON, 0, "answers sl-cai T1"), "sl-cai", HARM, (1, 1))
    transcripts(bench.measured("twice", 1, "answers rl-cai T1"), "rl-cai", (3, 1), (0, 0))
    found = collected(comparison.STUDY, bench)
    assert at(found, "RL-CAI", "harmless") == [1, 1 - 1.5 / 4]
    assert at(found, "SL-CAI", "borderline_help") == at(found, "SL-CAI", "help") == [0, 0.5]
    assert at(found, "SL-CAI", "false_claim") == at(found, "SL-CAI", "refused") == [1, 0.5]
    assert at(found, "CAI, two alternations", "harm") == [1.5, 2]
    names = [line.name for line in comparison.lines(bench.base, 0)]
    others = [line for line in names if line not in ("RL-CAI", "SL-CAI")]
    assert [at(found, line, "elo_harmless")[0] for line in others] == pytest.approx([0] * 10)
    # Half a win is added to both sides where one always wins: 2.5 to .5, and 1.5 to 4.5 by ties.
    assert at(found, "RL-CAI", "elo_harmless")[0] == pytest.approx(400 * math.log10(5))
    assert at(found, "SL-CAI", "elo_helpful")[0] == pytest.approx(-400 * math.log10(3))
    assert at(found, "RL-CAI", "elo_helpful")[0] == pytest.approx(0)
    for metric, prompts in (("elo_harmless", 2), ("elo_helpful", 6)):
        cell = found.cell("RL-CAI", metric)
        assert cell and cell.by_seed["0"]["n"] == prompts * (len(names) - 1)
    harmless = found.cell("CAI, two alternations", "harmless")
    assert harmless and harmless.by_seed["1"] == {"mean": 0.5, "low": 0.25, "high": 0.75, "n": 2}
    assert found.lines(["elo_helpful"]) == names


def test_overoptimisation(make: Make) -> None:
    """Gold of an answer: −1 − .5 for each harmful step, −1.5 for declining, 3 for a good one."""
    bench = make(overoptimisation.STUDY)
    folder = bench.stage("beta-0-min", 0, "ppo")
    course = {0: ((1, 1), (0, 0)), 4: ((0, 0), (0, 0)), 8: ((3, 3), (1, 1)), 12: ((3, 3), (0, 0))}
    sampled(folder, course, proxy=5)
    watched(folder, {0: -0.01, 4: 0.25, 8: 1, 11: 4}, {0: "", 8: "falls", 12: "falls"})
    watched(bench.stage("beta-0-min", 1, "ppo"), {0: 0, 7: 9}, {0: "", 8: ""})
    found = collected(overoptimisation.STUDY, bench)
    line, usual = overoptimisation.label(0, "min"), (-2 - 1.5 + 3 - 1.5) / 4
    first = {m: [at(found, line, m, x)[0] for x in course] for m in ("gold", "proxy", "sqrt_kl")}
    assert first["gold"] == [0.75, 3, -2, None]
    assert first["proxy"] == [5, 6, 7, None] and first["sqrt_kl"] == [0, 0.5, 1, None]
    assert at(found, line, "help", 4) == [1, None] and at(found, line, "help", 8) == [0, None]
    assert at(found, line, "gold_peak") == [3, usual] and at(found, line, "kl_end") == [4, 9]
    assert at(found, line, "gold_stop") == [-2, usual]  # where nothing was raised, the end
    assert at(found, line, "gold_end") == [0.25, usual]
    assert at(found, line, "stopped") == [1, 0] and at(found, line, "stop_step") == [8, None]
    assert at(found, overoptimisation.label(0.03), "kl_end") == [7 / 4, 7 / 4]


def test_principles(make: Make) -> None:
    bench = make(principles.STUDY)
    revised(bench.stage(principles.EVERY, 1, "revise"), (0, 2), principle="theft")
    sides = {"harmless": {"whole": right(3, 4)}}
    put(bench.measured(principles.EVERY, 1, "agreement"), principles.AGREEMENT, [sides])
    by_family = {"plain": {"harm": right(1, 2)}, "rhyme": {"harm": right(5, 6)}}
    alarms = {BENIGN: {"harm": right(1, 10)}}
    put(bench.measured(principles.EVERY, 1, "caught"), attacks.CAUGHT, [by_family | alarms])
    found = collected(principles.STUDY, bench)
    changes = ("changed", "harm_change", "gold_change")
    # One of four steps left the answer as it was; gold goes from −2.5 and −1.5 to 3.
    assert [at(found, "harm", name)[0] for name in changes] == [0.75, -1, (1 + 4.5 + 4.5) / 4]
    assert [at(found, "theft", name)[1] for name in changes] == [1, 2, -5]
    assert at(found, "harm", "better") == [1, None] and at(found, "theft", "worse") == [None, 1]
    assert at(found, "harmless", "with_whole") == [0.5, 0.75]
    assert at(found, "harmless", "with_gold") == [0.5, None]
    assert at(found, "harm", "catches") == [0.5, 0.75]  # 6 of 8
    assert at(found, "harm", "false_alarms") == [0.5, 0.1]


def test_principles_left_out_and_alone(make: Make) -> None:
    bench = make(principles.STUDY)
    transcripts(bench.measured("critique-without-theft", 0, "answers sl-cai T1"), "sl-cai", (3, 3))
    transcripts(bench.measured("preference-only-hhh", 1, "answers rl-cai T1"), "rl-cai", (0, 1))
    transcripts(bench.measured("critique-only-fit", 1, "attacks sl-cai"), "sl-cai", (1, 0), ())
    transcripts(bench.measured(principles.EVERY, 0, "attacks rl-cai"), "rl-cai", (0, 0), ())
    without_hhh = bench.measured("preference-without-hhh", 0, "attacks rl-cai")
    transcripts(without_hhh, "rl-cai", (0, 2), ())
    transcripts(bench.measured(principles.EVERY, 1, "answers sl-cai T1"), "sl-cai", (0, 0), (0, 0))
    transcripts(bench.measured(principles.EVERY, 0, "answers rl-cai T1"), "rl-cai", (3, 1))
    found = collected(principles.STUDY, bench)
    for line, harm in (("theft", [[3, 1.5], [1.5, 1.5]]), ("hhh", [[1.5, 1.5], [1.5, 0.5]])):
        assert [at(found, line, f"{how} harm") for how in ("without", "only")] == harm
    assert at(found, "fit", "only attack") == [1, 0.5]
    assert at(found, "fit", "without attack") == [1, 1]
    for how in ("without", "only"):
        assert at(found, principles.TUNED, f"{how} harm") == [1.5, 0]
        assert at(found, principles.TUNED, f"{how} help") == [0.5, 1]
        assert at(found, principles.TUNED, f"{how} attack") == [1, 1]
        assert at(found, principles.ALL, f"{how} harm") == [2, 1.5]
        assert at(found, principles.ALL, f"{how} attack") == [0, 1]
    assert at(found, "hhh", "without attack") == [0.5, 1]
    assert at(found, "hhh", "only attack") == [1, 1]
    assert at(found, "helpful", "only harm") == [None, None]  # it cannot judge alone
