"""The engines that a job holds: opened by their spec, few at a time, closed when they make room."""

from pathlib import Path

import pytest

from constitutional_ai import job as module
from constitutional_ai.engines.scripted import ScriptedEngine
from constitutional_ai.engines.spec import ModelSpec
from constitutional_ai.job import ENGINES_HELD, Job
from constitutional_ai.principles import load_constitution
from constitutional_ai.progress import Progress
from constitutional_ai.settings import Settings
from constitutional_ai.stages.pipeline import fingerprints
from constitutional_ai.store.run_folder import RunFolder

SERVER = "http://127.0.0.1:8000/v1#some/model"


class Closing(ScriptedEngine):
    def __init__(self, name: str) -> None:
        super().__init__(lambda _: "", name=name)
        self.closed = False

    def close(self) -> None:
        self.closed = True


def test_the_engine_unused_for_longest_is_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "open_engine", lambda spec, settings: Closing(spec))
    job = Job(Settings(), load_constitution("lab"), RunFolder(tmp_path), 1, Progress("plain"))
    made = [job.engine(str(n)) for n in range(ENGINES_HELD)]
    assert job.engine("0") is made[0]
    job.engine("another")
    assert [engine.closed for engine in made] == [False, True]  # type: ignore[attr-defined]
    assert job.engine("0") is made[0] and job.engine("1") is not made[1]


def test_the_identity_of_models_that_run_elsewhere() -> None:
    assert ModelSpec.parse(SERVER).identity() == SERVER
    assert (
        ModelSpec.parse("vllm:lab:xs").identity()
        == ModelSpec.parse("lab:xs").identity()
        != "lab:xs"
    )


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
    others = {"revise": "critic", "finetune": "helper", "label": "judge"}
    for stage, name in others.items():
        settings = Settings.model_validate({stage: {name: "lab:xs"}})
        print_ = fingerprints(settings, lab, plan)[stage, 1]
        assert ModelSpec.parse("lab:xs").identity() in print_.values()
