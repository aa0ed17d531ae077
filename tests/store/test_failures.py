"""Rows that fail: left out and listed, tried again, through kills at any moment."""

import random
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from constitutional_ai.errors import RowsFailed
from constitutional_ai.records import Row
from constitutional_ai.store import failures
from constitutional_ai.store.chunks import in_chunks
from constitutional_ai.store.failures import Chunk, Failed, unfinished
from constitutional_ai.store.run_folder import StageFolder

FILE = "rows.jsonl"
ITEMS = list(range(23))


class Number(Row):
    value: int


def attempt(
    folder: Path,
    fails: Callable[[int], bool],
    may_fail: float = 0.0,
    killed_at: int = 0,
    unfit: Callable[[int], bool] = lambda _: False,
) -> list[int]:
    """One start of a stage that works 5 items at a time; the values of its rows."""
    chunks = 0

    def work(chunk: Sequence[int], _: int) -> list[Number | Failed]:
        nonlocal chunks
        chunks += 1
        if chunks == killed_at:
            raise KeyboardInterrupt
        return [
            Failed(id=str(n), reason="too long" if unfit(n) else "no answer", unfit=unfit(n))
            if fails(n) or unfit(n)
            else Number(id=str(n), value=n)
            for n in chunk
        ]

    stage = StageFolder(folder, "1-revise")
    done: list[int] = []
    rows = in_chunks(stage, FILE, ITEMS, 5, work, done.append, Number, may_fail)
    assert sum(done) == len(ITEMS)
    assert [row.value for row in rows] == [row.value for row in stage.rows(FILE, Number)]
    return [row.value for row in rows]


def test_failed_items_are_listed_and_tried_again_by_the_same_command(tmp_path: Path) -> None:
    with pytest.raises(RowsFailed, match="8 of 23 rows failed"):
        attempt(tmp_path, lambda n: n % 3 == 0)
    assert [f.place for f in failures.read(tmp_path, FILE)] == ITEMS[::3]
    with pytest.raises(RowsFailed, match="4 of 23 rows failed"):
        attempt(tmp_path, lambda n: n % 6 == 0)  # asked again: 0, 3, 6, …
    made = attempt(tmp_path, lambda n: False)
    assert sorted(made) == ITEMS
    assert made[:3] == [1, 2, 4] and made[-4:] == [0, 6, 12, 18]
    assert attempt(tmp_path, lambda n: True) == made  # nothing is left to ask
    assert failures.counts(tmp_path, FILE, 0) == {}


def test_a_share_of_failures_may_stand(tmp_path: Path) -> None:
    made = attempt(tmp_path, lambda n: n in (4, 20), may_fail=0.1)
    assert made == [n for n in ITEMS if n not in (4, 20)]
    assert attempt(tmp_path, lambda n: False, may_fail=0.1) == made  # they are not asked again
    expected = {"failed": 2, "failed_by_reason": {"no answer": 2}}
    assert failures.counts(tmp_path, FILE, 2) == expected
    assert sorted(attempt(tmp_path, lambda n: False)) == ITEMS  # unless none may


def test_what_does_not_fit_the_model_stops_nothing_and_is_asked_no_more(tmp_path: Path) -> None:
    long = {2, 3, 11, 12}
    made = attempt(tmp_path, lambda n: False, unfit=long.__contains__)
    assert made == [n for n in ITEMS if n not in long]
    assert failures.counts(tmp_path, FILE, 4) == {
        "failed": 4,
        "unfit": 4,
        "failed_by_reason": {"too long": 4},
    }
    before = (tmp_path / failures.FILE).read_bytes()
    assert attempt(tmp_path, lambda n: True) == made
    assert (tmp_path / failures.FILE).read_bytes() == before


def test_failures_beside_what_does_not_fit_still_stop_the_stage(tmp_path: Path) -> None:
    long = {2, 3, 11, 12}
    with pytest.raises(RowsFailed, match=r"2 of 23 rows failed \(2: no answer\)"):
        attempt(tmp_path, lambda n: n in (4, 20), 0.05, unfit=long.__contains__)
    with pytest.raises(RowsFailed, match="2 of 23 rows failed"):
        attempt(tmp_path, lambda n: n in (4, 20), 0.05, unfit=long.__contains__)
    made = attempt(tmp_path, lambda n: n == 4, 0.05, unfit=long.__contains__)
    assert sorted(made) == [n for n in ITEMS if n not in {4, *long}]
    assert attempt(tmp_path, lambda n: False, 0.05) == made  # one in 23 may stand
    assert sorted(attempt(tmp_path, lambda n: False, unfit=long.__contains__)) == [
        n for n in ITEMS if n not in long
    ]


def test_a_kill_while_what_failed_is_tried_again_loses_no_count(tmp_path: Path) -> None:
    long = set(range(6, 12))
    with pytest.raises(RowsFailed, match="3 of 23"):
        attempt(tmp_path, lambda n: n < 3, unfit=long.__contains__)
    with pytest.raises(KeyboardInterrupt):  # 0 to 2 and 6 to 7 came again, 8 to 11 did not
        attempt(tmp_path, lambda n: n < 3, killed_at=2, unfit=long.__contains__)
    with pytest.raises(RowsFailed, match="3 of 23"):
        attempt(tmp_path, lambda n: n < 3, unfit=long.__contains__)
    made = attempt(tmp_path, lambda n: False, unfit=long.__contains__)
    assert sorted(made) == [n for n in ITEMS if n not in long]


def test_a_stage_without_a_row_stops_and_is_tried_again(tmp_path: Path) -> None:
    for _ in range(2):
        with pytest.raises(RowsFailed, match=r"none of 23 rows could be made \(23: too long\)"):
            attempt(tmp_path, lambda n: False, unfit=lambda _: True)
    assert sorted(attempt(tmp_path, lambda n: False)) == ITEMS


def test_all_of_a_chunk_and_all_of_all(tmp_path: Path) -> None:
    with pytest.raises(RowsFailed, match="23 of 23"):
        attempt(tmp_path, lambda n: True)
    with pytest.raises(RowsFailed, match="5 of 23"):
        attempt(tmp_path, lambda n: 5 <= n < 10)
    assert sorted(attempt(tmp_path, lambda n: False)) == ITEMS


@pytest.mark.parametrize("seed", range(20))
def test_no_item_is_lost_or_doubled_through_kills(tmp_path: Path, seed: int) -> None:
    """Killed before or within a chunk's write, over attempts that fail at random."""
    rng = random.Random(seed)
    for _ in range(40):
        try:
            made = attempt(tmp_path, lambda n: rng.random() < 0.2, killed_at=rng.randint(0, 3))
        except KeyboardInterrupt:
            path = tmp_path / FILE
            if path.exists() and rng.random() < 0.5:  # a part of the last write
                path.write_bytes(path.read_bytes()[: -rng.randint(1, 40)])
            listed = tmp_path / failures.FILE
            if listed.exists() and rng.random() < 0.3:
                listed.with_suffix(".part").write_text("half of a line")
        except RowsFailed:
            pass
        else:
            assert sorted(made) == ITEMS and len(set(made)) == len(ITEMS)
            return
    pytest.fail("not done after 40 starts")


def test_failures_written_before_a_kill_do_not_finish_a_chunk(tmp_path: Path) -> None:
    """The failures of a chunk are written first; without its rows the chunk is open."""
    stage = Chunk(1, 0, [0, 1, 2])
    lost = [stage.failure(FILE, 1, Failed(id="1", reason="no answer"))]
    assert unfinished(0, lost, 6, 3) == (0, [stage, Chunk(1, 1, [3, 4, 5])])
    assert unfinished(2, lost, 6, 3) == (2, [Chunk(1, 1, [3, 4, 5])])
    assert unfinished(5, lost, 6, 3) == (5, [Chunk(2, 0, [1])])
    assert unfinished(6, lost, 6, 3) == (6, [])


def test_two_files_of_a_stage_share_the_list(tmp_path: Path) -> None:
    chunk = Chunk(1, 0, [0])
    for file in ("a.jsonl", "b.jsonl"):
        failures.keep(tmp_path, file, chunk, [chunk.failure(file, 0, Failed(id="x", reason=file))])
    failures.keep(tmp_path, "a.jsonl", chunk, [])
    assert [failure.reason for failure in failures.read(tmp_path)] == ["b.jsonl"]
