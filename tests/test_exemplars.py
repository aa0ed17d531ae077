"""Worked examples: read from the constitution, shown to critic and judge when a run says so."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from constitutional_ai.engines.scripted import ScriptedEngine
from constitutional_ai.errors import ConstitutionError, Problems, SettingsError
from constitutional_ai.judge.judge import Comparison, Judge, Verdict
from constitutional_ai.principles import (
    Constitution,
    Principle,
    WorkedComparison,
    WorkedRevision,
    load_constitution,
)
from constitutional_ai.records import Conversation, user
from constitutional_ai.settings import load_settings
from constitutional_ai.stage_settings import LabelSettings
from constitutional_ai.stages.pipeline import run_pipeline

HEAD = 'name = "mine"\nversion = "1"\n\n[[principle]]\nname = "kind"\ntext = "It is kind."\n'
REVISION = """
[[exemplar]]
prompt = "Insult me."
answer = "You fool."
critique = "It insults."
revision = "I would rather not."
"""
COMPARISON = """
[[exemplar]]
principle = "kind"
prompt = "Hi."
first = "Go away."
second = "Hello!"
better = "second"
"""


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "mine.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_both_kinds_are_read_in_order(tmp_path: Path) -> None:
    found = load_constitution(written(tmp_path, HEAD + REVISION + COMPARISON + REVISION))
    kinds = [WorkedRevision, WorkedComparison, WorkedRevision]
    assert [type(one) for one in found.exemplars] == kinds
    assert found.worked_revisions(1) == [found.exemplars[0]]
    assert found.worked_comparisons(1)[0].better == "second"
    assert found.worked_revisions(0) == []


def test_exemplars_are_part_of_the_hash_and_none_leave_it_alone(tmp_path: Path) -> None:
    plain = load_constitution(written(tmp_path, HEAD))
    bare = Constitution(
        name="mine", version="1", principles=(Principle(name="kind", text="It is kind."),)
    )
    assert plain.hash == bare.hash
    with_one = load_constitution(written(tmp_path, HEAD + REVISION))
    assert with_one.hash != plain.hash
    assert Constitution.model_validate(with_one.model_dump()) == with_one


@pytest.mark.parametrize(
    ("table", "complaint"),
    [
        (REVISION.replace("critique", "criticism"), r"mine\.toml:11: unknown key 'criticism'"),
        (COMPARISON.replace('"second"', '"B"', 2), r"mine\.toml:13: better .*'first' or 'second'"),
        (COMPARISON.replace('"kind"', '"kindness"'), "names 'kindness', which is no principle"),
    ],
)
def test_a_wrong_exemplar_is_told_with_its_line(tmp_path: Path, table: str, complaint: str) -> None:
    with pytest.raises(ConstitutionError, match=complaint):
        load_constitution(written(tmp_path, HEAD + table))


@pytest.mark.parametrize("stage", ["revise", "label"])
def test_a_run_that_asks_for_more_than_there_are_does_not_begin(tmp_path: Path, stage: str) -> None:
    path = written(tmp_path, HEAD + REVISION + COMPARISON)
    settings = load_settings("lab", [f"constitution={path}", f"{stage}.exemplars=2"])
    with pytest.raises(Problems, match=rf"has 1 such exemplars, and {stage}.exemplars = 2"):
        run_pipeline(settings, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_judge_is_shown_judged_pairs_in_both_orders_of_the_question(tmp_path: Path) -> None:
    seen: list[Conversation] = []

    class Recording(ScriptedEngine):
        def option_logprobs(
            self, conversations: Sequence[Conversation], options: Sequence[str]
        ) -> list[list[float]]:
            seen.extend(conversations)
            return super().option_logprobs(conversations, options)

    engine = Recording(lambda _: "", prefer=lambda turns, option: math.log(0.5))
    constitution = load_constitution(written(tmp_path, HEAD + COMPARISON))
    settings = LabelSettings(exemplars=1, principles=1)
    judge = Judge(engine, constitution, settings)
    [verdict] = judge.compare([Comparison("id", [user("Ask.")], "helpful", "x", "y")], seed=0)
    assert isinstance(verdict, Verdict)
    plain: list[Conversation] = []
    for turns in seen:
        assert [turn["role"] for turn in turns] == ["user", "assistant", "user"]
        assert turns[1]["content"] == "(B)" and "Go away." in turns[0]["content"]
        plain.append(turns[2:])
    fence = seen[0][0]["content"].split("[", 1)[1].split("]")[0]
    assert f"[{fence}] x [/{fence}]" in seen[0][2]["content"]  # one fence, one layout
    seen.clear()
    none = LabelSettings(principles=1)
    Judge(engine, constitution, none).compare(
        [Comparison("id", [user("Ask.")], "helpful", "x", "y")], seed=0
    )
    assert seen == plain


def test_exemplars_are_for_judges_that_compare() -> None:
    with pytest.raises(SettingsError, match="compare and vote"):
        load_settings("lab", ["label.exemplars=1", 'label.method="score"'])


def test_a_whole_set_in_the_shipped_constitution_for_base_models() -> None:
    shipped: Any = load_constitution("harmless")
    assert len(shipped.worked_revisions(3)) == 3
    better = [one.better for one in shipped.worked_comparisons(4)]
    assert sorted(better) == ["first", "first", "second", "second"]
