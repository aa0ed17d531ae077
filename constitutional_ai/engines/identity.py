"""Which model a spec means, as a hash: what fingerprints hold of it."""

from pathlib import Path

from constitutional_ai.engines import VLLM
from constitutional_ai.store.run_folder import folder_hash
from constitutional_ai.world import is_model, world


def model_identity(path: str) -> str:
    """A hash of a local model folder; what is no folder is its own name.

    That is a hub id, or a server's address and model. ``vllm:`` before a model makes it no other.
    """
    path = path.removeprefix(VLLM)
    folder = world().model_path(path) if is_model(path) else Path(path)
    return folder_hash(folder) or path
