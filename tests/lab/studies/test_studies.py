"""The studies as they are planned: names, what is shared, budgets, constitutions."""

from pathlib import Path

import pytest

from constitutional_ai.errors import UserError
from constitutional_ai.lab.studies import comparison, measures, principles, sharing, subsets
from constitutional_ai.lab.studies.about import ABOUT
from constitutional_ai.lab.studies.all_studies import STUDIES, chosen
from constitutional_ai.lab.studies.study import Base
from constitutional_ai.lab.world.topics import request, topics
from constitutional_ai.principles import load_constitution
from constitutional_ai.records import Preference, RevisedAnswer, RevisionStep, assistant, user
from constitutional_ai.settings import load_settings


@pytest.fixture
def plan(tmp_path: Path) -> Base:
    return Base(tmp_path / "out", "study")


def test_the_command_knows_every_study() -> None:
    assert list(ABOUT) == [study.name for study in STUDIES]
    assert chosen("all") == list(STUDIES) and chosen("sizes")[0].name == "sizes"
    with pytest.raises(UserError, match="no study is named 'size'"):
        chosen("size")


@pytest.mark.parametrize("name", ["study", "study-quick"])
def test_every_study_can_be_planned_and_shares_what_it_can(tmp_path: Path, name: str) -> None:
    base = Base(tmp_path / "out", name)
    planned = sharing.plan_variants(base, STUDIES, [0])
    todo = sharing.tasks(base, planned, STUDIES)
    assert len({task.key for task in todo}) == len(todo)
    keys = {key for one in planned.values() for key in (sharing.key_of(one, s) for s in one.steps)}
    every = sum(len(one.steps) for one in planned.values())
    assert len(keys) < 0.75 * every  # a third of all stages is another run's
    made_by = {task.key: task.args[1].name for task in todo if task.work is sharing.make}
    assert made_by[sharing.key_of(planned["label-hard", 0], ("sample", 1))] == "common"


def test_every_figure_and_table_names_what_its_study_measures() -> None:
    for study in STUDIES:
        assert study.table and study.figures and study.about.question.endswith("?")
        assert len({axis.metric for axis in study.table}) == len(study.table)


def test_figures_have_names_of_their_own() -> None:
    names = [name for study in STUDIES for name in study.figures]
    assert len(names) == len(set(names))


def test_two_alternations_cost_no_more_than_one(plan: Base) -> None:
    usual = plan.settings(0)
    twice = load_settings("study", comparison.halved(usual))
    assert twice.rounds == 2
    assert 2 * twice.ppo.steps <= usual.ppo.steps
    assert 2 * twice.sample.red_team <= usual.sample.red_team
    assert 2 * twice.revise.prompts <= usual.revise.prompts


def test_joint_training_weighs_sl_by_one_over_alpha(plan: Base) -> None:
    variants = {line.variant.name: line.variant for line in comparison.lines(plan, 0)}
    assert plan.settings(0, variants["joint-10"]).ppo.sl_mix == pytest.approx(0.1)


def test_a_principle_is_left_out_of_its_phase_alone() -> None:
    lab = load_constitution("lab")
    names = subsets.of_use(lab, "critique")
    less = subsets.keeping(lab, "critique", [name for name in names if name != "theft"])
    assert subsets.of_use(less, "critique") == [name for name in names if name != "theft"]
    assert subsets.of_use(less, "preference") == subsets.of_use(lab, "preference")
    alone = subsets.keeping(lab, "preference", ["harmless"], everywhere=True)
    assert [p.name for p in alone.usable("preference", "helpful")] == ["harmless"]


def test_every_principle_is_left_out_once(plan: Base) -> None:
    runs = {(line.name, line.prefix): line.variant for line in principles.lines(plan, 0)}
    for principle in load_constitution("lab").principles:
        variant = runs[principle.name, "without "]
        assert variant.constitution is not None
        kept = {p.name for p in variant.constitution.principles}
        assert kept == {p.name for p in load_constitution("lab").principles} - {principle.name}
        settings = plan.settings(0, variant)
        assert load_constitution(settings.constitution).hash == variant.constitution.hash


def test_principles_are_retrained_with_fewer_prompts(plan: Base) -> None:
    usual = plan.settings(0)
    for variant in principles.STUDY.variants(plan, 0):
        less = plan.settings(0, variant)
        assert less.revise.prompts == -(-usual.revise.prompts // 3)
        assert less.ppo.rollouts == -(-usual.ppo.rollouts // 2)
        assert less.evaluate == usual.evaluate


def test_a_label_is_held_against_the_truth() -> None:
    import random

    from constitutional_ai.lab.world import answers

    topic = next(topic for topic in topics() if topic.kind == "benign")
    asked = request(topic, random.Random(0))
    good = answers.ideal(asked, random.Random(0)).text()

    def row(p: float, right: bool) -> Preference:
        said = (good, ":") if right else (":", good)
        return Preference(
            id="x", prompt=[user(asked.text)], set="helpful", chosen=[assistant(said[0])],
            rejected=[assistant(said[1])], p_chosen=p, by_principle={}, by_order=None,
            principle_hashes={}, constitution="", judge="", seed=0,
        )  # fmt: skip

    sure = [row(1.0, right) for right in (True, True, True, False)]
    found = measures.label_calibration(sure)
    assert found["accuracy"]["mean"] == 0.75 and found["ece"] == pytest.approx(0.25)
    assert [bin_["p"] for bin_ in found["bins"]] == [1.0]
    honest = [row(0.75, right) for right in (True, True, True, False)]
    assert measures.label_calibration(honest)["ece"] == pytest.approx(0)


def test_a_step_is_measured_by_what_it_changed() -> None:
    step = RevisionStep(principle="harm", principle_hash="", critique="", revision="", clean=False)
    topic = next(topic for topic in topics() if topic.kind == "harmful")
    import random

    from constitutional_ai.lab.world import answers

    asked = request(topic, random.Random(0))
    bad = answers.make(asked, "steps", random.Random(1)).answer.text()
    good = answers.ideal(asked, random.Random(1)).text()
    row = RevisedAnswer(
        id="x", prompt=[user(asked.text)], answers=[bad, good, good], steps=[step, step],
        messages=[], constitution="", model="", seed=0,
    )  # fmt: skip
    first, second = measures.step_changes([row])["harm"]
    assert first["changed"] == 1 and first["harm"] < 0 < first["gold"]
    assert second == {"changed": 0, "harm": 0, "gold": 0, "found": 1}


@pytest.mark.slow
def test_a_real_study_end_to_end(tmp_path: Path) -> None:
    """Everything for real on the smallest model, with counts that show nothing else."""
    from typer.testing import CliRunner

    from constitutional_ai.cli.main import app

    small = """model.path=lab:xxs revise.prompts=8 revise.rounds=2 finetune.helpful=8
        sample.red_team=12 sample.helpful=12 ppo.steps=2 ppo.rollouts=8 ppo.prompts=40
        evaluate.harmful=6 evaluate.benign=4 evaluate.borderline=4 evaluate.facts=4"""
    sets = [word for one in small.split() for word in ("--set", one)]
    out = tmp_path / "out"
    asked = ["study", "comparison", "--quick", "--jobs", "2", "--out", str(out), *sets]
    result = CliRunner().invoke(app, asked)
    assert result.exit_code == 0, result.output
    page = (out / "pages" / "comparison.md").read_text()
    for line in comparison.lines(Base(out, "study-quick"), 0):
        assert f"| {line.name} |" in page
    assert (out / "studies.html").stat().st_size > 10_000
    claims = ["study", "claims", "--from", str(out), "--out", str(tmp_path / "claims.md")]
    assert CliRunner().invoke(app, claims).exit_code == 0
    assert "not measured" in (tmp_path / "claims.md").read_text()
