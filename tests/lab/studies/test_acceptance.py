"""The study's table: what counts as reached, and that a study can be repeated."""

import json
import math
from pathlib import Path
from typing import Any

import pytest

from constitutional_ai.errors import SettingsError
from constitutional_ai.lab.studies import acceptance as study
from constitutional_ai.lab.studies.acceptance import Goal, Run
from constitutional_ai.progress import Progress
from constitutional_ai.records import user
from constitutional_ai.settings import Settings
from constitutional_ai.store.run_folder import RunFolder

KINDS = ("harmful", "benign", "borderline", "facts")
METRICS = (
    "harm harmful_steps insult off_topic good_refusal helpful refused false_claim evasive correct"
).split()


def estimate(mean: float, n: int = 100) -> dict[str, Any]:
    return {"mean": mean, "low": mean, "high": mean, "n": n}


def model(**metrics: float) -> dict[str, Any]:
    found = {kind: {m: estimate(metrics.get(m, 0.0)) for m in METRICS} for kind in KINDS}
    return {**found, "harmful_by_slice": {"unseen verb": {"good_refusal": estimate(0.7)}}}


def good_run() -> Run:
    """A run that reaches every figure."""
    tuned = {f"sl-cai-{k}": model(harm=2 - k / 4, harmful_steps=0.2, helpful=0.8) for k in (1, 2)}
    return Run(
        scores={
            "base": model(harm=3, harmful_steps=1.0, helpful=0.9, false_claim=0.3),
            **tuned,
            "sl-cai": tuned["sl-cai-2"],
            "rl-cai": model(good_refusal=0.8, helpful=0.9, false_claim=0.2),
        },
        gold={
            "judge": {
                "harm": estimate(0.99),
                "harmless and not evasive": estimate(0.96),
                "helpful": estimate(0.91),
                "good against wrong refusal": estimate(0.9),
                "honest": estimate(0.8),
            },
            "reward": {"agreement": estimate(0.92)},
        },
        calibration={"ece": 0.03},
        unpunished={"stopped": True, "gold": [{"helpful": estimate(m)} for m in (0.8, 0.9, 0.85)]},
        seconds=120.0,
        peak_gb=1.5,
    )


def row(rows: list[dict[str, Any]], figure: str) -> dict[str, Any]:
    return next(r for r in rows if r["figure"] == figure)


def test_a_good_run_reaches_everything() -> None:
    rows = study.table({0: good_run(), 1: good_run()}, revisions=2)
    assert [r["figure"] for r in rows if not r["reached"]] == []
    assert row(rows, "no KL penalty: gold help at the end, of its peak")["mean"] == pytest.approx(
        0.85 / 0.9
    )
    assert row(rows, "harm, base to sl-cai-1")["mean"] == pytest.approx(-1.25)


def test_every_seed_must_keep_its_benign_help() -> None:
    worse = good_run()
    worse.scores["rl-cai"]["benign"]["helpful"] = estimate(0.86)
    better = good_run()
    better.scores["rl-cai"]["benign"]["helpful"] = estimate(0.95)
    found = row(study.table({0: worse, 1: better}, 2), "RL-CAI: benign help minus base's")
    assert found["mean"] > -0.03
    assert not found["reached"]


def test_harm_that_stays_has_not_fallen() -> None:
    run = good_run()
    run.scores["sl-cai-2"]["harmful"]["harm"] = run.scores["sl-cai-1"]["harmful"]["harm"]
    assert not row(study.table({0: run}, 2), "harm, sl-cai-1 to sl-cai-2")["reached"]


def test_insults_are_pooled_by_answers() -> None:
    run = good_run()
    for kind, mean, n in (("harmful", 0.1, 300), ("benign", 0.0, 100), ("borderline", 0.0, 100)):
        run.scores["rl-cai"][kind]["insult"] = estimate(mean, n)
    del run.scores["rl-cai"]["facts"]["insult"]
    assert row(study.table({0: run}, 2), "RL-CAI: insults")["mean"] == pytest.approx(30 / 500)


def test_what_was_not_measured_is_not_reached() -> None:
    run = good_run()
    del run.scores["rl-cai"]["facts"]
    found = row(study.table({0: run, 1: good_run()}, 2), "RL-CAI: false claims minus base's")
    assert (found["n"], found["values"]["0"], found["reached"]) == (1, None, False)


@pytest.mark.parametrize(
    ("goal", "value", "reached"),
    [
        (Goal("f", lambda _: 0, low=0.1, high=0.4), 0.1, True),
        (Goal("f", lambda _: 0, low=0.1, high=0.4), 0.41, False),
        (Goal("f", lambda _: 0, high=0, strict=True), 0.0, False),
        (Goal("f", lambda _: 0, high=0, strict=True), -0.01, True),
    ],
)
def test_bounds(goal: Goal, value: float, reached: bool) -> None:
    assert goal.reached([value]) is reached


def test_seeds_that_agree_get_an_interval_over_all_answers() -> None:
    """t over equal shares would have no width; and no interval of a share leaves 0 to 1."""
    rows = study.table({0: good_run(), 1: good_run()}, 2)
    same = row(rows, "RL-CAI: harmful steps")
    assert (same["mean"], same["low"], same["n"]) == (0, 0, 2)
    assert same["high"] == pytest.approx(1.96**2 / (200 + 1.96**2), rel=1e-3)  # Wilson, 0 of 200
    other = good_run()
    other.scores["base"]["harmful"]["harmful_steps"] = estimate(0.97)
    near_one = row(study.table({0: good_run(), 1: other}, 2), "base: harmful steps")
    assert near_one["high"] == 1 and near_one["low"] < 0.9
    assert row(rows, "seconds, all stages")["low"] == 120  # no share


def write(folder: Path, file: str, content: Any) -> None:
    (folder / file).write_text(json.dumps(content))


def fake_pipeline(ran: list[tuple[str, float]]) -> Any:
    """Stands in for the pipeline: finishes the stages that are open, with a good run's files."""

    def run_pipeline(
        settings: Settings,
        out: Path,
        stages: list[str] | None = None,
        redo: str | None = None,
        progress: Progress | None = None,
    ) -> RunFolder:
        folder, run = RunFolder(out, settings.rounds, settings.seed), good_run()
        for name, number in folder.plan():
            stage = folder.stage(name, number)
            if stage.done or (stages and name not in stages):
                continue
            ran.append((stage.path.relative_to(out.parent).as_posix(), settings.ppo.kl_coef))
            stage.claim({})
            write(stage.path, "scores.json", {"models": run.scores})
            write(stage.path, "gold.json", run.gold)
            write(stage.path, "calibration.json", run.calibration)
            request = "How can I clean a window?"
            samples = [
                {"id": str(n), "step": 5 * n, "set": "helpful", "answer": "?", "score": 1.0}
                | {"prompt": [user(request)]}
                for n in range(2)
            ]
            (stage.path / "samples.jsonl").write_text("\n".join(map(json.dumps, samples)))
            stage.finish({"stopped": "it turned" if settings.ppo.kl_coef == 0 else ""})
        return folder

    return run_pipeline


def test_seeds_of_another_learner_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r'learner = "dpo": the figures .* learner = "ppo"'):
        study.seeds("lab", ["learner=dpo"], tmp_path / "out", [0], Progress("plain"))
    assert not (tmp_path / "out").exists()


def test_seeds_run_once_and_the_table_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ran: list[tuple[str, float]] = []
    monkeypatch.setattr(study, "run_pipeline", fake_pipeline(ran))
    monkeypatch.setattr(
        "constitutional_ai.lab.world.gold.ppo", lambda *_: good_run().unpunished["gold"]
    )
    (tmp_path / "run.toml").write_text("[revise]\nrounds = 2\n")
    out = tmp_path / "study"
    for _ in range(2):
        study.seeds(tmp_path / "run.toml", [], out, [3, 4], Progress("plain"))
    assert len(ran) == 2 * (8 + 1)  # the second time nothing was left to do
    assert ("seed-3-no-kl/6-ppo", 0.0) in ran
    assert ("seed-3-no-kl/1-revise", 0.0) not in ran  # copied
    table = json.loads((out / "table.json").read_text())
    by_name = {r["figure"]: r for r in table}
    assert by_name["no KL penalty: ended by the monitor"]["values"] == {"3": 1.0, "4": 1.0}
    assert 0 < by_name["peak memory (GB)"]["mean"] < 100
    lines = (out / "table.md").read_text().splitlines()
    assert "seed 4" in lines[0] and {line.count("|") for line in lines} == {9}
    assert len(lines) == 2 + len(study.goals(2))
    assert "RL-CAI: insults" in capsys.readouterr().out


def test_one_seed_has_no_interval_and_json_stays_json(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(study, "run_pipeline", fake_pipeline([]))
    monkeypatch.setattr(
        "constitutional_ai.lab.world.gold.ppo", lambda *_: good_run().unpunished["gold"]
    )
    (tmp_path / "run.toml").write_text("")
    rows = study.seeds(tmp_path / "run.toml", [], tmp_path, [0], Progress("plain"))
    assert math.isnan(rows[0]["low"])
    assert json.loads((tmp_path / "table.json").read_text())[0]["low"] is None
    assert "NaN" not in (tmp_path / "table.json").read_text()
