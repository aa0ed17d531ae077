"""Labelled pairs in every shape that is read, and the floors of the public files where they lie."""

import gzip
import json
import os
from pathlib import Path

import pytest

from constitutional_ai.data.labelled import OTHER_PROMPTS, SAME, TIE, Labelled, load
from constitutional_ai.errors import DataError
from constitutional_ai.judge.agreement import floors
from constitutional_ai.records import assistant, user

DATA = Path(os.environ.get("CAI_DATA", Path(__file__).parents[2] / "../shared/data"))


def write(path: Path, *rows: dict) -> Path:
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return path


def one(tmp_path: Path, **row) -> Labelled:
    (found,) = load(write(tmp_path / "pairs.jsonl", row))
    return found


def test_dialogues_are_split_at_the_last_answer(tmp_path: Path) -> None:
    talk = "\n\nHuman: Hi.\n\nAssistant: Hello.\n\nHuman: Bye.\n\nAssistant:"
    found = one(tmp_path, chosen=f"{talk} See you.", rejected=f"{talk} No.")
    assert found.prompt == [user("Hi."), assistant("Hello."), user("Bye.")]
    assert (found.better, found.worse, found.flaw) == ("See you.", "No.", "")


def test_dialogues_with_different_prompts_keep_their_place_and_say_so(tmp_path: Path) -> None:
    found = one(
        tmp_path,
        chosen="\n\nHuman: Hi.\n\nAssistant: Hello.",
        rejected="\n\nHuman: Hey.\n\nAssistant: No.",
    )
    assert (found.better, found.worse, found.flaw) == ("Hello.", "No.", OTHER_PROMPTS)


def test_the_papers_comparisons(tmp_path: Path) -> None:
    found = one(
        tmp_path,
        prompt="Consider the following … The answer is:",
        corrects=[" (B)"],
        incorrects=[" (A)"],
        text_correct="\n\nHuman: Hi.\n\nAssistant: Hello.",
        text_incorrect="\n\nHuman: Hi.\n\nAssistant: No.",
    )
    assert found.prompt == [user("Hi.")]
    assert (found.better, found.worse) == ("Hello.", "No.")


def test_preference_rows_carry_soft_labels_and_who_wrote_what(tmp_path: Path) -> None:
    row = {
        "id": "7", "set": "helpful", "prompt": [user("Hi.")], "chosen": [assistant("Hello.")],
        "rejected": [assistant("No.")], "p_chosen": 0.8, "chosen_model": "a", "rejected_model": "b",
    }  # fmt: skip
    found = one(tmp_path, **row)
    assert (found.id, found.set, found.p, found.better_model) == ("7", "helpful", 0.8, "a")
    turned = one(tmp_path, **{**row, "p_chosen": 0.25})
    assert (turned.better, turned.worse, turned.p) == ("No.", "Hello.", 0.75)
    assert one(tmp_path, **{**row, "p_chosen": 0.5}).flaw == TIE
    assert one(tmp_path, **{**row, "p_chosen": None, "unlabelled": "NaN"}).flaw == "NaN"
    assert one(tmp_path, **{**row, "rejected": [assistant("Hello.")]}).flaw == SAME


@pytest.mark.parametrize(
    ("row", "complaint"),
    [
        ({"prompt": "Hi."}, "no column 'chosen'"),
        ({"prompt": "Hi.", "chosen": 3, "rejected": "x"}, "chosen: expected text"),
        ({"prompt": "Hi.", "chosen": "x", "rejected": "y", "set": "red"}, "set: expected red-team"),
        ({"prompt": "Hi.", "chosen": "x", "rejected": "y", "p_chosen": 3}, "p_chosen: expected a"),
    ],
)
def test_a_broken_row_names_its_line(tmp_path: Path, row: dict, complaint: str) -> None:
    good = {"prompt": "Hi.", "chosen": "x", "rejected": "y"}
    path = write(tmp_path / "pairs.jsonl", good, row)
    with pytest.raises(DataError, match=rf"pairs\.jsonl:2: .*{complaint}"):
        load(path)


def test_an_empty_file_is_an_error_and_gzip_is_read(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no rows"):
        load(write(tmp_path / "empty.jsonl"))
    path = tmp_path / "pairs.jsonl.gz"
    path.write_bytes(gzip.compress(b'{"prompt": "Hi.", "chosen": "x", "rejected": "y"}\n' * 3))
    assert len(load(path, count=2)) == 2


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
    assert floors(pairs)["the shorter answer"]["right"]["mean"] == pytest.approx(0.554, abs=5e-4)
    papers = load(DATA / "cai-paper" / "evals" / "438HHHEvaluations.jsonl")
    assert len(papers) == 438
    assert floors(papers)["the longer answer"]["right"]["mean"] == pytest.approx(0.562, abs=5e-4)
