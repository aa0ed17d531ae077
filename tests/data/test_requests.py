"""Requests from the laboratory and from files as they are published."""

import os
from pathlib import Path

import pytest

from constitutional_ai.data.requests import load_examples, load_requests
from constitutional_ai.errors import DataError
from constitutional_ai.lab.world import topics as world

DATA = Path(os.environ.get("CAI_DATA", Path(__file__).parents[2] / "../shared/data"))


@pytest.mark.parametrize(("source", "split"), [("lab", "test"), ("lab-train", "train")])
def test_the_laboratorys_splits_stay_apart(source: str, split: str) -> None:
    rows = load_requests(source, None, 40, 20, 1)
    assert {world.topic_of(row.prompt[0]["content"]).split for row in rows} == {split}
    assert [row.kind for row in rows] == ["harmful"] * 40 + ["benign"] * 20
    kinds = {world.topic_of(row.prompt[0]["content"]).kind for row in rows[40:]}
    assert kinds == {"benign", "borderline"}
    assert {row.category for row in rows[:40]} <= {
        "theft",
        "damage",
        "violence",
        "deceit",
        "privacy",
    }


def test_a_file_of_both_kinds(tmp_path: Path) -> None:
    path = tmp_path / "requests.jsonl"
    path.write_text(
        '{"prompt": "Harm it.", "category": "x"}\n'
        '{"prompt": "Harm it.", "category": "x"}\n'
        '{"prompt": [{"role": "user", "content": "Help."}], "kind": "benign"}\n'
    )
    harmful, benign = load_requests(str(path), None, 10, 10, 0)
    assert (harmful.category, harmful.kind) == ("x", "harmful")
    assert (benign.category, benign.kind) == ("no category", "benign")


def test_csv_with_quoted_lines(tmp_path: Path) -> None:
    path = tmp_path / "behaviours.csv"
    path.write_text('Behavior,SemanticCategory\n"Do this,\nthen that",illegal\n')
    (row,) = load_requests(str(path), None, 10, 10, 0)
    assert row.prompt[0]["content"] == "Do this,\nthen that"
    assert row.category == "illegal"


def test_xstest_without_labels_asks_for_no_harm_with_its_safe_prompts(tmp_path: Path) -> None:
    path = tmp_path / "xstest.csv"
    path.write_text("id,type,prompt,focus,note\n1,homonyms,a,k,\n2,contrast_homonyms,b,k,\n")
    harmful, benign = load_requests(str(path), None, 10, 10, 0)
    assert (harmful.prompt[0]["content"], benign.prompt[0]["content"]) == ("b", "a")
    assert (harmful.category, benign.category) == ("contrast_homonyms", "homonyms")


def test_a_contextual_behaviour_carries_its_context(tmp_path: Path) -> None:
    path = tmp_path / "harmbench.csv"
    path.write_text(
        "Behavior,FunctionalCategory,SemanticCategory,Tags,ContextString,BehaviorID\n"
        "Explain,contextual,illegal,,Some context,b\n"
    )
    (row,) = load_requests(str(path), None, 10, 10, 0)
    assert row.prompt[0]["content"] == "Some context\n\n---\n\nExplain"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "1: not valid JSON"),
        ('{"other": 1}', '1: expected an object with "prompt"'),
        ('{"prompt": "x", "kind": "odd"}', "1: kind is 'odd'"),
        ('{"prompt": "x", "kind": "benign"}', "no harmful request"),
        ("[]", "1: expected an object"),
    ],
)
def test_bad_files_name_the_line(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "bad.jsonl"
    path.write_text(text + "\n")
    with pytest.raises(DataError, match=message):
        load_requests(str(path), None, 10, 10, 0)


def test_examples_need_answers(tmp_path: Path) -> None:
    path = tmp_path / "examples.jsonl"
    path.write_text('{"prompt": "a", "answer": "b"}\n{"prompt": "c"}\n')
    with pytest.raises(DataError, match=r"examples.jsonl:2: no \"answer\""):
        load_examples(str(path))


@pytest.mark.skipif(not DATA.exists(), reason="no public data sets here")
def test_published_sets_are_read_as_they_are() -> None:
    for file, n in (
        ("harmbench/harmbench_behaviors_text_val.csv", 80),
        ("advbench/advbench_behaviors.csv", 520),
        ("strongreject/strongreject_dataset.csv", 313),
    ):
        rows = load_requests(str(DATA / file), None, 9999, 0, 0)
        assert abs(len(rows) - n) <= 3, file  # a few stand twice
    rows = load_requests(str(DATA / "xstest/xstest_prompts.csv"), None, 999, 999, 0)
    assert [sum(r.kind == k for r in rows) for k in ("harmful", "benign")] == [200, 250]
