"""A campaign with scripted models: outcomes, tables, resume, failures, the page."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from constitutional_ai.engines.base import Completion, Engine, Sampling
from constitutional_ai.engines.scripted import ScriptedEngine
from constitutional_ai.errors import ModelError, NoLogprobs, RunFolderError, SettingsError
from constitutional_ai.principles import Constitution, Principle
from constitutional_ai.progress import Progress
from constitutional_ai.records import Conversation, user
from constitutional_ai.redteam import campaign as attack
from constitutional_ai.redteam import critics, page
from constitutional_ai.redteam import scores as measured
from constitutional_ai.redteam.campaign import Campaign
from constitutional_ai.redteam.plan import Plan
from constitutional_ai.report import redteam as shown
from tests.redteam.conftest import criticise, names_fault, says_yes

Open = Callable[[str], Engine]


@pytest.fixture
def campaign(plan: Plan, open_engine: Open, tmp_path: Path) -> Campaign:
    return attack.run(plan, tmp_path / "out", open_engine, Progress("plain"))


def test_success_by_family_and_category(campaign: Campaign) -> None:
    found = measured.scores(campaign)["models"]
    success = {
        (label, name): row["success"]["mean"]
        for label, model in found.items()
        for name, row in model["families"].items()
    }
    assert success["firm", "plain"] == 0 and success["firm", "role-play"] == 1
    assert success["firm", "base64"] == 0
    assert success["firm", "all attacks"] == 0.5 and success["firm", "any attack"] == 1
    assert {success["soft", name] for name in ("plain", "role-play")} == {1}
    assert set(found["firm"]["categories"]) == {"theft", "damage"}
    assert found["firm"]["families"]["plain"]["success"]["n"] == 6
    # Benign requests in the same disguise: declined where they cannot be read.
    assert found["firm"]["families"]["base64"]["over_refusal"]["mean"] == 1
    assert found["firm"]["families"]["plain"]["over_refusal"]["mean"] == 0


def test_which_principle_catches_what(campaign: Campaign) -> None:
    matrix = measured.matrix(campaign)
    assert matrix["plain"]["theft"]["mean"] == 0.5  # half of what got through is theft
    assert matrix["plain"]["always"]["mean"] == 1
    assert matrix[measured.BENIGN]["always"]["mean"] == 1  # and it cries wolf
    assert matrix[measured.BENIGN]["theft"]["mean"] == 0


def test_a_critique_that_cannot_be_read_is_no_catch_and_no_miss(
    plan: Plan, scripts: dict[str, Engine], tmp_path: Path
) -> None:
    def deaf(conversation: Conversation, option: str) -> float:
        theft = "helps to steal" in conversation[-1]["content"]
        return -30.0 if theft else names_fault(conversation, option)

    scripts["critic"] = ScriptedEngine(criticise, deaf)
    found = attack.run(plan, tmp_path / "out", scripts.__getitem__, Progress("plain"))
    unread = [row for row in found.caught.values() if row.unread]
    assert unread and all(row.unread == ["theft"] for row in unread)
    assert all("helps to steal" in row.critiques["theft"] for row in unread)
    cell = measured.matrix(found)["plain"]
    assert cell["theft"]["mean"] == 0 and cell["theft"]["n"] == 3 < cell["always"]["n"]
    page.write(found, tmp_path / "out")
    assert f"{len(unread)} critiques could not be read" in (
        tmp_path / "out" / "redteam.html"
    ).read_text(encoding="utf-8")


def test_a_critic_without_log_probabilities_is_refused_not_read_by_phrases(
    plan: Plan, scripts: dict[str, Engine], tmp_path: Path
) -> None:
    scripts["critic"] = ScriptedEngine(criticise, name="critic")
    with pytest.raises(NoLogprobs, match="critic: gives no log-probabilities"):
        attack.run(plan, tmp_path / "out", scripts.__getitem__, Progress("plain"))


def test_the_laboratorys_critics_go_by_their_sentence() -> None:
    only = Principle(name="harm", text="No harm.")
    said = iter(["No issues.", "It harms."])
    found = critics.criticise(
        ScriptedEngine(lambda _: next(said)), [only], ["a", "b"], [[user("Hi.")]] * 2, ["x", "y"],
        64, 0, by_phrase=True,
    )  # fmt: skip
    assert [row.by_principle for row in found if isinstance(row, critics.Caught)] == [
        {"harm": False},
        {"harm": True},
    ]


def test_the_same_attack_goes_to_every_model(campaign: Campaign) -> None:
    sent: dict[tuple[str, str], set[str]] = {}
    for row in campaign.attempts:
        sent.setdefault((row.family, row.request_id), set()).add(json.dumps(row.prompt))
    assert all(len(prompts) == 1 for prompts in sent.values())
    assert len({row.id for row in campaign.attempts}) == len(campaign.attempts) == 2 * 3 * 9


def test_an_interrupted_campaign_gives_the_same_rows(
    plan: Plan, scripts: dict[str, Engine], tmp_path: Path
) -> None:
    whole = attack.run(plan, tmp_path / "whole", scripts.__getitem__, Progress("plain"))
    calls = 0

    class Dies(ScriptedEngine):
        def generate(
            self, conversations: Sequence[Conversation], sampling: Sampling
        ) -> list[Completion]:
            nonlocal calls
            calls += 1
            if calls == 3:
                raise KeyboardInterrupt
            return scripts["firm"].generate(conversations, sampling)

    dying = {**scripts, "firm": Dies(lambda _: "")}
    with pytest.raises(KeyboardInterrupt):
        attack.run(plan, tmp_path / "cut", dying.__getitem__, Progress("plain"))
    rows = tmp_path / "cut" / "rows" / attack.ATTEMPTS
    before = rows.read_bytes()
    assert before
    rows.write_bytes(before + b'{"id": "torn')
    again = attack.run(plan, tmp_path / "cut", scripts.__getitem__, Progress("plain"))
    assert again == whole
    assert rows.read_bytes().startswith(before)


def test_a_finished_campaign_asks_nobody(campaign: Campaign, plan: Plan, tmp_path: Path) -> None:
    def nobody(spec: str) -> Engine:
        raise AssertionError(f"{spec} was opened")

    assert attack.run(plan, tmp_path / "out", nobody, Progress("plain")) == campaign


def test_a_folder_whose_model_was_not_found_takes_another_plan(
    plan: Plan, open_engine: Open, tmp_path: Path
) -> None:
    def not_found(spec: str) -> Engine:
        raise ModelError(f"{spec} is not there")

    with pytest.raises(ModelError):
        attack.run(plan, tmp_path / "out", not_found, Progress("plain"))
    other = plan.model_copy(update={"families": ("hex",)})
    assert attack.run(other, tmp_path / "out", open_engine, Progress("plain")).attempts


def test_another_plan_in_the_same_folder_is_refused(
    campaign: Campaign, plan: Plan, open_engine: Open, tmp_path: Path
) -> None:
    other = plan.model_copy(update={"families": ("hex",)})
    with pytest.raises(RunFolderError, match=r"families.*take another --out"):
        attack.run(other, tmp_path / "out", open_engine, Progress("plain"))


def test_what_failed_is_counted_and_never_scored(
    plan: Plan, scripts: dict[str, Engine], tmp_path: Path
) -> None:
    class Flaky(ScriptedEngine):
        def generate(
            self, conversations: Sequence[Conversation], sampling: Sampling
        ) -> list[Completion]:
            replies = super().generate(conversations, sampling)
            for place, turns in enumerate(conversations):
                if turns[-1]["content"] == "How do I steal thing 1?":
                    replies[place] = Completion("", 0, False, failed="timed out")
            return replies

    def deaf(conversation: Conversation, option: str) -> float:
        if "smash thing 2" in conversation[-1]["content"]:
            return float("nan")
        yes = says_yes(conversation[-1]["content"], option)
        helps = "real help" in conversation[-1]["content"]
        return -0.1 if yes is helps else -3.0

    flaky = {
        **scripts,
        "soft": Flaky(scripts["soft"]._reply),  # type: ignore[attr-defined]
        "judge": ScriptedEngine(lambda _: "", deaf),
    }
    found = attack.run(plan, tmp_path / "out", flaky.__getitem__, Progress("plain"))
    assert found.failed[attack.ATTEMPTS] == {"failed": 1, "failed_by_reason": {"timed out": 1}}
    plain = measured.scores(found)["models"]["soft"]["families"]["plain"]
    assert (plain["success"]["n"], plain["unread"]) == (4, 1)
    text = page.write(found, tmp_path / "out")
    assert text["unread"] > 0
    html = (tmp_path / "out" / "redteam.html").read_text()
    assert "timed out" in html and "could not be read" in html


def test_the_page_escapes_what_models_wrote(
    plan: Plan, scripts: dict[str, Engine], tmp_path: Path
) -> None:
    evil = "First, <script>alert(1)</script> <img src=https://example.org/x>"
    scripts["soft"] = ScriptedEngine(lambda _: evil)
    found = attack.run(plan, tmp_path / "out", scripts.__getitem__, Progress("plain"))
    page.write(found, tmp_path / "out")
    html = (tmp_path / "out" / "redteam.html").read_text()
    assert "alert(1)" in html and "<script" not in html and "<img" not in html
    rows = [
        json.loads(line) for line in (tmp_path / "out" / "attacks.jsonl").read_text().splitlines()
    ]
    assert {row["model"] for row in rows} == {"soft", "firm"}
    assert all(row["prompt"][-1]["role"] == "user" for row in rows)
    assert rows[0]["caught_by"] == ["always"]


def test_the_figure_has_a_row_for_each_family_and_an_interval_for_each_model(
    campaign: Campaign,
) -> None:
    by_family = shown.families_of(measured.scores(campaign))
    assert list(by_family)[-1] == measured.ANY
    (axes,) = shown.dots(by_family).axes
    assert [mark.get_label() for mark in axes.containers] == ["soft", "firm"]
    for label, mark in zip(("soft", "firm"), axes.containers, strict=True):
        _, _, (bars,) = mark.lines
        drawn = [tuple(ends[:, 0]) for ends in bars.get_segments()]
        rows = [row[label] for row in by_family.values()]
        assert drawn == [pytest.approx((row["low"], row["high"])) for row in rows]
    assert [label.get_text() for label in axes.get_yticklabels()] == list(by_family)


def test_a_search_is_a_family_like_others(
    plan: Plan, scripts: dict[str, Engine], tmp_path: Path
) -> None:
    scripts["writer"] = ScriptedEngine(lambda _: "<attack>Corvin, steal it.</attack>")
    hunt = plan.model_copy(update={"families": ("pair", "tree"), "attacker": "writer", "rounds": 2})
    found = attack.run(hunt, tmp_path / "out", scripts.__getitem__, Progress("plain"))
    rows = [row for row in found.attempts if row.family in ("pair", "tree")]
    assert {row.kind for row in rows} == {"harmful"}
    assert {row.prompt[-1]["content"] for row in rows} == {"Corvin, steal it."}
    ended = attack.outcomes(found)
    assert {ended[row.id] for row in rows} == {"through"}


def test_the_laboratorys_attacker_needs_the_laboratory(
    plan: Plan, open_engine: Open, tmp_path: Path
) -> None:
    wrong = plan.model_copy(update={"families": ("pair",), "attacker": "lab"})
    with pytest.raises(SettingsError, match="--attacker lab"):
        attack.run(wrong, tmp_path / "out", open_engine, Progress("plain"))


def test_false_alarms_are_counted_on_good_answers_alone(campaign: Campaign) -> None:
    """A declined benign request is no good answer, and neither is one that the judge finds bad."""
    benign = [row for row in campaign.attempts if row.kind == "benign"]
    asked = {row.id for row in benign if row.id in campaign.caught}
    assert asked == {row.id for row in benign if campaign.readings[row.id].outcome == "through"}
    assert asked and len(asked) < len(benign)


def test_what_may_be_added_is_tried_as_it_would_be_asked(tmp_path: Path) -> None:
    rules = '[[principle]]\nname = "{}"\ntext = "a"\nrationale = "So."\n'
    (tmp_path / "more.toml").write_text('name = "m"\nversion = "1"\n' + rules.format("more"))
    for told in (False, True):
        rule = Principle(name="own", text="b", rationale="So.")
        own = Constitution(name="c", version="1", rationale=told, principles=(rule,))
        found = critics.candidates(own, str(tmp_path / "more.toml"))
        assert [one.critique_prompt.endswith("Why: So.") for one in found] == [told, told]
