"""Differences: words by principle, and labels that flip."""

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from constitutional_ai.constitution.diff import changes, described, flips
from constitutional_ai.data.pairs import load_usable
from constitutional_ai.engines.scripted import ScriptedEngine
from constitutional_ai.principles import Constitution, Principle, load_constitution
from constitutional_ai.progress import Progress
from tests.constitution.conftest import preferring

Write = Callable[..., Path]


def made(*principles: Principle, version: str = "1") -> Constitution:
    return Constitution(name="mine", version=version, principles=principles)


SHORT = Principle(name="short", text="The answer is short.")
KIND = Principle(name="kind", text="The answer is kind.")


def test_every_sort_of_change_is_told() -> None:
    before = made(
        SHORT, KIND, Principle(name="old", text="Old text."), Principle(name="a", text="A b.")
    )
    after = made(
        Principle(name="short", text="The answer is very short."),
        KIND.model_copy(update={"weight": 3.0}),
        Principle(name="new", text="New text."),
        Principle(name="b", text="A  b."),
        version="2",
    )
    found = {(c.sort, c.name): c for c in changes(before, after)}
    assert set(found) == {
        ("changed", "short"),
        ("changed", "kind"),
        ("added", "new"),
        ("removed", "old"),
        ("renamed", "b"),
    }
    assert found["changed", "kind"].fields == {"weight": (1.0, 3.0)}
    assert set(found["changed", "short"].fields) == {"text"}  # its prompts only follow it
    assert found["renamed", "b"].was == "a"
    text = described(before, after)
    assert "  text: The answer is {+very +}short." in text
    assert "  drawn for critique of red-team prompts: 25.0% → 50.0%" in text
    assert "renamed: b (was a)" in text


def test_a_written_prompt_is_told_even_if_the_text_changed() -> None:
    other = Principle(name="short", text="Brief.", critique_prompt="Where is it long?")
    (change,) = changes(made(SHORT), made(other))
    assert set(change.fields) == {"text", "critique_prompt"}


def test_a_forgotten_version_is_told_and_the_same_is_the_same() -> None:
    assert "both call themselves version 1" in described(made(SHORT), made(KIND))
    assert "both call" not in described(made(SHORT), made(KIND, version="2"))
    assert described(made(SHORT), made(SHORT)).endswith("the same")


# ---- labels


def pairs(folder: Path, *answers: tuple[str, str]) -> Path:
    path = folder / "pairs.jsonl"
    rows = [
        {"id": str(n), "prompt": f"Request {n}?", "set": "helpful", "answers": list(pair)}
        for n, pair in enumerate(answers)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def by_wish(question: str, answer: str) -> float:
    """Short answers under "short", those with "please" under "kind"."""
    return -float(len(answer)) if "short" in question else 5.0 * ("please" in answer)


def judged(before: Constitution, after: Constitution, path: Path, engine: Any = None) -> Any:
    engine = engine or ScriptedEngine(reply=lambda _: "", prefer=preferring(by_wish))
    rows = load_usable(path, compared=False)[0]
    return flips(before, after, rows, engine, False, Progress("plain", io.StringIO()))


@pytest.fixture
def flipping(tmp_path: Path) -> Path:
    return pairs(
        tmp_path,
        ("No.", "In a moment, please."),  # short prefers the first, kind the second
        ("Yes, please.", "Certainly, dear reader."),  # both the first
        ("Well, one could say so, please.", "Yes."),  # the other way round
    )


def test_labels_that_flip_are_counted_with_their_pair(flipping: Path) -> None:
    found = judged(made(SHORT), made(KIND), flipping)
    assert found.read == 3
    assert sorted(flip.line for flip in found.flips) == [1, 3]
    assert found.share["mean"] == pytest.approx(2 / 3)
    assert found.share["low"] < 2 / 3 < found.share["high"]
    assert not judged(made(SHORT), made(SHORT), flipping).flips


def test_weights_decide_and_no_luck_of_a_draw(flipping: Path) -> None:
    mostly_short = made(SHORT.model_copy(update={"weight": 50.0}), KIND)
    assert not judged(made(SHORT), mostly_short, flipping).flips
    assert (
        len(
            judged(
                made(SHORT), made(SHORT, KIND.model_copy(update={"weight": 50.0})), flipping
            ).flips
        )
        == 2
    )


def test_priority_decides_where_principles_disagree(flipping: Path) -> None:
    ranked = made(
        SHORT.model_copy(update={"weight": 50.0}), KIND.model_copy(update={"priority": 1})
    )
    found = judged(made(SHORT), ranked, flipping)
    assert len(found.flips) == 2
    assert found.flips[0].decided_by == (("short",), ("kind",))


def test_a_principle_of_both_is_asked_once(flipping: Path) -> None:
    asked: list[str] = []

    def prefer(conversation: Any, option: str) -> float:
        asked.append(conversation[-1]["content"])
        return preferring(by_wish)(conversation, option)

    engine = ScriptedEngine(reply=lambda _: "", prefer=prefer)
    judged(made(SHORT, KIND), made(SHORT), flipping, engine)
    assert len(asked) == 3 * 2 * 2 * 2  # pairs, orders, principles, options


def test_what_has_no_label_is_counted_by_reason(flipping: Path) -> None:
    only_attacks = made(SHORT.model_copy(update={"prompts": ("red-team",)}), version="9")
    found = judged(made(SHORT), only_attacks, flipping)
    assert found.read == 0
    assert found.unlabelled == {"mine 9 has no principle for helpful prompts": 3}
    nan = ScriptedEngine(reply=lambda _: "", prefer=lambda c, o: float("nan"))
    assert sum(judged(made(SHORT), made(KIND), flipping, nan).unlabelled.values()) == 3


def test_the_command_shows_words_labels_and_examples(
    flipping: Path, write: Write, cai: Any, speaks: Any
) -> None:
    speaks(ScriptedEngine(reply=lambda _: "", prefer=preferring(by_wish)))
    one = write('name = "wish"\ntext = "The answer is short."', name="one")
    other = write('name = "wish"\ntext = "The answer is kind."', name="other")
    text = cai("diff", one, other, "--pairs", flipping, "--no-fence", "--examples", 1).stdout
    assert "  text: The answer is [-short-]{+kind+}." in text
    assert "2 of 3 flip: 0.667 (95 % interval 0.208–0.939)" in text
    assert f"{flipping}:3: Request 2?" in text
    assert f"{flipping}:1: " not in text  # one example was asked for
    found = json.loads(cai("diff", one, other, "--pairs", flipping, "--no-fence", "--json").stdout)
    assert found["labels"]["flipped"] == 2
    assert found["before"] == load_constitution(one).hash
    assert found["changes"][0]["fields"]["text"] == ["The answer is short.", "The answer is kind."]


def test_shipped_ones_differ_from_each_other(cai: Any) -> None:
    assert "added: role-play" in cai("diff", "harmless", "red-team").stdout
    assert cai("diff", "lab", "lab").stdout.endswith("the same\n")
