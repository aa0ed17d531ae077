"""Which model a spec means, as a hash: what fingerprints hold of it."""

import hashlib
from pathlib import Path

from constitutional_ai.engines import VLLM
from constitutional_ai.world import is_model, world


def model_identity(path: str) -> str:
    """A hash of a local model folder: names and sizes of its files, and each one's first 64 KiB.

    The first bytes of a safetensors file are its layout and some weights: enough to tell a model
    that was trained again, without reading all of a large one. What is no folder is its own name: a
    hub id, or a server's address and model. ``vllm:`` before a model makes it no other model.
    """
    path = path.removeprefix(VLLM)
    folder = Path(path)
    if is_model(path):
        folder = world().model_path(path)
    if not folder.is_dir():
        return path
    digest = hashlib.sha256()
    for file in sorted(file for file in folder.iterdir() if file.is_file()):
        digest.update(f"{file.name} {file.stat().st_size} ".encode())
        with file.open("rb") as opened:
            digest.update(opened.read(1 << 16))
    return digest.hexdigest()[:16]
