"""A job whose models are scripted engines, over prompts files, in a temporary run folder."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from constitutional_ai.engines.base import Engine
from constitutional_ai.job import Job
from constitutional_ai.principles import Constitution, Principle
from constitutional_ai.progress import Progress
from constitutional_ai.settings import Settings
from constitutional_ai.store.run_folder import RunFolder

MakeJob = Callable[..., Job]


@dataclass
class ScriptedJob(Job):
    """``scripts`` maps a model to its engine; the run's own models by their path in its folder."""

    scripts: dict[str, Engine] = field(default_factory=dict)

    def engine(self, model: str | Path) -> Engine:
        path = Path(model).absolute()
        inside = path.is_relative_to(self.folder.path.absolute())
        name = path.relative_to(self.folder.path.absolute()).as_posix() if inside else str(model)
        return self.scripts[name]


@pytest.fixture
def constitution() -> Constitution:
    both, red, helpful = ("critique", "preference"), ("red-team",), ("helpful",)
    return Constitution(
        name="three",
        version="1",
        principles=(
            Principle(name="kind", text="The response is kind.", use=both),
            Principle(name="safe", text="The response is safe.", use=both, prompts=red),
            Principle(name="useful", text="It is of use.", use=("preference",), prompts=helpful),
        ),
    )


@pytest.fixture
def make_job(tmp_path: Path, constitution: Constitution) -> MakeJob:
    """``make_job(scripts, folder="run", round=1, **settings)`` with 30 prompts of each set.

    Critique and revision are the laboratory's, if the settings say nothing else.
    """
    sources = {}
    for name in ("red_team", "helpful"):
        lines = [json.dumps({"prompt": f"{name} request {number}"}) for number in range(30)]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(lines))
        sources[name] = str(tmp_path / f"{name}.jsonl")

    def make(
        scripts: dict[str, Engine], folder: str = "run", round: int = 1, **settings: Any
    ) -> Job:
        plain = {"form": "dialogue", "gate": "off", "draw": "any"}
        settings["revise"] = plain | settings.get("revise", {})
        chosen = Settings.model_validate(
            {"seed": 7, "model": {"path": "start"}, "prompts": sources, **settings}
        )
        run_folder = RunFolder(tmp_path / folder, rounds=chosen.rounds, seed=chosen.seed)
        job = ScriptedJob(chosen, constitution, run_folder, round, Progress("plain"))
        job.scripts = scripts
        for name in ("revise", "sample", "label"):
            job.stage(name).claim({})
        return job

    return make
