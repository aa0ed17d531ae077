"""The baselines that know the truth do what they say, and say that they do."""

from pathlib import Path

import pytest

from constitutional_ai.errors import SettingsError
from constitutional_ai.lab.studies import baselines
from constitutional_ai.lab.world import answers, gold
from constitutional_ai.lab.world.data import draw
from constitutional_ai.progress import Progress
from constitutional_ai.records import Pair, Preference, RevisedAnswer, content_hash
from constitutional_ai.settings import Settings, load_settings
from constitutional_ai.stages import finetune
from constitutional_ai.store.rows import append_rows
from constitutional_ai.store.run_folder import RunFolder

NOISY = "label.judge=oracle:noise=0.25"
DEMONSTRATED = "revise.critic=oracle:demonstrations"


def settings(*overrides: str) -> Settings:
    return load_settings("study", ["model.path=nowhere", "revise.prompts=40", *overrides])


def pairs(count: int) -> list[Pair]:
    """Pairs of an ideal answer and one that says nothing, in turn first and second."""
    import random

    from constitutional_ai.lab.world import topics as world

    found = []
    for number, prompt in enumerate(draw("helpful", count, 1)):
        text = prompt.prompt[-1]["content"]
        topic = world.topic_of(text)
        named = (
            f"a {topic.noun}" if topic.kind == "facts" else world.asked_in(text).split(" ", 1)[1]
        )
        good = answers.ideal(world.Request(topic, text, named), random.Random(number)).text()
        both = (good, ":") if number % 2 else (":", good)
        found.append(
            Pair(id=content_hash(number), prompt=prompt.prompt, set="helpful", answers=both,
                 model="m", seed=0)
        )  # fmt: skip
    return found


def labelled(tmp_path: Path, noise: str, count: int = 400) -> list[Preference]:
    chosen = settings(f"label.judge=oracle:noise={noise}")
    run = RunFolder(tmp_path / noise, seed=0)
    for name in ("revise", "finetune", "sample"):
        run.stage(name).finish({})
    append_rows(run.stage("sample").path / "pairs.jsonl", pairs(count))
    assert baselines.stands_in(chosen, "label") and not baselines.stands_in(chosen, "revise")
    baselines.make(chosen, run.path, ("label", 1), Progress("plain"))
    return run.stage("label").rows("preferences.jsonl", Preference)


@pytest.mark.parametrize(("noise", "wrong"), [("0", 0.0), ("0.25", 0.25)])
def test_so_many_verdicts_are_turned_over(tmp_path: Path, noise: str, wrong: float) -> None:
    rows = labelled(tmp_path, noise)
    turned = [
        gold.gap("hhh", row.prompt, row.chosen[-1]["content"], row.rejected[-1]["content"]) < 0
        for row in rows
    ]
    assert sum(turned) / len(turned) == pytest.approx(wrong, abs=0.06 if wrong else 0)
    assert {row.judge for row in rows} == {f"oracle:noise={noise}"}
    assert {row.p_chosen for row in rows} == {1.0}


def test_demonstrations_are_ideal_answers_and_can_be_trained_on(tmp_path: Path) -> None:
    chosen = settings(DEMONSTRATED, "revise.rounds=1")
    run = RunFolder(tmp_path / "run", seed=0)
    baselines.make(chosen, run.path, ("revise", 1), Progress("plain"))
    rows = run.stage("revise").rows("revisions.jsonl", RevisedAnswer)
    readings = [gold.metrics(row.prompt, row.answers[-1]) for row in rows]
    assert len(rows) == 40 and {row.critic for row in rows} == {"oracle:demonstrations"}
    assert all(reading["good_refusal"] and not reading["harm"] for reading in readings)
    examples = finetune.examples(rows, [], finetune.revisions(rows))
    assert [answer for _, answer in examples] == [row.answers[-1] for row in rows]


def test_the_stages_fingerprint_names_the_baseline(tmp_path: Path) -> None:
    chosen = settings(DEMONSTRATED, "revise.rounds=1")
    run = RunFolder(tmp_path / "run", seed=0)
    baselines.make(chosen, run.path, ("revise", 1), Progress("plain"))
    manifest = run.stage("revise").manifest
    assert manifest["fingerprint"]["revise.critic"] == "oracle:demonstrations"
    assert manifest["counts"]["baseline"] is True


def test_nobody_else_stands_in() -> None:
    for stage in ("revise", "label", "ppo"):
        assert not baselines.stands_in(settings(), stage)
    assert not baselines.stands_in(settings(DEMONSTRATED), "label")
    assert not baselines.stands_in(settings("label.judge=oracle:noise=2"), "label")
    with pytest.raises(SettingsError):
        settings("label.judge=")
