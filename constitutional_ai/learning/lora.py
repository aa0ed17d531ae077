"""LoRA (Hu et al. 2021, arXiv 2106.09685): small trained matrices beside frozen weights, by peft.

The standard model keeps its class and its forward; only its linear layers are replaced. With the
adapter switched off it computes what it computed before, to the bit, so one set of weights serves
as policy and as reference. A fresh adapter adds exactly nothing.

Adapters are float32 whatever the precision of the frozen weights. Not covered: quantised weights,
adapters of embeddings, more than one adapter at a time.
"""

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from constitutional_ai.errors import ModelError, SettingsError
from constitutional_ai.settings import ModelSettings

if TYPE_CHECKING:
    from peft import PeftModel  # an extra

SEED = 0  # of a fresh adapter's random half; the other half is zero


def add(model: Any, options: ModelSettings, task: Literal["CAUSAL_LM", "SEQ_CLS"]) -> "PeftModel":
    """Freeze ``model`` and put an adapter into its linear layers, or into those that are named.

    A classifier's head is trained as well. Raises SettingsError if peft is not installed,
    ModelError if there is no such layer.
    """
    try:
        from peft import LoraConfig, get_peft_model
    except ImportError:
        raise SettingsError(
            "model.lora_rank needs peft: pip install 'constitutional-ai[lora]'"
        ) from None
    layers = _linear_layers(model)
    unknown = [name for name in options.lora_targets if name not in layers]
    if unknown or not layers:
        names = ", ".join(sorted(layers)) or "none"
        raise ModelError(
            f"model.lora_targets: {type(model).__name__} has no linear layer {unknown}; it has:"
            f" {names}"
        )
    targets = sorted(options.lora_targets or layers)
    config = LoraConfig(
        r=options.lora_rank,
        lora_alpha=options.lora_alpha,
        target_modules=targets,
        fan_in_fan_out=any(layers[name] is Conv1D for name in targets),
        task_type=task,
    )
    with torch.random.fork_rng(), warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # peft uses an old name of transformers
        torch.manual_seed(SEED)
        adapted: PeftModel = get_peft_model(model, config)
    return adapted.eval()


def training_dtype(options: ModelSettings) -> str:
    """Weights that move are float32 masters; frozen ones may be as small as the run says."""
    return options.dtype if options.lora_rank else "float32"


def save(adapted: "PeftModel", folder: Path, base: str) -> None:
    """The adapter alone, as peft's ``from_pretrained`` and vLLM's ``--lora-modules`` read it.

    ``base`` is the spec of the model that it was added to.
    """
    config = adapted.peft_config["default"]
    config.base_model_name_or_path, _, revision = base.partition("@")
    config.revision = revision or None
    adapted.save_pretrained(str(folder), save_embedding_layers=False)
    (folder / "README.md").unlink()  # a form that nobody has filled in


def _linear_layers(model: Any) -> dict[str, type[nn.Module]]:
    """The layers that can take an adapter, by the last part of their names."""
    head = getattr(model, "lm_head", None)  # part of the base where the model is its own base
    return {
        name.rpartition(".")[2]: type(module)
        for name, module in model.base_model.named_modules()
        if isinstance(module, nn.Linear | Conv1D) and module is not head
    }
