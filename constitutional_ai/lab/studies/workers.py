"""Tasks that need each other, over worker processes of one thread each.

On a small machine several processes of one thread use the cores better than one process of several
threads, as long as no thread spins while it waits: hence OMP_WAIT_POLICY=passive. A task that fails
does not stop the others; those that need it are left out and reported.
"""

import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from constitutional_ai.progress import Progress

ONE_THREAD = {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "passive", "TOKENIZERS_PARALLELISM": "0"}
DIED = (
    "a worker process died, most likely because memory ran out; run the same command again with"
    " fewer --jobs"
)


@dataclass(frozen=True)
class Task:
    """``work(*args)``, once all of ``needs`` are done; a need that is no task counts as done."""

    key: str
    needs: tuple[str, ...]
    work: Callable[..., None]
    args: tuple[Any, ...] = field(repr=False)


def run(tasks: Sequence[Task], jobs: int, progress: Progress) -> dict[str, str]:
    """Do all tasks, ``jobs`` at once (0: here, one by one); {key: why} of those that failed."""
    lost: dict[str, str] = {}
    with progress.task("study", total=len(tasks), unit="steps") as tick:
        for task, error in _here(tasks, lost) if jobs == 0 else _beside(tasks, lost, jobs):
            if error:
                lost[task.key] = error
                progress.note(f"failed: {task.key}: {error}")
            tick(1, failed=len(lost))
    return lost


def _here(tasks: Sequence[Task], lost: Mapping[str, str]) -> Iterator[tuple[Task, str]]:
    for task in ordered(tasks):
        yield task, _blocked(task, lost) or _attempt(task)


def _attempt(task: Task) -> str:
    try:
        task.work(*task.args)
    except Exception as error:  # noqa: BLE001  # reported at the end; other tasks go on
        return _in_words(error)
    return ""


def _beside(
    tasks: Sequence[Task], lost: Mapping[str, str], jobs: int
) -> Iterator[tuple[Task, str]]:
    waiting = ordered(tasks)
    with _workers(jobs) as pool:
        running: dict[Future[None], Task] = {}
        while waiting or running:
            open_ = {task.key for task in waiting} | {task.key for task in running.values()}
            for task in [task for task in waiting if not open_ & set(task.needs)]:
                if not (why := _blocked(task, lost)) and len(running) >= jobs:
                    continue
                waiting.remove(task)
                if why:
                    yield task, why
                    break  # now what needs it is blocked, too
                running[pool.submit(task.work, *task.args)] = task
            for future in wait(running, return_when=FIRST_COMPLETED).done if running else ():
                error = future.exception()
                if isinstance(error, BrokenProcessPool):
                    raise error
                yield running.pop(future), _in_words(error) if error else ""


def ordered(tasks: Sequence[Task]) -> list[Task]:
    """The tasks, each after what it needs, otherwise in the given order."""
    left, done = list(tasks), set[str]()
    known = {task.key for task in tasks}
    in_order: list[Task] = []
    while left:
        ready = [task for task in left if not (set(task.needs) & known) - done]
        assert ready, f"tasks that wait for each other: {[task.key for task in left]}"
        in_order += ready
        done |= {task.key for task in ready}
        left = [task for task in left if task.key not in done]
    return in_order


def _blocked(task: Task, lost: Mapping[str, str]) -> str:
    missing = [need for need in task.needs if need in lost]
    return f"needs {missing[0]}, which failed" if missing else ""


def _in_words(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"


@contextmanager
def _workers(jobs: int) -> Iterator[Executor]:
    """Fresh processes, which a stop of this one ends."""
    before = {name: os.environ.get(name) for name in ONE_THREAD}
    os.environ.update(ONE_THREAD)  # read when a worker loads torch
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(jobs, mp_context=context, initializer=_only_the_parent_is_stopped)
    try:
        yield pool
    except BrokenProcessPool:
        raise OSError(DIED) from None
    except BaseException:
        for worker in multiprocessing.active_children():
            worker.terminate()
        raise
    finally:
        pool.shutdown(cancel_futures=True)
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _only_the_parent_is_stopped() -> None:
    """An interrupt at the terminal reaches every process; the parent ends its workers itself."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
