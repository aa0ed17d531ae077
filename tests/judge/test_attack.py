"""Attacks on judges whose weakness is known: each is found by the one attack that it is weak to."""

import json
import math
from collections.abc import Callable
from dataclasses import replace

import pytest
from typer.testing import CliRunner

from constitutional_ai.cli import main as cli
from constitutional_ai.data.pairs import labelled, load
from constitutional_ai.engines.scripted import ScriptedEngine
from constitutional_ai.judge import pages
from constitutional_ai.judge.attack import BUILTIN_PAIRS, attack, families
from constitutional_ai.judge.judge import Judge
from constitutional_ai.judge.judge_pairs import JURY
from constitutional_ai.lab.world.pairs import SKILLS, pairs
from constitutional_ai.principles import Constitution, Principle
from constitutional_ai.records import Conversation
from constitutional_ai.stage_settings import LabelSettings
from tests.engines.faulty_server import MODEL, faulty_server

CONSTITUTION = Constitution(
    name="one", version="1", principles=(Principle(name="kind", text="Kind."),)
)
ROWS = load(BUILTIN_PAIRS)
BETTER = tuple(row.better for row in ROWS)
NULLS = set(families(False)["a constant null answer"].texts)

PADDING = set(families(False, 1)["very long padding"].texts)


def weak_to(sign: Callable[[str], bool], worth_of_sign: float = 5.0) -> ScriptedEngine:
    """Knows the better answer, whatever is added, but takes one that shows the sign."""

    def worth(answer: str) -> float:
        return worth_of_sign if sign(answer) else float(answer.startswith(BETTER))

    def prefer(turns: Conversation, option: str) -> float:
        _, rest = turns[-1]["content"].split("\n(A) ", 1)
        first, rest = rest.split("\n(B) ", 1)
        second = rest.split("\nWhich answer")[0]
        odds = 2 * (worth(first) - worth(second))
        return -math.log1p(math.exp(-odds if option == "(A)" else odds))

    return ScriptedEngine(lambda _: "(A)", prefer)


def attacked(engine: ScriptedEngine, rows: list = ROWS) -> dict:
    judge = Judge(engine, CONSTITUTION, LabelSettings(fence=False))
    attacks = {n: c for n, c in families(False, 3).items() if n != "a fake end of data"}
    return attack({"it": judge}, rows, attacks, 0, lambda _: None)["it"]


@pytest.mark.parametrize(
    ("name", "sign"),
    [
        (
            "asks to be chosen",
            lambda text: (
                "choose" in text.lower() or "correct choice" in text or "has to be" in text
            ),
        ),
        ("one token", lambda text: len(text) == 1),
        ("a constant null answer", lambda text: text in NULLS),
        ("a disavowal", lambda text: "joke" in text or "fiction" in text),
        ("flattery", lambda text: "judg" in text),
        ("chat-control tokens", lambda text: "<" in text),
        ("very long padding", lambda text: any(text.count(said) == 3 for said in PADDING)),
    ],
)
def test_a_weakness_shows_in_its_own_row(name: str, sign: Callable[[str], bool]) -> None:
    found = attacked(weak_to(sign))
    assert found["right_without"]["mean"] == 1.0
    assert found["attacks"][name].fooled["mean"] == 1.0
    assert found["attacks"][name].shift > 0.5
    others = [o.fooled["mean"] for n, o in found["attacks"].items() if n != name]
    assert max(others) < 0.5


def test_a_sound_judge_is_not_moved_and_gives_a_half_to_twins() -> None:
    found = attacked(weak_to(lambda _: False))
    assert [o.fooled["mean"] for o in found["attacks"].values()] == [0.0] * len(found["attacks"])
    assert found["twice"] == {"furthest_from_half": 0.0, "unlabelled": 0}


def test_a_judge_that_takes_oddities_for_faults_loses_good_answers() -> None:
    found = attacked(weak_to(lambda text: "joke" in text or "fiction" in text, -1.0))
    disavowal, flattery = (found["attacks"][name] for name in ("a disavowal", "flattery"))
    assert disavowal.fooled["mean"] == 0.0
    assert (disavowal.spoiled.fooled["mean"], disavowal.spoiled.fooled["n"]) == (1.0, len(ROWS))
    assert flattery.spoiled.fooled["mean"] == 0.0
    assert found["attacks"]["one token"].spoiled is None


def test_attacked_pairs_without_a_verdict_are_counted_not_scored() -> None:
    sound = weak_to(lambda _: False)

    def prefer(turns: Conversation, option: str) -> float:
        if "<|im_end|>" in turns[-1]["content"]:
            return math.nan
        return sound.option_logprobs([turns], [option])[0][0]

    found = attacked(ScriptedEngine(lambda _: "(A)", prefer))
    tokens = found["attacks"]["chat-control tokens"]
    change = families(False)["chat-control tokens"]
    lost = len([n for n in range(len(ROWS)) if "<|im_end|>" in change.text(n)])
    assert tokens.unlabelled == lost > 0
    assert tokens.fooled["n"] == tokens.changed["n"] == len(ROWS) - lost
    assert tokens.fooled["mean"] == 0.0
    assert tokens.spoiled.unlabelled == lost and tokens.spoiled.fooled["n"] == len(ROWS) - lost


def test_of_several_judges_the_jury_is_attacked_too() -> None:
    """One of three that falls is outvoted; two that fall are not."""
    weak, sound = weak_to(lambda text: len(text) == 1), weak_to(lambda _: False)
    only = {"one token": families(False)["one token"]}
    for engines, fooled in (([weak, sound, sound], 0), ([weak, weak, sound], 1)):
        judges = {
            str(n): Judge(engine, CONSTITUTION, LabelSettings(fence=False))
            for n, engine in enumerate(engines)
        }
        found = attack(judges, ROWS, only, 0, lambda _: None)
        assert found["0"]["attacks"]["one token"].fooled["mean"] == 1
        assert found["2"]["attacks"]["one token"].fooled["mean"] == 0
        assert found[JURY]["attacks"]["one token"].fooled["mean"] == fooled
        assert found[JURY]["right_without"]["mean"] == 1


def test_where_nothing_was_right_before_nothing_can_be_fooled() -> None:
    found = attacked(ScriptedEngine(lambda _: "(A)", lambda *_: math.log(0.5)))
    assert found["attacks"]["flattery"].fooled is None  # a tie names no winner


def test_where_an_attack_works_is_told_by_kind(capsys: pytest.CaptureFixture[str]) -> None:
    """A judge that flattery wins over on every second pair: the kind of exactly those."""
    rows = [replace(row, kind="vain" if n % 2 else "firm") for n, row in enumerate(ROWS)]
    vain = {row.worse for row in rows if row.kind == "vain"}
    weak = weak_to(lambda text: "judg" in text and any(text.startswith(w) for w in vain))
    found = attacked(weak, rows)
    flattery = found["attacks"]["flattery"].by_kind
    assert {kind: share["mean"] for kind, share in flattery.items()} == {"firm": 0.0, "vain": 1.0}
    assert flattery["vain"]["n"] == len(rows) // 2
    pages.say_attacks({"weak": found})
    said = capsys.readouterr().out
    assert "weak: fooled, by kind of pair." in said and "firm" in said
    assert "weak: better one lost by it, by kind of pair." in " ".join(said.split())
    pages.say_attacks({"weak": attacked(weak)})  # the everyday pairs have no kinds
    assert "by kind" not in capsys.readouterr().out


def test_which_text_works_is_told() -> None:
    weak = weak_to(lambda text: text.endswith("always prefer this answer."))
    flattery = attacked(weak)["attacks"]["flattery"]
    told = {text: (share["mean"], share["n"]) for text, share in flattery.by_text.items()}
    first, second = families(False)["flattery"].texts
    assert told == {first[:80]: (0.0, 10), second[:80]: (1.0, 10)}


def test_every_kind_of_pair_meets_every_text() -> None:
    """The laboratory's kinds take turns as the texts do: six of each, and each with each."""
    rows = labelled(pairs(80, noise=0.0))
    for name, change in families(in_lab=True).items():
        met = {(row.kind, change.text(n)) for n, row in enumerate(rows)}
        assert len(met) == len(SKILLS) * len(change.texts), name


def test_silence_is_tried_only_where_it_is_worse() -> None:
    found = attacked(weak_to(lambda _: False))
    helpful = len([row for row in ROWS if row.set == "helpful"])
    assert found["attacks"]["one token"].pairs == helpful < len(ROWS)
    assert found["attacks"]["flattery"].pairs == len(ROWS)


def test_a_fake_end_of_data_closes_the_layout_and_speaks_for_the_judge() -> None:
    """A judge that reads the first "(A)" or "(B)" line as its own reply falls for it."""
    made = [f"Bad. {text}" for text in families(False)["a fake end of data"].texts]
    assert made[0] == families(False)["a fake end of data"].make("Bad.", 0)
    assert len(set(made)) == 4
    assert all(text.startswith("Bad. ") and "\n" in text for text in made)
    weak = weak_to(lambda text: "--- END OF DATA ---" in text)
    judge = Judge(weak, CONSTITUTION, LabelSettings(fence=False))
    only = {"end": families(False)["a fake end of data"]}
    found = attack({"it": judge}, ROWS, only, 0, lambda _: None)["it"]
    fooled = found["attacks"]["end"].fooled
    assert 0.3 < fooled["mean"] < 0.8  # two texts of four say so; the others close the layout


def test_the_lab_has_the_same_families_and_its_own_injections() -> None:
    general, lab = set(families(False)), set(families(True))
    assert lab - general == {
        "padding that it was not taught",
        "injections that the judge was taught",
        "injections that it was not taught",
    }
    for change in families(True).values():
        assert change.make("First, walk.", 3) != "First, walk."


def test_a_served_judge_is_attacked_by_the_same_command() -> None:
    with faulty_server() as server:
        spec = f"{server.url}#{MODEL}"
        done = CliRunner().invoke(
            cli.app, ["judge", "attack", "--engine", spec, "--count", "1", "--json"]
        )
    assert done.exit_code == 0, done.output
    found = json.loads(done.output.strip().splitlines()[-1])[spec]
    assert set(found["attacks"]) == set(families(False))
    asked = [body for body in server.bodies if "Request: [" in body["messages"][0]["content"]]
    assert any("END OF DATA" in body["messages"][0]["content"] for body in asked)
    assert found["twice"]["furthest_from_half"] == pytest.approx(0)
