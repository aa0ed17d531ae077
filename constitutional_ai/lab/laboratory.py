"""The laboratory behind the protocol of ``world.py``; nothing here knows an answer's worth."""

from constitutional_ai.lab.world.data import draw, slice_of, split_summary, test
from constitutional_ai.lab.world.sizes import model_path

__all__ = ["draw", "model_path", "slice_of", "split_summary", "test"]
