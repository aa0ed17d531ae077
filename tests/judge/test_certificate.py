"""A temperature is found again, kept as a file, and refused where it does not fit."""

import json
import math
import random
from pathlib import Path

import pytest

from constitutional_ai.errors import SettingsError
from constitutional_ai.judge import certificate as calibration
from constitutional_ai.judge import pages
from constitutional_ai.records import content_hash
from constitutional_ai.stage_settings import LabelSettings
from constitutional_ai.stats.calibration import log_odds, measured


def too_sure(times: float, count: int = 4000) -> tuple[list[float], list[float], list[str]]:
    """A judge whose log-odds are ``times`` what they should be; the labels follow the truth."""
    rng = random.Random(3)
    p, labels = [], []
    for _ in range(count):
        odds = rng.gauss(0, 1.5)
        labels.append(float(rng.random() < 1 / (1 + math.exp(-odds))))
        p.append(1 / (1 + math.exp(-times * odds)))
    return p, labels, [f"pair {n}" for n in range(count)]


def test_the_temperature_of_a_judge_that_is_too_sure_is_found_on_the_other_half() -> None:
    temperature, before, after = calibration.fit(*too_sure(3.0))
    assert temperature == pytest.approx(3.0, rel=0.15)
    assert before["ece"] > 0.1
    assert after["ece"] < 0.03
    assert after["brier"] < before["brier"]
    assert 1800 < after["n"] < 2200


def test_what_is_measured_is_the_half_that_did_not_fit() -> None:
    """Right on one half, wrong on the other: whichever half fits, the figures are the other's."""
    ids = [f"pair {n}" for n in range(400)]
    fitted = [int(content_hash("calibration", id_), 16) % 2 == 0 for id_ in ids]
    labels = [float(fits) for fits in fitted]
    _, before, _ = calibration.fit([0.9] * len(ids), labels, ids)
    assert before["n"] == fitted.count(False)
    assert before["brier"] == pytest.approx(0.9**2)


@pytest.mark.parametrize("told", [False, True])
def test_a_temperature_at_the_end_of_what_is_tried_is_told(
    told: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    """Always right, and hardly surer than chance: the best temperature would be 0."""
    p, labels, ids = too_sure(1.0)
    if told:
        p, labels = [0.51] * len(ids), [1.0] * len(ids)
    temperature, before, after = calibration.fit(p, labels, ids)
    found = {"it": {"temperature": temperature, "before": before, "after": after}}
    pages.say_calibration(found)
    assert ("it: temperatures beyond 0.1 to 10.0 are not tried" in capsys.readouterr().out) == told


def test_brier_score_by_hand() -> None:
    assert measured([0.9, 0.2], [1.0, 1.0])["brier"] == pytest.approx((0.1**2 + 0.8**2) / 2)


def test_certain_probabilities_have_finite_log_odds() -> None:
    assert all(map(math.isfinite, log_odds([0.0, 0.5, 1.0])))


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    path = tmp_path / "judge.json"
    calibration.write(path, LabelSettings(), "hash", {"lab:s": {"temperature": 1.5}})
    return path


def test_a_certificate_is_read_for_the_judge_as_it_was_asked(certificate: Path) -> None:
    table = LabelSettings(calibration=str(certificate))
    assert calibration.temperature_of(table, "lab:s", "hash") == 1.5
    # What becomes of the probability, and what a comparison never samples, is no condition.
    other = LabelSettings(calibration=str(certificate), mode="hard", samples=9)
    assert calibration.temperature_of(other, "lab:s", "hash") == 1.5
    assert calibration.temperature_of(LabelSettings(), "lab:s", "hash") == 1.0


@pytest.mark.parametrize(
    ("changed", "judge", "constitution", "complaint"),
    [
        ({"fence": False}, "lab:s", "hash", "fitted with fence = True, now False"),
        ({"last_turn": True}, "lab:s", "hash", "fitted with last_turn = False, now True"),
        ({"method": "score"}, "lab:s", "hash", "fitted with method = 'compare'"),
        ({}, "lab:s", "other", "fitted with constitution = 'hash', now 'other'"),
        ({}, "lab:xs", "hash", "no temperature for lab:xs, only for lab:s"),
    ],
)
def test_a_certificate_that_does_not_fit_is_refused(
    certificate: Path, changed: dict, judge: str, constitution: str, complaint: str
) -> None:
    table = LabelSettings.model_validate({"calibration": str(certificate), **changed})
    with pytest.raises(SettingsError, match=complaint):
        calibration.temperature_of(table, judge, constitution)


@pytest.mark.parametrize("content", ["", "[]", '{"asked": {}, "judges": {"lab:s": {}}}', "{}"])
def test_a_broken_certificate_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "judge.json"
    path.write_text(content)
    with pytest.raises(SettingsError, match="not a calibration"):
        calibration.temperature_of(LabelSettings(calibration=str(path)), "lab:s", "hash")
    with pytest.raises(SettingsError, match="cannot be read"):
        calibration.temperature_of(LabelSettings(calibration="nowhere.json"), "lab:s", "hash")


def test_the_file_holds_no_nan(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="JSON compliant"):
        calibration.write(
            tmp_path / "x.json", LabelSettings(), "h", {"a": {"temperature": math.nan}}
        )
    calibration.write(tmp_path / "y.json", LabelSettings(), "h", {"a": {"temperature": 2.0}})
    assert json.loads((tmp_path / "y.json").read_text())["judges"]["a"]["temperature"] == 2.0
