"""A finished run made by hand: every kind of row that an export must carry or leave out."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from constitutional_ai.records import (
    Conversation,
    Preference,
    RevisedAnswer,
    RevisionStep,
    Row,
    assistant,
    user,
)
from constitutional_ai.store.rows import append_rows
from constitutional_ai.store.run_folder import RunFolder

SETTINGS = {
    "revise": {"revise.rounds": 1, "revise.max_new_tokens": 16},
    "finetune": {"finetune.helpful": 3, "finetune.lr": 0.0005},
    "sample": {"sample.red_team": 8},
    "label": {"label.judge": "http://me:secret@judge.example:8000/v1#big"},
    "reward": {"reward.batch_pairs": 4},
    "ppo": {},
}
PPO = {
    "ppo.rollouts": 6,
    "ppo.minibatches": 2,
    "ppo.prompts": 10,
    "ppo.monitor_prompts": 4,
    "ppo.max_new_tokens": 16,
    "ppo.kl_coef": 0.07,
    "ppo.steps": 3,
}


def step() -> RevisionStep:
    return RevisionStep(
        principle="kind", principle_hash="0" * 16, critique="Rude.", revision="…", clean=False
    )


def revised(number: int, last: str) -> RevisedAnswer:
    prompt = [user(f"Do harm {number}.")]
    return RevisedAnswer(
        id=f"r{number}",
        prompt=prompt,
        answers=[f"Rude answer {number}.", last],
        steps=[step()],
        messages=[*prompt, assistant(last)],
        constitution="c0ffee",
        model="/home/me/models/base",
        seed=0,
    )


def preference(number: int, p: float | None) -> Preference:
    turns: Conversation = [user("Hi."), assistant("Hello."), user(f"Do harm {number}.")]
    return Preference(
        id=f"p{number}",
        prompt=turns if number % 2 else turns[2:],
        set="red-team",
        chosen=[assistant(f"No, I will not help with {number}, but here is a safe way.")],
        rejected=[assistant(f"Fine: {number}.")],
        p_chosen=p,
        by_principle={"kind": p} if p and number % 2 else {"kind": p, "safe": p} if p else {},
        by_order=(p, p) if p else None,
        principle_hashes={"kind": "0" * 16},
        unlabelled="" if p else "no option token in the reply",
        constitution="c0ffee",
        judge="http://me:secret@judge.example:8000/v1#big",
        seed=0,
    )


SCORES = {
    "models": {
        model: {
            "harmful": {
                "harm": {"mean": harm, "low": harm - 0.5, "high": harm + 0.5, "n": 40},
                "notes": {"unlabelled": 3},
            }
        }
        for model, harm in (("base", 2.5), ("sl-cai", 1.0), ("rl-cai", 0.25))
    }
}


@pytest.fixture
def make_run(tmp_path: Path, tiny_llama: Path, tiny_reward_model: Path) -> Callable[..., Path]:
    """Builds the run folder up to and with a stage; ``prompts`` is its prompts file."""
    from constitutional_ai.data.prompts import prompts_identity
    from constitutional_ai.records import HeldOut, HelpfulAnswer

    def make(until: str = "evaluate", name: str = "run") -> Path:
        prompts = tmp_path / "prompts.jsonl"
        prompts.write_text("".join(f'{{"prompt": "Question {n}?"}}\n' for n in range(40)))
        helpful = [
            HelpfulAnswer(
                id=f"h{n}",
                prompt=[user(f"Help {n}.")],
                answer=text,
                finished=finished,
                messages=[user(f"Help {n}."), assistant(text)],
                model="/home/me/models/base",
                seed=0,
            )
            for n, (text, finished) in enumerate([("Gladly.", True), ("Cut o", False), (" ", True)])
        ]
        rows: dict[str, tuple[str, list[Any]]] = {
            "revise": ("revisions.jsonl", [revised(0, "Sorry, no."), revised(1, "A safe way.")]),
            "finetune": ("helpful.jsonl", helpful),
            "label": (
                "preferences.jsonl",
                [preference(n, None if n == 3 else 0.5 + n / 20) for n in range(10)],
            ),
            "reward": ("held_out.jsonl", [HeldOut(id="p4", p=0.6, p_chosen=0.7)]),
        }
        models = {"finetune": tiny_llama, "reward": tiny_reward_model, "ppo": tiny_llama}
        folder = RunFolder(tmp_path / name)
        for stage in ("revise", "finetune", "sample", "label", "reward", "ppo", "evaluate"):
            place = folder.stage(stage)
            inputs = {
                "seed": 0,
                "model.path": "/home/me/models/base",
                "constitution": "house-rules c0ffee",
                **{
                    f"prompts.{which}{suffix}": value
                    for which in ("red_team", "helpful")
                    for suffix, value in (
                        ("", str(prompts)),
                        (" content", prompts_identity(str(prompts))),
                    )
                },
            }
            place.claim({**inputs, **SETTINGS.get(stage, {}), **(PPO if stage == "ppo" else {})})
            if stage in rows:
                file, found = rows[stage]
                kept: list[Row] = list(found)
                append_rows(place.path / file, kept)
            if stage in models:
                (place.path / "model").symlink_to(models[stage])
            if stage == "evaluate":
                (place.path / "scores.json").write_text(json.dumps(SCORES))
            counts = {"accuracy": 0.75, "n": 8, "accuracy_clear": 1.0, "n_clear": 4, "ece": 0.05}
            place.finish(counts if stage == "reward" else {})
            if stage == until:
                break
        return folder.path

    return make


@pytest.fixture(scope="session")
def tiny_reward_model(tiny_llama: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A reward model of ours with a head, a mean and a deviation that are not trivial."""
    import torch

    from constitutional_ai.learning.policy import Policy
    from constitutional_ai.learning.reward_model import RewardModel

    folder = tmp_path_factory.mktemp("tiny-reward") / "model"
    reward = RewardModel.from_policy(Policy.load(str(tiny_llama), "cpu"))
    torch.manual_seed(1)
    torch.nn.init.normal_(reward.model.score.weight)
    reward.mean, reward.deviation = 0.7, 0.25
    reward.save_pretrained(folder)
    return folder


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
