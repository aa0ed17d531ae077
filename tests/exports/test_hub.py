"""The folder for the hub: cards that its library reads, figures that are the run's."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from constitutional_ai.cli.main import app
from constitutional_ai.exports import hub
from constitutional_ai.exports.finished import Finished
from constitutional_ai.store.whole import ExportError


@pytest.fixture
def exported(make_run: Callable[..., Path], tmp_path: Path) -> Path:
    hub.export(Finished(make_run()), tmp_path / "out")
    return tmp_path / "out"


def card(folder: Path) -> Any:
    from huggingface_hub import ModelCard

    return ModelCard.load(folder / "README.md")


def test_every_model_loads_and_has_its_card(exported: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

    for name in ("rl-cai", "sl-cai"):
        AutoModelForCausalLM.from_pretrained(exported / "models" / name)
        found = card(exported / "models" / name)
        assert found.data.pipeline_tag == "text-generation"
        assert found.data.library_name == "transformers"
    reward = AutoModelForSequenceClassification.from_pretrained(exported / "models" / "reward")
    assert reward.config.num_labels == 1
    assert "0.750 of 8 held-out pairs" in card(exported / "models" / "reward").text


def test_scores_stand_with_interval_and_n(exported: Path) -> None:
    found = card(exported / "models" / "rl-cai")
    row = "| harmful | harm | 2.50 (2.00–3.00), n = 40 | 0.25 (-0.25–0.75), n = 40 |"
    assert row in found.text
    (result,) = found.data.eval_results
    assert (result.metric_type, result.metric_value) == ("harm", 0.25)
    assert "n = 40" in result.metric_name
    assert "unlabelled" not in found.content.split("---")[1]


def test_the_licence_is_open_in_plain_sight_until_it_is_chosen(
    exported: Path, make_run: Callable[..., Path], tmp_path: Path
) -> None:
    found = card(exported / "models" / "rl-cai")
    assert (found.data.license, found.data.license_name) == ("other", "not-chosen-yet")
    assert "Not chosen yet" in found.text
    hub.export(Finished(make_run(name="second")), tmp_path / "chosen", licence="mit")
    assert card(tmp_path / "chosen" / "models" / "rl-cai").data.license == "mit"


def test_the_base_model_is_named_only_as_the_hub_knows_it(
    exported: Path, make_run: Callable[..., Path], tmp_path: Path
) -> None:
    assert card(exported / "models" / "rl-cai").data.base_model is None
    run = Finished(make_run(name="second"))
    hub.export(run, tmp_path / "named", base_model="Qwen/Qwen2.5-0.5B-Instruct")
    assert card(tmp_path / "named" / "models" / "sl-cai").data.base_model == (
        "Qwen/Qwen2.5-0.5B-Instruct"
    )
    with pytest.raises(ExportError, match="expected a hub id"):
        hub.export(run, tmp_path / "other", base_model="/home/me/models/base")


def test_no_path_of_this_machine_and_no_password_goes_along(exported: Path) -> None:
    for file in exported.rglob("*"):
        if file.is_file() and file.suffix in (".md", ".json", ".jsonl"):
            text = file.read_text(encoding="utf-8")
            for private in ("secret", "/home/me", str(exported.parent)):
                assert private not in text, file


def test_data_sets_load_by_their_cards(
    exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    datasets = pytest.importorskip("datasets")
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    folder = exported / "datasets"
    found = datasets.load_dataset(str(folder / "preferences"), cache_dir=str(tmp_path / "cache"))
    assert {name: len(rows) for name, rows in found.items()} == {"train": 8, "test": 1}
    found = datasets.load_dataset(str(folder / "revisions"), cache_dir=str(tmp_path / "cache"))
    assert found["train"][0]["messages"][-1]["content"] == "Sorry, no."
    text = (folder / "preferences" / "README.md").read_text()
    assert "1 pairs left out: unlabelled (no option token in the reply)" in text


def test_the_constitution_is_told_by_name_and_hash_and_shown_if_it_is_the_one(
    exported: Path, make_run: Callable[..., Path], tmp_path: Path
) -> None:
    assert "**house-rules**, hash `c0ffee`" in card(exported / "models" / "rl-cai").text
    run = Finished(make_run(name="second"))
    with pytest.raises(ExportError, match="is not the run's constitution"):
        hub.export(run, tmp_path / "other", constitution="lab")

    from constitutional_ai.principles import load_constitution

    lab = load_constitution("lab")
    run.fingerprint["constitution"] = f"{lab.name} {lab.hash}"
    hub.export(run, tmp_path / "known")
    text = card(tmp_path / "known" / "models" / "rl-cai").text
    assert f"version {lab.version}" in text
    assert all(f"**{principle.name}**" in text for principle in lab.principles)


def test_upload_commands_name_folders_that_are_there(exported: Path) -> None:
    text = (exported / "UPLOAD.md").read_text()
    folders = re.findall(r"hf upload \S+ (\S+)", text)
    assert len(folders) == 5
    assert all((exported / folder / "README.md").exists() for folder in folders)


def test_a_run_without_rl_gives_what_it_has(make_run: Callable[..., Path], tmp_path: Path) -> None:
    hub.export(Finished(make_run("label")), tmp_path / "out")
    assert [path.name for path in (tmp_path / "out" / "models").iterdir()] == ["sl-cai"]
    assert "was not evaluated" in card(tmp_path / "out" / "models" / "sl-cai").text


@pytest.mark.parametrize("target", ["trl", "hub-folder"])
def test_the_command_says_what_it_wrote(
    make_run: Callable[..., Path], tmp_path: Path, target: str
) -> None:
    run = make_run()
    result = CliRunner().invoke(app, ["export", target, str(run), "--out", str(tmp_path / "out")])
    assert result.exit_code == 0, result.output
    assert "begin with" in result.stdout
    again = CliRunner().invoke(app, ["export", target, str(run), "--out", str(tmp_path / "out")])
    assert again.exit_code == 2
    assert "exists; name one that does not" in again.stderr


def test_a_full_disk_leaves_no_half_folder(make_run: Callable[..., Path], tmp_path: Path) -> None:
    import resource
    import signal

    run = make_run()
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, limit[1]))  # less than the weights
    try:
        with pytest.raises(ExportError, match="out: cannot be written") as caught:
            hub.export(Finished(run), tmp_path / "out")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
        signal.signal(signal.SIGXFSZ, handler)
    assert "\n" not in str(caught.value)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["prompts.jsonl", "run"]
