"""All that the report reads of a run, and from which files."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from constitutional_ai.errors import DataError
from constitutional_ai.evaluation.measure import CANARIES, GOLD, SCORES, SUMMARY, TRANSCRIPTS
from constitutional_ai.evaluation.rows import Transcript
from constitutional_ai.job import Job
from constitutional_ai.principles import Constitution
from constitutional_ai.records import RevisedAnswer
from constitutional_ai.settings import Settings
from constitutional_ai.world import LAB, world


@dataclass(frozen=True)
class Findings:
    """``gold`` and ``split`` are None where the run was not wholly the laboratory's."""

    settings: Settings
    constitution: Constitution
    scores: Mapping[str, Mapping[str, Any]]  # {model: {kind: {metric: Estimate}}}
    transcripts: Sequence[Transcript]
    revised: Sequence[RevisedAnswer]
    calibration: Mapping[str, Any]
    ppo: Sequence[Mapping[str, Any]]  # a row a step, as the trainer logged it; empty with DPO
    monitor: Sequence[Mapping[str, Any]]  # a row a check, empty where it was off
    manifests: Mapping[str, Mapping[str, Any]]  # by the stage folder's name
    dpo: Sequence[Mapping[str, Any]] = ()  # a row a step; empty with PPO
    canaries: Mapping[str, Any] = field(default_factory=dict)
    summary: Mapping[str, Any] = field(default_factory=dict)  # the comparisons between models
    unscored: Mapping[str, Any] = field(default_factory=dict)  # {model: {kind: {metric: reasons}}}
    gold: Mapping[str, Any] | None = None
    split: Mapping[str, Any] | None = None

    @property
    def in_lab(self) -> bool:
        """Whether the oracle read the answers to the test prompts."""
        return self.settings.prompts.test == LAB

    @property
    def models(self) -> dict[str, Mapping[str, Any]]:
        """Each model once: ``sl-cai`` is the last ``sl-cai-k`` by another name."""
        last = f"sl-cai-{self.settings.revise.rounds}"
        return {name: model for name, model in self.scores.items() if name != last}


def gather(job: Job) -> Findings:
    """Read a run whose other stages are done. Raises DataError for a missing or broken file."""
    measured = job.stage("evaluate").path
    gold = _json(measured / GOLD) if (measured / GOLD).exists() else None
    split = None
    if gold is not None:
        split = world().split_summary()
    by_ppo = job.settings.learner == "ppo"
    steps = _json_lines(job.stage(job.settings.learner).path / "metrics.jsonl")
    monitor = job.stage("ppo").path / "monitor.jsonl"
    stages = [job.stage(name, number) for name, number in job.folder.plan()]
    scores = _json(measured / SCORES)
    return Findings(
        settings=job.settings,
        constitution=job.constitution,
        scores=scores["models"],
        unscored=scores.get("unscored", {}),
        summary=_json(measured / SUMMARY),
        transcripts=job.stage("evaluate").rows(TRANSCRIPTS, Transcript),
        revised=job.stage("revise").rows("revisions.jsonl", RevisedAnswer),
        calibration=_json(job.stage("reward").path / "calibration.json") if by_ppo else {},
        ppo=steps if by_ppo else [],
        dpo=[] if by_ppo else steps,
        monitor=_json_lines(monitor) if monitor.exists() else [],
        manifests={stage.name: stage.manifest for stage in stages if stage.done},
        canaries=_json(measured / CANARIES),
        gold=gold,
        split=split,
    )


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read ({error}); `--redo` its stage") from None


def _json_lines(path: Path) -> list[dict[str, Any]]:
    try:
        return [json.loads(line) for line in path.read_bytes().splitlines()]
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read ({error}); `--redo` its stage") from None
