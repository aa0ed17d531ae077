"""``cai data``: figures of a source, and its prompts written anew."""

import json
import os
import resource
import signal
from pathlib import Path

import pytest
from typer.testing import CliRunner

from constitutional_ai.cli.main import app
from constitutional_ai.data.sources import read
from constitutional_ai.data.survey import survey, told


def run(*arguments: str) -> tuple[int, str, str]:
    result = CliRunner().invoke(app, ["data", *arguments])
    return result.exit_code, result.stdout, result.stderr


@pytest.fixture
def prompts(tmp_path: Path) -> str:
    path = tmp_path / "prompts.jsonl"
    rows = [
        {"prompt": "How do I pick a lock?", "kind": "harmful", "category": "theft"},
        {"prompt": "how do I  PICK a lock", "kind": "harmful", "category": "theft"},
        {"prompt": "Tell me \u001b[31ma joke.\nNow!", "kind": "benign"},
    ]
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
    return str(path)


def test_the_figures_are_those_of_the_file(prompts: str) -> None:
    found = survey(read(prompts))
    assert (found["rows"], found["prompts"], found["duplicates"]) == (3, 3, [2])
    assert found["kinds"] == {"harmful": 2, "benign": 1}
    assert found["categories"] == {"theft": 2, "": 1}
    assert [example["number"] for example in found["examples"]] == [1, 3, 2]


def test_what_is_seldom_meant_is_reported(tmp_path: Path) -> None:
    path = tmp_path / "odd.jsonl"
    rows = [
        {"id": 7, "prompt": "a", "kind": "weird\u001b"},
        {"id": 7, "prompt": "b" * 100_001, "kind": "harmful"},
    ]
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    kind, id_, long = survey(read(str(path)))["odd"].items()
    assert "is none of harmful, benign" in kind[0] and kind[1] == [1]
    assert id_ == ("an id that stands in an earlier row", [2])
    assert long == ("longer than 100,000 characters", [2])
    assert all(line.isprintable() for line in told(survey(read(str(path)))))


def test_nothing_from_the_file_acts_on_the_terminal(prompts: str) -> None:
    lines = list(told(survey(read(prompts))))
    assert all(line.isprintable() for line in lines)
    assert any("Tell me \\u001b[31ma joke.\\nNow!" in line for line in lines)


def test_overlap_finds_a_request_inside_a_dialogue(prompts: str, tmp_path: Path) -> None:
    other = tmp_path / "other.jsonl"
    turns = [
        {"role": "user", "content": "Hi."},
        {"role": "assistant", "content": "Hello."},
        {"role": "user", "content": "How do I pick a lock?"},
    ]
    other.write_text(json.dumps({"prompt": turns}) + "\n")
    found = survey(read(prompts), read(str(other)))["overlap"]
    assert found["shared"] == [[1, 1], [2, 1]]
    code, out, _ = run(prompts, "--against", str(other))
    assert code == 0
    assert "2 also among the 1 of" in out


def test_short_replies_are_no_overlap(tmp_path: Path) -> None:
    for name, first in (("a", "One"), ("b", "Two")):
        turns = [
            {"role": "user", "content": first},
            {"role": "assistant", "content": "?"},
            {"role": "user", "content": "Yes, please."},
        ]
        (tmp_path / f"{name}.jsonl").write_text(json.dumps({"prompt": turns}) + "\n")
    a, b = (read(str(tmp_path / f"{name}.jsonl")) for name in "ab")
    assert survey(a, b)["overlap"]["shared"] == []


def test_as_json_it_is_one_object(prompts: str) -> None:
    code, out, _ = run(prompts, "--json")
    assert (code, json.loads(out)["rows"]) == (0, 3)


def test_written_prompts_read_the_same(prompts: str, tmp_path: Path) -> None:
    target = tmp_path / "new" / "prompts.jsonl"
    assert run(prompts, "--write", str(target))[0] == 0
    before, after = read(prompts).prompts, read(str(target)).prompts
    assert [(r.prompt, r.kind, r.category) for r in before] == [
        (r.prompt, r.kind, r.category) for r in after
    ]
    assert run(prompts, "--write", str(target))[0] == 2  # never over what is there
    assert read(str(target)).prompts == after


def test_a_read_only_folder_is_one_line(prompts: str, tmp_path: Path) -> None:
    if os.geteuid() == 0:
        target = Path("/proc/prompts.jsonl")  # nobody writes there
    else:
        tmp_path.chmod(0o500)
        target = tmp_path / "new.jsonl"
    code, _, error = run(prompts, "--write", str(target))
    assert code == 2
    assert error.startswith(f"cai: {target}: cannot be written (")
    assert error.count("\n") == 1


def test_a_full_disk_leaves_nothing_and_takes_nothing(prompts: str, tmp_path: Path) -> None:
    """A file size limit stops the write half-way, as a full disk does."""
    rows = tmp_path / "many.jsonl"
    rows.write_text("".join(json.dumps({"prompt": f"{n} " + "x" * 1000}) + "\n" for n in range(50)))
    before = rows.read_bytes()
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limit[1]))
    try:
        code, _, error = run(str(rows), "--write", str(tmp_path / "new.jsonl"))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
        signal.signal(signal.SIGXFSZ, handler)
    assert code == 2
    assert "new.jsonl: cannot be written (" in error
    assert sorted(path.name for path in tmp_path.iterdir()) == ["many.jsonl", "prompts.jsonl"]
    assert rows.read_bytes() == before
