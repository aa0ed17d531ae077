"""OpenRLHF 0.11: data, models and arguments of its four trainers.

    OUT/sft.jsonl, preferences.jsonl, prompts.jsonl    for its SFT, reward, DPO and PPO trainers
    OUT/model, OUT/reward-model                        SL-CAI; the reward model
    OUT/sft.args, reward.args, dpo.args, ppo.args      one argument a line; "./" is this folder
    OUT/run.sh STAGE                                   starts the trainer of that name

OpenRLHF's losses take hard labels. It stops a row's text at the line end after the end token by
itself, so the reward model's template is only changed for readers that do not.
"""

import math
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
from constitutional_ai.exports.rows import messages, preference
from constitutional_ai.exports.verl import rollouts, without_counterpart
from constitutional_ai.store.whole import ExportError, new_folder, rows_to

_RUN = """\
#!/usr/bin/env bash
# OpenRLHF with this export: ./run.sh sft | reward | dpo | ppo, then further arguments.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
stage=${1:?"name a trainer: sft, reward, dpo or ppo"}; shift
arguments=()
while IFS= read -r line; do
    [[ -z $line || $line == \\#* ]] || arguments+=("${line/=.\\//=$here/}")
done < "$here/$stage.args"
case $stage in
    sft | dpo) launch=(deepspeed --module "openrlhf.cli.train_$stage") ;;
    reward) launch=(deepspeed --module openrlhf.cli.train_rm) ;;
    ppo) launch=("${PYTHON:-python3}" -m openrlhf.cli.train_ppo_ray) ;;
esac
exec ${LAUNCH:-} "${launch[@]}" "${arguments[@]}" "$@"
"""

TRAINERS = {"sft": "train_sft", "reward": "train_rm", "dpo": "train_dpo", "ppo": "train_ppo_ray"}


def export(run: Finished, out: Path, gpus: int = 1) -> dict[str, int]:
    """Write the folder; how many rows each file has. Raises ExportError, and writes nothing."""
    model, reward = run.model("finetune"), run.model("reward")
    if not has_chat_template(model):
        raise ExportError(f"{model}: has no chat template; OpenRLHF would not tell turns apart")
    demonstrations, _ = run.demonstrations()
    preferences = run.preferences()
    trained, _ = run.rl_prompts()
    longest = longest_prompt(model, [*trained, *(row.prompt for row in demonstrations)])
    with new_folder(out) as folder:
        written = {
            "sft.jsonl": rows_to(folder / "sft.jsonl", map(messages, demonstrations)),
            "preferences.jsonl": rows_to(
                folder / "preferences.jsonl", map(preference, preferences.train)
            ),
            "prompts.jsonl": rows_to(
                folder / "prompts.jsonl", ({"prompt": prompt} for prompt in trained)
            ),
        }
        copy_model(model, folder / "model")
        folded = copy_reward_model(reward, folder / "reward-model")
        for name, lines in arguments(run, len(trained), longest, gpus).items():
            (folder / f"{name}.args").write_text("\n".join(lines) + "\n", encoding="utf-8")
        script = folder / "run.sh"
        script.write_text(_RUN, encoding="utf-8")
        script.chmod(0o755)
        (folder / "README.md").write_text(_readme(run, written, folded), encoding="utf-8")
    return written


def arguments(run: Finished, prompts: int, longest: int, gpus: int) -> dict[str, list[str]]:
    """Each trainer's arguments, ``--name=value`` or ``--flag``; "./" is the export's folder."""
    settings = run.settings
    answer = max(settings.ppo.max_new_tokens, settings.revise.max_new_tokens)
    length = -(-longest // 64) * 64 + answer
    shared = {"train.seed": settings.seed, "data.max_len": length, "data.apply_chat_template": True}
    preferences = {
        "data.dataset": "./preferences.jsonl",
        "data.prompt_key": "prompt",
        "data.chosen_key": "chosen",
        "data.rejected_key": "rejected",
        "train.batch_size": settings.reward.batch_pairs,
        "train.max_epochs": settings.reward.epochs,
    }
    base = cards.model_source(settings.model.path)
    parts: dict[str, dict[str, Any]] = {
        "sft": {
            **shared,
            "model.model_name_or_path": base,
            "data.dataset": "./sft.jsonl",
            "data.input_key": "messages",
            "train.max_epochs": settings.finetune.epochs,
            "train.batch_size": 32,
            "adam.lr": settings.finetune.lr,
            "ckpt.output_dir": "./trained/sft",
        },
        "reward": {
            **shared,
            **preferences,
            "model.model_name_or_path": "./model",
            "adam.lr": settings.reward.lr,
            "ckpt.output_dir": "./trained/reward",
        },
        "dpo": {
            **shared,
            **preferences,
            "model.model_name_or_path": "./model",
            "ref.model_name_or_path": "./model",
            "ckpt.output_dir": "./trained/dpo",
        },
        "ppo": {**shared, **_ppo(run, prompts, gpus)},
    }
    return {
        name: [f"--{key}" if value is True else f"--{key}={value}" for key, value in part.items()]
        for name, part in parts.items()
    }


def _ppo(run: Finished, prompts: int, gpus: int) -> dict[str, Any]:
    settings = run.settings.ppo
    batch = rollouts(settings, prompts, gpus)
    machines = {
        f"{part}.{key}": count
        for part in ("actor", "critic", "ref", "reward")
        for key, count in (("num_nodes", 1), ("num_gpus_per_node", gpus))
    }
    return {
        "actor.model_name_or_path": "./model",
        "reward.model_name_or_path": "./reward-model",
        "critic.model_name_or_path": "./reward-model",
        "data.prompt_dataset": "./prompts.jsonl",
        "data.input_key": "prompt",
        "rollout.batch_size": batch,
        "rollout.max_new_tokens": settings.max_new_tokens,
        "rollout.temperature": settings.temperature,
        "rollout.n_samples_per_prompt": 1,
        "train.batch_size": batch // settings.minibatches,
        "train.max_epochs": settings.epochs,
        "train.num_episodes": max(1, math.ceil(settings.steps * batch / prompts)),
        "train.colocate_all": True,
        "vllm.num_engines": gpus,
        "vllm.gpu_memory_utilization": 0.5,
        "vllm.enable_sleep": True,
        "ds.enable_sleep": True,
        "algo.advantage.estimator": "gae",
        "algo.advantage.gamma": settings.gamma,
        "algo.advantage.lambd": settings.lam,
        "algo.kl.estimator": "k1",
        "algo.kl.init_coef": settings.kl_coef,
        "actor.eps_clip": settings.clip,
        "critic.value_clip": settings.value_clip,
        "actor.adam.lr": settings.lr,
        "actor.adam.eps": 1e-5,
        "critic.adam.lr": settings.lr,
        "critic.adam.eps": 1e-5,
        **machines,
        "ckpt.output_dir": "./trained/ppo",
    }


def _readme(run: Finished, written: dict[str, int], folded: dict[str, float]) -> str:
    missing = "\n".join(f"- {line}" for line in without_counterpart(run.settings))
    return f"""\
# {run.name}, for OpenRLHF 0.11

{cards.origin(run)}

{cards.table_of_files(written)}

{cards.left_out(run)}

```sh
./run.sh sft        # from the start model, on the revised and helpful answers
./run.sh reward     # from model/, on hard labels
./run.sh dpo
./run.sh ppo        # from model/, against reward-model/
```

`*.args` hold OpenRLHF's arguments, one a line; `./` at the start of a value is this folder, which
may lie anywhere. The prompts are those that `cai ppo` would train on. The reward model's head is
divided by {folded["divided_by"]:g}, so that its scores have deviation 1.

Without counterpart in OpenRLHF's PPO:

{missing}
"""
