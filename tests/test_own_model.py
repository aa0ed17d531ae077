"""A user's own model: pinned revisions, previews without it, and the whole job on a base model."""

import json
import re
import shutil
import tomllib
from pathlib import Path
from typing import Any

import httpx2
import huggingface_hub
import pytest
import torch
from typer.testing import CliRunner

from constitutional_ai.cli.main import app
from constitutional_ai.data.sources import read
from constitutional_ai.engines import local
from constitutional_ai.engines.local import LocalEngine
from constitutional_ai.errors import DataError, ModelError, SettingsError
from constitutional_ai.principles import Constitution, load_constitution
from constitutional_ai.progress import Progress
from constitutional_ai.records import Preference, RevisedAnswer, assistant, user
from constitutional_ai.settings import Settings, load_settings
from constitutional_ai.stages import costs, preview
from constitutional_ai.stages.pipeline import run_pipeline
from constitutional_ai.store.run_folder import RunFolder

# ------------------------------------------------------------------------------ names and revisions


def test_a_revision_is_joined_to_the_hub_id() -> None:
    settings = load_settings("lab", ["model.path=org/model", "model.revision=v1.2"])
    assert settings.model.path == "org/model@v1.2" and settings.model.revision == ""
    assert Settings.model_validate(settings.model_dump()) == settings
    with pytest.raises(SettingsError, match="after its @ already"):
        load_settings("lab", ["model.path=org/model@v1", "model.revision=v2"])
    with pytest.raises(ValueError, match="a revision is one of a hub id"):
        Settings.model_validate({"model": {"revision": "v2"}})


def test_the_hub_is_asked_for_that_revision(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, dict[str, Any]]] = []

    def refuse(name: str, **options: Any) -> None:
        asked.append((name, options))
        raise OSError("no network here")

    monkeypatch.setattr(local.AutoConfig, "from_pretrained", refuse)
    monkeypatch.setattr(local, "hub_problem", lambda: "")
    with pytest.raises(ModelError, match="no network here"):
        LocalEngine.load("org/model@abc123")
    with pytest.raises(ModelError, match="org/model is not on this machine yet; a run downloads"):
        LocalEngine.load("org/model", offline=True)
    (name, pinned), (_, of_the_day) = asked
    assert name == "org/model" and pinned["revision"] == "abc123"
    assert not pinned["trust_remote_code"] and not pinned["local_files_only"]
    assert of_the_day["revision"] is None and of_the_day["local_files_only"]


def test_an_unknown_hub_id_without_a_network_is_one_line_after_one_question(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[str] = []

    class Session:
        def head(self, address: str, timeout: float) -> None:
            asked.append(address)
            raise httpx2.ConnectError("Name or service not known")

    monkeypatch.setattr(huggingface_hub, "get_session", Session)
    with pytest.raises(ModelError, match=r"^org/none is not on this machine, and .* known\)"):
        LocalEngine.load("org/none")
    assert len(asked) == 1  # the library itself would try again, for half a minute


def test_a_folder_has_no_revision(tiny_llama: Path) -> None:
    with pytest.raises(ModelError, match="a folder has no revisions"):
        LocalEngine.load(f"{tiny_llama}@main")


def test_a_pad_token_without_an_embedding_is_told(tiny_gpt2: Path, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    folder = tmp_path / "padded"
    shutil.copytree(tiny_gpt2, folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_special_tokens({"pad_token": "[PAD]"})
    tokenizer.save_pretrained(folder)
    with pytest.raises(ModelError, match=r"pad_token is id \d+, and the model embeds \d+ ids"):
        LocalEngine.load(folder)


# ------------------------------------------------------------------------------------- the preview


@pytest.mark.parametrize("name", ["qwen-0.5b", "llama-8b-lora"])
def test_a_shipped_run_file_can_be_previewed_without_its_model(name: str) -> None:
    settings = load_settings(name)
    engine, reason = preview.engine_or_reason(settings)
    assert engine is None
    text = preview.dry_run(settings, engine, reason)
    size = {"qwen-0.5b": "0.5 billion", "llama-8b-lora": "8 billion"}[name]
    assert f"Speed assumed, for {size} weights on one large GPU" in text and reason in text
    assert ("Counted as if as fast as the model itself: critic http://" in text) == ("8b" in name)
    for part in ("# critique", "# revision", "# comparison", "\nppo "):
        assert part in text


def test_a_gguf_file_says_its_size_and_is_tried(
    tiny_llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("gguf", reason="pip install 'constitutional-ai[gguf]'")
    from tests.engines import gguf_writer

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    model, tokenizer = local.load(tiny_llama)
    gguf_writer.write(tmp_path / "a-70b.gguf", model, tokenizer)
    settings = load_settings("lab", [f"model.path={tmp_path / 'a-70b.gguf'}"])
    assert costs.weights_of(settings.model.path) == sum(w.numel() for w in model.parameters())
    engine, reason = preview.engine_or_reason(settings)
    assert engine is not None and reason == ""
    missing = load_settings("lab", [f"model.path={tmp_path / 'none.gguf'}"])
    with pytest.raises(ModelError, match="no such file"):
        preview.engine_or_reason(missing)


def test_a_preview_names_the_models_whose_speed_it_does_not_know() -> None:
    told = preview.others(load_settings("lab", ["finetune.helper=big", "label.jury=['base', 'b']"]))
    assert told.endswith(": helper big, judge b")
    assert preview.others(load_settings("lab")) == ""


def test_a_larger_model_is_assumed_to_be_slower_and_to_answer_as_long_as_it_may() -> None:
    small, large = (costs.assumed(load_settings(n)) for n in ("qwen-0.5b", "llama-8b-lora"))
    assert small.read == 16 * large.read and small.generated > large.generated
    assert small.answer == 160 and large.answer == 240
    assert costs.assumed(load_settings("lab")) == costs.ASSUMED


@pytest.mark.parametrize(
    ("name", "weights"),
    [
        ("Qwen/Qwen2.5-0.5B-Instruct@7ae5b", 5e8),
        ("meta-llama/Llama-3.1-8B", 8e9),
        ("EleutherAI/pythia-160m", 1.6e8),
        ("gpt2", None),
        ("lab:s", None),
        ("org/model-v2b3", None),
    ],
)
def test_sizes_by_name(name: str, weights: float | None) -> None:
    assert costs.weights_by_name(name) == weights


def test_a_preview_shows_the_worked_examples() -> None:
    settings = load_settings("qwen-0.5b", ["revise.exemplars=1", "label.exemplars=2"])
    made = preview.rendered(settings, load_constitution("harmless"))
    assert [len(made[name]) for name in ("critique", "revision", "comparison")] == [4, 8, 5]


def test_a_preview_shows_the_judge_as_much_of_a_dialogue_as_it_will_see(tmp_path: Path) -> None:
    turns = [user("An early turn."), assistant("Yes."), user("The request.")]
    (tmp_path / "talk.jsonl").write_text(json.dumps({"prompt": turns}))
    for last_turn in (False, True):
        settings = load_settings(
            "qwen-0.5b",
            [f"prompts.red_team={tmp_path / 'talk.jsonl'}", f"label.last_turn={last_turn}".lower()],
        )
        (asked,) = preview.rendered(settings, load_constitution("harmless"))["comparison"]
        assert "The request." in asked["content"]
        assert ("An early turn." in asked["content"]) != last_turn


def test_starter_prompts() -> None:
    names = ("red-team", "helpful", "test", "helpful-test")
    sizes = {name: len(read(f"starter:{name}").prompts) for name in names}
    assert sizes == {"red-team": 40, "helpful": 40, "test": 36, "helpful-test": 24}
    kinds = {row.kind for row in read("starter:test").prompts}
    assert kinds == {"harmful", "benign", "borderline"}
    for wrong in ("starter:other", "starter:../runs/x"):
        with pytest.raises(DataError, match="there are: starter:helpful, starter:helpful-test"):
            read(wrong)


# ------------------------------------------------------- the whole job, without the laboratory

TOY = {
    "threads": 1,
    "revise": {
        "prompts": 6,
        "rounds": 1,
        "chunk": 4,
        "max_new_tokens": 8,
        "exemplars": 1,
        "form": "dialogue",
        "gate": "off",
        "draw": "any",
    },
    "finetune": {"helpful": 4, "epochs": 1, "batch_tokens": 4096},
    "sample": {"red_team": 6, "helpful": 6, "max_new_tokens": 8, "swapped": 0.5},
    "label": {"judge": "lab:xxs", "fence": False, "exemplars": 1, "principles": 1, "cut": "keep"},
    "reward": {"epochs": 1, "batch_pairs": 4, "held_out": 0.3},
    "ppo": {
        "steps": 2,
        "rollouts": 4,
        "max_new_tokens": 8,
        "prompts": 12,
        "monitor_prompts": 4,
        "monitor_every": 1,
        "checkpoint_every": 1,
        "batch_tokens": 4096,
    },
    "evaluate": {"harmful": 2, "benign": 2, "borderline": 2, "facts": 0, "max_new_tokens": 8},
}


def toy(folder: Path, **model: Any) -> Settings:
    prompts = {
        "red_team": "starter:red-team",
        "helpful": "starter:helpful",
        "test": "starter:test",
    }
    options = {"path": str(folder), "device": "cpu", **model}
    return Settings.model_validate(
        {"constitution": "harmless", "model": options, "prompts": prompts, **TOY}
    )


@pytest.fixture(scope="module")
def wide_gpt2(tmp_path_factory: pytest.TempPathFactory, tiny_gpt2: Path) -> Path:
    """The base model of the other tests with a context that holds the worked examples."""
    from transformers import AutoTokenizer, GPT2Config, GPT2LMHeadModel

    folder = tmp_path_factory.mktemp("wide") / "gpt2"
    torch.manual_seed(0)
    config = GPT2Config.from_pretrained(tiny_gpt2, n_positions=8192, initializer_range=0.02)
    GPT2LMHeadModel(config).save_pretrained(folder)
    AutoTokenizer.from_pretrained(tiny_gpt2).save_pretrained(folder)
    return folder


@pytest.mark.parametrize(
    "rank", [0, pytest.param(2, marks=pytest.mark.slow)], ids=["whole", "lora"]
)
@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def test_the_whole_job_on_a_base_model_and_other_prompts(
    wide_gpt2: Path, tmp_path: Path, device: str, rank: int
) -> None:
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

    settings = toy(wide_gpt2, device=device, lora_rank=rank, gradient_checkpointing=rank > 0)
    run_pipeline(settings, tmp_path / "run", progress=Progress("plain"))
    folder = RunFolder(tmp_path / "run")
    assert len(folder.stage("revise").rows("revisions.jsonl", RevisedAnswer)) == 6
    assert len(folder.stage("label").rows("preferences.jsonl", Preference)) == 12
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "run/6-ppo/model").config.n_layer == 2
    reward = AutoModelForSequenceClassification.from_pretrained(tmp_path / "run/5-reward/model")
    assert reward.config.num_labels == 1
    for stage, base in (
        ("2-finetune", str(wide_gpt2)),
        ("5-reward", "2-finetune/model"),
        ("6-ppo", "2-finetune/model"),
    ):
        config = tmp_path / "run" / stage / "adapter" / "adapter_config.json"
        assert config.exists() == (rank > 0)
        if rank:
            assert json.loads(config.read_text())["base_model_name_or_path"] == base
    models = json.loads((tmp_path / "run/7-evaluate/scores.json").read_text())["models"]
    assert {"base", "sl-cai", "rl-cai"} <= set(models)
    assert (tmp_path / "run/8-report/report.html").stat().st_size > 1000


# ----------------------------------------------------------------------------------- the document

PAGE = Path(__file__).parent.parent / "docs" / "your-own-model.md"
README = Path(__file__).parent.parent / "README.md"


def test_the_readmes_section_works_as_typed(tmp_path: Path) -> None:
    """Its run file, with a model that is here and no server: the checks and the preview pass."""
    section = README.read_text().split("## Your own model")[1].split("\n## ")[0]
    (block,) = re.findall(r"```toml\n(.*?)```", section, re.S)
    typed = re.findall(r"^\$ cai (run mine.toml --[a-z-]+)", section, re.M)
    assert typed == ["run mine.toml --check", "run mine.toml --dry-run", "run mine.toml --out"]
    for name in ("red", "helpful", "test"):
        (tmp_path / f"{name}.jsonl").write_text(json.dumps({"prompt": f"A {name} request?"}))
        block = block.replace(f'"{name}.jsonl"', json.dumps(str(tmp_path / f"{name}.jsonl")))
    (tmp_path / "mine.toml").write_text(block)
    here = ["--set", "model.path=lab:xxs", "--set", "label.judge=base"]
    for line in typed[:2]:
        words = line.replace("mine.toml", str(tmp_path / "mine.toml")).split()
        result = CliRunner().invoke(app, [*words, *here])
        assert result.exit_code == 0, result.output
    assert "revise" in result.output
    missing = CliRunner().invoke(app, ["run", str(tmp_path / "mine.toml"), "--check"])
    assert missing.exit_code == 2 and "mine.toml:3: model.path" in missing.output


def test_the_settings_on_the_page_are_settings() -> None:
    blocks = [
        tomllib.loads(block) for block in re.findall(r"```toml\n(.*?)```", PAGE.read_text(), re.S)
    ]
    exemplars = [block.pop("exemplar") for block in blocks if "exemplar" in block]
    assert len(blocks) == 8 and len(exemplars) == 1
    for block in blocks:
        Settings.model_validate(block)
    shipped = load_constitution("harmless").model_dump()
    mine = Constitution.model_validate({**shipped, "exemplars": exemplars[0]})
    assert len(mine.worked_revisions(1)) == len(mine.worked_comparisons(1)) == 1


def test_the_run_files_on_the_page_are_shipped() -> None:
    for name in re.findall(r"cai run ([\w.-]+) ", PAGE.read_text()):
        if name != "my-run.toml":
            assert load_settings(name).name == name
