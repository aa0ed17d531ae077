"""A tiny model's training, run until it is to be killed; and a job whose stages need no engine."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from constitutional_ai.job import Job
from constitutional_ai.principles import load_constitution
from constitutional_ai.progress import Progress
from constitutional_ai.records import Preference, RevisedAnswer, RevisionStep, assistant, user
from constitutional_ai.settings import Settings
from constitutional_ai.store.rows import append_rows
from constitutional_ai.store.run_folder import RunFolder

MakeJob = Callable[[str], Job]


class Killed(BaseException):
    """Stands for a kill where a process of its own would take too long."""


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def revised(n: int) -> RevisedAnswer:
    prompt, answers = [user(f"request {n}")], [f"answer {n}", f"better {n}", f"best {n}"]
    step = RevisionStep(principle="p", principle_hash="h", critique="c", revision="r", clean=False)
    return RevisedAnswer(
        id=str(n),
        prompt=prompt,
        answers=answers,
        steps=[step] * 2,
        messages=[*prompt, assistant(answers[-1])],
        constitution="c",
        model="m",
        seed=0,
    )


def preference(n: int) -> Preference:
    """The first of them could not be judged."""
    return Preference(
        id=f"pair-{n}",
        prompt=[user(f"request {n}")],
        set="red-team",
        chosen=[assistant(f"I will not. {n}")],
        rejected=[assistant(f"Take a knife. {n}")],
        p_chosen=0.5 + n / 50 if n else None,
        by_principle={},
        by_order=None,
        principle_hashes={},
        unlabelled="" if n else "unreadable",
        constitution="c",
        judge="j",
        seed=0,
    )


@pytest.fixture
def make_job(tmp_path: Path, tiny_llama: Path) -> MakeJob:
    """``make_job("run")``: revisions and preferences are there; a checkpoint every third step."""
    sources = {}
    for name in ("red_team", "helpful"):
        lines = [json.dumps({"prompt": f"{name} request {number}"}) for number in range(12)]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(lines))
        sources[name] = str(tmp_path / f"{name}.jsonl")
    tables: dict[str, Any] = {
        "model": {"path": str(tiny_llama)},
        "prompts": sources,
        "finetune": {"helpful": 0, "batch_tokens": 128, "checkpoint_every": 3},
        "reward": {"batch_pairs": 3, "held_out": 0.2, "checkpoint_every": 3, "ensemble": 2},
        "ppo": {
            "steps": 4,
            "rollouts": 4,
            "max_new_tokens": 6,
            "prompts": 20,
            "monitor": "off",
            "checkpoint_every": 3,
        },
    }

    def make(name: str) -> Job:
        settings = Settings.model_validate({"seed": 7, **tables})
        folder = RunFolder(tmp_path / name, seed=settings.seed)
        job = Job(settings, load_constitution("lab"), folder, 1, Progress("plain"))
        for stage in ("revise", "label", "finetune", "reward", "ppo"):
            job.stage(stage).claim({"seed": 7})
        answers, labels = [revised(n) for n in range(8)], [preference(n) for n in range(20)]
        append_rows(job.stage("revise").path / "revisions.jsonl", answers)
        append_rows(job.stage("label").path / "preferences.jsonl", labels)
        return job

    return make
