"""What a model's string means, which strings are refused, and what fingerprints hold of a model."""

from pathlib import Path

import pytest

from constitutional_ai.engines.spec import ModelSpec, named_specs
from constitutional_ai.errors import ModelError, SettingsError, UserError

SERVER = "http://127.0.0.1:8000/v1#some/model"


@pytest.mark.parametrize(
    ("text", "kind", "name", "detail"),
    [
        ("lab:s", "lab", "lab:s", ""),
        (SERVER, "server", "http://127.0.0.1:8000/v1", "some/model"),
        ("https://host/v1/", "server", "https://host/v1", ""),
        ("vllm:org/model@v2", "vllm", "org/model@v2", ""),
        ("vllm:lab:s", "vllm", "lab:s", ""),
        ("org/model@v2", "hub", "org/model", "v2"),
        ("gpt2", "hub", "gpt2", ""),
        ("/not/here", "folder", "/not/here", ""),
        ("./here", "folder", "here", ""),
        ("out/6-ppo/model", "folder", "out/6-ppo/model", ""),
        ("some/small-Q4_K_M.gguf", "gguf", "some/small-Q4_K_M.gguf", ""),
        ("small.GGUF", "gguf", "small.GGUF", ""),
        ("vllm:small.gguf", "vllm", "small.gguf", ""),
        ("org/model-GGUF", "hub", "org/model-GGUF", ""),
    ],
)
def test_what_a_string_means(text: str, kind: str, name: str, detail: str) -> None:
    spec = ModelSpec.parse(text)
    assert (spec.text, spec.kind, spec.name, spec.detail) == (text, kind, name, detail)


def test_a_folder_that_is_here_is_no_hub_id(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    Path("org/model@v2").mkdir(parents=True)
    assert ModelSpec.parse("org/model@v2").kind == "folder"
    assert ModelSpec.parse(Path("nothing")).kind == "folder"
    assert ModelSpec.parse("~/org/model").name == str(tmp_path / "org/model")
    with pytest.raises(ModelError, match="a folder has no revisions; name it without '@v2'"):
        ModelSpec.parse("org@v2")
    with pytest.raises(ModelError, match="a file has no revisions; name it without '@v2'"):
        ModelSpec.parse("org/small.gguf@v2")
    Path("folder.gguf").mkdir()
    assert ModelSpec.parse("folder.gguf").kind == "folder"


@pytest.mark.parametrize(
    "text",
    [
        "http://name:sk-SECRET@host/v1#m",
        "HTTPS://sk-SECRET@host/v1#m",
        "https://host/v1?key=sk-SECRET#m",
    ],
)
def test_an_address_that_may_hold_a_key_is_refused_and_not_repeated(text: str) -> None:
    for parse in (ModelSpec.parse, lambda spec: named_specs([f"mine={spec}"])):
        with pytest.raises(SettingsError, match="put a key into an environment variable") as error:
            parse(text)
        assert "SECRET" not in str(error.value)


@pytest.mark.parametrize("text", ["", " ", "http://", "http://[::1", f"vllm:{SERVER}", "vllm:"])
def test_what_names_no_model_is_refused(text: str) -> None:
    with pytest.raises(SettingsError):
        ModelSpec.parse(text)


def test_only_a_hub_id_without_a_revision_may_change() -> None:
    pinned = {text: ModelSpec.parse(text).is_pinned for text in ("org/m", "org/m@v2", "lab:s")}
    assert pinned == {"org/m": False, "org/m@v2": True, "lab:s": True}


def test_a_folder_is_known_by_its_content_and_others_by_their_text(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors").write_bytes(b"\0" * 100)
    spec = ModelSpec.parse(tmp_path)
    before = spec.identity()
    assert spec.identity() == before
    (tmp_path / "model.safetensors").write_bytes(b"\1" * 100)
    assert spec.identity() != before
    for text in (SERVER, "org/name", "/not/here"):
        assert ModelSpec.parse(text).identity() == text
    in_vllm, here = (ModelSpec.parse(text).identity() for text in ("vllm:lab:xs", "lab:xs"))
    assert in_vllm == here != "lab:xs"


def test_what_transformers_is_to_load(tmp_path: Path) -> None:
    assert ModelSpec.parse("org/model@v2").checkpoint() == ("org/model", "v2")
    assert ModelSpec.parse("org/model").checkpoint() == ("org/model", None)
    folder, _ = ModelSpec.parse("lab:s").checkpoint()
    assert (Path(folder) / "config.json").is_file()
    for text, message in (
        (str(tmp_path), r"no config\.json"),
        (str(tmp_path / "nothing"), "no such model folder"),
        (SERVER, "its weights are not here"),
        (str(tmp_path / "none.gguf"), "no such file"),
        ("lab:zzz", "unknown lab model"),
    ):
        with pytest.raises(ModelError, match=message):
            ModelSpec.parse(text).checkpoint()


def test_names_of_models() -> None:
    texts = ["lab:s", "mine=http://localhost:8000/v1#m=1", "org/model@main", "out/a=b", "rl=x/y"]
    assert named_specs(texts) == {
        "lab:s": "lab:s",
        "mine": "http://localhost:8000/v1#m=1",
        "org/model@main": "org/model@main",
        "out/a=b": "out/a=b",
        "rl": "x/y",
    }


@pytest.mark.parametrize(
    ("texts", "message"),
    [(["a=x", "a=y"], "'a' is named twice"), (["=x"], "expected SPEC"), (["a="], "expected SPEC")],
)
def test_bad_names_of_models(texts: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        named_specs(texts)
