"""A disk that is full, or may only be read: one clear line, no row lost, and the run goes on."""

import os
import resource
import signal
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from constitutional_ai.cli.main import app
from constitutional_ai.learning.policy import Policy
from constitutional_ai.records import Prompt, user
from constitutional_ai.store.checkpoints import Checkpoints
from constitutional_ai.store.chunks import in_chunks
from constitutional_ai.store.rows import append_rows
from constitutional_ai.store.run_folder import RunFolder

FILE = "prompts.jsonl"


def work(numbers: Sequence[int], seed: int) -> list[Prompt]:
    return [
        Prompt(id=f"{seed}-{n}", prompt=[user("x" * 500)], set="helpful", kind=str(n))
        for n in numbers
    ]


def make(folder: Path) -> list[Prompt]:
    """A hundred rows of about 600 bytes, ten at a time."""
    with RunFolder(folder).locked() as run:
        stage = run.stage("revise")
        stage.claim({"seed": 0})
        return in_chunks(stage, FILE, range(100), 10, work, lambda done: None, Prompt)


@contextmanager
def no_file_above(size: int) -> Iterator[None]:
    """What can be written ends in the middle of a chunk, as on a full disk."""
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limit[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
        signal.signal(signal.SIGXFSZ, handler)


@pytest.mark.parametrize("size", [20_000, 100])
def test_rows_that_do_not_fit_are_made_again(tmp_path: Path, size: int) -> None:
    whole = make(tmp_path / "whole")
    with no_file_above(size), pytest.raises(OSError, match=FILE):
        make(tmp_path / "run")
    assert make(tmp_path / "run") == whole
    rows = "1-revise/prompts.jsonl"
    assert (tmp_path / "run" / rows).read_bytes() == (tmp_path / "whole" / rows).read_bytes()


def test_the_file_is_named_where_not_a_byte_fits(tmp_path: Path) -> None:
    path = tmp_path / FILE
    path.write_bytes(b"x" * 100)
    with no_file_above(100), pytest.raises(OSError, match=f"File too large: '.*{FILE}'"):
        append_rows(path, work([1], 0))
    assert path.read_bytes() == b"x" * 100


def test_a_checkpoint_that_does_not_fit_leaves_the_one_before(tmp_path: Path) -> None:
    """safetensors has an error of its own for a full disk; it is an OSError here."""
    tensors = {"w": torch.arange(10_000.0)}
    kept = Checkpoints(tmp_path / "checkpoints")
    kept.save(1, tensors, {"step": 1})
    with no_file_above(20_000), pytest.raises(OSError, match=r"000002: .*File too large"):
        kept.save(2, tensors, {"step": 2})
    assert [path.name for path in kept.folder.iterdir()] == ["000001"]
    found = kept.load()
    assert found is not None and found[1] == {"step": 1}
    assert torch.equal(found[0]["w"], tensors["w"])


def test_a_model_that_does_not_fit_leaves_the_one_before(tiny_llama: Path, tmp_path: Path) -> None:
    policy = Policy.load(tiny_llama)
    policy.save_pretrained(tmp_path / "model")
    before = (tmp_path / "model" / "model.safetensors").read_bytes()
    with no_file_above(5_000), pytest.raises(OSError, match=r"model: .*File too large"):
        policy.save_pretrained(tmp_path / "model")
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
    assert (tmp_path / "model" / "model.safetensors").read_bytes() == before


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A tmpfs of 64 KiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("only root may mount a small disk")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_run_goes_on_when_the_disk_has_room_again(small_disk: Path, tmp_path: Path) -> None:
    whole = make(tmp_path / "whole")
    with pytest.raises(OSError, match=FILE):
        make(small_disk / "run")
    grow = ["mount", "-o", "remount,size=1m", str(small_disk)]
    subprocess.run(grow, check=True)
    assert make(small_disk / "run") == whole


def test_a_full_disk_is_one_line_of_the_command(small_disk: Path, tmp_path: Path) -> None:
    rows = tmp_path / "many.jsonl"
    rows.write_text("".join(f'{{"prompt": "{n} {"x" * 1000}"}}\n' for n in range(100)))
    target = small_disk / "new.jsonl"
    result = CliRunner().invoke(app, ["data", str(rows), "--write", str(target)])
    assert result.exit_code == 2
    assert result.stderr.startswith(f"cai: {target}: cannot be written (No space left on device)")
    assert result.stderr.count("\n") == 1
    assert list(small_disk.iterdir()) == []


def test_a_folder_that_may_only_be_read_is_one_line() -> None:
    result = CliRunner().invoke(app, ["run", "lab", "--out", "/proc/run"])
    assert result.exit_code == 2
    assert result.stderr.startswith("cai: /proc/run: cannot be a run folder (")
    assert result.stderr.count("\n") == 1
