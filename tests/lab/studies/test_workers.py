"""Tasks run behind what they need, side by side, and a failure stops only what needs it."""

import os
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from constitutional_ai.lab.studies import workers
from constitutional_ai.lab.studies.workers import Task
from constitutional_ai.progress import Progress

# What workers are handed must be importable there, so it stands in a module of its own.
WORK = """
import os


def append(path, name, *needed):
    before = path.read_text().split() if path.exists() else []
    assert set(needed) <= set(before), (name, before)
    with path.open("a") as file:
        file.write(f"{name}\\n")


def fail(path):
    raise ValueError("no\\nluck")


def die(path):
    os._exit(9)


def threads(path):
    path.write_text(f"{os.environ['OMP_NUM_THREADS']} {os.environ['OMP_WAIT_POLICY']}")
"""


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    (tmp_path / "handed_to_workers.py").write_text(WORK)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "handed_to_workers", raising=False)
    return import_module("handed_to_workers")


def chain(work: Any, path: Path) -> list[Task]:
    """c needs b needs a, given the wrong way round; d needs nothing that is a task."""
    return [
        Task("c", ("b",), work.append, (path, "c", "a", "b")),
        Task("b", ("a",), work.append, (path, "b", "a")),
        Task("a", (), work.append, (path, "a")),
        Task("d", ("done long ago",), work.append, (path, "d")),
    ]


@pytest.mark.parametrize("jobs", [0, 2])
def test_every_task_runs_once_behind_its_needs(work: Any, tmp_path: Path, jobs: int) -> None:
    log = tmp_path / "log"
    assert workers.run(chain(work, log), jobs, Progress("plain")) == {}
    assert sorted(log.read_text().split()) == ["a", "b", "c", "d"]


@pytest.mark.parametrize("jobs", [0, 2])
def test_a_failure_is_told_and_what_needs_it_is_left_out(
    work: Any, tmp_path: Path, jobs: int
) -> None:
    log = tmp_path / "log"
    broken = [task for task in chain(work, log) if task.key != "a"] + [
        Task("a", (), work.fail, (log,))
    ]
    lost = workers.run(broken, jobs, Progress("plain"))
    assert lost["a"] == "ValueError: no luck"
    assert set(lost) == {"a", "b", "c"} and "which failed" in lost["c"]
    assert log.read_text().split() == ["d"]


def test_workers_have_one_thread_and_leave_this_process_as_it_was(
    work: Any, tmp_path: Path
) -> None:
    before = dict(os.environ)
    workers.run([Task("t", (), work.threads, (tmp_path / "t",))], 1, Progress("plain"))
    assert (tmp_path / "t").read_text() == "1 passive"
    assert dict(os.environ) == before


def test_tasks_that_wait_for_each_other_are_our_mistake() -> None:
    with pytest.raises(AssertionError, match="wait for each other"):
        workers.ordered([Task("a", ("b",), print, ()), Task("b", ("a",), print, ())])


def test_a_worker_that_dies_is_told_in_words(work: Any, tmp_path: Path) -> None:
    with pytest.raises(OSError, match="a worker process died"):
        workers.run([Task("t", (), work.die, (tmp_path,))], 1, Progress("plain"))
