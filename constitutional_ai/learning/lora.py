"""LoRA (Hu et al. 2021, arXiv 2106.09685): small trained matrices beside frozen weights, by peft.

The adapter is put into the standard model, whose class and forward stay as they are: only its
linear layers are replaced. Switched off, the model computes what it computed before, to the bit, so
one set of weights serves as policy and as reference. A fresh adapter adds exactly nothing.

Adapters are float32 whatever the precision of the frozen weights. Not covered: quantised weights,
adapters of embeddings, more than one adapter at a time.
"""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from constitutional_ai.errors import ModelError, SettingsError
from constitutional_ai.settings import ModelSettings

ADAPTER = "default"  # peft's name for the one that there is
SEED = 0  # of a fresh adapter's random half; the other half is zero


def add(model: Any, options: ModelSettings) -> None:
    """Freeze ``model`` and put an adapter into its linear layers, or into those that are named.

    Raises SettingsError where peft is not installed, ModelError where no such layer is there.
    """
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError:
        raise SettingsError(
            "model.lora_rank needs peft: pip install 'constitutional-ai[lora]'"
        ) from None
    targets = _targets(model, options)
    config = LoraConfig(
        r=options.lora_rank,
        lora_alpha=options.lora_alpha,
        target_modules=targets,
        fan_in_fan_out=_is_transposed(model, targets),
    )
    with torch.random.fork_rng():
        torch.manual_seed(SEED)
        inject_adapter_in_model(config, model, ADAPTER)
    model.eval()  # what was put in came in training mode
    for name, parameter in model.named_parameters():
        parameter.requires_grad = ".lora_" in name
        if parameter.requires_grad:
            parameter.data = parameter.data.float()


def training_dtype(options: ModelSettings) -> str:
    """Weights that move are float32 masters; frozen ones may be as small as the run says."""
    return options.dtype if options.lora_rank else "float32"


def is_added(model: Any) -> bool:
    """Whether ``add`` has been here."""
    return hasattr(model, "peft_config")


@contextmanager
def disabled(model: Any) -> Iterator[None]:
    """Within, the model is the one that the adapter was added to."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    layers = [module for module in model.modules() if isinstance(module, BaseTunerLayer)]
    for layer in layers:
        layer.enable_adapters(False)
    try:
        yield
    finally:
        for layer in layers:
            layer.enable_adapters(True)


@torch.no_grad()
def merged(model: Any) -> dict[str, Tensor]:
    """The weights, under their standard names, of the model that adapter and model make together.

    Merged ones are new tensors, in the precision of the frozen weights, in the memory of the CPU;
    the others are the model's own. Without an adapter it is the plain ``state_dict``.
    """
    weights: dict[str, Tensor] = model.state_dict()
    if not any(".lora_" in name for name in weights):
        return weights
    found = {
        name.replace(".base_layer.", "."): weight
        for name, weight in weights.items()
        if ".lora_" not in name
    }
    for name, layer in model.named_modules():
        if hasattr(layer, "get_delta_weight"):
            frozen = layer.base_layer.weight
            whole = frozen.float() + layer.get_delta_weight(ADAPTER).float()
            found[f"{name}.weight"] = whole.to(frozen.dtype).cpu()
    return found


def save(model: Any, folder: Path, base: str, task: str, whole: tuple[str, ...] = ()) -> None:
    """The adapter alone, as peft's ``from_pretrained`` and vLLM's ``--lora-modules`` read it.

    ``base`` is the spec of the model that it was added to, ``task`` peft's name of what the model
    is for, ``whole`` are modules outside the adapter that were trained with it.
    """
    config = copy.copy(model.peft_config[ADAPTER])
    config.base_model_name_or_path, _, revision = base.partition("@")
    config.revision, config.task_type = revision or None, task
    config.modules_to_save = list(whole) or None
    config.inference_mode = True
    kept = (".lora_", *(f".{name}." for name in whole))
    tensors = {
        f"base_model.model.{name}".replace(f".{ADAPTER}.", "."): weight.detach().cpu().contiguous()
        for name, weight in model.state_dict().items()
        if any(part in f".{name}" for part in kept)
    }
    config.save_pretrained(folder)
    save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})


def _targets(model: Any, options: ModelSettings) -> list[str]:
    """The last parts of the names of the layers that take an adapter."""
    head = getattr(model, "lm_head", None)  # where the whole model counts as its own base
    there = {
        name.rpartition(".")[2]
        for name, module in model.base_model.named_modules()
        if _is_linear(module) and module is not head
    }
    unknown = [name for name in options.lora_targets if name not in there]
    if unknown or not there:
        names = ", ".join(sorted(there)) or "none"
        raise ModelError(
            f"model.lora_targets: {type(model).__name__} has no linear layer {unknown}; it has:"
            f" {names}"
        )
    return sorted(options.lora_targets or there)


def _is_linear(module: nn.Module) -> bool:
    from transformers.pytorch_utils import Conv1D

    return isinstance(module, nn.Linear | Conv1D)


def _is_transposed(model: Any, targets: list[str]) -> bool:
    """GPT-2 keeps its matrices the other way round; peft wants to be told."""
    from transformers.pytorch_utils import Conv1D

    found = [m for name, m in model.named_modules() if name.rpartition(".")[2] in targets]
    return any(isinstance(module, Conv1D) for module in found)
