"""A stage's folder: manifests, fingerprints, and what has changed since."""

import json
from pathlib import Path

import pytest

from constitutional_ai.errors import DataError, RunFolderError
from constitutional_ai.records import Row
from constitutional_ai.store.rows import append_rows
from constitutional_ai.store.run_folder import RunFolder, StageFolder


def stage(folder: Path, rounds: int = 1) -> StageFolder:
    return RunFolder(folder, rounds).stage("label", rounds)


def fill(folder: StageFolder) -> None:
    append_rows(folder.path / "rows.jsonl", [Row(id="1"), Row(id="2")])


def test_the_manifest_says_what_made_the_stage(tmp_path: Path) -> None:
    folder = stage(tmp_path)
    folder.claim({"seed": 3})
    fill(folder)
    assert not folder.done
    folder.finish({"rows": 2})
    assert folder.done
    manifest = json.loads((folder.path / "manifest.json").read_text())
    assert manifest == folder.manifest
    assert manifest["counts"] == {"rows": 2}
    assert manifest["fingerprint"] == folder.made_under() == {"seed": 3}
    assert set(manifest["versions"]) == {"constitutional-ai", "python", "torch", "transformers"}
    assert list(manifest["files"]) == ["rows.jsonl"]
    assert manifest["seconds"] >= 0
    assert sorted(p.name for p in folder.path.iterdir()) == [
        "manifest.json",
        "rows.jsonl",
        "settings.json",
    ]


def test_a_stage_without_rows_keeps_its_fingerprint_when_it_is_done(tmp_path: Path) -> None:
    folder = stage(tmp_path)
    folder.claim({"seed": 3})
    folder.finish({})
    assert folder.made_under() == {"seed": 3}


@pytest.mark.parametrize("done", [False, True])
def test_another_fingerprint_is_refused_with_the_key_and_the_remedy(
    tmp_path: Path, done: bool
) -> None:
    folder = stage(tmp_path, rounds=2)
    folder.claim({"label.principles": 2, "seed": 0})
    fill(folder)
    if done:
        folder.finish({})
    folder.check({"label.principles": 2, "seed": 0})
    with pytest.raises(RunFolderError, match=r"label.principles = 2, now 3; add `--redo r2/label`"):
        folder.claim({"label.principles": 3, "seed": 0})
    with pytest.raises(RunFolderError, match="seed = 0, now nothing"):
        folder.check({"label.principles": 2})


def test_what_earlier_versions_took_into_a_fingerprint_is_not_compared(tmp_path: Path) -> None:
    folder = stage(tmp_path)
    folder.claim({"seed": 0, "old": 1})
    fill(folder)
    folder.check({"seed": 0}, gone=["old"])
    for now in ({"seed": 0, "old": 2}, {"seed": 1}):
        with pytest.raises(RunFolderError, match="was made with"):
            folder.check(now, gone=["old"])


def test_a_start_without_a_row_binds_nobody(tmp_path: Path) -> None:
    folder = stage(tmp_path)
    folder.claim({"seed": 0})
    folder.claim({"seed": 1})
    fill(folder)
    assert folder.made_under() == {"seed": 1}
    with pytest.raises(RunFolderError, match="seed = 1, now 0"):
        folder.claim({"seed": 0})


def test_a_broken_manifest_is_the_users_to_settle(tmp_path: Path) -> None:
    folder = stage(tmp_path)
    folder.claim({})
    (folder.path / "manifest.json").write_text("{")
    with pytest.raises(RunFolderError, match=r"manifest.json: broken"):
        folder.check({})


def test_rows_and_models_that_have_changed_since_are_refused(tmp_path: Path) -> None:
    folder = stage(tmp_path)
    folder.claim({})
    fill(folder)
    model = folder.path / "model"
    model.mkdir()
    (model / "config.json").write_text("{}")
    (model / "model.safetensors").write_bytes(b"x" * 1000)
    folder.finish({})
    folder.verify()
    (model / "model.safetensors").write_bytes(b"x" * 100)
    with pytest.raises(RunFolderError, match=r"model: has changed since .*--redo label"):
        folder.verify()
    (model / "model.safetensors").write_bytes(b"x" * 1000)
    fill(folder)
    with pytest.raises(RunFolderError, match=r"rows.jsonl: has changed since"):
        folder.verify()


def test_missing_rows_name_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="--redo label"):
        stage(tmp_path).rows("rows.jsonl", Row)
