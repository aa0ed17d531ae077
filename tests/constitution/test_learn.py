"""Learning principles from preferences: a hidden rule is found, noise is not."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from constitutional_ai.constitution.learn import read_proposal, select, split
from constitutional_ai.data.pairs import load_usable, sample
from constitutional_ai.engines.scripted import ScriptedEngine
from constitutional_ai.principles import load_constitution
from tests.constitution.conftest import preferring

Write = Callable[..., Path]


def preferences(folder: Path, count: int = 120) -> Path:
    """Two hidden rules: with "figure" in the prompt the answer with a source is chosen, else the
    one that says please.
    """
    rows = []
    for n in range(count):
        figure = n % 3 > 0
        good = f"Answer {n}, says the bureau." if figure else f"Answer {n}, please."
        prompt = f"Which figure {n}?" if figure else f"Question {n}?"
        rows.append({"prompt": prompt, "chosen": good, "rejected": f"Answer {n}."})
    path = folder / "preferences.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def score(question: str, answer: str) -> float:
    if "source" in question:
        return 3.0 * ("bureau" in answer)
    if "please" in question:
        return 3.0 * ("please" in answer)
    return -3.0 * ("bureau" in answer or "please" in answer)


def proposes(conversation: Any) -> str:
    lines = conversation[-1]["content"].split("\n")
    chosen = next(line for line in lines if line.startswith("Somebody")).split()[2].rstrip(".")
    said = next(line for line in lines if line.startswith(chosen))
    number = int(next(word for word in said.split() if word.strip(",").isdigit()).strip(","))
    if number % 10 == 7:
        return "I prefer it."
    if "bureau" in said:
        wording = ("its source", "the source", "a source")[number % 3]
        return f"The answer should name {wording} for each figure."
    return "Sure. **The answer should say please to the reader.** It is kind."


def engine() -> ScriptedEngine:
    return ScriptedEngine(reply=proposes, prefer=preferring(score))


def test_the_hidden_rules_are_proposed_scored_and_selected(
    tmp_path: Path, cai: Any, speaks: Any
) -> None:
    speaks(engine())
    out = tmp_path / "learned.toml"
    path = preferences(tmp_path)
    found = json.loads(cai("learn", path, "--out", out, "--no-fence", "--json").stdout)
    texts = [row["text"] for row in found["candidates"]]
    assert len(texts) == 2  # three wordings of one rule are one candidate
    assert "source" in texts[0] and "please" in texts[1]
    assert found["candidates"][0]["proposed"] > found["candidates"][1]["proposed"] > 0
    proposed = sum(row["proposed"] for row in found["candidates"])
    reason = 'no sentence that begins with "The answer should"'
    assert found["unreadable"] == {reason: found["asked"] - proposed}
    constitution = load_constitution(out)
    assert constitution.principles[0].text == texts[0]
    assert constitution.principles[0].use == ("critique", "preference")
    assert found["selected_on"] + found["held_out"] == 120


def test_what_is_reported_comes_from_the_held_out_part(
    tmp_path: Path, cai: Any, speaks: Any
) -> None:
    speaks(engine())
    path = preferences(tmp_path)
    found = json.loads(
        cai("learn", path, "--out", tmp_path / "x.toml", "--no-fence", "--json").stdout
    )
    held = split(sample(load_usable(path)[0], 400, "learn", 0))[1]
    figures = sum("figure" in row.prompt[0]["content"] for row in held)
    explained = found["candidates"][0]["explained"]
    assert explained["n"] == len(held) == found["held_out"]
    assert explained["mean"] == pytest.approx(figures / len(held))
    together = found["selected"][0]["explained_together"]
    assert together == explained  # the first selected one is the first candidate


def test_candidates_of_another_constitution_are_tried_instead(
    tmp_path: Path, write: Write, cai: Any, speaks: Any
) -> None:
    speaks(engine())
    candidates = write(
        'name = "against"\ntext = "The answer is bare of any ornament."',
        'name = "sources"\ntext = "The answer names its source."',
        'name = "polite"\ntext = "The answer says please."',
        'name = "critic"\ntext = "The answer names its source."\nuse = ["critique"]',
    )
    out = tmp_path / "learned.toml"
    text = cai(
        "learn", preferences(tmp_path), "--out", out, "--candidates", candidates, "--no-fence"
    ).stdout
    found = load_constitution(out)
    assert found.principles[0].name == "sources"
    assert "against: The answer is bare of any ornament.  (the preferences go against it)" in text
    assert "against" not in {principle.name for principle in found.principles}
    assert "critic:" not in text
    assert "# alone it explains 0.6" in out.read_text()


def test_preferences_that_nothing_explains_write_nothing(
    tmp_path: Path, write: Write, cai: Any, speaks: Any
) -> None:
    speaks(engine())
    out = tmp_path / "learned.toml"
    candidates = write('name = "against"\ntext = "The answer is bare of any ornament."')
    result = cai("learn", preferences(tmp_path), "--out", out, "--candidates", candidates, code=2)
    assert "no candidate explains more than half" in result.stderr
    assert not out.exists()


def test_a_model_that_proposes_nothing_is_told(tmp_path: Path, cai: Any, speaks: Any) -> None:
    speaks(ScriptedEngine(reply=lambda _: "Well.", prefer=preferring(score)))
    result = cai("learn", preferences(tmp_path), "--out", tmp_path / "x.toml", code=2)
    assert "proposed no readable principle for 40 pairs" in result.stderr
    assert "--candidates" in result.stderr


def test_what_is_there_is_not_overwritten_and_nothing_is_asked(
    tmp_path: Path, cai: Any, speaks: Any
) -> None:
    opened = speaks(engine())
    out = tmp_path / "x.toml"
    out.write_text("precious")
    assert "already exists" in cai("learn", preferences(tmp_path), "--out", out, code=2).stderr
    assert opened == []
    assert (
        "--set x"
        in cai(
            "learn", preferences(tmp_path), "--out", tmp_path / "y.toml", "--set", "x", code=2
        ).stderr
    )


def test_no_place_is_favoured_in_the_questions(tmp_path: Path, cai: Any, speaks: Any) -> None:
    asked: list[str] = []

    def reply(conversation: Any) -> str:
        asked.append(conversation[-1]["content"])
        return proposes(conversation)

    speaks(ScriptedEngine(reply=reply, prefer=preferring(score)))
    cai("learn", preferences(tmp_path), "--out", tmp_path / "x.toml", "--no-fence")
    first = sum("preferred (A)" in text for text in asked)
    assert 8 <= first <= 32  # of 40


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        ("The answer should be like (A).", "it names an option"),
        ("The answer should rhyme.", ""),
        ("The answer should.", "not between 4 and 60 words"),
        ("The answer should " + "very " * 60 + "rhyme.", "not between 4 and 60 words"),
        ("", 'no sentence that begins with "The answer should"'),
    ],
)
def test_proposals_are_read_or_refused_with_a_reason(reply: str, reason: str) -> None:
    assert read_proposal(reply)[1] == reason


def test_selection_is_greedy_stops_and_never_takes_the_wrong_way() -> None:
    sources = {str(n): 0.9 if n < 6 else 0.45 for n in range(10)}
    polite = {str(n): 0.9 if n >= 4 else 0.4 for n in range(10)}
    wrong = {str(n): 0.1 for n in range(10)}
    steps = select({"wrong": wrong, "sources": sources, "polite": polite}, 8, 0.01)
    assert steps == [("sources", 0.6), ("polite", 1.0)]
    assert select({"sources": sources, "polite": polite}, 8, 0.5) == [("sources", 0.6)]
    assert select({"wrong": wrong}, 8, 0.0) == []
