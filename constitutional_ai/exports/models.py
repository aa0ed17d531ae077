"""Models as other tools must find them: the policy as it is, the reward model on its own scale.

Two things about our reward model are ours alone. PPO here standardises its scores by a mean and a
deviation that stand in config.json; other tools read the head as it is, so the deviation (and the
mean, where the head has a bias) goes into the head. And we read the score at the end token, where
a server reads it at the last token of what the chat template prints, so the exported template ends
with the end token. Without a bias the mean stays: it moves all scores alike.
"""

import json
import shutil
from pathlib import Path
from typing import Any

from constitutional_ai.store.whole import ExportError

# Blocks of Jinja around a template, so that its output ends where its last end token does.
_CUT = (
    "{{% set cai_rendered %}}{template}{{% endset %}}"
    "{{{{ cai_rendered if add_generation_prompt else cai_rendered.rstrip() }}}}"
)


def copy_model(source: Path, target: Path) -> None:
    """A model folder as it is. File by file: the disk's first error is the one that is told."""
    for file in sorted(source.rglob("*")):
        if file.is_file():
            (target / file.relative_to(source)).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, target / file.relative_to(source))


def copy_reward_model(source: Path, target: Path) -> dict[str, float]:
    """A reward model whose head alone gives the score; returns what was folded into it."""
    copy_model(source, target)
    config = json.loads((target / "config.json").read_text(encoding="utf-8"))
    mean, deviation = config.get("reward_mean", 0.0), config.get("reward_deviation", 1.0)
    biased = _fold(target, mean, deviation)
    config["reward_mean"] = 0.0 if biased else mean / deviation
    config["reward_deviation"] = 1.0
    (target / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    end_at_end_token(target)
    return {"divided_by": deviation, "mean_left": config["reward_mean"]}


def _fold(folder: Path, mean: float, deviation: float) -> bool:
    """Scale the head in place; whether it had a bias. Raises ExportError where there is no head."""
    from safetensors import safe_open
    from safetensors.torch import load_file, save_file

    found, biased = False, False
    for file in sorted(folder.glob("*.safetensors")):
        with safe_open(file, framework="pt") as opened:
            names = set(opened.keys())
            metadata = opened.metadata()
        if names.isdisjoint({"score.weight", "score.bias"}):
            continue
        tensors = load_file(file)
        if "score.weight" in tensors:
            found = True
            tensors["score.weight"] = tensors["score.weight"] / deviation
        if "score.bias" in tensors:
            biased = True
            tensors["score.bias"] = (tensors["score.bias"] - mean) / deviation
        save_file(tensors, file, metadata)
    if not found:
        raise ExportError(f"{folder}: no `score.weight` in it; is it a reward model?")
    return biased


def end_at_end_token(folder: Path) -> bool:
    """Let the chat template print nothing after the last end token; whether it was changed.

    Templates such as ChatML's put a line end there, and a server would read the score at it.
    """
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    if tokenizer.chat_template is None or _rendered(tokenizer) == _rendered(tokenizer).rstrip():
        return False
    before = _rendered(tokenizer)
    tokenizer.chat_template = _CUT.format(template=tokenizer.chat_template)
    if _rendered(tokenizer) != before.rstrip():
        raise ExportError(f"{folder}: its chat template cannot be made to end at the end token")
    tokenizer.save_pretrained(folder)
    return True


def _rendered(tokenizer: Any) -> str:
    turns = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    return str(tokenizer.apply_chat_template(turns, tokenize=False))


def longest_prompt(model: Path, prompts: list[Any]) -> int:
    """Tokens of the longest prompt, its chat template included. Raises ModelError without one."""
    from transformers import AutoTokenizer

    from constitutional_ai.engines.tokens import ChatTokens

    tokens = ChatTokens(AutoTokenizer.from_pretrained(model))
    return max(len(tokens.prompt(prompt)) for prompt in prompts)


def has_chat_template(model: Path) -> bool:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(model).chat_template is not None
