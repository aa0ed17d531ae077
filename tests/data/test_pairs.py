"""Compared answers in every shape that is read; what cannot be used says why."""

import gzip
import json
import os
from pathlib import Path
from typing import Any

import pytest

from constitutional_ai.data.pairs import (
    NO_LABEL,
    NO_LAST_ANSWER,
    OTHER_PROMPTS,
    SAME,
    TIE,
    Labelled,
    load,
    load_usable,
    sample,
)
from constitutional_ai.errors import DataError
from constitutional_ai.judge.agreement import floors
from constitutional_ai.records import assistant, user

DATA = Path(os.environ.get("CAI_DATA", Path(__file__).parents[2] / "../shared/data"))
ASKED = [user("Sing.")]
SAID = [[assistant(text)] for text in ("La.", "No.")]
HH = "\n\nHuman: Hi.\n\nAssistant: Hello.\n\nHuman: Sing.\n\nAssistant:"


def write(folder: Path, *rows: Any) -> Path:
    path = folder / "pairs.jsonl"
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
    return path


def one(folder: Path, **row: Any) -> Labelled:
    (pair,) = load(write(folder, row))
    return pair


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
        {"prompt": "\n\nHuman: Sing.\n\nAssistant:", "chosen": " La.", "rejected": " No."},
        {
            "prompt": "Consider the following … The answer is:",
            "corrects": [" (B)"],
            "text_correct": "\n\nHuman: Sing.\n\nAssistant: La.",
            "text_incorrect": "\n\nHuman: Sing.\n\nAssistant: No.",
        },
    ],
)
def test_every_shape_says_the_same(tmp_path: Path, row: dict[str, Any]) -> None:
    pair = one(tmp_path, **row)
    assert (pair.prompt, pair.better, pair.worse) == (ASKED, "La.", "No.")
    assert (pair.set, pair.p, pair.flaw) == ("red-team", 1.0, "")


def test_a_dialogue_keeps_its_turns(tmp_path: Path) -> None:
    path = write(tmp_path, {"chosen": HH + " La.", "rejected": HH + " No."})
    (pair,) = load(path, unnamed="helpful")
    assert pair.prompt == [user("Hi."), assistant("Hello."), user("Sing.")]
    assert (pair.better, pair.worse, pair.set) == ("La.", "No.", "helpful")


def test_an_answer_that_plays_a_dialogue_stays_one_answer(tmp_path: Path) -> None:
    said = "La.\n\nHuman: More!\n\nAssistant: La la."
    assert one(tmp_path, prompt="Sing.", chosen=said, rejected="No.").better == said


def test_answers_that_nobody_compared_are_read_where_no_label_is_needed(tmp_path: Path) -> None:
    path = write(tmp_path, {"prompt": "Sing.", "answers": ["La.", "No."]})
    ((pair,), flaws) = load_usable(path, compared=False)
    assert (pair.better, pair.worse, pair.p, flaws) == ("La.", "No.", 0.5, {})
    with pytest.raises(DataError, match=r"pairs\.jsonl:1: answers: nobody has compared them"):
        load(path)


def test_preference_rows_carry_soft_labels_and_who_wrote_what(tmp_path: Path) -> None:
    row = {
        "id": "7", "set": "helpful", "prompt": ASKED, "chosen": SAID[0], "rejected": SAID[1],
        "p_chosen": 0.8, "chosen_model": "a", "rejected_model": "b",
    }  # fmt: skip
    pair = one(tmp_path, **row)
    assert (pair.id, pair.set, pair.p, pair.better_model) == ("7", "helpful", 0.8, "a")
    turned = one(tmp_path, **{**row, "p_chosen": 0.25})
    assert (turned.better, turned.worse, turned.p) == ("No.", "La.", 0.75)
    assert one(tmp_path, **{**row, "p_chosen": 0.5}).flaw == TIE
    assert one(tmp_path, **{**row, "p_chosen": None, "unlabelled": "NaN"}).flaw == "NaN"
    assert one(tmp_path, **{**row, "rejected": SAID[0]}).flaw == SAME


def test_what_cannot_be_used_keeps_its_place_and_is_counted(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        {"prompt": "Sing.", "chosen": "La.", "rejected": "No."},
        {"prompt": "Sing.", "chosen": "La.", "rejected": "No.", "p_chosen": None},
        {"chosen": HH + " La.", "rejected": "\n\nHuman: Dance.\n\nAssistant: No."},
        {"prompt": "Sing.", "chosen": ASKED, "rejected": SAID[1]},
    )
    assert [pair.flaw for pair in load(path)] == ["", NO_LABEL, OTHER_PROMPTS, NO_LAST_ANSWER]
    ((pair,), flaws) = load_usable(path)
    assert (pair.number, sum(flaws.values())) == (1, 3)
    with pytest.raises(DataError, match=r"no comparison in it can be used \(1 × the label is a ti"):
        load_usable(
            write(tmp_path, {"prompt": "a", "chosen": "b", "rejected": "c", "p_chosen": 0.5})
        )


@pytest.mark.parametrize(
    ("row", "complaint"),
    [
        ({"prompt": "Hi."}, "expected chosen and rejected"),
        ({"prompt": "Hi.", "chosen": 3, "rejected": "x"}, "chosen: expected text or messages"),
        ({"prompt": "Hi.", "chosen": "x", "rejected": "y", "set": "red"}, "set is 'red'"),
        ({"prompt": "Hi.", "chosen": "x", "rejected": "y", "p_chosen": 3}, "p_chosen: expected a"),
        ({"prompt": "Hi.", "answers": ["x"]}, "answers: "),
        ("[]", "expected an object"),
    ],
)
def test_a_broken_row_names_its_line(tmp_path: Path, row: Any, complaint: str) -> None:
    good = {"prompt": "Hi.", "chosen": "x", "rejected": "y"}
    with pytest.raises(DataError, match=rf"pairs\.jsonl:2: .*{complaint}"):
        load(write(tmp_path, good, row))


def test_an_empty_file_is_an_error_and_gzip_is_read(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no rows"):
        load(write(tmp_path))
    path = tmp_path / "pairs.jsonl.gz"
    path.write_bytes(gzip.compress(b'{"prompt": "Hi.", "chosen": "x", "rejected": "y"}\n' * 3))
    assert len(load(path, count=2)) == 2


def test_samples_are_drawn_by_the_seed_and_kept_in_order(tmp_path: Path) -> None:
    rows = [{"prompt": str(n), "chosen": "a", "rejected": "b"} for n in range(50)]
    pairs = load(write(tmp_path, *rows))
    drawn = sample(pairs, 20, "seed", 0)
    assert drawn == sample(pairs, 20, "seed", 0) != sample(pairs, 20, "seed", 1)
    assert [pair.number for pair in drawn] == sorted(pair.number for pair in drawn)
    assert len(sample(pairs, 99, "seed")) == 50


def test_floors_count_what_blind_raters_reach() -> None:
    def pair(better: str, worse: str) -> Labelled:
        return Labelled("1", [user("Hi.")], "helpful", better, worse)

    refusal = "I'm sorry, but I can't help with that."
    found = floors([pair("ab", "abc"), pair("abc", "ab"), pair("ab", "xy"), pair(refusal, "ab")])
    assert found["the shorter answer"]["right"]["mean"] == 0.25
    assert found["the longer answer"]["right"]["mean"] == 0.5
    assert found["the longer answer"]["decided"] == 0.75
    assert found["the longer answer"]["right_of_decided"]["mean"] == pytest.approx(2 / 3)
    assert found["the answer that opens like a refusal"]["right_of_decided"]["mean"] == 1.0


@pytest.mark.skipif(not (DATA / "hh-rlhf").is_dir(), reason="the public data is not here")
def test_the_known_floors_of_the_public_files() -> None:
    pairs = load(DATA / "hh-rlhf" / "harmless-base-test-first1500.jsonl.gz")
    assert len(pairs) == 1500
    assert sum(not pair.flaw for pair in pairs) > 1480
    assert floors(pairs)["the shorter answer"]["right"]["mean"] == pytest.approx(0.554, abs=5e-4)
    papers = load(DATA / "cai-paper" / "evals" / "438HHHEvaluations.jsonl")
    assert len(papers) == 438
    assert floors(papers)["the longer answer"]["right"]["mean"] == pytest.approx(0.562, abs=5e-4)
