"""Training on a cluster: PPO with veRL 0.9; SFT, reward model, DPO and PPO with OpenRLHF 0.11.

    OUT/prompts/*.parquet                   for veRL: what stage 6 would train on, and watch
    OUT/*.jsonl                             for OpenRLHF: the rows of its four trainers
    OUT/model, OUT/reward-model             SL-CAI; the reward model on the scale of stage 6
    OUT/overrides.txt, OUT/*.args           one setting of the tool a line; "./" is this folder
    OUT/run.sh                              starts the tool with them
    OUT/README.md                           what was carried over, and what has no counterpart

The folder may be moved. A setting that has no counterpart is named in the README. The losses of
OpenRLHF take hard labels.
"""

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from constitutional_ai.exports import paragraphs
from constitutional_ai.exports.finished import Finished
from constitutional_ai.exports.models import copy_model, copy_reward_model, longest_prompt
from constitutional_ai.exports.rows import messages, preference
from constitutional_ai.records import Conversation, content_hash
from constitutional_ai.settings import Settings
from constitutional_ai.store.whole import ExportError, new_folder, rows_to

Files = dict[str, list[dict[str, Any]]]


@dataclass(frozen=True)
class Tool:
    """How one tool takes a run."""

    name: str
    files: Callable[[Finished], Files]
    settings: Mapping[str, str]  # file → table of settings, see `settings_text`
    prefix: str  # of every setting
    script: str
    usage: str  # a part of the README


def export(tool: Tool, run: Finished, out: Path, gpus: int = 1) -> dict[str, int]:
    """Write the folder; returns the number of rows by file. Raises ExportError, writing nothing."""
    model, reward = run.model("finetune"), run.model("reward")
    files = tool.files(run)
    prompts = [_prompt(row) for rows in files.values() for row in rows]
    filled = values(run, len(run.rl_prompts()[0]), longest_prompt(model, prompts), gpus)
    with new_folder(out) as folder:
        for name, rows in files.items():
            (_parquet if name.endswith(".parquet") else rows_to)(folder / name, rows)
        copy_model(model, folder / "model")
        scale = copy_reward_model(reward, folder / "reward-model")
        for name, table in tool.settings.items():
            text = settings_text(table, tool.prefix, filled)
            (folder / name).write_text(text, encoding="utf-8")
        script = folder / "run.sh"
        script.write_text(_READ + tool.script, encoding="utf-8")
        script.chmod(0o755)
        counts = {name: len(rows) for name, rows in files.items()}
        (folder / "README.md").write_text(_readme(tool, run, counts, scale), encoding="utf-8")
    return counts


def settings_text(table: str, prefix: str, filled: Mapping[str, Any]) -> str:
    """One setting a line.

    >>> settings_text("data seed={seed} shuffle\\nactor lr=0.1\\n", "--", {"seed": 7}).split()
    ['--data.seed=7', '--data.shuffle', '--actor.lr=0.1']
    """
    lines = []
    for line in table.splitlines():
        section, *settings = line.split()
        lines += [f"{prefix}{section}.{setting}\n" for setting in settings]
    return "".join(lines).format_map(filled)


def values(run: Finished, prompts: int, longest: int, gpus: int) -> dict[str, Any]:
    """What the tables of settings may name: the run's own settings, and what follows from them.

    ``longest``: tokens of the longest prompt. A step takes whole minibatches on every GPU, and no
    more rollouts than there are ``prompts``. Raises ExportError if that leaves none.
    """
    settings, ppo = run.settings, run.settings.ppo
    share = ppo.minibatches * gpus
    rollouts = min(ppo.rollouts, prompts) // share * share
    if not rollouts:
        raise ExportError(f"{prompts} prompts are too few for {share} parts; take fewer --gpus")
    room = -(-longest // 64) * 64
    return {
        **{name: getattr(settings, name) for name in ("seed", "revise", "finetune", "reward")},
        "ppo": ppo,
        "name": re.sub(r"[^\w-]", "-", run.name),  # Hydra reads it as plain text
        "base": paragraphs.start_model(run),
        "gpus": gpus,
        "rollouts": rollouts,
        "minibatch": rollouts // ppo.minibatches,
        "epochs": math.ceil(ppo.steps / (prompts // rollouts)),  # veRL drops a batch that is short
        "episodes": math.ceil(ppo.steps * rollouts / prompts),
        "warmup_share": round(min(ppo.warmup_steps / ppo.steps, 1.0), 4),
        "room": room,
        "scored": room + ppo.max_new_tokens,
        "row": room + max(ppo.max_new_tokens, settings.revise.max_new_tokens),
    }


def without_counterpart(settings: Settings) -> list[str]:
    """What stage 6 does under these settings, and the tools do not."""
    ppo = settings.ppo
    lines = {
        f"`missing_end_penalty = {ppo.missing_end_penalty}`: an answer that the token limit cuts"
        " off is scored as it is": True,
        "the monitor of reward hacking: watch the KL and the answers yourself": True,
        '`value = "shared"`: the critic is a model of its own, started from the reward model': (
            ppo.value == "shared"
        ),
        f"`logratio_clamp = {ppo.logratio_clamp}`": True,
        "the fall of the learning rate to 0.3 of `lr`: the tool keeps its own schedule": True,
        f"`kl_target = {ppo.kl_target}` (nats an answer): the coefficient is fixed": (
            ppo.kl_target is not None
        ),
        f"`max_kl = {ppo.max_kl}`: nothing stops the run": ppo.max_kl is not None,
        f"`sl_mix = {ppo.sl_mix}`: no SL loss beside the RL loss": ppo.sl_mix > 0,
        f"`reward.ensemble = {settings.reward.ensemble}`: the first reward model alone": (
            settings.reward.ensemble > 1
        ),
    }
    return [line for line, holds in lines.items() if holds]


def _readme(
    tool: Tool, run: Finished, counts: Mapping[str, int], scale: tuple[float, float]
) -> str:
    divided_by, offset = scale
    rows = paragraphs.table_of_files(counts)
    if "preferences.jsonl" in counts:
        rows += "\n\n" + paragraphs.left_out(run)
    missing = "\n".join(f"- {line}" for line in without_counterpart(run.settings))
    return f"""\
# {run.name}, for {tool.name}

{paragraphs.origin(run)}

{rows}

{tool.usage}
`./` at the start of a value is this folder, which may lie anywhere. The prompts are those that
`cai ppo` would train on.

The reward model's head is divided by {divided_by:g}, so that its scores have deviation 1,
as in `cai ppo`. All scores are {offset:+.3g} off, which whitened advantages do not see.
Its chat template prints nothing after the end token, where the score is read.

Without counterpart in the PPO of {tool.name}:

{missing}
"""


def _prompt(row: Mapping[str, Any]) -> Conversation:
    return list(row["messages"][:-1] if "messages" in row else row["prompt"])


# The start of either run.sh
_READ = """\
#!/usr/bin/env bash
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
settings=()
read_settings() {
    while IFS= read -r line; do
        [[ -z $line || $line == \\#* ]] || settings+=("${line/=.\\//=$here/}")
    done < "$here/$1"
}

"""


# veRL


def _verl_files(run: Finished) -> Files:
    trained, watched = run.rl_prompts()
    splits = {"train": trained, "watch": watched or trained[:1]}
    return {
        f"prompts/{split}.parquet": [
            {
                "data_source": "constitutional-ai",
                "prompt": prompt,
                "ability": "alignment",
                "reward_model": {"style": "model", "ground_truth": ""},  # the truth is for rules
                "extra_info": {"split": split, "index": number, "id": content_hash(prompt)},
            }
            for number, prompt in enumerate(prompts)
        ]
        for split, prompts in splits.items()
    }


def _parquet(path: Path, rows: list[dict[str, Any]]) -> None:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise ExportError("needs pyarrow; pip install 'constitutional-ai[data]'") from None
    path.parent.mkdir(exist_ok=True)
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)


# A line holds settings of one section: "data a=1 b=2" is data.a=1 and data.b=2.
# clip_ratio_c is a second clip, of rows with a negative advantage: too high here to act.
_OVERRIDES = """\
data train_files=./prompts/train.parquet val_files=./prompts/watch.parquet seed={seed}
data train_batch_size={rollouts} max_prompt_length={room} max_response_length={ppo.max_new_tokens}
actor_rollout_ref.model path=./model use_remove_padding=True
actor_rollout_ref.actor ppo_mini_batch_size={minibatch} ppo_epochs={ppo.epochs}
actor_rollout_ref.actor clip_ratio={ppo.clip} clip_ratio_low={ppo.clip} clip_ratio_high={ppo.clip}
actor_rollout_ref.actor clip_ratio_c=1000000.0 use_dynamic_bsz=True
actor_rollout_ref.actor checkpoint.save_contents=[model,optimizer,extra,hf_model]
actor_rollout_ref.actor.optim lr={ppo.lr} lr_warmup_steps={ppo.warmup_steps}
actor_rollout_ref.actor.optim betas=[0.9,0.95] weight_decay=0.0
actor_rollout_ref.actor.optim override_optimizer_config={{eps:1e-05}}
actor_rollout_ref.rollout name=vllm n=1 temperature={ppo.temperature} tensor_model_parallel_size=1
critic model.path=./reward-model cliprange_value={ppo.value_clip}
critic.optim lr={ppo.lr} lr_warmup_steps={ppo.warmup_steps}
critic.optim betas=[0.9,0.95] weight_decay=0.0 override_optimizer_config={{eps:1e-05}}
reward.reward_model enable=True model_path=./reward-model
reward.reward_model.rollout name=vllm tensor_model_parallel_size=1
reward.reward_model.rollout prompt_length={scored} response_length=1
algorithm adv_estimator=gae gamma={ppo.gamma} lam={ppo.lam}
algorithm use_kl_in_reward=True kl_penalty=kl kl_ctrl.type=fixed kl_ctrl.kl_coef={ppo.kl_coef}
trainer total_training_steps={ppo.steps} total_epochs={epochs} nnodes=1 n_gpus_per_node={gpus}
trainer logger=[console] project_name=constitutional-ai experiment_name={name}
trainer val_before_train=False save_freq={ppo.checkpoint_every}
"""

VERL = Tool(
    name="veRL 0.9",
    files=_verl_files,
    settings={"overrides.txt": _OVERRIDES},
    prefix="",
    script="""\
read_settings overrides.txt
exec "${PYTHON:-python3}" -m verl.trainer.main_ppo "${settings[@]}" "$@"
""",
    usage="""\
```sh
./run.sh                           # on as many GPUs as `cai export verl --gpus` said
./run.sh trainer.save_freq=100     # further settings of veRL go last
```

`overrides.txt` holds veRL's settings, one a line.
""",
)


# OpenRLHF


def _openrlhf_files(run: Finished) -> Files:
    return {
        "sft.jsonl": [messages(row) for row in run.demonstrations()[0]],
        "preferences.jsonl": [preference(row) for row in run.preferences().train],
        "prompts.jsonl": [{"prompt": prompt} for prompt in run.rl_prompts()[0]],
    }


_ROWS = """\
train seed={seed}
data max_len={row} apply_chat_template
"""
_SFT = """\
data dataset=./sft.jsonl input_key=messages
model model_name_or_path={base}
train max_epochs={finetune.epochs} batch_size=32
adam lr={finetune.lr}
ckpt output_dir=./trained/sft
"""
_PAIRS = """\
data dataset=./preferences.jsonl prompt_key=prompt chosen_key=chosen rejected_key=rejected
model model_name_or_path=./model
train max_epochs={reward.epochs} batch_size={reward.batch_pairs}
"""
_REWARD = """\
adam lr={reward.lr}
ckpt output_dir=./trained/reward
"""
_DPO = """\
ref model_name_or_path=./model
ckpt output_dir=./trained/dpo
"""
_PPO = """\
data prompt_dataset=./prompts.jsonl input_key=prompt
rollout batch_size={rollouts} n_samples_per_prompt=1
rollout max_new_tokens={ppo.max_new_tokens} temperature={ppo.temperature}
train batch_size={minibatch} max_epochs={ppo.epochs} num_episodes={episodes} colocate_all
vllm num_engines={gpus} gpu_memory_utilization=0.5 enable_sleep
ds enable_sleep
algo.advantage estimator=gae gamma={ppo.gamma} lambd={ppo.lam}
algo.kl estimator=k1 init_coef={ppo.kl_coef}
actor model_name_or_path=./model eps_clip={ppo.clip} num_nodes=1 num_gpus_per_node={gpus}
actor adam.lr={ppo.lr} adam.eps=1e-05 lr_warmup_ratio={warmup_share}
critic model_name_or_path=./reward-model value_clip={ppo.value_clip}
critic adam.lr={ppo.lr} adam.eps=1e-05 lr_warmup_ratio={warmup_share}
critic num_nodes=1 num_gpus_per_node={gpus}
reward model_name_or_path=./reward-model num_nodes=1 num_gpus_per_node={gpus}
ref num_nodes=1 num_gpus_per_node={gpus}
ckpt output_dir=./trained/ppo
"""

OPENRLHF = Tool(
    name="OpenRLHF 0.11",
    files=_openrlhf_files,
    settings={
        "sft.args": _ROWS + _SFT,
        "reward.args": _ROWS + _PAIRS + _REWARD,
        "dpo.args": _ROWS + _PAIRS + _DPO,
        "ppo.args": _ROWS + _PPO,
    },
    prefix="--",
    script="""\
stage=${1:?"name a trainer: sft, reward, dpo or ppo"}; shift
read_settings "$stage.args"
case $stage in
    sft | dpo) launch=(deepspeed --module "openrlhf.cli.train_$stage") ;;
    reward) launch=(deepspeed --module openrlhf.cli.train_rm) ;;
    ppo) launch=("${PYTHON:-python3}" -m openrlhf.cli.train_ppo_ray) ;;
esac
exec ${LAUNCH:-} "${launch[@]}" "${settings[@]}" "$@"
""",
    usage="""\
```sh
./run.sh sft        # from the start model, on the revised and helpful answers
./run.sh reward     # from model/, on hard labels
./run.sh dpo
./run.sh ppo        # from model/, against reward-model/; further arguments go last
```

`*.args` hold OpenRLHF's arguments, one a line.
""",
)
