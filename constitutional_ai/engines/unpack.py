"""GGUF files as ordinary model folders: unpacked to bfloat16 once, and kept in the user's cache.

transformers reads the weights and the tokenizer. What it leaves out in silence is found out by
counting: every weight of the file has to be in the model. Two things it does not read are put
right: the rotary frequencies of Llama 3.1 and later, and heads that are not width / heads wide.
"""

import fcntl
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from constitutional_ai.engines import gguf_file
from constitutional_ai.engines.gguf_file import ROPE_FACTORS, GgufFile
from constitutional_ai.errors import ModelError
from constitutional_ai.store.atomic import write_folder

LAYOUT = 1  # of the unpacked folders; another number, and everything is unpacked again
SPARE = 200e6  # bytes on the disk that stay free, and room for the tokenizer

# The scaling of Llama 3.1 and later, but for its factor (arXiv 2407.21783, and Meta's code).
LLAMA3 = {
    "rope_type": "llama3",
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}


def unpacked(path: Path) -> Path:
    """The folder of a GGUF file, made now if it is not in the cache yet.

    Says on stderr what it is about to write. Two processes that want the same file wait for each
    other. Raises ModelError for what cannot be unpacked, and where the disk has no room.
    """
    folder = gguf_file.cache() / f"{gguf_file.content_hash(path)}-{LAYOUT}"
    if folder.is_dir():
        return folder
    file = gguf_file.ready(path)
    gguf_file.cache().mkdir(parents=True, exist_ok=True)
    with folder.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.is_dir():
            _announce(file, folder)
            write_folder(folder, lambda draft: _write(file, draft))
    return folder


def _announce(file: GgufFile, folder: Path) -> None:
    """What will be written, and where; the disk must have room for it."""
    size, free = 2 * file.weights, shutil.disk_usage(folder.parent).free
    if free < size + SPARE:
        raise ModelError(
            f"{file.path}: unpacks to {size / 1e9:.1f} GB, and {folder.parent} has"
            f" {free / 1e9:.1f} GB left; make room, or name another folder in XDG_CACHE_HOME"
        )
    for note in gguf_file.notes(file):
        print(f"cai: {note}", file=sys.stderr)
    print(
        f"cai: {file.path}: unpacking {file.weights / 1e6:,.0f} million weights once,"
        f" {size / 1e9:.2f} GB, into {folder}",
        file=sys.stderr,
    )


def _write(file: GgufFile, folder: Path) -> None:
    with tempfile.TemporaryDirectory() as alone:  # what lies beside the file is none of its own
        link = Path(alone) / "model.gguf"
        link.symlink_to(file.path.resolve())
        try:
            model, tokenizer = _load(file, link)
        except ModelError:
            raise
        except Exception as error:  # of transformers, tokenizers, gguf or numpy
            reason = str(error).strip().split("\n")[0][:200]
            raise ModelError(f"{file.path}: cannot be unpacked: {reason}") from error
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _load(file: GgufFile, link: Path) -> tuple[Any, Any]:
    """The model in bfloat16, and its tokenizer."""
    transformers.utils.logging.disable_progress_bar()
    source: dict[str, Any] = {"gguf_file": link.name, "local_files_only": True}
    config = AutoConfig.from_pretrained(link.parent, **source)
    _mend(config, file)
    loaded: Any = AutoModelForCausalLM.from_pretrained(
        link.parent,
        config=config,
        dtype=torch.bfloat16,
        quantization_config=transformers.GgufConfig(dequantize=True),
        output_loading_info=True,
        trust_remote_code=False,
        **source,
    )
    model, info = loaded
    taken = sum(weight.numel() for weight in model.parameters())
    if info["missing_keys"] or taken != file.weights:
        raise ModelError(
            f"{file.path}: holds {file.weights:,} weights, and transformers makes a model of"
            f" {taken:,} of them; name the folder or hub id that it was made from"
        )
    return model, AutoTokenizer.from_pretrained(link.parent, trust_remote_code=False, **source)


def _mend(config: Any, file: GgufFile) -> None:
    """Put right what transformers does not read of a file's settings."""
    if (width := file.of_architecture("attention.key_length")) is not None:
        config.head_dim = width
    if ROPE_FACTORS in file.shapes:
        _scale_rope(config, file)


def _scale_rope(config: Any, file: GgufFile) -> None:
    """Name the scaling that the file's factors come from. Raises ModelError if it is not Llama's.

    Of Llama 3.1 and 3.2 only ``factor`` differs, and that is the largest of the factors.
    """
    from gguf import GGUFReader

    reader = GGUFReader(file.path)
    factors = torch.tensor(next(t.data for t in reader.tensors if t.name == ROPE_FACTORS))
    theta = config.rope_parameters["rope_theta"]
    plain = 1 / theta ** (torch.arange(0, config.head_dim, 2) / config.head_dim)
    config.rope_parameters = LLAMA3 | {"rope_theta": theta, "factor": float(factors.max())}
    scaled, _ = ROPE_INIT_FUNCTIONS["llama3"](config, None)
    if not torch.allclose(plain / scaled, factors, rtol=1e-3):
        raise ModelError(
            f"{file.path}: its rotary positions are scaled otherwise than those of Llama 3.1, which"
            " is not read from a GGUF file; name the folder or hub id that it was made from"
        )
