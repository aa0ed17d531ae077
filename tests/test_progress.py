"""Progress as plain lines, as JSON lines and as bars."""

import io
import json
from contextlib import ExitStack

import pytest

from constitutional_ai import progress as module
from constitutional_ai.progress import Progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_plain_lines_end_with_the_count_and_the_figures() -> None:
    out = io.StringIO()
    with Progress("auto", out).task("revise", total=600, unit="rows") as tick:
        tick(300, harm=1.0)
        tick(300, harm=0.41234)
    assert out.getvalue() == "revise  600/600 rows  0 s  harm 0.412\n"


def test_plain_lines_are_seconds_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    out = io.StringIO()
    with Progress("plain", out).task("ppo", total=100, unit="steps") as tick:
        for _ in range(100):
            now[0] += 1
            tick()
    lines = out.getvalue().splitlines()
    assert lines[0] == "ppo  5/100 steps  5 s"
    assert len(lines) == 20  # one each five seconds, the last one at the end


def test_a_call_that_goes_on_is_told_every_half_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    out = io.StringIO()
    with Progress("plain", out).task("revise", total=200) as tick, module.called("critiques"):
        tick(64)
        done = module.asking(64, "answers")
        for _ in range(64):
            now[0] += 1
            done(1, 20)
        tick(64)
    lines = out.getvalue().splitlines()
    assert lines[0] == "revise  64/200 rows (critiques 30/64, 600 tokens)  30 s"
    assert lines[1] == "revise  64/200 rows (critiques 60/64, 1,200 tokens)  60 s"
    assert lines[2:] == ["revise  128/200 rows  64 s"]  # the task's end


def test_an_error_shows_how_far_it_came() -> None:
    out = io.StringIO()
    tasks = ExitStack()
    tasks.enter_context(Progress("plain", out).task("label", total=9))(2)
    assert not tasks.__exit__(KeyError, KeyError(), None)  # the error goes on
    assert out.getvalue() == "label  2/9 rows  0 s  stopped\n"


def test_json_lines_are_objects() -> None:
    out = io.StringIO()
    shown = Progress("json", out)
    shown.note("hello")
    with shown.task("label", total=2, unit="pairs") as tick:
        tick(2, bias=0.5)
    events = [json.loads(line) for line in out.getvalue().splitlines()]
    assert [event["event"] for event in events] == ["note", "start", "progress", "end"]
    assert events[2] | {"seconds": 0} == {
        "event": "progress",
        "task": "label",
        "done": 2,
        "total": 2,
        "unit": "pairs",
        "seconds": 0,
        "figures": {"bias": 0.5},
    }


def test_json_goes_to_stdout_and_lines_to_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    Progress("json").note("one")
    Progress("plain").note("two")
    out, err = capsys.readouterr()
    assert json.loads(out)["text"] == "one"
    assert err == "two\n"


def test_bars_show_tasks_inside_each_other_and_take_text_as_it_is() -> None:
    out = Terminal()
    shown = Progress("auto", out)
    for name in ("revise", "ppo"):
        with shown.task(name, total=2) as outer, shown.task("[red]in[/x]", total=1) as inner:
            inner(1)
            outer(2, reward=0.25)
    shown.note("[/broken] markup")
    text = out.getvalue()
    for part in ("revise", "ppo", "[red]in[/x]", "reward 0.25", "[/broken] markup", "2/2"):
        assert part in text
