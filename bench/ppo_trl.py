"""TRL 1.12.0's PPOTrainer as a side of bench/ppo.py, and on its own for bench/parity.py.

It needs that TRL before all others on the path (`make bench-env`, turns.trl_overlays). Nothing of
it is changed: its functions are timed from outside, and it stops when its process does.
"""

import gc
import tempfile
import warnings
from pathlib import Path
from typing import Any

import torch
import transformers
import turns
from phases import Phases

TUNED = {"stop_token": "eos", "num_sample_generations": 0, "gradient_checkpointing": False}
SAMPLED = 64  # prompts whose answers TRL prints ten times in a run


def be(side: str, job: dict[str, Any], taking: turns.Turns) -> None:
    """Take turns, an iteration each, until the parent ends this process."""
    baseline = turns.peak_memory(job["device"])
    found: list[float] = []
    phases = Phases()
    with tempfile.TemporaryDirectory() as folder, phases("other"):
        more: dict[str, Any] = {}
        if side != "trl":
            more = {**TUNED, **micro_batches(job["rollouts"], int(side.rpartition("-")[2]))}
            more["local_rollout_forward_batch_size"] = job["rollouts"]
        trainer = make(job, Path(folder), _Turn(taking, phases, found, job, baseline), **more)
        measure(trainer, phases, found)
        taking.wait()
        phases.take()
        trainer.train()


class _Turn(transformers.TrainerCallback):  # type: ignore[misc]
    """At the end of each iteration: report, and wait for the next turn."""

    def __init__(
        self,
        taking: turns.Turns,
        phases: Phases,
        lengths: list[float],
        job: dict[str, Any],
        baseline: float,
    ) -> None:
        self.taking, self.phases, self.lengths = taking, phases, lengths
        self.job, self.baseline = job, baseline

    def on_step_end(self, *_: Any, **__: Any) -> None:
        self.taking.report(
            phases=self.phases.take(),
            tokens=self.lengths[-1],
            peak=turns.peak_memory(self.job["device"]),
            baseline=self.baseline,
        )
        self.taking.wait()
        self.phases.take()  # the time spent waiting


def micro_batches(rollouts: int, size: int) -> dict[str, int]:
    """A batch in forwards of at most ``size`` answers each; ``rollouts`` must be a multiple."""
    size = min(size, rollouts)
    return {
        "per_device_train_batch_size": size,
        "gradient_accumulation_steps": rollouts // size,
    }


def make(job: dict[str, Any], folder: Path, callback: Any = None, **more: Any) -> Any:
    """A PPOTrainer over the job's models and prompts; ``more`` are settings of TRL's."""
    from datasets import Dataset
    from trl.experimental.ppo import PPOConfig, PPOTrainer

    updates = 10 * job["rounds"]  # TRL prints samples in ten of them: once in a bench
    given: dict[str, Any] = {
        **micro_batches(job["rollouts"], 8),  # 8 is transformers' default
        "total_episodes": updates * job["rollouts"],
        "num_ppo_epochs": job["epochs"],
        "num_mini_batches": 1,
        "response_length": job["max_new_tokens"],
        "learning_rate": 1e-5,
        "lr_scheduler_type": "constant",
        "adam_beta2": 0.95,
        "adam_epsilon": 1e-5,
        "temperature": 1.0,
        "kl_coef": 0.1,
        "missing_eos_penalty": 2.0,
        "use_cpu": job["device"] == "cpu",
        "bf16": False,  # PPOTrainer does not read it; what counts is accelerate's environment
        "report_to": "none",
        "save_strategy": "no",
        "seed": 0,
        **more,
    }
    tokenizer = transformers.AutoTokenizer.from_pretrained(job["policy"], padding_side="left")
    prompts = Dataset.from_dict({"input_ids": job["ids"]})
    attention = job["attention"] if more else None
    warnings.simplefilter("ignore")
    return PPOTrainer(
        args=PPOConfig(output_dir=str(folder), **given),
        processing_class=tokenizer,
        model=_policy(job["policy"], attention),
        ref_model=_policy(job.get("reference", job["policy"]), attention),
        reward_model=_scorer(job["reward"], attention),
        value_model=_scorer(job.get("value", job["reward"]), attention),
        train_dataset=prompts,
        eval_dataset=prompts.select(range(min(SAMPLED, len(prompts)))),
        callbacks=[callback] if callback else None,
    )


def _policy(folder: str, attention: str | None) -> Any:
    return transformers.AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, attn_implementation=attention
    )


def _scorer(folder: str, attention: str | None) -> Any:
    return transformers.AutoModelForSequenceClassification.from_pretrained(
        folder, num_labels=1, dtype=torch.float32, attn_implementation=attention
    )


def measure(trainer: Any, phases: Phases, lengths: list[float]) -> None:
    """Time the functions that PPOTrainer.train calls; ``lengths`` gets each rollout's mean."""
    from trl.experimental.ppo import ppo_trainer

    def forward() -> str:
        return "train forward" if torch.is_grad_enabled() else "rollout forward"

    generate = ppo_trainer.batch_generation
    end_id, pad_id = trainer.stop_token_id, trainer.processing_class.pad_token_id

    def counted(model: Any, queries: Any, *rest: Any) -> Any:
        texts, logits = generate(model, queries, *rest)
        said = texts[:, queries.shape[1] :]
        made = (said != pad_id) if end_id is not None else torch.ones_like(said)
        lengths.append(made.sum(dim=1).float().mean().item())
        return texts, logits

    ppo_trainer.batch_generation = counted
    phases.wrap(ppo_trainer, "batch_generation", "generate")
    for name in ("forward", "get_reward", "selective_log_softmax"):
        phases.wrap(ppo_trainer, name, forward)
    phases.wrap(trainer.accelerator, "backward", "backward")
    phases.wrap(trainer.optimizer, "step", "optimiser")
    phases.wrap(trainer, "generate_completions", "samples")
    phases.wrap(gc, "collect", "gc")
