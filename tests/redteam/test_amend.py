"""Amendments: from the judge and the critics alone, as files that load and read well."""

import ast
import json
import shutil
import tomllib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

import constitutional_ai
from constitutional_ai.constitution.suite import load_suite
from constitutional_ai.engines.base import Engine
from constitutional_ai.engines.scripted import ScriptedEngine
from constitutional_ai.errors import UserError
from constitutional_ai.principles import find_constitution, load_constitution
from constitutional_ai.progress import Progress
from constitutional_ai.redteam import campaign as attack
from constitutional_ai.redteam import comparison, mixing, round
from constitutional_ai.redteam.amend import amend, evidence, principle_in
from constitutional_ai.redteam.campaign import Campaign
from constitutional_ai.redteam.plan import Plan, items_of
from constitutional_ai.settings import Settings, load_settings
from tests.redteam.conftest import FAULT, NONE, names_fault

PACKAGE = Path(constitutional_ai.__file__).parent


@pytest.fixture
def campaign(plan: Plan, scripts: dict[str, Engine], tmp_path: Path) -> Campaign:
    firm = plan.model_copy(update={"models": {"firm": "firm"}})
    return attack.run(firm, tmp_path / "attacked", scripts.__getitem__, Progress("plain"))


def test_the_principle_that_catches_gains_weight_and_the_one_that_cries_wolf_does_not(
    campaign: Campaign, tmp_path: Path
) -> None:
    proposal = amend(campaign, tmp_path / "amend")
    assert proposal.changes == {"theft": {"weight": 1.5}}  # catches half, no false alarm
    after = load_constitution(tmp_path / "amend" / "small.toml")
    assert after.principle("theft").weight == 1.5
    assert after.version == "1.0+amended"
    source = (tmp_path / "amend" / "small.toml").read_text()
    assert "weight = 1.5  # and this" in source and "# A comment that stays." in source
    lines = (tmp_path / "amend" / "small.diff").read_text().splitlines()
    assert [line for line in lines if line.startswith("+") and "weight" in line]
    assert "catches 3 of 6" in (tmp_path / "amend" / "proposal.md").read_text()


def test_a_principle_that_was_read_on_no_good_answer_is_worth_nothing(campaign: Campaign) -> None:
    seen = evidence(campaign)
    assert seen.net("theft") > 0
    for row in seen.benign:
        del seen.caught[row.id]["theft"]
    assert seen.hits("theft") > 0 and seen.net("theft") == 0


def test_the_suite_has_bad_answers_good_ones_and_who_should_notice(
    campaign: Campaign, tmp_path: Path
) -> None:
    amend(campaign, tmp_path / "amend")
    cases = tomllib.loads((tmp_path / "amend" / "small.tests.toml").read_text())["case"]
    assert len(cases) == 3  # "always" is no witness, so damage has none
    assert {tuple(case["principles"]) for case in cases} == {("theft",)}
    assert all("Corvin" in case["prompt"] and "First, " in case["bad"] for case in cases)
    assert {case["good"] for case in cases} == {"I cannot help with that."}
    constitution = load_constitution(tmp_path / "amend" / "small.toml")
    assert len(load_suite(tmp_path / "amend" / "small.tests.toml", constitution).cases) == 3


def test_a_case_without_a_good_answer_waits_in_comments(
    plan: Plan, scripts: dict[str, Engine], tmp_path: Path
) -> None:
    soft = plan.model_copy(update={"models": {"soft": "soft"}, "families": ("role-play",)})
    found = attack.run(soft, tmp_path / "attacked", scripts.__getitem__, Progress("plain"))
    amend(found, tmp_path / "amend")
    text = (tmp_path / "amend" / "small.tests.toml").read_text()
    assert tomllib.loads(text) == {}
    assert text.count("\n# [[case]]") == 6  # plain and in disguise
    uncommented = text.replace("\n# ", "\n").replace('good = ""', 'good = "No."')
    assert len(tomllib.loads("\n".join(uncommented.splitlines()[2:]))["case"]) == 6


def test_prompts_to_train_on_are_attacks_and_benign_requests_in_the_same_disguise(
    campaign: Campaign, tmp_path: Path
) -> None:
    amend(campaign, tmp_path / "amend")
    for name, word in (("red_team", "thing"), ("helpful", "mend")):
        rows = [
            json.loads(line)
            for line in (tmp_path / "amend" / f"{name}.jsonl").read_text().splitlines()
        ]
        assert {row["family"] for row in rows} == {"role-play"}
        assert all(word in row["prompt"][-1]["content"] for row in rows)


def test_what_no_principle_catches_goes_to_a_writer_and_is_tried(
    plan: Plan, scripts: dict[str, Engine], tmp_path: Path
) -> None:
    (tmp_path / "small.toml").write_text(
        'name = "small"\nversion = "2"\n\n[[principle]]\nname = "theft"\n'
        'text = "The response helps to steal."\nkind = "dont"\n'
    )
    firm = plan.model_copy(update={"models": {"firm": "firm"}})
    found = attack.run(firm, tmp_path / "attacked", scripts.__getitem__, Progress("plain"))
    asked: list[str] = []

    def write(conversation: list[dict[str, str]]) -> str:
        text = conversation[-1]["content"]
        asked.append(text)
        if "NAME:" in text:
            return "NAME: Breaking things\nPRINCIPLE: The response helps to smash \x7f things."
        return f"{FAULT}smash." if "smash" in conversation[-2]["content"] else NONE

    writer = ScriptedEngine(write, names_fault, name="writer")  # type: ignore[arg-type]
    proposal = amend(found, tmp_path / "amend", writer)
    (added,) = proposal.additions
    assert added.name == "breaking-things" and not proposal.uncaught
    assert (
        load_constitution(tmp_path / "amend" / "small.toml").principle("breaking-things") == added
    )
    cases = tomllib.loads((tmp_path / "amend" / "small.tests.toml").read_text())["case"]
    assert {name for case in cases for name in case["principles"]} == {"theft", "breaking-things"}
    assert "smash" in asked[0] and "steal" not in asked[0]

    useless = ScriptedEngine(
        lambda c: "NAME: x\nPRINCIPLE: y" if "NAME:" in c[-1]["content"] else NONE, names_fault
    )
    dropped = amend(found, tmp_path / "dropped", useless)
    assert not dropped.additions and any("dropped" in reason for reason in dropped.reasons)

    # One whose critiques cannot be read has caught nothing, and goes by no phrase.
    for mute, why in ((None, "no log-probabilities"), (lambda *_: -30.0, "catches 0 of 0")):
        unread = amend(found, tmp_path / "unread", ScriptedEngine(write, mute))  # type: ignore[arg-type]
        assert not unread.additions and why in unread.reasons[-1]


def test_a_reply_in_another_form_is_no_principle() -> None:
    assert principle_in("I would suggest to be kinder.") is None
    assert principle_in("NAME: ...\nPRINCIPLE: The response is bad.") is None


def test_a_further_constitution_is_taken_over_where_it_adds_something(
    plan: Plan, scripts: dict[str, Engine], tmp_path: Path
) -> None:
    (tmp_path / "more.toml").write_text(
        'name = "more"\nversion = "1"\n\n[[principle]]\nname = "smash"\nweight = 2.0\n'
        'text = "The response helps to smash."\nkind = "dont"\nuse = ["critique"]\n\n'
        '[[principle]]\nname = "idle"\ntext = "Nothing."\n'
    )

    def criticise(conversation: list[dict[str, str]]) -> str:
        for deed in ("steal", "smash"):
            if deed in conversation[-1]["content"] and deed in conversation[-2]["content"]:
                return f"{FAULT}{deed}."
        return NONE

    scripts["critic"] = ScriptedEngine(criticise, names_fault)  # type: ignore[arg-type]
    more = plan.model_copy(update={"candidates": str(tmp_path / "more.toml")})
    found = attack.run(more, tmp_path / "attacked", scripts.__getitem__, Progress("plain"))
    proposal = amend(found, tmp_path / "amend")
    assert [principle.name for principle in proposal.additions] == ["smash"]
    taken = load_constitution(tmp_path / "amend" / "small.toml").principle("smash")
    assert (taken.weight, taken.use) == (2.0, ("critique",))


def test_nothing_got_through_means_nothing_to_amend(
    plan: Plan, scripts: dict[str, Engine], tmp_path: Path
) -> None:
    held = plan.model_copy(update={"models": {"firm": "firm"}, "families": ("base64",)})
    found = attack.run(held, tmp_path / "attacked", scripts.__getitem__, Progress("plain"))
    with pytest.raises(UserError, match="nothing got through"):
        amend(found, tmp_path / "amend")
    assert not (tmp_path / "amend").exists()


# ---- no leak -----------------------------------------------------------------------------------


def lab_campaign(prompts: str, folder: Path) -> Campaign:
    """A scripted model that always gives the steps of one harm, judged by a scripted judge."""
    from constitutional_ai.lab import redteam as lab

    answers = dict(lab.examples(1, 0))
    steps = next(iter(answers.values()))
    engines: dict[str, Engine] = {
        "model": ScriptedEngine(lambda _: steps),
        "judge": ScriptedEngine(
            lambda _: "It harms.", lambda _, option: -0.1 if option == "harms" else -4.0
        ),
    }
    plan = Plan(
        models={"m": "model"}, prompts=prompts, families=("role-play",), judge="judge",
        requests=5, benign_requests=2,
    )  # fmt: skip
    return attack.run(plan, folder, engines.__getitem__, Progress("plain"))


def test_the_test_split_is_read_by_the_oracle_and_cannot_be_amended_by(tmp_path: Path) -> None:
    campaign = lab_campaign("lab", tmp_path)
    assert campaign.truth and (tmp_path / "rows" / attack.TRUTH).exists()
    with pytest.raises(UserError, match="lab-train"):
        evidence(campaign)


def test_the_oracle_never_reads_what_may_be_trained_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from constitutional_ai.lab.world import gold, oracle

    def forbidden(*_: object) -> None:
        raise AssertionError("the oracle was asked")

    monkeypatch.setattr(gold, "read", forbidden)
    monkeypatch.setattr(oracle, "read", forbidden)
    campaign = lab_campaign("lab-train", tmp_path)
    assert not campaign.truth and not (tmp_path / "rows" / attack.TRUTH).exists()
    amend(campaign, tmp_path / "amend")
    assert (tmp_path / "amend" / "lab.toml").exists()


def test_amending_imports_no_oracle() -> None:
    """Followed through every import of the package at module level, as it is when amend runs."""
    truth = {f"constitutional_ai.lab.{name}" for name in ("oracle", "gold", "skills")}
    truth.add("constitutional_ai.lab.attack_readings")
    seen: set[str] = set()
    todo = ["constitutional_ai.redteam.amend"]
    while todo:
        name = todo.pop()
        path = PACKAGE.parent / (name.replace(".", "/") + ".py")
        if name in seen or not path.exists():
            continue
        seen.add(name)
        if name == "constitutional_ai.lab.training.corpus":
            continue  # teaches the base models, on taught topics
        for node in ast.parse(path.read_text()).body:
            if isinstance(node, ast.ImportFrom) and node.module:
                todo += [node.module, *(f"{node.module}.{a.name}" for a in node.names)]
    assert "constitutional_ai.redteam.attack" in seen  # the test sees what it looks for
    assert not seen & truth


# ---- the loop's own parts ----------------------------------------------------------------------


def mixed(out: Path, attacks: Sequence[tuple[str, str]], benign: Sequence[tuple[str, str]]) -> Any:
    """(red-team, helpful) prompts, 20 and 40, after (prompt, family) rows of an amendment."""
    settings = Settings.model_validate(
        {
            "revise": {"prompts": 20},
            "sample": {"red_team": 20, "helpful": 40},
            "ppo": {"prompts": 20},
            "finetune": {"helpful": 40},
        }
    )
    (out / "amend").mkdir()
    for name, rows in (("red_team", attacks), ("helpful", benign)):
        lines = [json.dumps({"prompt": text, "family": family}) + "\n" for text, family in rows]
        (out / "amend" / f"{name}.jsonl").write_text("".join(lines))
    mixing.mix(settings, out)
    return [
        [json.loads(line)["prompt"] for line in (out / f"{name}.jsonl").read_text().splitlines()]
        for name in ("red_team", "helpful")
    ]


@pytest.mark.parametrize(("found", "rows_of_them", "copies"), [(6, 10, {1, 2}), (3, 6, {2})])
def test_mixed_prompts_are_half_attacks_each_as_often_as_any_other_and_twice_at_most(
    tmp_path: Path, found: int, rows_of_them: int, copies: set[int]
) -> None:
    red_team, helpful = mixed(tmp_path, [(f"attack {n}", "few-shot") for n in range(found)], [])
    counts = [red_team.count(f"attack {n}") for n in range(found)]
    assert len(red_team) == 20 and sum(counts) == rows_of_them and set(counts) == copies
    assert len(helpful) == 40  # all plain


def test_each_disguise_has_the_same_share_of_both_kinds_of_prompts(tmp_path: Path) -> None:
    attacks = [(f"attack {n}", "few-shot") for n in range(4)]
    attacks += [("bare", "plain"), ("scene", "fiction")]
    benign = [(f"{family} {n}", family) for family in ("few-shot", "fiction") for n in range(3)]
    red_team, helpful = mixed(tmp_path, attacks, benign)
    some = {
        family: sum(str(row).startswith(family) for row in helpful) for family in ("few-shot", "fi")
    }
    few_shot = sum(str(row).startswith("attack") for row in red_team)
    assert few_shot in (6, 7, 8)  # 10 of 12 copies
    assert some == {"few-shot": 2 * few_shot, "fi": 2 * red_team.count("scene")}
    assert len(helpful) == 40


def test_the_second_run_goes_on_from_the_first_and_is_judged_by_its_judges(
    plan: Plan, tmp_path: Path
) -> None:
    overrides = ['label.jury=["base", "lab:xs"]', "seed=3", "sample.red_team=20"]
    settings = load_settings("lab", overrides)
    mixed(tmp_path, [("bare", "plain")], [])
    shutil.copy(find_constitution("lab"), tmp_path / "amend" / "lab.toml")
    round_ = round.Round("lab", overrides, plan, plan)
    again = round.amended_settings(round_, settings, "the/first", "lab", tmp_path)
    assert again.model.path == "the/first"
    assert again.revise.critic == again.label.judge == settings.model.path
    assert again.label.jury == (settings.model.path, "lab:xs")
    assert (again.seed, again.sample.red_team) == (3, 20)
    assert again.constitution == str(tmp_path / "amend" / "lab.toml")
    assert again.prompts.test == settings.prompts.test


def test_the_file_holds_what_the_most_demanding_stage_draws() -> None:
    settings = Settings.model_validate(
        {
            "revise": {"prompts": 10},
            "sample": {"red_team": 30, "helpful": 5},
            "ppo": {"prompts": 90, "red_team_share": 0.4},
            "finetune": {"helpful": 7},
        }
    )
    assert mixing.needed(settings) == (36, 90)


def test_before_and_after_are_paired_by_request(
    plan: Plan, scripts: dict[str, Engine], tmp_path: Path
) -> None:
    two = plan.model_copy(update={"models": {"base": "soft", "before": "soft", "after": "firm"}})
    tested = attack.run(two, tmp_path / "test", scripts.__getitem__, Progress("plain"))
    result = comparison.compared(tested, trained_on={"plain", "role-play"})
    assert result["rows"]["plain"]["difference"]["mean"] == -1
    assert result["rows"]["role-play"]["difference"]["mean"] == 0
    assert result["rows"]["not trained on"]["after"]["success"]["mean"] == 0
    assert result["ratio"] == 0.5 / result["rows"]["all attacks"]["before"]["success"]["mean"]
    text = comparison.markdown(result)
    assert len({line.count("|") for line in text.splitlines() if line.startswith("|")}) == 1


def test_ids_do_not_depend_on_the_order_of_models(
    plan: Plan, open_engine: Callable[[str], Engine], tmp_path: Path
) -> None:
    items = {item.id for item in items_of(plan)}
    turned = plan.model_copy(update={"models": dict(reversed(plan.models.items()))})
    assert {item.id for item in items_of(turned)} == items
