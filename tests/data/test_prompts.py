"""Prompts from files: what is read, what is drawn, what is refused."""

import json
from pathlib import Path

import pytest

from constitutional_ai.data import prompts as data
from constitutional_ai.data.prompts import load_prompts, prompts_identity
from constitutional_ai.errors import DataError


def write(folder: Path, *rows: object) -> str:
    path = folder / "prompts.jsonl"
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return str(path)


def numbered(folder: Path, count: int) -> str:
    return write(folder, *({"prompt": f"Question {n}?"} for n in range(count)))


def texts(prompts: list[data.Prompt]) -> list[str]:
    return [prompt.prompt[-1]["content"] for prompt in prompts]


def test_text_and_messages_are_both_prompts(tmp_path: Path) -> None:
    turns = [
        {"role": "user", "content": "Hi."},
        {"role": "assistant", "content": "Hello."},
        {"role": "user", "content": "Sing — 🎵."},
    ]
    source = write(tmp_path, {"prompt": "Hi."}, {"prompt": turns, "source": "elsewhere"})
    prompts = sorted(load_prompts(source, "helpful", 9, 0), key=lambda p: len(p.prompt))
    assert [prompt.prompt for prompt in prompts] == [[{"role": "user", "content": "Hi."}], turns]
    assert {prompt.set for prompt in prompts} == {"helpful"}


def test_the_draw_depends_on_the_seed_alone_and_repeats_nothing(tmp_path: Path) -> None:
    source = numbered(tmp_path, 50)
    first = load_prompts(source, "red-team", 20, 1)
    assert first == load_prompts(source, "red-team", 20, 1)
    assert texts(first) != texts(load_prompts(source, "red-team", 20, 2))
    assert len(set(texts(first))) == 20


def test_a_short_file_gives_every_prompt_once(tmp_path: Path) -> None:
    prompts = load_prompts(numbered(tmp_path, 3), "red-team", 10, 0)
    assert sorted(texts(prompts)) == ["Question 0?", "Question 1?", "Question 2?"]


def test_equal_prompts_stay_two_rows_with_ids_of_their_own(tmp_path: Path) -> None:
    source = write(tmp_path, {"prompt": "Again?"}, {"prompt": "Again?"}, {"prompt": "Other?"})
    assert len({prompt.id for prompt in load_prompts(source, "helpful", 9, 0)}) == 3


def test_an_id_belongs_to_the_prompt_and_not_to_its_place(tmp_path: Path) -> None:
    def ids(*names: str) -> dict[str, str]:
        prompts = load_prompts(write(tmp_path, *({"prompt": n} for n in names)), "helpful", 9, 0)
        return dict(zip(texts(prompts), [prompt.id for prompt in prompts], strict=True))

    assert ids("a", "b") == ids("b", "a")


@pytest.mark.parametrize(
    ("line", "rest"),
    [
        (b'{"prompt": "x"', "not valid JSON"),
        (b'["prompt"]', 'expected an object with "prompt"'),
        (b'{"text": "x"}', 'expected an object with "prompt"'),
        (b"3", 'expected an object with "prompt"'),
        (b'{"prompt": " "}', "prompt: it is empty"),
        (b'{"prompt": []}', "prompt: expected text, or a list"),
        (b'{"prompt": 3}', "prompt: expected text, or a list"),
        (b'{"prompt": [{"role": "user"}]}', "prompt: it is empty"),
        (b'{"prompt": [{"role": "bot", "content": "x"}]}', "prompt: every message needs a role"),
        (b'{"prompt": [{"role": "assistant", "content": "x"}]}', "prompt: the last message must"),
        (b'{"prompt": "\\ud83d"}', "prompt: half a surrogate pair"),
        (b'{"prompt": "\xff"}', "not UTF-8"),
    ],
)
def test_a_broken_line_names_file_and_line(tmp_path: Path, line: bytes, rest: str) -> None:
    path = tmp_path / "prompts.jsonl"
    path.write_bytes(b'{"prompt": "fine"}\n\n' + line + b"\n")
    with pytest.raises(DataError) as caught:
        load_prompts(str(path), "helpful", 5, 0)
    assert str(caught.value).startswith(f"{path}:3: {rest}")


def test_windows_line_ends_and_a_byte_order_mark_are_read(tmp_path: Path) -> None:
    path = tmp_path / "prompts.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"prompt": "a"}\r\n{"prompt": "b"}')
    assert sorted(texts(load_prompts(str(path), "helpful", 5, 0))) == ["a", "b"]


def test_a_missing_or_empty_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none.jsonl: cannot be read"):
        load_prompts(str(tmp_path / "none.jsonl"), "helpful", 5, 0)
    with pytest.raises(DataError, match="no prompts in it"):
        load_prompts(write(tmp_path), "helpful", 5, 0)


def test_a_files_identity_is_its_content(tmp_path: Path) -> None:
    before = prompts_identity(numbered(tmp_path, 3))
    assert prompts_identity(numbered(tmp_path, 3)) == before
    assert prompts_identity(numbered(tmp_path, 4)) != before
    assert prompts_identity("lab") == "lab"


def test_the_laboratory_gives_what_was_asked_for() -> None:
    assert len(load_prompts("lab", "red-team", 7, 0)) == 7
