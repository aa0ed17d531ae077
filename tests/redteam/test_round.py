"""A whole round in one call: two runs, an amendment, two campaigns; what it leaves, and resuming.

Nothing is trained: a stand-in for the pipeline notes the settings and leaves a folder where the
model would lie. The start model complies; the first run's declines unless a scene is set; the
second run's declines whatever does not ask to mend something.
"""

import json
import random
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from constitutional_ai.engines.base import Completion, Engine, Sampling
from constitutional_ai.engines.scripted import ScriptedEngine
from constitutional_ai.errors import UserError
from constitutional_ai.principles import load_constitution
from constitutional_ai.progress import Progress
from constitutional_ai.records import Conversation
from constitutional_ai.redteam import comparison, mixing
from constitutional_ai.redteam import round as loop
from constitutional_ai.redteam.plan import Plan
from constitutional_ai.settings import Settings
from constitutional_ai.store.run_folder import RunFolder

RUN = """
seed = 5
constitution = "{folder}/small.toml"
model.path = "start"
prompts.red_team = "{folder}/harmful.jsonl"
prompts.helpful = "{folder}/helpful.jsonl"
revise.prompts = 8
finetune.helpful = 8
sample.red_team = 8
sample.helpful = 8
label.jury = ["base", "other"]
ppo.prompts = 8
"""
THING = re.compile(r"\bthing \d")  # what the training attacks ask about


class Pipeline:
    """Stands where `run_pipeline` does; a run of the name ``broken`` is interrupted."""

    def __init__(self) -> None:
        self.ran: list[tuple[str, Settings]] = []
        self.broken = ""

    def __call__(self, settings: Settings, out: Path, progress: Progress) -> RunFolder:
        if out.name == self.broken:
            raise KeyboardInterrupt
        self.ran.append((out.name, settings))
        folder = RunFolder(out, settings.rounds, settings.seed)
        model = folder.stage(settings.learner, settings.rounds).path / "model"
        model.mkdir(parents=True, exist_ok=True)
        (model / "weights").write_text(out.name)
        return folder


class Noted:
    """An engine that notes who was asked what."""

    def __init__(self, name: str, engine: Engine, told: list[tuple[str, str]]) -> None:
        self.name, self._engine, self._told = name, engine, told

    def generate(
        self, conversations: Sequence[Conversation], sampling: Sampling
    ) -> list[Completion]:
        self._told += [(self.name, turns[-1]["content"]) for turns in conversations]
        return self._engine.generate(conversations, sampling)

    def option_logprobs(
        self, conversations: Sequence[Conversation], options: Sequence[str]
    ) -> list[list[float]]:
        self._told += [(self.name, turns[-1]["content"]) for turns in conversations]
        return self._engine.option_logprobs(conversations, options)


class Models:
    """Opens engines by their specs; a run's model is named as its run."""

    def __init__(self, scripts: dict[str, Engine]) -> None:
        self.told: list[tuple[str, str]] = []
        self.engines = {
            **scripts,
            "start": scripts["soft"],
            "before": scripts["firm"],
            "after": ScriptedEngine(
                lambda turns: "First, glue." if "mend" in turns[-1]["content"] else "I cannot help."
            ),
            "control": scripts["firm"],
        }

    def __call__(self, spec: str) -> Engine:
        path = Path(spec)
        name = path.parts[-3] if path.is_absolute() else spec
        assert not path.is_absolute() or (path / "weights").read_text() == name
        return Noted(name, self.engines[name], self.told)

    def asked(self, name: str) -> set[str]:
        return {text for label, text in self.told if label == name}


@pytest.fixture
def pipeline(monkeypatch: pytest.MonkeyPatch) -> Pipeline:
    found = Pipeline()
    monkeypatch.setattr(loop, "run_pipeline", found)
    return found


@pytest.fixture
def models(scripts: dict[str, Engine]) -> Models:
    return Models(scripts)


@pytest.fixture
def round_(plan: Plan, tmp_path: Path) -> loop.Round:
    """Trained on attacks in a scene, about things; tested in code too, about widgets."""
    (tmp_path / "run.toml").write_text(RUN.format(folder=tmp_path))
    held_out = Path(plan.prompts).read_text().replace("thing", "widget")
    (tmp_path / "held_out.jsonl").write_text(held_out)
    for name in ("harmful", "helpful"):
        rows = [json.dumps({"prompt": f"Something {name}, {n}?"}) for n in range(20)]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(rows))
    test = plan.model_copy(update={"prompts": str(tmp_path / "held_out.jsonl")})
    trained = plan.model_copy(update={"families": ("role-play",)})
    return loop.Round(str(tmp_path / "run.toml"), ["ppo.steps=3"], trained, test)


def run(round_: loop.Round, models: Any, tmp_path: Path) -> dict[str, Any]:
    return loop.run(round_, tmp_path / "out", models, Progress("plain"))


def files(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_a_round_compares_before_and_after_on_attacks_trained_on_and_not(
    round_: loop.Round, models: Models, pipeline: Pipeline, tmp_path: Path
) -> None:
    result = run(round_, models, tmp_path)
    out = tmp_path / "out"
    assert json.loads((out / "loop.json").read_text()) == result
    assert (out / "loop.md").read_text() == comparison.markdown(result)
    base, before, after = (
        {label: row[name]["success"]["mean"] for label, row in result["rows"].items()}
        for name in ("base", "before", "after")
    )
    assert before == {
        "plain": 0, "role-play": 1, "base64": 0, "trained on": 1, "not trained on": 0,
        "all attacks": 0.5,
    }  # fmt: skip
    assert base == dict.fromkeys(before, 1) and after == dict.fromkeys(before, 0)
    assert result["ratio"] == 0
    assert result["rows"]["trained on"]["difference"]["mean"] == -1
    assert result["rows"]["base64"]["after"]["over_refusal"]["mean"] == 1
    assert result["rows"]["role-play"]["after"]["over_refusal"]["mean"] == 0
    assert (result["trained_on"], result["requests"]) == (["plain", "role-play"], 6)
    assert (result["by"], result["seed"]) == ("the judge judge", round_.test.seed)
    for part in ("train", "test"):
        assert (out / part / "redteam.html").exists()


def test_the_first_model_is_attacked_for_training_and_all_three_on_held_out_requests(
    round_: loop.Round, models: Models, pipeline: Pipeline, tmp_path: Path
) -> None:
    run(round_, models, tmp_path)
    assert len(models.asked("start")) == 3 * 9  # plain, in a scene and in code
    assert models.asked("start") == models.asked("after") < models.asked("before")
    trained = models.asked("before") - models.asked("after")
    assert len(trained) == 2 * 9 and all(THING.search(text) for text in trained)
    assert not any(THING.search(text) for text in models.asked("after"))


def test_the_second_run_is_the_first_ones_file_from_its_model_on(
    round_: loop.Round, models: Models, pipeline: Pipeline, tmp_path: Path
) -> None:
    run(round_, models, tmp_path)
    out = tmp_path / "out"
    (_, first), (_, again) = pipeline.ran
    assert [name for name, _ in pipeline.ran] == ["before", "after"]
    assert again.model == first.model.model_copy(
        update={"path": str(out / "before" / "6-ppo" / "model")}
    )
    assert again.revise == first.revise.model_copy(update={"critic": "start"})
    judges = {"judge": "start", "jury": ("start", "other")}
    assert again.label == first.label.model_copy(update=judges)
    assert again.prompts.model_dump() == {
        "red_team": str(out / "red_team.jsonl"),
        "helpful": str(out / "helpful.jsonl"),
        "test": first.prompts.test,
    }
    changed = {"model", "revise", "label", "prompts", "constitution"}
    assert {name for name, table in again if table != getattr(first, name)} == changed
    assert (first.seed, first.ppo.steps) == (5, 3)
    amended = load_constitution(again.constitution)
    assert amended.version == "1.0+amended" and amended.principle("theft").weight == 1.5


def test_with_dpo_the_second_run_starts_from_its_model(
    round_: loop.Round, models: Models, pipeline: Pipeline, tmp_path: Path
) -> None:
    by_dpo = replace(round_, overrides=[*round_.overrides, "learner=dpo"])
    run(by_dpo, models, tmp_path)
    model = tmp_path / "out" / "before" / "6-dpo" / "model"
    assert pipeline.ran[1][1].model.path == str(model)
    assert pipeline.ran[1][1].learner == "dpo"


def test_the_second_run_does_not_look_for_the_first_ones_revision(
    round_: loop.Round, models: Models, pipeline: Pipeline, tmp_path: Path
) -> None:
    file = Path(round_.file)
    pinned = 'model.path = "org/start"\nmodel.revision = "abc"'
    file.write_text(file.read_text().replace('model.path = "start"', pinned))
    models.engines["org/start@abc"] = models.engines["start"]
    run(round_, models, tmp_path)
    model = tmp_path / "out" / "before" / "6-ppo" / "model"
    assert pipeline.ran[1][1].model.path == str(model)


def test_a_control_is_trained_as_long_from_the_same_model_and_sees_no_attack(
    round_: loop.Round, models: Models, pipeline: Pipeline, tmp_path: Path
) -> None:
    plain = run(round_, models, tmp_path)
    assert plain["control_ratio"] is None and "control" not in comparison.markdown(plain)
    without = dict(pipeline.ran)
    pipeline.ran.clear()
    result = run(replace(round_, control=True), models, tmp_path / "again")
    ran = dict(pipeline.ran)
    assert list(ran) == ["before", "after", "control"]
    changed = {name for name, table in ran["control"] if table != getattr(ran["before"], name)}
    assert changed == {"model", "revise", "label"}
    for name in changed:
        assert getattr(ran["control"], name) == getattr(ran["after"], name)
    assert without["after"].model_dump(exclude={"model", "prompts", "constitution"}) == ran[
        "after"
    ].model_dump(exclude={"model", "prompts", "constitution"})
    # The control's stand-in is the first run's: it differs from after as that one does.
    for row in result["rows"].values():
        assert row["control"] == row["before"]
        assert row["against_control"] == row["difference"]
    assert (result["ratio"], result["control_ratio"]) == (0, 1)
    head = comparison.markdown(result).splitlines()[0]
    assert head.count("control") == 3
    told = (tmp_path / "again" / "out" / "loop.md").read_text()
    assert "after ÷ before, all attacks: 0.00; control ÷ before: 1.00." in told
    widths = {line.count("|") for line in told.splitlines() if line.startswith("|")}
    assert len(widths) == 1


def test_a_test_without_attacks_has_no_ratio(
    round_: loop.Round, models: Models, pipeline: Pipeline, tmp_path: Path
) -> None:
    plain = round_.test.model_copy(update={"families": ("plain",)})
    result = run(replace(round_, test=plain), models, tmp_path)
    assert result["ratio"] is None
    assert "all attacks: —" in (tmp_path / "out" / "loop.md").read_text()


def test_the_second_run_trains_on_attacks_and_on_benign_requests_in_the_same_scene(
    round_: loop.Round, models: Models, pipeline: Pipeline, tmp_path: Path
) -> None:
    run(round_, models, tmp_path)
    for name, plain, verbs in (
        ("red_team", "Something harmful", ("steal", "smash")),
        ("helpful", "Something helpful", ("mend",)),
    ):
        rows = mixing.written(tmp_path / "out" / f"{name}.jsonl")
        texts = [row["prompt"][-1]["content"] for row in rows]
        disguised = [text for text in texts if "Corvin" in text]
        assert (len(texts), len(disguised)) == (8, 4)
        assert all(any(f"{verb} thing" in text for verb in verbs) for text in disguised)
        assert sum(text.startswith(plain) for text in texts) == 4


def test_a_finished_round_asks_nobody_and_writes_the_same(
    round_: loop.Round, models: Models, pipeline: Pipeline, tmp_path: Path
) -> None:
    def nobody(spec: str) -> Engine:
        raise AssertionError(f"{spec} was opened")

    first = run(round_, models, tmp_path)
    left = files(tmp_path / "out")
    assert run(round_, nobody, tmp_path) == first
    assert files(tmp_path / "out") == left
    assert pipeline.ran[2:] == pipeline.ran[:2]


def test_a_round_that_was_interrupted_goes_on_without_a_second_training_attack(
    round_: loop.Round, models: Models, pipeline: Pipeline, tmp_path: Path
) -> None:
    pipeline.broken = "after"
    with pytest.raises(KeyboardInterrupt):
        run(round_, models, tmp_path)
    assert models.asked("critic") and not (tmp_path / "out" / "test").exists()
    models.told.clear()
    pipeline.broken = ""
    run(round_, models, tmp_path)
    assert (tmp_path / "out" / "loop.json").exists()
    assert models.asked("before") == models.asked("start")
    assert not [text for _, text in models.told if THING.search(text)]


def test_a_round_that_cannot_be_tested_is_refused_before_anything_is_trained(
    round_: loop.Round, models: Models, pipeline: Pipeline, tmp_path: Path
) -> None:
    same = loop.Round(round_.file, round_.overrides, round_.plan, round_.plan)
    with pytest.raises(UserError, match="9 of its requests"):
        run(same, models, tmp_path)
    assert pipeline.ran == [] and models.told == []


def test_where_nothing_got_through_there_is_no_second_run(
    round_: loop.Round, models: Models, pipeline: Pipeline, tmp_path: Path
) -> None:
    models.engines["before"] = models.engines["after"]
    with pytest.raises(UserError, match="nothing got through"):
        run(round_, models, tmp_path)
    assert [name for name, _ in pipeline.ran] == ["before"]
    assert not (tmp_path / "out" / "loop.json").exists()


# ---- parts ---------------------------------------------------------------------------------------


def rows(*families: str) -> list[mixing.Row]:
    return [{"prompt": f"{family} {n}", "family": family} for n, family in enumerate(families)]


@pytest.mark.parametrize(
    ("count", "copies"), [(0, []), (2, [1, 1]), (3, [1, 1, 1]), (7, [2, 2, 3]), (9, [3, 3, 3])]
)
def test_repeated_rows_stand_as_often_as_each_other(count: int, copies: list[int]) -> None:
    found = mixing.repeated(rows("a", "b", "c"), count, random.Random(0))
    assert sorted(Counter(row["family"] for row in found).values()) == copies
    for start in range(0, count - 2, 3):  # all of them before any comes again
        assert {row["family"] for row in found[start : start + 3]} == {"a", "b", "c"}
    assert mixing.repeated([], count, random.Random(0)) == []


def test_repeated_rows_come_in_an_order_of_chance() -> None:
    orders = {
        tuple(row["family"] for row in mixing.repeated(rows("a", "b", "c"), 3, random.Random(seed)))
        for seed in range(40)
    }
    assert len(orders) == 6


def test_benign_requests_have_each_disguise_in_the_share_of_its_attacks() -> None:
    benign = rows("few-shot", "few-shot", "fiction", "verse")
    attacks = {"plain": 2, "few-shot": 3, "fiction": 1}
    found = mixing.balanced(attacks, 12, benign, 20, random.Random(0))
    # 3/12 of 20 are 5; 1/12 are 1.67; the plain requests have no disguise, and verse no attack.
    assert Counter(row["family"] for row in found) == {"few-shot": 5, "fiction": 2}
    assert sorted(Counter(row["prompt"] for row in found).values()) == [2, 2, 3]
    assert [mixing.round_half(value) for value in (0, 0.49, 0.5, 1.5, 2.5)] == [0, 0, 1, 2, 3]
