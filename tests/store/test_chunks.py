"""Rows made in chunks: each once, in order, through kills."""

import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from constitutional_ai.errors import DataError, RunFolderError
from constitutional_ai.records import Row
from constitutional_ai.store.chunks import in_chunks
from constitutional_ai.store.run_folder import RunFolder, StageFolder

ITEMS = list(range(10))


class Number(Row):
    value: int
    seed: int
    text: str = "two\nlines, naïve"


def squares(chunk: Sequence[int], seed: int) -> list[Number]:
    return [Number(id=str(n), value=n * n, seed=seed) for n in chunk]


def fill(folder: StageFolder, work: object = squares, size: int = 4) -> list[Number]:
    return in_chunks(folder, "rows.jsonl", ITEMS, size, work, lambda n: None, Number)  # type: ignore[arg-type]


def stage(folder: Path) -> StageFolder:
    return RunFolder(folder, seed=3).stage("revise")


def refuse(chunk: Sequence[int], seed: int) -> list[Number]:
    raise AssertionError("asked again for what was done")


def test_each_item_gives_one_row_in_order(tmp_path: Path) -> None:
    ticks: list[int] = []
    rows = in_chunks(stage(tmp_path), "rows.jsonl", ITEMS, 4, squares, ticks.append, Number)
    assert [row.value for row in rows] == [n * n for n in ITEMS]
    assert stage(tmp_path).rows("rows.jsonl", Number) == rows
    assert len({row.seed for row in rows}) == 3  # a seed for each chunk
    assert sum(ticks) == len(ITEMS)


def test_what_is_done_is_not_asked_again(tmp_path: Path) -> None:
    rows = fill(stage(tmp_path))
    assert fill(stage(tmp_path), refuse) == rows


@settings(max_examples=40)
@given(kept=st.integers(min_value=0), size=st.integers(1, 12))
def test_a_file_cut_anywhere_is_completed_to_the_same_bytes(
    tmp_path_factory: pytest.TempPathFactory, kept: int, size: int
) -> None:
    folder = stage(tmp_path_factory.mktemp("run"))
    rows = fill(folder, size=size)
    path = folder.path / "rows.jsonl"
    whole = path.read_bytes()
    path.write_bytes(whole[: kept % (len(whole) + 1)])
    asked: list[int] = []

    def work(chunk: Sequence[int], seed: int) -> list[Number]:
        asked.extend(chunk)
        return squares(chunk, seed)

    assert fill(folder, work, size) == rows
    assert path.read_bytes() == whole
    assert len(ITEMS) - len(asked) in range(0, len(ITEMS) + 1)
    assert not asked or asked[0] % size == 0  # an interrupted chunk is made again whole


def test_a_row_too_few_is_a_bug_and_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="3 rows for 4 items"):
        fill(stage(tmp_path), lambda chunk, seed: squares(chunk, seed)[:-1])
    assert not (stage(tmp_path).path / "rows.jsonl").exists()


def test_more_rows_than_items_are_refused_and_kept(tmp_path: Path) -> None:
    folder = stage(tmp_path)
    fill(folder)
    before = (folder.path / "rows.jsonl").read_bytes()
    with pytest.raises(RunFolderError, match=r"10 rows for 2 inputs.*--redo revise"):
        in_chunks(folder, "rows.jsonl", ITEMS[:2], 4, squares, lambda n: None, Number)
    assert (folder.path / "rows.jsonl").read_bytes() == before


def test_a_broken_row_names_file_and_line(tmp_path: Path) -> None:
    folder = stage(tmp_path)
    fill(folder)
    path = folder.path / "rows.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([*lines[:1], b'{"id": "1"}\n', *lines[2:]]))
    with pytest.raises(DataError, match=rf"{path}:2: not a Number row: value"):
        folder.rows("rows.jsonl", Number)


KILLED = """
import os, sys
sys.path[:0] = {path!r}
from pathlib import Path
from test_chunks import *
def work(chunk, seed):
    if chunk[0] == {at}:
        folder = stage(Path({out!r}))
        with open(folder.path / "rows.jsonl", "ab") as file:
            file.write(b'{{"id": "8", "va')  # as far as the write came
        os.kill(os.getpid(), 9)
    return squares(chunk, seed)
with RunFolder({out!r}, seed=3).locked():
    fill(stage(Path({out!r})), work)
"""


def test_a_killed_run_goes_on_to_the_same_rows(tmp_path: Path) -> None:
    path = [str(Path(__file__).parent), str(Path(__file__).parents[2])]
    script = KILLED.format(path=path, at=8, out=str(tmp_path / "killed"))
    killed = subprocess.run([sys.executable, "-c", script], check=False)
    assert killed.returncode == -signal.SIGKILL
    with RunFolder(tmp_path / "killed", seed=3).locked():  # the dead process holds no lock
        rows = fill(stage(tmp_path / "killed"))
    assert rows == fill(stage(tmp_path / "whole"))
