"""The order of stages, what is kept, refused, deleted; with stages that only count."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from constitutional_ai.engines.spec import ModelSpec
from constitutional_ai.errors import RunFolderError, SettingsError
from constitutional_ai.job import Job
from constitutional_ai.principles import load_constitution
from constitutional_ai.progress import Progress
from constitutional_ai.records import Row
from constitutional_ai.settings import Settings, load_settings
from constitutional_ai.stage_list import STAGE_NAMES, words_of
from constitutional_ai.stages import check, pipeline
from constitutional_ai.stages.pipeline import fingerprints, run_pipeline
from constitutional_ai.store.chunks import in_chunks
from constitutional_ai.store.run_folder import RunFolder, fingerprint_hash


class Count(Row):
    seed: int


class Stages:
    """Stands for all stage modules: writes ten rows, and remembers what ran."""

    def __init__(self, die_in: str = "", fail_in: str = "") -> None:
        self.ran: list[str] = []
        self.die_in = die_in
        self.fail_in = fail_in

    def module(self, name: str) -> Any:
        return SimpleNamespace(run=lambda job: self.run(name, job))

    def run(self, name: str, job: Job) -> dict[str, Any]:
        folder = job.stage(name)
        self.ran.append(folder.name)

        def work(chunk: Sequence[int], seed: int) -> list[Count]:
            if folder.name == self.die_in and chunk[0] == 8:
                os.kill(os.getpid(), signal.SIGKILL)
            if folder.name == self.fail_in and chunk[0] == 4:
                raise KeyboardInterrupt
            return [Count(id=str(n), seed=seed) for n in chunk]

        with job.progress.task(name, total=10) as tick:
            rows = in_chunks(folder, "rows.jsonl", range(10), 4, work, tick, Count)
        return {"rows": len(rows)}


def settings(*overrides: str) -> Settings:
    return load_settings("lab", ["model.path=lab:xxs", *overrides])


@pytest.fixture
def stages(monkeypatch: pytest.MonkeyPatch) -> Stages:
    fake = Stages()
    monkeypatch.setattr(pipeline, "stage_module", fake.module)
    return fake


def run(out: Path, *overrides: str, **options: Any) -> RunFolder:
    return run_pipeline(settings(*overrides), out, progress=Progress("plain"), **options)


def rows(out: Path) -> dict[str, bytes]:
    return {str(p.relative_to(out)): p.read_bytes() for p in sorted(out.rglob("*.jsonl"))}


WORDS = words_of("ppo")
ALL = [f"{number}-{name}" for number, name in enumerate(WORDS, 1)]


def test_all_stages_run_in_order_and_a_second_run_does_nothing(
    tmp_path: Path, stages: Stages
) -> None:
    run(tmp_path)
    assert stages.ran == ALL
    assert all((tmp_path / name / "manifest.json").exists() for name in ALL)
    run(tmp_path)
    assert stages.ran == ALL


@pytest.mark.parametrize("path", ["http://127.0.0.1:9/v1#some", "vllm:/some/folder"])
def test_a_model_that_runs_elsewhere_is_refused_before_the_first_stage(
    tmp_path: Path, stages: Stages, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(check, "_of_model", lambda *_: "")
    with pytest.raises(SettingsError, match=r"cannot be trained.*revise\.critic"):
        run(tmp_path / "run", f"model.path={path}")
    assert not stages.ran
    run(tmp_path / "run", f"model.path={path}", stages=["revise"])
    assert stages.ran == ["1-revise"]


def test_rounds_repeat_all_but_evaluation_and_report(tmp_path: Path, stages: Stages) -> None:
    run(tmp_path, "rounds=2")
    assert stages.ran == [f"r{n}/{name}" for n in (1, 2) for name in ALL[:6]] + ALL[6:]


def test_a_later_round_starts_from_the_one_before(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path, rounds=2)
    job = Job(settings("rounds=2"), None, folder, 1, Progress("plain"))  # type: ignore[arg-type]
    assert job.start_model() == "lab:xxs"
    job.round = 2
    assert job.start_model() == str(tmp_path / "r1" / "6-ppo" / "model")
    assert job.stage("label").name == "r2/4-label"
    assert job.stage("label", 1).name == "r1/4-label"


def test_a_stage_that_was_interrupted_goes_on(
    tmp_path: Path, stages: Stages, monkeypatch: pytest.MonkeyPatch
) -> None:
    stages.fail_in = "4-label"
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "cut")
    assert not (tmp_path / "cut" / "4-label" / "manifest.json").exists()
    stages.fail_in = ""
    stages.ran.clear()
    run(tmp_path / "cut")
    assert stages.ran == ALL[3:]
    run(tmp_path / "whole")
    assert rows(tmp_path / "cut") == rows(tmp_path / "whole")


KILLED = """
import sys
sys.path[:0] = {path!r}
from pathlib import Path
import test_pipeline as t
t.pipeline.stage_module = t.Stages(die_in={stage!r}).module
t.run(Path({out!r}), "rounds=2")
"""


def test_kill_nine_loses_and_doubles_nothing(tmp_path: Path, stages: Stages) -> None:
    path = [str(Path(__file__).parent), str(Path(__file__).parents[2])]
    for stage in ("r1/1-revise", "r2/4-label"):
        script = KILLED.format(path=path, stage=stage, out=str(tmp_path / "killed"))
        died = subprocess.run([sys.executable, "-c", script], capture_output=True, check=False)
        assert died.returncode == -signal.SIGKILL
    run(tmp_path / "killed", "rounds=2")
    run(tmp_path / "whole", "rounds=2")
    assert rows(tmp_path / "killed") == rows(tmp_path / "whole")


@pytest.mark.parametrize(
    ("override", "stage", "key"),
    [
        ("revise.rounds=2", "revise", "revise.rounds = 4, now 2"),
        ("seed=1", "revise", "seed = 0, now 1"),
        ("label.principles=3", "label", "label.principles = 2, now 3"),
        ("label.clamp=[0.3, 0.7]", "label", "label.clamp"),
        ("report.transcripts=3", "report", "report.transcripts = 12, now 3"),
        ("constitution=harmless", "revise", "constitution ="),
        ("model.path=lab:xs", "revise", "model.path"),
    ],
)
def test_changed_settings_are_refused_with_the_remedy_and_nothing_is_lost(
    tmp_path: Path, stages: Stages, override: str, stage: str, key: str
) -> None:
    run(tmp_path)
    before = rows(tmp_path)
    with pytest.raises(RunFolderError) as caught:
        run(tmp_path, override)
    assert key in str(caught.value)
    assert f"--redo {stage}" in str(caught.value)
    assert rows(tmp_path) == before
    stages.ran.clear()
    run(tmp_path, override, redo=stage)
    assert stages.ran == ALL[WORDS.index(stage) :]


def test_threads_decide_nothing(tmp_path: Path, stages: Stages) -> None:
    run(tmp_path)
    run(tmp_path, "threads=1")
    assert stages.ran == ALL


def test_a_half_done_stage_of_other_settings_is_refused(tmp_path: Path, stages: Stages) -> None:
    stages.fail_in = "1-revise"
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path)
    with pytest.raises(RunFolderError, match="--redo revise"):
        run(tmp_path, "revise.temperature=0.5")


def test_a_changed_prompts_file_is_refused(tmp_path: Path, stages: Stages) -> None:
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text('{"prompt": "a"}\n')
    run(tmp_path / "out", f"prompts.red_team={prompts}")
    prompts.write_text('{"prompt": "b"}\n')
    with pytest.raises(RunFolderError, match=r"prompts\.red_team content"):
        run(tmp_path / "out", f"prompts.red_team={prompts}")


def test_redo_does_not_delete_what_it_would_then_refuse(tmp_path: Path, stages: Stages) -> None:
    run(tmp_path)
    before = rows(tmp_path)
    with pytest.raises(RunFolderError, match="--redo revise"):
        run(tmp_path, "revise.rounds=2", redo="ppo")
    assert rows(tmp_path) == before


def test_redo_of_a_round_keeps_the_rounds_before(tmp_path: Path, stages: Stages) -> None:
    run(tmp_path, "rounds=2")
    stages.ran.clear()
    run(tmp_path, "rounds=2", redo="r2/reward")
    assert stages.ran == ["r2/5-reward", "r2/6-ppo", *ALL[6:]]
    for wrong in ("r3/reward", "r1/report", "x/label"):
        with pytest.raises(RunFolderError, match="no such round"):
            run(tmp_path, "rounds=2", redo=wrong)
    with pytest.raises(RunFolderError, match="no stage is named"):
        run(tmp_path, "rounds=2", redo="rewrad")


def test_one_stage_needs_those_before_it(tmp_path: Path, stages: Stages) -> None:
    with pytest.raises(RunFolderError, match=r"1-revise: missing; run `cai revise` first"):
        run(tmp_path, stages=["label"])
    run(tmp_path, stages=["revise"])
    run(tmp_path, stages=["finetune", "sample"])
    with pytest.raises(RunFolderError, match="4-label: missing"):
        run(tmp_path, stages=["reward"])
    run(tmp_path, stages=["label"])
    assert stages.ran == ALL[:4]
    run(tmp_path, stages=["label"])  # done: nothing to do
    assert stages.ran == ALL[:4]
    run(tmp_path, stages=["sample"], redo="sample")
    assert stages.ran == [*ALL[:4], "3-sample"]
    assert not (tmp_path / "4-label").exists()


def test_one_stage_runs_in_its_first_open_round(tmp_path: Path, stages: Stages) -> None:
    for name in WORDS[:6]:
        run(tmp_path, "rounds=2", stages=[name])
    run(tmp_path, "rounds=2", stages=["revise"])
    assert stages.ran == [*(f"r1/{name}" for name in ALL[:6]), "r2/1-revise"]


def test_a_stage_made_from_another_is_refused(tmp_path: Path, stages: Stages) -> None:
    run(tmp_path / "a")
    run(tmp_path / "b", "sample.swapped=0.5")
    (tmp_path / "a" / "4-label").rename(tmp_path / "kept")
    (tmp_path / "b" / "4-label").rename(tmp_path / "a" / "4-label")
    with pytest.raises(RunFolderError, match="the stages before"):
        run(tmp_path / "a")


def test_the_stages_of_the_folder_are_the_stages_of_the_package() -> None:
    folder = Path(pipeline.__file__).parent
    others = {"__init__", "pipeline", "check", "drafts", "costs", "preview"}
    modules = {path.stem for path in folder.glob("*.py")} - others
    assert modules == set(STAGE_NAMES)


def test_another_judge_redoes_labels_and_what_follows_alone(
    tmp_path: Path, stages: Stages, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(tmp_path)
    stages.ran.clear()
    monkeypatch.setattr(check, "_of_model", lambda *_: "")
    run(
        tmp_path, "label.judge=http://127.0.0.1:9/v1#m", "http.extra='{\"top_k\": 5}'", redo="label"
    )
    assert stages.ran == ALL[3:]


@pytest.mark.parametrize("stage", ["2-finetune", "4-label"])
def test_a_finished_stage_that_changed_is_refused(
    tmp_path: Path, stages: Stages, stage: str
) -> None:
    run(tmp_path)
    with (tmp_path / stage / "rows.jsonl").open("a") as file:
        file.write("{}\n")
    with pytest.raises(RunFolderError, match=f"rows.jsonl: has changed.*--redo {stage[2:]}"):
        run(tmp_path)
    (tmp_path / stage / "rows.jsonl").unlink()
    with pytest.raises(RunFolderError, match="has changed"):
        run(tmp_path)


def test_the_run_of_an_earlier_version_goes_on(tmp_path: Path, stages: Stages) -> None:
    """It took more into its fingerprints, and each hash of one goes into the next."""
    run(tmp_path)
    before: dict[str, Any] = {}
    for name in ALL:
        for file in ("manifest.json", "settings.json"):
            path = tmp_path / name / file
            content = json.loads(path.read_text())
            print_ = content["fingerprint"] | {"http.extra": "", "evaluate.harm_head": ""}
            if before:
                print_["the stages before"] = fingerprint_hash(before)
            path.write_text(json.dumps(content | {"fingerprint": print_}))
        before = print_
    stages.ran.clear()
    run(tmp_path)
    assert stages.ran == []
    with pytest.raises(RunFolderError, match=r"label\.principles = 2, now 3"):
        run(tmp_path, "label.principles=3")
    for _ in range(2):
        run(tmp_path, "label.principles=3", redo="label" if not stages.ran else None)
    assert stages.ran == ALL[3:]


def test_a_refused_stage_leaves_no_folder(tmp_path: Path, stages: Stages) -> None:
    with pytest.raises(RunFolderError, match="missing"):
        run(tmp_path / "new" / "deep", stages=["report"])
    assert not (tmp_path / "new").exists()


SERVER = "http://127.0.0.1:8000/v1#some/model"


def test_what_is_joined_to_requests_is_part_of_what_rows_depend_on(tmp_path: Path) -> None:
    lab, plan = load_constitution("lab"), RunFolder(tmp_path).plan()
    prints = []
    for judge, extra in ((SERVER, ""), (SERVER, '{"top_k": 5}'), ("base", '{"top_k": 5}')):
        settings = Settings.model_validate(
            {"label": {"judge": judge}, "http": {"extra": extra, "concurrency": 3}}
        )
        prints.append(fingerprints(settings, lab, plan)["label", 1])
    differing = {key for key in prints[0] if prints[0][key] != prints[1][key]}
    assert "http.extra" in differing and "http.concurrency" not in prints[0]
    assert "http.extra" not in prints[2]


def test_the_files_of_every_other_model_are_part_of_what_rows_depend_on(tmp_path: Path) -> None:
    lab, plan = load_constitution("lab"), RunFolder(tmp_path).plan()
    others = {"revise": "critic", "finetune": "helper", "label": "judge", "evaluate": "judge"}
    for stage, name in others.items():
        settings = Settings.model_validate({stage: {name: "lab:xs"}})
        print_ = fingerprints(settings, lab, plan)[stage, 1]
        assert ModelSpec.parse("lab:xs").identity() in print_.values()


def test_an_evaluation_that_asks_for_nothing_new_is_that_of_earlier_versions(
    tmp_path: Path,
) -> None:
    lab, plan = load_constitution("lab"), RunFolder(tmp_path).plan()
    dialogues = tmp_path / "d.jsonl"
    dialogues.write_text('{"messages": []}')
    before = fingerprints(Settings(), lab, plan)["evaluate", 1]
    assert not any(word in key for key in before for word in ("judge", "dialogue", "capability"))
    asked = Settings.model_validate({"evaluate": {"dialogues": str(dialogues)}})
    one = fingerprints(asked, lab, plan)["evaluate", 1]
    dialogues.write_text('{"messages": [1]}')
    other = fingerprints(asked, lab, plan)["evaluate", 1]
    assert [key for key in one if one[key] != other[key]] == ["evaluate.dialogues content"]
