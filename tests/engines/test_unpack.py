"""GGUF files come out as the model that they were made from: logits, text, tokens."""

import threading
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    LlamaConfig,
    LlamaForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from constitutional_ai.engines import gguf_file, unpack
from constitutional_ai.engines.base import Sampling
from constitutional_ai.engines.local import LocalEngine
from constitutional_ai.engines.spec import ModelSpec
from constitutional_ai.engines.unpack import unpacked
from constitutional_ai.errors import ModelError
from constitutional_ai.records import user

pytest.importorskip("gguf", reason="pip install 'constitutional-ai[gguf]'")
pytest.importorskip("accelerate", reason="pip install 'constitutional-ai[gguf]'")

from tests.engines import gguf_writer

SHAPE: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "initializer_range": 0.5,
    "bos_token_id": None,
}
ASKED = [user("Tell me a joke.  12345 é <|im_end|> \n\n<think>"), user("How do I pick a lock?")]


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def tiny(kind: str, tokenizer: Any, **changes: Any) -> Any:
    """A random model whose weights bfloat16 can hold, so that unpacking loses nothing."""
    configs = {"llama": LlamaConfig, "qwen2": Qwen2Config, "qwen3": Qwen3Config}
    models = {"llama": LlamaForCausalLM, "qwen2": Qwen2ForCausalLM, "qwen3": Qwen3ForCausalLM}
    ids = {
        "vocab_size": len(tokenizer),
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    torch.manual_seed(0)
    model: Any = models[kind](configs[kind](**{**SHAPE, **ids, **changes}))
    with torch.no_grad():
        for weight in model.parameters():
            if weight.dim() == 1:  # norms and biases start alike, and would hide a mistake
                weight.add_(torch.randn_like(weight) / 4)
            weight.copy_(weight.bfloat16().float())
    return model.eval()


def logits(model: Any, ids: list[int]) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = model(torch.tensor([ids])).logits
    return found


@pytest.mark.parametrize("kind", ["F32", "F16", "Q8_0"])
@pytest.mark.parametrize(
    ("architecture", "changes"),
    [
        ("llama", {}),
        ("llama", {"tie_word_embeddings": True}),
        ("qwen2", {}),
        ("qwen3", {"head_dim": 16}),
    ],
)
def test_logits_are_those_of_the_model(
    architecture: str, changes: dict[str, Any], kind: str, make_chat_tokenizer: Any, tmp_path: Path
) -> None:
    tokenizer = make_chat_tokenizer()
    source = tiny(architecture, tokenizer, **changes)
    gguf_writer.write(tmp_path / "m.gguf", source, tokenizer, kind)
    if kind != "F32":
        through = {"F16": lambda w: w.half().float(), "Q8_0": gguf_writer.unquantised}[kind]
        with torch.no_grad():
            for weight in source.parameters():
                if weight.dim() > 1:
                    weight.copy_(through(weight).bfloat16().float())
    folder = unpacked(tmp_path / "m.gguf")
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    ids = list(range(3, 40))
    assert torch.equal(logits(model, ids), logits(source, ids))
    assert AutoModelForCausalLM.from_pretrained(folder).dtype == torch.bfloat16
    assert type(model) is type(source)


def test_a_folder_says_what_its_source_says(
    tiny_llama: Path, make_chat_tokenizer: Any, tmp_path: Path
) -> None:
    source = AutoModelForCausalLM.from_pretrained(tiny_llama)
    gguf_writer.write(tmp_path / "m.gguf", source.bfloat16().float(), make_chat_tokenizer())
    source.save_pretrained(tmp_path / "source")
    make_chat_tokenizer().save_pretrained(tmp_path / "source")
    sampling = Sampling(temperature=0, max_new_tokens=20)
    wanted, found = (
        LocalEngine.load(path, dtype="float32")
        for path in (tmp_path / "source", tmp_path / "m.gguf")
    )
    for asked in ASKED:
        assert found.tokens.prompt([asked]) == wanted.tokens.prompt([asked])
    assert found.tokens.end_id == wanted.tokens.end_id
    asked = [[turn] for turn in ASKED]
    replies = found.generate(asked, sampling)
    assert replies == wanted.generate(asked, sampling)
    assert len({reply.text for reply in replies}) == 2  # or a constant would do


def test_the_rotary_positions_of_llama_3_1_are_kept(
    make_chat_tokenizer: Any, tmp_path: Path
) -> None:
    tokenizer = make_chat_tokenizer()
    rope = {**unpack.LLAMA3, "factor": 32.0, "rope_theta": 500_000.0}
    long = {"max_position_embeddings": 1 << 17, "rope_parameters": rope, "hidden_size": 128}
    source = tiny("llama", tokenizer, **long)
    inverse = source.model.rotary_emb.inv_freq
    plain = 500_000.0 ** -(torch.arange(0, 32, 2) / 32)
    factors = (plain / inverse).numpy()
    assert factors.max() == pytest.approx(32) and factors.min() == pytest.approx(1)
    gguf_writer.write(
        tmp_path / "m.gguf", source, tokenizer, tensors={gguf_file.ROPE_FACTORS: factors}
    )
    model = AutoModelForCausalLM.from_pretrained(unpacked(tmp_path / "m.gguf"), dtype=torch.float32)
    torch.testing.assert_close(model.model.rotary_emb.inv_freq, inverse, rtol=1e-5, atol=0)
    ids = list(range(3, 200))
    torch.testing.assert_close(logits(model, ids), logits(source, ids), rtol=1e-3, atol=1e-3)

    factors[3] *= 1.5
    gguf_writer.write(
        tmp_path / "o.gguf", source, tokenizer, tensors={gguf_file.ROPE_FACTORS: factors}
    )
    with pytest.raises(ModelError, match="scaled otherwise than those of Llama"):
        unpacked(tmp_path / "o.gguf")


@pytest.fixture
def small(make_chat_tokenizer: Any, tmp_path: Path) -> Path:
    """A tiny Llama as a file."""
    tokenizer = make_chat_tokenizer()
    gguf_writer.write(tmp_path / "small.gguf", tiny("llama", tokenizer), tokenizer)
    return tmp_path / "small.gguf"


def test_a_weight_that_the_model_has_no_place_for_is_no_small_matter(
    make_chat_tokenizer: Any, tmp_path: Path
) -> None:
    tokenizer = make_chat_tokenizer()
    bias = {"blk.0.attn_q.bias": torch.ones(32).numpy()}  # transformers leaves it out in silence
    source = tiny("llama", tokenizer)
    gguf_writer.write(tmp_path / "m.gguf", source, tokenizer, tensors=bias)
    with pytest.raises(ModelError, match=r"holds ([\d,]+) weights, and transformers makes a model"):
        unpacked(tmp_path / "m.gguf")
    assert [path.suffix for path in gguf_file.cache().iterdir()] == [".lock"]  # nothing half made


def test_a_file_is_unpacked_once_wherever_it_lies(
    small: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (small.parent / "tokenizer_config.json").write_text("nonsense")  # of another model beside it
    folder = unpacked(small)
    said = capsys.readouterr().err
    assert f"unpacking {0.0435:,.0f} million weights once" in said and str(folder) in said
    made = (folder / "model.safetensors").stat().st_mtime_ns
    moved = small.rename(small.with_name("other.GGUF"))
    assert unpacked(moved) == folder and capsys.readouterr().err == ""
    assert (folder / "model.safetensors").stat().st_mtime_ns == made
    assert not AutoTokenizer.from_pretrained(folder).name_or_path.endswith(".gguf")


def test_two_processes_do_not_unpack_the_same_file(
    small: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[Path] = []
    both = threading.Barrier(2)

    def write(file: Any, draft: Path) -> None:
        written.append(draft)
        both.wait(timeout=0.3) if len(written) > 1 else None
        (draft / "config.json").write_text("{}")

    monkeypatch.setattr(unpack, "_write", write)
    threads = [threading.Thread(target=unpacked, args=(small,)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(written) == 1


def test_a_full_disk_is_told_before(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = type("Usage", (), {"free": 1e6})
    monkeypatch.setattr(unpack.shutil, "disk_usage", lambda _: usage)
    with pytest.raises(ModelError, match=r"has 0\.0 GB left; make room, or .* XDG_CACHE_HOME"):
        unpacked(small)


def test_what_cannot_be_read_by_transformers_is_one_line(
    small: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise ValueError("tensor type 99\nand a long explanation")

    monkeypatch.setattr(unpack.AutoConfig, "from_pretrained", refuse)
    with pytest.raises(ModelError, match=r"small\.gguf: cannot be unpacked: tensor type 99$"):
        LocalEngine.load(small)
    assert ModelSpec.parse(small).kind == "gguf"
