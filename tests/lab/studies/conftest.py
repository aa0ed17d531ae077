"""A toy study over a pipeline that writes files and trains nothing."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from constitutional_ai.job import Job
from constitutional_ai.lab.studies import sharing
from constitutional_ai.lab.studies.about import About
from constitutional_ai.lab.studies.results import Collected, Result
from constitutional_ai.lab.studies.study import (
    COMMON_RL,
    Axis,
    Base,
    Bench,
    Dots,
    Lines,
    Measurement,
    Plane,
    Study,
    Variant,
)
from constitutional_ai.principles import load_constitution
from constitutional_ai.progress import Progress
from constitutional_ai.settings import Settings
from constitutional_ai.stages.pipeline import fingerprints
from constitutional_ai.stats.intervals import Estimate
from constitutional_ai.store.run_folder import RunFolder, StageFolder

FILE = "settings-of-it.json"


def look(job: Job, folder: StageFolder) -> Mapping[str, Any]:
    """A measurement: what the last stage was made under."""
    (folder.path / FILE).write_text(json.dumps({"kl": job.settings.ppo.kl_coef}))
    return {"looked": 1}


def runs(base: Base, seed: int) -> Sequence[Variant]:
    return [
        COMMON_RL,
        Variant("strict", ("ppo.kl_coef=0.5",), "ppo"),
        Variant("short", ("revise.prompts=3",), "finetune"),
        Variant("tuned", (), "finetune"),
    ]


def measurements(base: Base, seed: int) -> Sequence[Measurement]:
    return [Measurement("look", name, look, "ppo") for name in ("common", "strict")]


def read(bench: Bench, cells: Collected) -> None:
    for seed in bench.seeds:
        for x, variant in enumerate(("common", "strict")):
            path = bench.measured(variant, seed, "look").path / FILE
            value = json.loads(path.read_text())["kl"] + seed / 100
            bounded: Estimate = {"mean": value, "low": value - 1, "high": value + 1, "n": 7}
            cells.add("β", "kl", seed, bounded, x)
            cells.add("β", "twice", seed, 2 * value, x)


TOY = Study(
    About("toy", "A toy", "Figure 0", "Does it work?", caveats=("It is a toy.",)),
    runs=runs,
    measurements=measurements,
    read=read,
    figures={
        "toy": Lines((Axis("kl", "β (nats)", (0, 1)), Axis("twice", "2 β")), "variant"),
        "toy-plane": Plane(Axis("kl", "β"), Axis("twice", "2 β")),
        "toy-dots": Dots((Axis("kl", "β"),)),
    },
    table=(Axis("kl", "β"), Axis("twice", "2 β")),
    xname="variant",
)


@pytest.fixture
def toy() -> Study:
    return TOY


@pytest.fixture
def base(tmp_path: Path) -> Base:
    file = tmp_path / "run.toml"
    file.write_text('[model]\npath = "nowhere"\n[revise]\nprompts = 2\n')
    return Base(tmp_path / "out", str(file))


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Puts a pipeline that only writes files in place; lists what it made, such as strict/6-ppo."""
    made: list[str] = []

    def run_pipeline(
        settings: Settings, out: Path, stages: Sequence[str], progress: Progress
    ) -> None:
        constitution = load_constitution(settings.constitution)
        with RunFolder(out, settings.rounds, settings.seed).locked() as folder:
            plan = folder.plan()
            prints = fingerprints(settings, constitution, plan)
            step = next(s for s in plan if s[0] in stages and not folder.stage(*s).done)
            assert all(folder.stage(*one).done for one in plan[: plan.index(step)])
            for one in plan[: plan.index(step)]:
                folder.stage(*one).check(prints[one])
            place = folder.stage(*step)
            place.claim(prints[step])
            (place.path / "made-in").write_text(str(out))
            place.finish({})
        made.append(f"{out.name}/{place.name}")

    monkeypatch.setattr(sharing, "run_pipeline", run_pipeline)
    return made


def estimate(mean: float, half: float = 0.1, n: int = 50) -> Estimate:
    return {"mean": mean, "low": mean - half, "high": mean + half, "n": n}


@pytest.fixture
def make_result() -> Any:
    """``make_result("toy", {("line", "metric", x): [value of each seed]})``."""

    def make(study: str, values: Mapping[tuple[str, str, float], Sequence[float]]) -> Result:
        found = Collected()
        seeds = range(max(map(len, values.values())))
        for (line, metric, x), of_seeds in values.items():
            for seed, value in enumerate(of_seeds):
                found.add(line, metric, seed, estimate(value), x)
        return Result(
            study=study,
            seeds=list(seeds),
            file="study",
            overrides=[],
            model="lab:s",
            command=f"cai study {study} --out DIR",
            version="0",
            cells=found.cells(),
            runs=[],
        )

    return make
