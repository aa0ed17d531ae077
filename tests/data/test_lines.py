"""What bad files do: one line that names file, line and remedy; never a row lost in silence."""

import gzip
import json
from pathlib import Path

import pytest

from constitutional_ai.data import lines
from constitutional_ai.data.lines import LONGEST_LINE
from constitutional_ai.data.sources import read
from constitutional_ai.errors import DataError


def refusal(path: Path, content: bytes) -> str:
    path.write_bytes(content)
    with pytest.raises(DataError) as caught:
        read(str(path))
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith(str(path))
    return message.removeprefix(str(path))


def requests(path: Path) -> list[str]:
    return [row.prompt[-1]["content"] for row in read(str(path)).prompts]


GOOD = b'{"prompt": "fine"}\n'


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (GOOD + b'{"prompt": "a\0b"}\n', ":2: a NUL byte"),
        (GOOD + b'{"prompt": "a\\u0000b"}\n', ":2: prompt: a NUL character"),
        (GOOD + b'{"prompt": "\\udc00"}\n', ":2: prompt: half a surrogate pair"),
        (GOOD + b'{"prompt": "x", "category": "\\ud800"}\n', ":2: category: half a surrogate"),
        (GOOD + b'{"prompt": "\xed\xa0\x80"}\n', ":2: not UTF-8 text"),
        ('{"prompt": "x"}\n'.encode("utf-16"), ":1: UTF-16 text; save the file as UTF-8"),
        (GOOD + b"[" * 100_000 + b"\n", ":2: not valid JSON"),
        (GOOD + b'{"prompt": "a", "prompt": "b"}\n', ":2: the key 'prompt' stands twice"),
        (GOOD + b'{"prompt": [{"role": "user", "content": "a", "role": "x"}]}\n', ":2: the key"),
        (GOOD + b'{"prompt": "a", "n": ' + b"9" * 5000 + b"}\n", ":2: Exceeds the limit"),
        (b'[\n{"prompt": "x"}\n]\n', ":1: a JSON array; write one object a line: jq -c '.[]'"),
        (b'[{"prompt": "x"}]', ":1: a JSON array"),
        (b"\xef\xbb\xbf\r\n  \n", ": no prompts in it"),
        (b"", ": no prompts in it"),
    ],
)
def test_a_broken_jsonl_file_is_one_line(tmp_path: Path, content: bytes, message: str) -> None:
    assert message in refusal(tmp_path / "prompts.jsonl", content)


def test_a_line_of_100_megabytes_is_refused_in_little_memory(tmp_path: Path) -> None:
    import tracemalloc

    path = tmp_path / "prompts.jsonl"
    with path.open("wb") as file:
        file.write(GOOD + b'{"prompt": "')
        for _ in range(100):
            file.write(b"x" * (1 << 20))
        file.write(b'"}\n')
    tracemalloc.start()
    with pytest.raises(DataError, match=r"prompts.jsonl:2: the line is longer than 16 MiB"):
        read(str(path))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 3 * LONGEST_LINE
    assert path.stat().st_size > 100 << 20


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_marks_and_line_ends_make_no_difference(tmp_path: Path, mark: str, end: str) -> None:
    table = tmp_path / "prompts.csv"
    table.write_bytes(f'{mark}prompt,kind{end}a,x{end}{end}"b,{end}c",y'.encode())
    assert requests(table) == ["a", f"b,{end}c"]
    assert [row.number for row in read(str(table)).prompts] == [2, 4]
    objects = tmp_path / "prompts.jsonl"
    objects.write_bytes(f'{mark}{{"prompt": "a"}}{end}{end}{{"prompt": "b"}}'.encode())
    assert requests(objects) == ["a", "b"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"prompt,kind\na,x\nb\n", ":3: 1 cells, but the header names 2 columns"),
        (b"prompt,kind\na, and b,x\n", ":2: 3 cells, but the header names 2"),
        (b'prompt,kind\n"a,x\nb,y\n', ":2: not valid CSV"),
        (b"prompt,kind,kind\na,x,y\n", ":1: two columns are named 'kind'"),
        (b"question,kind\na,x\n", ":2: expected a column named prompt; it has: question, kind"),
        (b"prompt\n\n \n", ":3: prompt: it is empty"),
        (b"prompt\na\0b\n", ":2: a NUL byte"),
        (b"prompt\n", ": no prompts in it"),
    ],
)
def test_a_broken_csv_file_is_one_line(tmp_path: Path, content: bytes, message: str) -> None:
    assert message in refusal(tmp_path / "prompts.csv", content)


def test_a_cell_without_an_end_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lines, "LONGEST_LINE", 1 << 10)
    content = b'prompt\n"' + b"x\n" * (1 << 10)
    assert ":2: not valid CSV" in refusal(tmp_path / "prompts.csv", content)


def test_cells_are_divided_as_the_header_is(tmp_path: Path) -> None:
    for name, content in (("a.tsv", "prompt\tkind\nx, y\tk\n"), ("b.csv", "prompt;kind\nx, y;k\n")):
        (tmp_path / name).write_text(content)
        assert requests(tmp_path / name) == ["x, y"]


def test_gzip_is_unpacked_and_a_torn_one_refused(tmp_path: Path) -> None:
    path = tmp_path / "prompts.jsonl.gz"
    rows = "".join(json.dumps({"prompt": f"q{n} {hash(str(n))}"}) + "\n" for n in range(2000))
    whole = gzip.compress(rows.encode())
    path.write_bytes(whole)
    assert len(requests(path)) == 2000
    assert "the gzip file is broken off" in refusal(path, whole[: len(whole) // 2])
    assert "not a gzip file" in refusal(path, GOOD)


def test_what_cannot_be_opened_is_told(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"cannot be read \(Is a directory\)"):
        read(str(tmp_path))
