"""What is known of a GGUF file before it is unpacked, and what is refused."""

import struct
from pathlib import Path
from typing import Any

import pytest

from constitutional_ai.engines import gguf_file
from constitutional_ai.engines.gguf_file import content_hash, notes, read, ready
from constitutional_ai.engines.spec import ModelSpec
from constitutional_ai.errors import ModelError

U32, F32, STRING, ARRAY = 4, 6, 8, 9


def text(content: str) -> bytes:
    return struct.pack("<Q", len(content.encode())) + content.encode()


def value(content: Any) -> bytes:
    """A value with its type before it, as the format has it."""
    if isinstance(content, str):
        return struct.pack("<I", STRING) + text(content)
    if isinstance(content, list):
        kind = STRING if isinstance(content[0], str) else F32
        items = [text(i) if kind == STRING else struct.pack("<f", i) for i in content]
        return struct.pack("<IIQ", ARRAY, kind, len(content)) + b"".join(items)
    return struct.pack("<II", U32, content)


def header(metadata: dict[str, Any], shapes: dict[str, tuple[int, ...]]) -> bytes:
    made = b"GGUF" + struct.pack("<IQQ", 3, len(shapes), len(metadata))
    made += b"".join(text(key) + value(content) for key, content in metadata.items())
    offset = 0
    for name, shape in shapes.items():
        sizes = struct.pack(f"<{len(shape)}Q", *reversed(shape))
        made += text(name) + struct.pack("<I", len(shape)) + sizes + struct.pack("<IQ", 0, offset)
        offset += 512
    return made


LLAMA = {
    "general.architecture": "llama",
    "tokenizer.ggml.tokens": ["a", "bé"],
    "tokenizer.ggml.scores": [0.5, 1.5],
    "llama.block_count": 2,
}
SHAPES = {"token_embd.weight": (2, 8), "rope_freqs.weight": (4,)}


@pytest.fixture
def make(tmp_path: Path) -> Any:
    def written(more: dict[str, Any] | None = None, data: bytes = bytes(2048)) -> Path:
        path = tmp_path / "model.gguf"
        path.write_bytes(header({**LLAMA, **(more or {})}, SHAPES) + data)
        return path

    return written


def test_the_header_is_read(make: Any) -> None:
    file = ready(make())
    assert file.architecture == "llama" and file.of_architecture("block_count") == 2
    assert file.metadata["tokenizer.ggml.tokens"] == 2  # the number, not the texts
    assert file.shapes == SHAPES
    assert file.weights == 16  # the rotary frequencies are none


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"general.architecture": "mamba"}, "its architecture is 'mamba', and only llama, qwen2"),
        ({"split.count": 3}, r"one of 3 parts .* llama-gguf-split --merge .*model\.gguf WHOLE"),
        ({"llama.rope.scaling.type": "yarn"}, r"scaled \(yarn\), which is not read"),
    ],
)
def test_what_is_refused(make: Any, more: dict[str, Any], message: str) -> None:
    with pytest.raises(ModelError, match=message):
        ready(make(more))


def test_a_missing_extra_is_named_with_what_installs_it(
    make: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gguf_file, "installed", lambda name: "" if name == "accelerate" else "1")
    with pytest.raises(
        ModelError, match=r"needs accelerate: pip install 'constitutional-ai\[gguf\]'"
    ):
        ready(make())


def test_no_file_another_file_and_half_a_file(make: Any, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no such file"):
        read(tmp_path / "none.gguf")
    whole = make(data=b"").read_bytes()
    with pytest.raises(ModelError, match="broken or cut short"):  # the tensors are missing
        read(tmp_path / "model.gguf")
    for length in range(4, len(whole), 7):
        (tmp_path / "half.gguf").write_bytes(whole[:length])
        with pytest.raises(ModelError, match="broken or cut short"):
            read(tmp_path / "half.gguf")
    for content in (b"", b"\x80\x02pickle", b"<html>not found"):
        (tmp_path / "other.gguf").write_bytes(content)
        with pytest.raises(ModelError, match="not a GGUF file"):
            read(tmp_path / "other.gguf")
    (tmp_path / "old.gguf").write_bytes(b"GGUF" + struct.pack("<IQQ", 1, 0, 0) + bytes(99))
    with pytest.raises(ModelError, match="version 1; only 2 and 3"):
        read(tmp_path / "old.gguf")


def test_a_text_split_that_may_be_wrong_is_told(make: Any) -> None:
    gpt2 = {"tokenizer.ggml.model": "gpt2"}
    (note,) = notes(read(make({**gpt2, "tokenizer.ggml.pre": "deepseek-coder"})))
    assert "'deepseek-coder'" in note
    for fine in ({**gpt2, "tokenizer.ggml.pre": "qwen2"}, {"tokenizer.ggml.model": "llama"}):
        assert notes(read(make(fine))) == []


def test_a_file_is_known_by_its_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gguf_file, "_HASHED_HEAD", 1000)
    monkeypatch.setattr(gguf_file, "_HASHED_BLOCK", 10)
    path = tmp_path / "model.gguf"
    content = bytearray(100_000)
    path.write_bytes(content)
    spec = ModelSpec.parse(path)
    before = spec.identity()
    assert len(before) == 16 and path.rename(tmp_path / "b.gguf")
    assert content_hash(tmp_path / "b.gguf") == before
    assert spec.identity() == spec.text  # there is no such file now
    for place in (999, 50_000 - 1, 100_000 - 1):  # in the settings, in the middle, at the end
        changed = content.copy()
        changed[place] = 1
        path.write_bytes(changed)
        assert spec.identity() != before
    path.write_bytes(content + b"\0")
    assert spec.identity() != before
