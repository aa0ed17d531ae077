"""Parquet files and data sets of the hub; the hub's through folders of this machine."""

import sys
from pathlib import Path

import pytest

from constitutional_ai.data import arrow
from constitutional_ai.data.cases import load_cases
from constitutional_ai.data.prompts import load_prompts, prompts_identity
from constitutional_ai.data.sources import read
from constitutional_ai.errors import DataError

TURNS = [
    {"role": "user", "content": "Hi."},
    {"role": "assistant", "content": "Hello."},
    {"role": "user", "content": "Bye."},
]


@pytest.fixture
def parquet(tmp_path: Path) -> Path:
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    path = tmp_path / "prompts.parquet"
    pq.write_table(pa.Table.from_pylist([{"prompt": TURNS, "kind": "harmful"}] * 3), path)
    return path


def test_parquet_holds_messages_and_kinds(parquet: Path) -> None:
    found = read(str(parquet))
    assert [row.prompt for row in found.prompts] == [TURNS] * 3
    assert [row.number for row in found.prompts] == [1, 2, 3]
    assert len({prompt.id for prompt in load_prompts(str(parquet), "helpful", 9, 0)}) == 3
    with pytest.raises(DataError, match=r"prompts.parquet: row 2: the same prompt stands in row 1"):
        load_cases(str(parquet), {})


def test_parquets_identity_is_its_content(parquet: Path) -> None:
    before = prompts_identity(str(parquet))
    assert prompts_identity(str(parquet)) == before
    parquet.write_bytes(parquet.read_bytes() + b"\xff")
    assert prompts_identity(str(parquet)) != before


def test_a_broken_parquet_file_is_one_line(parquet: Path) -> None:
    parquet.write_bytes(parquet.read_bytes()[:-20])
    with pytest.raises(DataError, match="not a Parquet file, or a broken one") as caught:
        read(str(parquet))
    assert "\n" not in str(caught.value)


def test_without_the_extra_the_remedy_is_named(
    parquet: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(DataError, match=r"needs pyarrow; pip install 'constitutional-ai\[data\]'"):
        read(str(parquet))


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A data set as the hub lays it out, with two splits."""
    pytest.importorskip("datasets")
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "set"
    folder.mkdir()
    (folder / "train.jsonl").write_text('{"prompt": "a", "q": "x"}\n{"prompt": "b", "q": "y"}\n')
    (folder / "test.jsonl").write_text('{"prompt": "c", "q": "z"}\n')
    return f"hf:{folder}"


def texts(source: str) -> list[str]:
    return [row.prompt[0]["content"] for row in read(source).prompts]


def test_a_data_set_by_split_and_column(hub: str) -> None:
    assert texts(hub) == ["a", "b"]
    assert texts(f"{hub}::test") == ["c"]
    assert texts(f"{hub}:::q") == ["x", "y"]
    assert texts(f"{hub}:default:test:q") == ["z"]


def test_a_data_sets_identity_is_that_of_its_prompts(hub: str) -> None:
    assert prompts_identity(hub) == prompts_identity(f"{hub}::train")
    assert prompts_identity(hub) != prompts_identity(f"{hub}::test")


@pytest.mark.parametrize(
    ("rest", "message"),
    [
        ("::dev", "cannot be loaded"),
        (":other", "cannot be loaded"),
        (":::answer", "has no column 'answer'; it has: prompt, q"),
        ("::::more", "expected hf:ID, then :CONFIG"),
    ],
)
def test_a_wrong_part_is_one_line(hub: str, rest: str, message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        read(hub + rest)
    assert "\n" not in str(caught.value)


def test_offline_an_unknown_set_is_one_line() -> None:
    pytest.importorskip("datasets")
    with pytest.raises(DataError, match="hf:nobody/nothing: cannot be loaded") as caught:
        read("hf:nobody/nothing")
    assert "\n" not in str(caught.value)


def test_what_is_asked_of_the_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    datasets = pytest.importorskip("datasets")
    asked = {}

    def load_dataset(id: str, **options: object) -> list[dict[str, str]]:
        asked.update(id=id, **options)
        return [{"prompt": "a"}]

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    assert texts("hf:Anthropic/hh-rlhf/harmless-base@abc::test") == ["a"]
    assert asked == {
        "id": "Anthropic/hh-rlhf",
        "name": None,
        "data_dir": "harmless-base",
        "revision": "abc",
        "split": "test",
    }


def test_a_name_without_an_id_is_refused() -> None:
    with pytest.raises(DataError, match="expected hf:ID"):
        arrow.hub_name("hf:")
