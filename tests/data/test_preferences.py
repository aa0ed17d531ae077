"""Compared answers from files of every make; what cannot be used is counted."""

import gzip
import json
import os
from pathlib import Path
from typing import Any

import pytest

from constitutional_ai.data.preferences import NO_LABEL, NO_LAST_ANSWER, NOT_ALIKE, load_comparisons
from constitutional_ai.errors import DataError

DATA = Path(os.environ.get("CAI_DATA", Path(__file__).parents[2] / ".." / "shared" / "data"))
HH = "\n\nHuman: Hi.\n\nAssistant: Hello.\n\nHuman: Sing.\n\nAssistant:"


def write(folder: Path, *rows: Any) -> Path:
    path = folder / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


ASKED = [{"role": "user", "content": "Sing."}]
SAID = [[{"role": "assistant", "content": text}] for text in ("La.", "No.")]


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "Sing.", "chosen": "La.", "rejected": "No."},
        {"prompt": ASKED, "chosen": SAID[0], "rejected": SAID[1]},
        {"chosen": [*ASKED, *SAID[0]], "rejected": [*ASKED, *SAID[1]]},
        {"prompt": "Sing.", "chosen": [*ASKED, *SAID[0]], "rejected": [*ASKED, *SAID[1]]},
        {
            "chosen": "\n\nHuman: Sing.\n\nAssistant: La.",
            "rejected": "\n\nHuman: Sing.\n\nAssistant: No.",
        },
        {"prompt": "\n\nHuman: Sing.\n\nAssistant:", "chosen": "La.", "rejected": "No."},
        {"prompt": "Sing.", "answers": ["La.", "No."]},
    ],
)
def test_every_shape_says_the_same(tmp_path: Path, row: dict[str, Any]) -> None:
    (read,) = load_comparisons(write(tmp_path, row)).rows
    assert (read.prompt, read.chosen, read.rejected) == (ASKED, "La.", "No.")
    assert read.preferred == ("answers" not in row)
    assert read.set == "red-team"


def test_a_dialogue_keeps_its_turns(tmp_path: Path) -> None:
    path = write(tmp_path, {"chosen": HH + " La.", "rejected": HH + " No."})
    (read,) = load_comparisons(path, "helpful").rows
    assert [turn["role"] for turn in read.prompt] == ["user", "assistant", "user"]
    assert (read.chosen, read.rejected, read.set) == ("La.", "No.", "helpful")


def test_an_answer_that_plays_a_dialogue_stays_one_answer(tmp_path: Path) -> None:
    said = "La.\n\nHuman: More!\n\nAssistant: La la."
    (read,) = load_comparisons(
        write(tmp_path, {"prompt": "Sing.", "chosen": said, "rejected": "No."})
    ).rows
    assert read.chosen == said


def test_what_cannot_be_used_is_counted(tmp_path: Path) -> None:
    good = {"prompt": "Sing.", "chosen": "La.", "rejected": "No."}
    path = write(
        tmp_path,
        good,
        {**good, "p_chosen": None, "unlabelled": "no answer"},
        {"chosen": HH + " La.", "rejected": "\n\nHuman: Dance.\n\nAssistant: No."},
        {"prompt": "Sing.", "chosen": ASKED, "rejected": SAID[1]},
    )
    found = load_comparisons(path)
    assert [row.line for row in found.rows] == [1]
    assert found.skipped == {NO_LABEL: 1, NOT_ALIKE: 1, NO_LAST_ANSWER: 1}


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("{", ":1: not valid JSON"),
        ("[]\n", ":1: expected an object"),
        ('{"prompt": "a", "chosen": 3, "rejected": "b"}', ":1: chosen: expected text or messages"),
        ('{"prompt": "a", "answers": ["b"]}', ":1: answers: expected two texts"),
        ('{"prompt": "a", "chosen": "b", "rejected": "c", "set": "x"}', ":1: set: 'x' is none of"),
        ("", ": no comparison in it can be used"),
    ],
)
def test_mistakes_name_file_and_line(tmp_path: Path, text: str, reason: str) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(DataError) as caught:
        load_comparisons(path)
    assert str(caught.value).startswith(f"{path}{reason}")


def test_samples_are_drawn_by_the_seed_and_kept_in_order(tmp_path: Path) -> None:
    rows = [{"prompt": str(n), "chosen": "a", "rejected": "b"} for n in range(50)]
    found = load_comparisons(write(tmp_path, *rows))
    drawn = found.sample(20, "seed", 0)
    assert drawn == found.sample(20, "seed", 0) != found.sample(20, "seed", 1)
    assert [row.line for row in drawn] == sorted(row.line for row in drawn)
    assert len(found.sample(99, "seed")) == 50


def test_a_gzipped_file_is_read(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl.gz"
    path.write_bytes(gzip.compress(b'{"prompt": "a", "chosen": "b", "rejected": "c"}\n'))
    assert len(load_comparisons(path).rows) == 1


@pytest.mark.skipif(not (DATA / "hh-rlhf").is_dir(), reason="the public data is not here")
def test_hh_rlhf_is_read_whole() -> None:
    found = load_comparisons(DATA / "hh-rlhf" / "harmless-base-test-first1500.jsonl.gz")
    assert len(found.rows) + sum(found.skipped.values()) == 1500
    assert len(found.rows) > 1490
    shorter = sum(len(row.chosen) < len(row.rejected) for row in found.rows)
    assert shorter / len(found.rows) == pytest.approx(0.554, abs=0.002)  # the known floor
