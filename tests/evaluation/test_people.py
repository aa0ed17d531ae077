"""A blind sheet, and what comes back."""

import csv
import json
import math
from pathlib import Path
from typing import Any

import pytest
from sklearn.metrics import cohen_kappa_score
from typer.testing import CliRunner

from constitutional_ai.cli.main import app
from constitutional_ai.errors import DataError
from constitutional_ai.evaluation import people
from constitutional_ai.evaluation.rows import Graded, Transcript
from constitutional_ai.records import user
from constitutional_ai.stats import agreement
from constitutional_ai.store.rows import append_rows


@pytest.fixture
def evaluated(tmp_path: Path) -> Path:
    """Two models, ten harmful and ten borderline prompts, ten more that nobody has to judge."""
    folder = tmp_path / "e"
    folder.mkdir()
    rows, graded = [], []
    for model in ("base", "rl-cai"):
        for kind in ("harmful", "borderline", "benign"):
            for n in range(10):
                complies = model == "base" or kind != "harmful"
                row = Transcript(
                    id=f"{model}-{kind}-{n}",
                    model=model,
                    kind=kind,
                    slice="",
                    prompt=[user(f"{kind} request {n}")],
                    answer="=SUM(A1) sure" if complies else "I can't help with that.",
                    finished=True,
                    metrics={},
                    missing="lost" if n == 9 else "",
                )
                rows.append(row)
                scores = {"refused_judge": 0.1 if complies else 0.9}
                if kind == "harmful":
                    scores["harmful"] = 0.5 if complies else 0.2
                graded.append(
                    Graded(id=row.id, model=model, kind=kind, scores=scores, unlabelled={})
                )
    append_rows(folder / "transcripts.jsonl", rows)
    append_rows(
        folder / "grades.jsonl", [g for g, r in zip(graded, rows, strict=True) if not r.missing]
    )
    return folder


def sheet_of(folder: Path) -> list[dict[str, str]]:
    with (folder / people.SHEET).open(newline="") as file:
        return list(csv.DictReader(file))


def fill(folder: Path, cells: Any) -> Path:
    rows = sheet_of(folder)
    with (folder / people.SHEET).open("w", newline="") as file:
        writer = csv.DictWriter(file, people.HEAD)
        writer.writeheader()
        for row in rows:
            harmful, refuses = cells(row)
            writer.writerow({**row, people.HARMFUL: harmful, people.REFUSES: refuses})
    return folder / people.SHEET


def test_the_sheet_is_blind_and_even(evaluated: Path, tmp_path: Path) -> None:
    folder = tmp_path / "people"
    assert people.write_sheet(evaluated, 20, 0, folder) == 20
    rows, key = sheet_of(folder), json.loads((folder / people.KEY).read_text())
    assert tuple(rows[0]) == people.HEAD
    text = (folder / people.SHEET).read_text()
    assert "base" not in text and "rl-cai" not in text
    assert set(key) == {row["id"] for row in rows}
    told = [(key[row["id"]]["model"], key[row["id"]]["kind"]) for row in rows]
    assert {told.count(one) for one in set(told)} == {5} and len(set(told)) == 4
    assert told != sorted(told)
    assert all("benign" not in row["request"] and " 9" not in row["request"] for row in rows)
    assert not any(row["answer"].startswith("=") for row in rows)  # no spreadsheet computes it
    with pytest.raises(DataError, match="perhaps filled in"):
        people.write_sheet(evaluated, 20, 0, folder)


def test_agreement_of_who_agrees_and_who_does_not(evaluated: Path, tmp_path: Path) -> None:
    folder = tmp_path / "people"
    people.write_sheet(evaluated, 36, 0, folder)
    key = json.loads((folder / people.KEY).read_text())

    def says(row: dict[str, str]) -> tuple[str, str]:
        known = key[row["id"]]
        if known["kind"] == "borderline":
            return "", "N "
        return ("Yes" if known["model"] == "base" else "n"), "n"

    found = people.agreed(fill(folder, says), folder / people.KEY, seed=0)
    harmful, judge, lexicon = found["against"]
    assert (harmful["n"], harmful["raw"]["mean"], harmful["kappa"]["mean"]) == (18, 1.0, 1.0)
    assert harmful["counts"] == {"yes, yes": 9, "yes, no": 0, "no, yes": 0, "no, no": 9}
    assert judge["n"] == lexicon["n"] == 36
    assert judge["raw"]["mean"] == lexicon["raw"]["mean"] == 0.75
    assert found["left"] == {people.HARMFUL: 18, people.REFUSES: 0}
    assert "kappa" in people.as_text(found)


def test_what_is_no_answer_is_refused_with_its_line(evaluated: Path, tmp_path: Path) -> None:
    folder = tmp_path / "people"
    people.write_sheet(evaluated, 4, 0, folder)
    key = folder / people.KEY
    with pytest.raises(DataError, match="nothing is filled in"):
        people.agreed(folder / people.SHEET, key, seed=0)
    fill(folder, lambda row: ("perhaps", ""))
    with pytest.raises(DataError, match=r"sheet.csv:2: harmful .*expected y, n or nothing"):
        people.agreed(folder / people.SHEET, key, seed=0)
    key.write_text("{}")
    with pytest.raises(DataError, match=r"sheet.csv:2: id .* is not in the key"):
        people.agreed(folder / people.SHEET, key, seed=0)


def test_the_command_prints_the_table(evaluated: Path, tmp_path: Path) -> None:
    folder = tmp_path / "people"
    people.write_sheet(evaluated, 8, 0, folder)
    sheet = fill(folder, lambda row: ("y", "n"))
    result = CliRunner().invoke(app, ["evaluate", "agreement", str(sheet)])
    assert result.exit_code == 0, result.output
    assert "the lexicon" in result.stdout and "of 8 rows left empty" in result.stdout


def test_kappa_is_scikit_learns() -> None:
    first = [True, True, False, False, True, False, True, True]
    second = [True, False, False, False, True, True, True, False]
    assert agreement.cohen(first, second) == pytest.approx(cohen_kappa_score(first, second))
    found = agreement.yes_no(first, second)
    assert found["raw"]["mean"] == 5 / 8
    assert found["kappa"]["low"] <= found["kappa"]["mean"] <= found["kappa"]["high"]
    assert math.isnan(agreement.cohen([True] * 4, [True] * 4))
    assert set(agreement.yes_no([True] * 4, [True] * 4)) == {"raw"}
    assert agreement.yes_no([], []) == {}
