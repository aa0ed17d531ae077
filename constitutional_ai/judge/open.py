"""Judges outside a run: which settings, which constitution, which engines the commands take.

Without a run file the laboratory's models are asked as the shipped file ``lab`` asks them, in the
layout that they were taught, and all others under ``harmless`` with the defaults.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from constitutional_ai.engines import open_engine
from constitutional_ai.engines.base import Engine
from constitutional_ai.errors import UserError
from constitutional_ai.job import Job
from constitutional_ai.judge.certificate import temperature_of
from constitutional_ai.judge.judge import Judge, Jury, Sits
from constitutional_ai.principles import Constitution, load_constitution
from constitutional_ai.settings import Settings, load_settings
from constitutional_ai.world import is_model


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
        temperature = temperature_of(table, spec, self.constitution.hash)
        return Judge(self.engines[spec], self.constitution, table, temperature)


def prepare(
    engines: Sequence[str], run: str = "", overrides: Sequence[str] = (), constitution: str = ""
) -> Bench:
    """Load everything that the judges need. Raises UserError for what is missing or unknown."""
    in_lab = bool(engines) and all(map(is_model, engines))
    if run or in_lab:
        settings = load_settings(run or "lab", overrides)
    else:  # the defaults of every table that matters here, and the answers fenced
        settings = load_settings("lab", ["label.fence=true", *overrides])
    named = constitution or (settings.constitution if run or in_lab else "harmless")
    return Bench(
        settings, load_constitution(named), {spec: open_engine(spec, settings) for spec in engines}
    )


METHODS = ("compare", "thoughts", "vote", "score")


def known_methods(names: Sequence[str]) -> list[str]:
    """The methods as they were named, each once. Raises UserError for an unknown one."""
    for name in names:
        if name not in METHODS:
            raise UserError(f"--method {name}: unknown; the methods are {', '.join(METHODS)}")
    return list(dict.fromkeys(names))


def seated(job: Job) -> Sits:
    """The run's judge, or jury, as every stage asks it."""
    temperatures = _temperatures(job)
    judges = [
        Judge(job.engine(model), job.constitution, job.settings.label, temperatures[str(model)])
        for model in judge_models(job)
    ]
    return judges[0] if len(judges) == 1 else Jury(judges)


def _temperatures(job: Job) -> dict[str, float]:
    """Each judge's temperature by its spec; the calibration file names it as the run file does."""
    named = {"base": job.settings.model.path}
    return {
        str(model): temperature_of(job.settings.label, named.get(spec, spec), job.constitution.hash)
        for spec, model in zip(_specs(job), judge_models(job), strict=True)
    }


def _specs(job: Job) -> list[str]:
    return [job.settings.label.judge, *job.settings.label.jury]


def judge_models(job: Job) -> list[str | Path]:
    """Every model that judges: ``label.judge`` and ``label.jury``."""
    return [_model(job, spec) for spec in _specs(job)]


def judge_model(job: Job) -> str | Path:
    """Which model judges, or leads the jury."""
    return judge_models(job)[0]


def _model(job: Job, spec: str) -> str | Path:
    """A judge's model. "base" is the run's starting model in every round, not this round's."""
    match spec:
        case "base":
            return job.settings.model.path
        case "sl-cai":
            return job.stage("finetune").path / "model"
        case path:
            return path
