"""PPO on a cluster with veRL 0.9: prompts, models, and overrides of its own configuration.

    OUT/prompts/train.parquet, watch.parquet    what stage 6 would train on, and watch
    OUT/model, OUT/reward-model                 SL-CAI; the reward model on the scale of stage 6
    OUT/overrides.txt                           one of veRL's settings a line; "./" is this folder
    OUT/run.sh                                  hands them to verl.trainer.main_ppo
    OUT/README.md                               what was carried over, and what has no counterpart

The folder may be moved. Settings that have no counterpart are named, never dropped in silence.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from constitutional_ai.exports import cards
from constitutional_ai.exports.finished import Finished
from constitutional_ai.exports.models import (
    copy_model,
    copy_reward_model,
    has_chat_template,
    longest_prompt,
)
from constitutional_ai.records import Conversation, content_hash
from constitutional_ai.settings import PPOSettings, Settings
from constitutional_ai.store.whole import ExportError, new_folder

DATA_SOURCE = "constitutional-ai"  # veRL chooses a rule-based reward by it; here a model rewards

_RUN = """\
#!/usr/bin/env bash
# veRL with this export; further settings may follow: ./run.sh trainer.n_gpus_per_node=8
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
overrides=()
while IFS= read -r line; do
    [[ -z $line || $line == \\#* ]] || overrides+=("${line/=.\\//=$here/}")
done < "$here/overrides.txt"
exec "${PYTHON:-python3}" -m verl.trainer.main_ppo "${overrides[@]}" "$@"
"""


def export(run: Finished, out: Path, gpus: int = 1) -> dict[str, int]:
    """Write the folder; how many prompts each file has. Raises ExportError, and writes nothing."""
    model, reward = run.model("finetune"), run.model("reward")
    if not has_chat_template(model):
        raise ExportError(f"{model}: has no chat template, and veRL needs one; set it, and train")
    trained, watched = run.rl_prompts()
    longest = longest_prompt(model, trained + watched)
    with new_folder(out) as folder:
        files = {"train": trained, "watch": watched or trained[:1]}
        (folder / "prompts").mkdir()
        for name, prompts in files.items():
            _parquet(folder / "prompts" / f"{name}.parquet", prompts, name)
        copy_model(model, folder / "model")
        folded = copy_reward_model(reward, folder / "reward-model")
        lines = overrides(run, len(trained), longest, gpus)
        (folder / "overrides.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
        script = folder / "run.sh"
        script.write_text(_RUN, encoding="utf-8")
        script.chmod(0o755)
        (folder / "README.md").write_text(_readme(run, folded), encoding="utf-8")
    return {f"prompts/{name}.parquet": len(prompts) for name, prompts in files.items()}


def _parquet(path: Path, prompts: Sequence[Conversation], split: str) -> None:
    """Rows as veRL's RLHFDataset reads them; ``ground_truth`` is for rules, and stays empty."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise ExportError("needs pyarrow; pip install 'constitutional-ai[data]'") from None
    rows = [
        {
            "data_source": DATA_SOURCE,
            "prompt": prompt,
            "ability": "alignment",
            "reward_model": {"style": "model", "ground_truth": ""},
            "extra_info": {"split": split, "index": number, "id": content_hash(prompt)},
        }
        for number, prompt in enumerate(prompts)
    ]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)


def overrides(run: Finished, prompts: int, longest: int, gpus: int) -> list[str]:
    """veRL's settings as Hydra overrides, ``name=value``; "./" stands for the export's folder.

    ``longest``: tokens of the longest prompt. A step takes no more rollouts than there are prompts.
    """
    settings = run.settings.ppo
    length = settings.max_new_tokens
    room = -(-longest // 64) * 64
    batch = rollouts(settings, prompts, gpus)
    parts = {
        "data": {
            "train_files": "./prompts/train.parquet",
            "val_files": "./prompts/watch.parquet",
            "train_batch_size": batch,
            "max_prompt_length": room,
            "max_response_length": length,
            "seed": run.settings.seed,
        },
        "actor_rollout_ref.model": {"path": "./model", "use_remove_padding": True},
        "actor_rollout_ref.actor": {
            "ppo_mini_batch_size": batch // settings.minibatches,
            "ppo_epochs": settings.epochs,
            "clip_ratio": settings.clip,
            "clip_ratio_low": settings.clip,
            "clip_ratio_high": settings.clip,
            "use_dynamic_bsz": True,
            **_optimiser(settings),
        },
        "actor_rollout_ref.rollout": {
            "name": "vllm",
            "n": 1,
            "temperature": settings.temperature,
            "tensor_model_parallel_size": 1,
        },
        "critic": {
            "model.path": "./reward-model",
            "cliprange_value": settings.value_clip,
            **_optimiser(settings),
        },
        "reward.reward_model": {
            "enable": True,
            "model_path": "./reward-model",
            "rollout.name": "vllm",
            "rollout.tensor_model_parallel_size": 1,
            "rollout.prompt_length": room + length,
            "rollout.response_length": 1,
        },
        "algorithm": {
            "adv_estimator": "gae",
            "gamma": settings.gamma,
            "lam": settings.lam,
            "use_kl_in_reward": True,
            "kl_penalty": "kl",
            "kl_ctrl.type": "fixed",
            "kl_ctrl.kl_coef": settings.kl_coef,
        },
        "trainer": {
            "total_training_steps": settings.steps,
            "total_epochs": math.ceil(settings.steps * batch / max(prompts, 1)) + 1,
            "nnodes": 1,
            "n_gpus_per_node": gpus,
            "logger": "[console]",
            "project_name": "constitutional-ai",
            "experiment_name": _spelled(run.name),
            "val_before_train": False,
            "save_freq": settings.steps,
        },
    }
    return [
        f"{part}.{name}={value}" for part, found in parts.items() for name, value in found.items()
    ]


def rollouts(settings: PPOSettings, prompts: int, gpus: int) -> int:
    """Answers a step: a whole number of minibatches on every GPU, and no more than prompts."""
    share = settings.minibatches * gpus
    found = min(settings.rollouts, prompts) // share * share
    if not found:
        raise ExportError(f"{prompts} prompts are too few for {share} parts; take fewer --gpus")
    return found


def _optimiser(settings: PPOSettings) -> dict[str, Any]:
    return {
        "optim.lr": settings.lr,
        "optim.lr_warmup_steps": settings.warmup_steps,
        "optim.betas": "[0.9,0.95]",
        "optim.weight_decay": 0.0,
        "optim.override_optimizer_config": "{eps:1e-05}",
    }


def _spelled(name: str) -> str:
    """A name that Hydra reads as plain text."""
    return "".join(c if c.isalnum() or c in "-_" else "-" for c in name)


def without_counterpart(run: Settings) -> list[str]:
    """What stage 6 does and the other tool does not."""
    settings = run.ppo
    found = [
        f"`missing_end_penalty = {settings.missing_end_penalty}`: an answer that the token limit"
        " cuts off is scored as it is",
        "the monitor of reward hacking: watch the KL and the answers yourself",
        '`value = "shared"`: the critic is a model of its own, started from the reward model',
        f"`logratio_clamp = {settings.logratio_clamp}`",
    ]
    if settings.kl_target is not None:
        found.append(
            f"`kl_target = {settings.kl_target}` (nats an answer): the coefficient is fixed"
        )
    if settings.max_kl is not None:
        found.append(f"`max_kl = {settings.max_kl}`: nothing stops the run")
    if settings.sl_mix:
        found.append(f"`sl_mix = {settings.sl_mix}`: no SL loss beside the RL loss")
    if run.reward.ensemble > 1:
        found.append(f"`reward.ensemble = {run.reward.ensemble}`: the first reward model alone")
    return found


def _readme(run: Finished, folded: dict[str, float]) -> str:
    missing = "\n".join(f"- {line}" for line in without_counterpart(run.settings))
    return f"""\
# {run.name}, for veRL 0.9

{cards.origin(run)}

```sh
./run.sh                                  # one GPU, as exported
./run.sh trainer.n_gpus_per_node=8 actor_rollout_ref.rollout.tensor_model_parallel_size=2
```

`overrides.txt` holds veRL's settings, one a line; `./` at the start of a value is this folder,
which may lie anywhere. The prompts are those that `cai ppo` would train on.

The reward model's head is divided by {folded["divided_by"]:g}, so that its scores have deviation 1,
as `cai ppo` takes them; all are {folded["mean_left"]:+.3g} off, which whitened advantages do not
see. Its chat template prints nothing after the end token, where the score is read.

Without counterpart in veRL:

{missing}
"""
