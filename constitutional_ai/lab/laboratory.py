"""The laboratory behind the protocol of ``world.py``; nothing here knows an answer's worth."""

from pathlib import Path

from constitutional_ai.lab.world.data import draw, slice_of, split_summary, test

__all__ = ["draw", "model_path", "slice_of", "split_summary", "test"]


def model_path(name: str) -> Path:
    """The folder of a shipped model. Raises ModelError for an unknown name."""
    from constitutional_ai.lab.world import model  # brings in torch, which prompts do without

    return model.model_path(name)
