"""Who judges: the judges of a run, and those that a command is given by name.

Without a run file the laboratory's models are asked as the shipped file ``lab`` asks them, in the
layout that they were taught. All others are asked with the defaults, under ``harmless``.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from constitutional_ai.engines import open_engine
from constitutional_ai.engines.base import Engine
from constitutional_ai.engines.spec import ModelSpec
from constitutional_ai.errors import UserError
from constitutional_ai.job import Job
from constitutional_ai.judge.certificate import temperature_of
from constitutional_ai.judge.judge import Judge, Sits
from constitutional_ai.judge.jury import seat
from constitutional_ai.principles import Constitution, load_constitution
from constitutional_ai.settings import Settings, load_settings
from constitutional_ai.stage_settings import LabelSettings


def judge_of(
    engine: Engine, table: LabelSettings, constitution: Constitution, certified: str
) -> Judge:
    """A judge at its temperature. ``certified`` is its name in the file ``label.calibration``."""
    temperature = temperature_of(table, certified, constitution.hash)
    return Judge(engine, constitution, table, temperature)


# ---- of a run ---------------------------------------------------------------------------------


def seated(job: Job) -> Sits:
    """The run's judge, or jury, as every stage asks it."""
    return seat(list(judges_of(job).values()))


def judges_of(job: Job) -> dict[str | Path, Judge]:
    """Every judge of the run by its model, at its temperature."""
    table, constitution = job.settings.label, job.constitution
    # A calibration file names the starting model by its path, and every other as the run file does.
    certified = [job.settings.model.path if spec == "base" else spec for spec in _specs(job)]
    return {
        model: judge_of(job.engine(model), table, constitution, name)
        for model, name in zip(judge_models(job), certified, strict=True)
    }


def judge_models(job: Job) -> list[str | Path]:
    """Every model that judges: ``label.judge`` and ``label.jury``.

    "base" is the run's starting model in every round, not this round's.
    """
    return [_of_run(job, spec) for spec in _specs(job)]


def _of_run(job: Job, spec: str) -> str | Path:
    named: dict[str, str | Path] = {
        "base": job.settings.model.path,
        "sl-cai": job.stage("finetune").path / "model",
    }
    return named.get(spec, spec)


def judge_model(job: Job) -> str | Path:
    """Which model judges, or leads the jury."""
    return judge_models(job)[0]


def _specs(job: Job) -> list[str]:
    return [job.settings.label.judge, *job.settings.label.jury]


def judging_alone(table: LabelSettings, judge: str) -> LabelSettings:
    """The table with another judge, no jury, and the layout that a laboratory's judge knows.

    A calibration is one of other judges, so it is left out.
    """
    update: dict[str, Any] = {"judge": judge, "jury": (), "calibration": ""}
    if ModelSpec.parse(judge).kind == "lab":
        update["fence"] = False
    return table.model_copy(update=update)


def evaluating(job: Job) -> Job:
    """The job as an evaluation asks its judge: ``evaluate.judge`` alone, where one is named."""
    spec = job.settings.evaluate.judge
    if not spec:
        return job
    label = judging_alone(job.settings.label, spec)
    return replace(job, settings=job.settings.model_copy(update={"label": label}))


def labelled_by(job: Job) -> bool:
    """Whether the judge that evaluates is one of those that labelled the training data."""
    if not job.settings.evaluate.judge:
        return True
    same = ModelSpec.parse(_of_run(job, job.settings.evaluate.judge)).identity()
    return any(ModelSpec.parse(model).identity() == same for model in judge_models(job))


# ---- of a command -----------------------------------------------------------------------------


@dataclass(frozen=True)
class Bench:
    """Settings, constitution, and the engines of the judges by their specs."""

    settings: Settings
    constitution: Constitution
    engines: dict[str, Engine]

    def judge(self, spec: str, method: str = "") -> Judge:
        """The judge of a spec, asked by another method where one is named."""
        table = self.settings.label
        if method:
            table = table.model_copy(update={"method": method})
        return judge_of(self.engines[spec], table, self.constitution, spec)


def prepare(
    engines: Sequence[str], run: str = "", overrides: Sequence[str] = (), constitution: str = ""
) -> Bench:
    """Load everything that the judges need. Raises UserError for what is missing or unknown."""
    if not engines:
        raise UserError("no judge is named; add --engine lab:s, or another model's spec")
    specs = list(dict.fromkeys(engines))
    as_set = bool(run) or all(ModelSpec.parse(spec).kind == "lab" for spec in specs)
    # Without a run file, all tables that matter here have their defaults, and answers are fenced.
    settings = load_settings(run or "lab", [*([] if as_set else ["label.fence=true"]), *overrides])
    named = constitution or (settings.constitution if as_set else "harmless")
    opened = {spec: open_engine(spec, settings) for spec in specs}
    return Bench(settings, load_constitution(named), opened)
