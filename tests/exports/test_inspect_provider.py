"""Our engines as models of Inspect. Skipped where it is absent."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import anyio
import pytest

from constitutional_ai.engines.base import Completion
from constitutional_ai.records import user

log = pytest.importorskip("inspect_ai.log")

from constitutional_ai.exports.inspect_provider import Batcher, Request  # noqa: E402

TASK = """
from inspect_ai import Task, task
from inspect_ai.dataset import Sample
from inspect_ai.scorer import includes
from inspect_ai.solver import generate, system_message

@task
def jokes():
    samples = [Sample(input=f"Tell me joke {n}.", target="e") for n in range(12)]
    return Task(dataset=samples, solver=[system_message("Be brief."), generate()],
                scorer=includes())
"""


def test_inspect_asks_our_models_through_the_entry_point(tiny_llama: Path, tmp_path: Path) -> None:
    (tmp_path / "task.py").write_text(TASK)
    command = [
        sys.executable, "-m", "inspect_ai", "eval", "task.py", "--model", f"cai/{tiny_llama}",
        "--log-dir", "logs", "--max-tokens", "8", "--display", "plain", "-M", "dtype=float32",
    ]  # fmt: skip
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr + done.stdout
    (info,) = log.list_eval_logs(str(tmp_path / "logs"))
    read = log.read_eval_log(info)
    assert read.status == "success", read.error
    assert len(read.samples) == 12
    assert all(sample.messages[0].role == "system" for sample in read.samples)
    assert {len(sample.messages) for sample in read.samples} == {3}
    assert sum(sample.output.usage.output_tokens for sample in read.samples) > 0


def test_requests_that_come_together_are_one_batch() -> None:
    sizes: list[int] = []

    class Counting:
        name = "counting"

        def generate(self, conversations: Any, sampling: Any) -> list[Completion]:
            sizes.append(len(conversations))
            if sampling.temperature == 7:
                raise ValueError("no such temperature")
            return [Completion(turns[-1]["content"], 1, True) for turns in conversations]

    async def replies(temperatures: list[float]) -> dict[int, Any]:
        batcher = Batcher(Counting)  # type: ignore[arg-type]
        replies: dict[int, Any] = {}

        async def ask(number: int, temperature: float) -> None:
            request = Request([user(str(number))], (temperature, 1.0, 8, None))
            try:
                replies[number] = (await batcher.ask(request)).text
            except ValueError as error:
                replies[number] = str(error)

        async with anyio.create_task_group() as tasks:
            for number, temperature in enumerate(temperatures):
                tasks.start_soon(ask, number, temperature)
        return replies

    both = anyio.run(replies, [0.0, 1.0] * 5)
    assert both == {number: str(number) for number in range(10)}
    assert sizes == [5, 5]
    sizes.clear()
    assert len(anyio.run(replies, [1.0] * 70)) == 70
    assert sizes == [64, 6]
    one_fails = anyio.run(replies, [7.0, 0.0, 7.0])
    assert one_fails == {0: "no such temperature", 1: "1", 2: "no such temperature"}
