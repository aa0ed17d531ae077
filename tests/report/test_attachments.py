"""What other commands measured stands on the report's page, as they measured it."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from constitutional_ai.drawing import tables
from constitutional_ai.drawing.page import cell
from constitutional_ai.errors import DataError
from constitutional_ai.redteam import page as redteam
from constitutional_ai.report import redteam as shown
from constitutional_ai.report import sections
from constitutional_ai.report.attachments import sections_of
from constitutional_ai.settings import Settings
from tests.report.invented import campaign, compared, draw, invented, page, scores

DOCS = Path(__file__).parents[2] / "docs" / "studies"


def cells(found: list, number: int = 0) -> str:
    return " ".join(cell(c) for table in found[number].tables for row in table.rows for c in row)


def test_a_red_team_joins_with_picture_tables_and_principles(tmp_path: Path) -> None:
    measured = redteam.write(campaign("theft"), tmp_path)
    first, caught = sections_of(tmp_path)
    assert (first.title, caught.title) == ("Red team", "Which principle catches it")
    assert first.words[0] == shown.headline(measured)
    assert "<svg" in first.drawings[0].svg
    success = measured["models"]["before"]["families"]["role-play"]["success"]
    assert cell(success) in cells([first])
    assert not first.stories


def test_an_evaluation_joins_with_scores_comparisons_and_what_has_no_score(tmp_path: Path) -> None:
    lost = {"rl": {"harmful": {"harm": {"no verdict": 7}}}}
    content = {"models": {"base": scores(0.9), "rl": scores(0.1)}, "unscored": lost}
    (tmp_path / "scores.json").write_text(json.dumps(content))
    (tmp_path / "comparisons.json").write_text(json.dumps(compared()))
    (found,) = sections_of(tmp_path)
    shown = cells([found])
    assert "-2.50 [-2.80, -2.20]" in shown and "<.001" in shown
    assert "0.90 (0.85–0.95)" in shown  # a score
    assert "no verdict" in shown and "120 [" in shown
    assert found.words == tables.elo(compared()).notes != []
    assert "harmful_by_slice" not in " ".join(table.caption for table in found.tables)


def test_studies_join_with_their_figures() -> None:
    found = sections_of(DOCS)
    assert len(found) == len(list((DOCS / "results").glob("*.json"))) >= 4
    assert all(section.drawings and section.tables for section in found)


@pytest.mark.parametrize(
    ("files", "told"),
    [
        ({}, "holds no finished"),
        ({"redteam.svg": "<svg/>"}, "cannot be read .FileNotFoundError"),
        ({"comparisons.json": "{", "scores.json": "{}"}, "cannot be read .JSONDecodeError"),
        ({"comparisons.json": "{}", "scores.json": "{}"}, "cannot be read .KeyError"),
    ],
)
def test_what_cannot_join_is_told(tmp_path: Path, files: dict[str, str], told: str) -> None:
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    with pytest.raises(DataError, match=told):
        sections_of(tmp_path)


def test_the_runs_page_holds_them_and_what_was_not_labelled(tmp_path: Path) -> None:
    nasty = "<script>alert(1)</script>"
    redteam.write(campaign(nasty), tmp_path)
    (tmp_path / "redteam.svg").write_text(f"<svg>{nasty}</svg>")  # only that it is there counts
    settings = {"revise": {"rounds": 2}, "report": {"beside": [str(tmp_path)]}}
    findings = replace(invented(nasty), settings=Settings.model_validate(settings))
    titles = [s.title for s in sections.page(findings, {}).sections]
    assert titles.index("Scores") < titles.index("Comparisons") < titles.index("Red team")
    source = page(findings, draw(findings))
    assert nasty not in source
    assert "Pairs without a label" in source and "7.5 %" in source
    alone = replace(findings, settings=Settings.model_validate({"revise": {"rounds": 2}}))
    assert "Red team" not in [s.title for s in sections.page(alone, {}).sections]
