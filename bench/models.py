"""Models to measure with: the laboratory's, a folder, or random weights made on the spot.

``random:0.1b`` is a Llama, ``random:0.5b`` and ``random:1.5b`` have the shape of Qwen2.5. They
speak in words of the laboratory's tokenizer and never say an end token, so every answer runs to its
limit and the work is the same for whoever does it.
"""

import math
from pathlib import Path
from typing import Any

from constitutional_ai.errors import UserError

LOUD = 8.0  # the spread of a random model's logits: words it knows outweigh the rest

SHAPES: dict[str, tuple[str, dict[str, Any]]] = {
    "0.1b": (
        "Llama",
        {
            "vocab_size": 32_000,
            "hidden_size": 768,
            "intermediate_size": 2048,
            "num_hidden_layers": 12,
            "num_attention_heads": 12,
            "num_key_value_heads": 12,
        },
    ),
    "0.5b": (
        "Qwen2",
        {
            "vocab_size": 151_936,
            "hidden_size": 896,
            "intermediate_size": 4864,
            "num_hidden_layers": 24,
            "num_attention_heads": 14,
            "num_key_value_heads": 2,
        },
    ),
    "1.5b": (
        "Qwen2",
        {
            "vocab_size": 151_936,
            "hidden_size": 1536,
            "intermediate_size": 8960,
            "num_hidden_layers": 28,
            "num_attention_heads": 12,
            "num_key_value_heads": 2,
        },
    ),
}


def folder_of(spec: str, made: Path) -> str:
    """A model folder or hub id for a spec; random ones are written below ``made``, once."""
    if spec.startswith("lab:"):
        from constitutional_ai.lab.world.sizes import model_path

        return str(model_path(spec))
    size = spec.removeprefix("random:")
    if size == spec:
        return spec
    if size not in SHAPES:
        raise UserError(f"{spec}: there are random:{', random:'.join(SHAPES)}")
    folder = made / size
    if not (folder / "config.json").is_file():
        _write_random(size, folder)
    return str(folder)


def _write_random(size: str, folder: Path) -> None:
    import torch
    import transformers

    from constitutional_ai.lab.world.sizes import model_path

    tokenizer = transformers.AutoTokenizer.from_pretrained(model_path("lab:s"))
    family, shape = SHAPES[size]
    config = getattr(transformers, f"{family}Config")(
        **shape,
        max_position_embeddings=2048,
        tie_word_embeddings=True,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    torch.manual_seed(0)
    model = getattr(transformers, f"{family}ForCausalLM")(config)
    words = torch.zeros(config.vocab_size, 1)
    words[: len(tokenizer)] = 1
    # Quiet, so that no answer ends; not silent, for a row of zeros lets gradients explode.
    words[tokenizer.all_special_ids] = 0.1
    with torch.no_grad():
        model.get_input_embeddings().weight.mul_(words)
        spread = config.initializer_range * math.sqrt(config.hidden_size)
        model.model.norm.weight.fill_(LOUD / spread)
    model.to(torch.bfloat16).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def write_reward_model(policy: str, folder: Path, seed: int = 0) -> str:
    """A reward model on a policy's body under a random head, as a standard folder."""
    import torch

    from constitutional_ai.learning.policy import Policy
    from constitutional_ai.learning.reward_model import RewardModel

    reward = RewardModel.from_policy(Policy.load(policy, "cpu"))
    generator = torch.Generator().manual_seed(seed)
    weight = reward.model.score.weight
    torch.nn.init.normal_(weight, std=weight.shape[1] ** -0.5, generator=generator)
    reward.save_pretrained(folder)
    return str(folder)


def write_neighbour(policy: str, folder: Path) -> str:
    """A policy near another: its weights with a tenth of their own spread as noise."""
    import torch

    from constitutional_ai.learning.policy import Policy

    near = Policy.load(policy, "cpu")
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in near.model.parameters():
            if weight.ndim == 2:
                noise = torch.randn(weight.shape, generator=generator)
                weight += 0.1 * weight.std() * noise
    near.save_pretrained(folder)
    return str(folder)
