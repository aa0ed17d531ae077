"""A GGUF file before it is unpacked: its header, what of it is not supported, and which file it is.

The header is read here, in a fraction of a second and without torch, because ``cai run --check``
and the dry run need it. The package ``gguf`` takes ten seconds and more. The format:
https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

import hashlib
import mmap
import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from constitutional_ai.errors import ModelError
from constitutional_ai.machine import installed

SUFFIX = ".gguf"
EXTRA = ("gguf", "accelerate")  # what transformers needs to read one

# Of these our tests compare the logits of an unpacked file with those of the model it was made
# from. "llama" is also Mistral, SmolLM and others of the same layers.
ARCHITECTURES = ("llama", "qwen2", "qwen3")

# Pre-tokenizers that transformers splits texts as; others come out as GPT-2's. "smollm" sets digits
# apart, and its vocabulary has no token of several, so that GPT-2's splits give the same ids.
SPLITS = ("gpt-2", "smollm", "llama-bpe", "llama3", "llama-v3", "tekken", "qwen2", "smaug-bpe")

ROPE_FACTORS = "rope_freqs.weight"  # divisors of the rotary frequencies, as Llama 3.1 has them

_FIXED = dict(enumerate("B b H h I i f ?".split())) | {10: "Q", 11: "q", 12: "d"}
_STRING, _ARRAY = 8, 9

# A hash of the whole takes seconds. The beginning holds the settings and the vocabulary, and a
# model that was trained again differs everywhere else.
_HASHED_HEAD = 1 << 24
_HASHED_PLACES, _HASHED_BLOCK = 64, 1 << 16


@dataclass(frozen=True)
class GgufFile:
    """``metadata`` has the number of its elements in place of an array.

    ``shapes`` are the tensors', rows first, as torch counts them.
    """

    path: Path
    metadata: dict[str, Any]
    shapes: dict[str, tuple[int, ...]]

    @property
    def architecture(self) -> str:
        return str(self.metadata.get("general.architecture", ""))

    @property
    def weights(self) -> int:
        """How many weights a model has that is made of it."""
        return sum(prod(shape) for name, shape in self.shapes.items() if name != ROPE_FACTORS)

    def of_architecture(self, key: str) -> Any:
        """A value that the file holds under its architecture's name, None if it holds none."""
        return self.metadata.get(f"{self.architecture}.{key}")


def read(path: Path) -> GgufFile:
    """The header. Raises ModelError for no file, another file, and one that was cut short."""
    if not path.is_file():
        raise ModelError(f"{path}: no such file; a GGUF file has to be downloaded before")
    with path.open("rb") as file:
        if file.read(4) != b"GGUF":
            raise ModelError(f"{path}: not a GGUF file: it does not begin with the letters GGUF")
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            try:
                return _header(path, data)
            except (struct.error, KeyError, UnicodeDecodeError):
                raise ModelError(
                    f"{path}: broken or cut short; download it again, and compare its size"
                ) from None


def _header(path: Path, data: mmap.mmap) -> GgufFile:
    version, tensors, entries = struct.unpack_from("<IQQ", data, 4)
    if version not in (2, 3):
        raise ModelError(f"{path}: GGUF version {version}; only 2 and 3 can be read")
    metadata, place = {}, 24
    for _ in range(entries):
        key, place = _text(data, place)
        (kind,) = struct.unpack_from("<I", data, place)
        metadata[key], place = _value(data, kind, place + 4)
    shapes, last = {}, 0
    for _ in range(tensors):
        name, place = _text(data, place)
        (count,) = struct.unpack_from("<I", data, place)
        sizes = struct.unpack_from(f"<{count}Q", data, place + 4)
        _, offset = struct.unpack_from("<IQ", data, place + 4 + 8 * count)
        place += 16 + 8 * count
        shapes[name], last = sizes[::-1], max(last, offset)
    if place + last >= len(data):
        raise struct.error("the last tensor begins behind the end")
    return GgufFile(path, metadata, shapes)


def _value(data: mmap.mmap, kind: int, place: int) -> tuple[Any, int]:
    """A value and where the next one begins; of an array only the number of its elements."""
    if kind == _STRING:
        return _text(data, place)
    if kind != _ARRAY:
        code = f"<{_FIXED[kind]}"
        return struct.unpack_from(code, data, place)[0], place + struct.calcsize(code)
    inner, count = struct.unpack_from("<IQ", data, place)
    place += 12
    if inner in _FIXED:
        return count, place + count * struct.calcsize(f"<{_FIXED[inner]}")
    for _ in range(count):
        _, place = _value(data, inner, place)
    return count, place


def _text(data: mmap.mmap, place: int) -> tuple[str, int]:
    (length,) = struct.unpack_from("<Q", data, place)
    end = place + 8 + length
    if end > len(data):
        raise struct.error("a text that goes on behind the end")
    return data[place + 8 : end].decode(), end


def ready(path: Path) -> GgufFile:
    """The header of a file that can be unpacked. Raises ModelError with all that is against it."""
    file = read(path)
    if reasons := list(_against(file)):
        raise ModelError(f"{path}: {'; '.join(reasons)}")
    return file


def _against(file: GgufFile) -> Iterator[str]:
    if missing := [name for name in EXTRA if not installed(name)]:
        yield f"needs {' and '.join(missing)}: pip install 'constitutional-ai[gguf]'"
    if (parts := file.metadata.get("split.count", 1)) > 1:
        yield (
            f"one of {parts} parts of a model; join them:"
            f" llama-gguf-split --merge {file.path} WHOLE.gguf"
        )
    if file.architecture not in ARCHITECTURES:
        yield (
            f"its architecture is {file.architecture!r}, and only {', '.join(ARCHITECTURES)} can"
            " be unpacked; name the folder or hub id that it was made from"
        )
    scaling = file.of_architecture("rope.scaling.type")
    if scaling not in (None, "none"):
        yield (
            f"its rotary positions are scaled ({scaling}), which is not read from a GGUF file;"
            " name the folder or hub id that it was made from"
        )


def notes(file: GgufFile) -> list[str]:
    """What can be unpacked but may come out otherwise than it was."""
    split = file.metadata.get("tokenizer.ggml.pre", "default")
    if file.metadata.get("tokenizer.ggml.model") != "gpt2" or split in SPLITS:
        return []
    return [
        f"{file.path}: texts are split before they are spelt as GPT-2's are, not as its own"
        f" {split!r} says; numbers and code may get other tokens than in its training"
    ]


def cache() -> Path:
    """Where unpacked folders lie; they may be deleted at any time."""
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return home / "constitutional-ai" / "gguf"


def content_hash(path: Path) -> str:
    """A hash of the size, the first 16 MiB and 64 blocks of 64 KiB of the rest; "" without a file.

    It is the same wherever the file lies, whatever its name.
    """
    if not path.is_file():
        return ""
    size = path.stat().st_size
    digest = hashlib.sha256(str(size).encode())
    with path.open("rb") as file:
        digest.update(file.read(_HASHED_HEAD))
        for number in range(1, _HASHED_PLACES + 1):
            place = size * number // _HASHED_PLACES - _HASHED_BLOCK
            if place >= _HASHED_HEAD:
                file.seek(place)
                digest.update(file.read(_HASHED_BLOCK))
    return digest.hexdigest()[:16]
