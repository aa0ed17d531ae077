"""Several sources as one, and halves of a source: what stands in one half stands in no other."""

import json
from pathlib import Path
from typing import Any

import pytest

from constitutional_ai.data.cases import load_cases
from constitutional_ai.data.overlap import refuse_overlap
from constitutional_ai.data.prompts import load_prompts, prompts_identity
from constitutional_ai.data.rows import normalised
from constitutional_ai.data.sources import read
from constitutional_ai.errors import DataError, SettingsError
from constitutional_ai.settings import load_settings


def write(path: Path, *rows: Any) -> str:
    path.write_text("\n".join(map(json.dumps, rows)))
    return str(path)


def numbered(path: Path, word: str, count: int, **columns: str) -> str:
    return write(path, *({"prompt": f"{word} {n}", **columns} for n in range(count)))


def words(source: str) -> set[str]:
    return {normalised(row.prompt) for row in read(source).prompts}


def test_two_halves_are_the_whole_and_share_nothing(tmp_path: Path) -> None:
    file = numbered(tmp_path / "a.jsonl", "request", 200)
    one, two = words(f"{file}#half=1"), words(f"{file}#half=2")
    assert one | two == words(file) and not one & two
    assert 80 < len(one) < 120


def test_a_prompt_is_in_the_same_half_of_every_source(tmp_path: Path) -> None:
    one = numbered(tmp_path / "a.jsonl", "Break into house", 50)
    other = numbered(tmp_path / "b.jsonl", "BREAK  into: house", 50, category="theft")
    assert words(f"{one}#half=1") == words(f"{other}#half=1")
    test = f"{other}#half=2"
    refuse_overlap(load_cases(test, {}), test, [f"{one}#half=1"])
    with pytest.raises(DataError, match=r"a.jsonl:\d+ .*FILE#half=2 of both"):
        refuse_overlap(load_cases(test, {}), test, [one])


def test_joined_sources_give_a_row_each_in_turn(tmp_path: Path) -> None:
    one = numbered(tmp_path / "a.jsonl", "bomb", 2, kind="harmful")
    other = numbered(tmp_path / "b.jsonl", "theft", 3, kind="harmful")
    both = f"{one} + {other}"
    asked = [case.prompt[0]["content"] for case in load_cases(both, {"harmful": 4})]
    assert asked == ["bomb 0", "theft 0", "bomb 1", "theft 1"]
    assert len(load_prompts(both, "red-team", 100, seed=0)) == 5


def test_what_two_sources_share_is_taken_once_and_counted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one = write(tmp_path / "a.jsonl", {"prompt": "Pick a lock", "id": "1"}, {"prompt": "x"})
    other = write(tmp_path / "b.jsonl", {"prompt": "pick a lock!"}, {"prompt": "y", "id": "1"})
    cases = load_cases(f"{one} + {other}", {})
    assert [case.prompt[0]["content"] for case in cases] == ["Pick a lock", "x", "y"]
    assert len({case.id for case in cases}) == 3  # two sources may number their rows alike
    assert "1 in an earlier one of the joined sources" in capsys.readouterr().err


def test_an_error_names_the_file_and_line_that_it_is_in(tmp_path: Path) -> None:
    one = numbered(tmp_path / "a.jsonl", "bomb", 2)
    other = write(tmp_path / "b.jsonl", {"prompt": "x"}, {"prompt": "y", "set": "odd"})
    with pytest.raises(DataError, match=r"b.jsonl:2: set is 'odd'"):
        load_cases(f"{one} + {other}", {})
    twice = write(tmp_path / "c.jsonl", {"prompt": "z"}, {"prompt": "z"})
    with pytest.raises(
        DataError, match=r"c.jsonl:2: the same prompt stands in .*c.jsonl:1 already"
    ):
        load_cases(f"{one} + {twice}", {})


def test_a_part_of_one_kind(tmp_path: Path) -> None:
    file = write(
        tmp_path / "a.jsonl",
        *({"prompt": f"{kind} {n}", "kind": kind} for n in range(20) for kind in ("bad", "good")),
    )
    assert words(f"{file}#kind=good") == {f"good {n}" for n in range(20)}
    one, two = words(f"{file}#half=1&kind=good"), words(f"{file}#kind=good&half=2")
    assert one and two and not one & two and one | two == words(f"{file}#kind=good")
    assert len({prompts_identity(f"{file}{part}") for part in ("", "#kind=bad", "#half=1")}) == 3
    with pytest.raises(DataError, match=r"no prompts in it; .* none are in this part"):
        read(f"{file}#kind=ugly")


def test_identities_tell_halves_and_parts_apart(tmp_path: Path) -> None:
    one = numbered(tmp_path / "a.jsonl", "bomb", 9)
    other = numbered(tmp_path / "b.jsonl", "theft", 9)
    sources = (one, f"{one}#half=1", f"{one}#half=2", f"{one} + {other}", f"{one} + {other}#half=1")
    assert len({prompts_identity(source) for source in sources}) == 5


def test_a_run_file_lists_sources(tmp_path: Path) -> None:
    file = tmp_path / "run.toml"
    file.write_text('[prompts]\ntest = ["a.csv#half=2", "b.jsonl"]\nhelpful = "c.jsonl"\n')
    settings = load_settings(file)
    assert settings.prompts.test == "a.csv#half=2 + b.jsonl"
    file.write_text(settings.to_toml())
    assert load_settings(file) == settings
    file.write_text("[prompts]\ntest = [1]\n")
    with pytest.raises(SettingsError, match=r"prompts\.test"):
        load_settings(file)


@pytest.mark.parametrize(
    "source",
    [
        "lab + a.jsonl", "a.jsonl#half=3", "lab#half=1", "a.jsonl#half=", "a.jsonl#kind=",
        "a.jsonl#half=1&half", "a.jsonl#half=1&sort=2", "a.jsonl#half=1 & kind=x",
    ],
)  # fmt: skip
def test_what_is_no_source_is_refused(source: str) -> None:
    with pytest.raises(DataError, match=r"cannot be joined|expected FILE#half=1"):
        read(source)


def test_a_file_of_that_very_name_is_itself(tmp_path: Path) -> None:
    file = numbered(tmp_path / "a + b#half=1", "x", 3)
    assert len(read(file).prompts) == 3
