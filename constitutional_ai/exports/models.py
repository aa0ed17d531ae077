"""Models as other tools must find them: the policy as it is, the reward model on its own scale.

Our reward model differs in two things. First, its scores are standardised by a mean and a deviation
in config.json, while other tools read the head as it is. So the deviation goes into the head, and
the mean too if the head has a bias; without one the mean stays, and moves all scores alike. Second,
we read the score at the end token, while a server reads it at the last token that the chat template
prints. So the exported template ends with the end token.
"""

import json
import shutil
from pathlib import Path
from typing import Any

from constitutional_ai.records import Conversation
from constitutional_ai.store.whole import ExportError

# Jinja around a template, which cuts its output after the last end token.
_CUT = (
    "{{% set cai_rendered %}}{template}{{% endset %}}"
    "{{{{ cai_rendered if add_generation_prompt else cai_rendered.rstrip() }}}}"
)


def copy_model(source: Path, target: Path) -> None:
    """Copy a model's folder, file by file, so that the disk's first error is the one we report."""
    for file in sorted(source.rglob("*")):
        if file.is_file():
            copy = target / file.relative_to(source)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, copy)


def copy_reward_model(source: Path, target: Path) -> tuple[float, float]:
    """Copy a reward model so that its head alone gives the score.

    Returns what the scores were divided by, and how far off they still are. Raises ExportError if
    there is no head.
    """
    copy_model(source, target)
    config = json.loads((target / "config.json").read_text(encoding="utf-8"))
    mean, deviation = config.get("reward_mean", 0.0), config.get("reward_deviation", 1.0)
    offset = 0.0 if _scale_head(target, mean, deviation) else mean / deviation
    config |= {"reward_mean": offset, "reward_deviation": 1.0}
    (target / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    end_at_end_token(target)
    return deviation, offset


def _scale_head(folder: Path, mean: float, deviation: float) -> bool:
    """Standardise the head in place; returns whether it has a bias that takes the mean."""
    from safetensors import safe_open
    from safetensors.torch import load_file, save_file

    heads = set[str]()
    for file in sorted(folder.glob("*.safetensors")):
        with safe_open(file, framework="pt") as opened:
            head = {"score.weight", "score.bias"} & set(opened.keys())
            metadata = opened.metadata()
        if head:
            tensors = load_file(file)
            for name in head:
                shift = mean if name == "score.bias" else 0.0
                tensors[name] = (tensors[name] - shift) / deviation
            save_file(tensors, file, metadata)
            heads |= head
    if "score.weight" not in heads:
        raise ExportError(f"{folder}: no `score.weight` in it; is it a reward model?")
    return "score.bias" in heads


def end_at_end_token(folder: Path) -> None:
    """Let the chat template print nothing after the last end token.

    Templates such as ChatML's put a line end there, and a server would read the score at it.
    """
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    if tokenizer.chat_template is None:
        return
    before = _rendered(tokenizer)
    if before == before.rstrip():
        return
    tokenizer.chat_template = _CUT.format(template=tokenizer.chat_template)
    if _rendered(tokenizer) != before.rstrip():
        raise ExportError(f"{folder}: its chat template cannot be made to end at the end token")
    tokenizer.save_pretrained(folder)


def _rendered(tokenizer: Any) -> str:
    turns = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    return str(tokenizer.apply_chat_template(turns, tokenize=False))


def longest_prompt(model: Path, prompts: list[Conversation]) -> int:
    """Tokens of the longest prompt in the model's chat template. Raises ExportError without one."""
    from transformers import AutoTokenizer

    from constitutional_ai.engines.tokens import ChatTokens

    tokenizer = AutoTokenizer.from_pretrained(model)
    if tokenizer.chat_template is None:
        raise ExportError(f"{model}: has no chat template, which clusters need; set it, and train")
    tokens = ChatTokens(tokenizer)
    return max(len(tokens.prompt(prompt)) for prompt in prompts)
