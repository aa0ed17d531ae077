"""A judge's calibration certificate: one temperature, fitted on labelled pairs, kept as JSON.

A judge that says 0.99 and is right nine times in ten is too sure. Dividing its log-odds by a scalar
corrects that and changes no winner (Guo et al. 2017, arXiv 1706.04599). The scalar is fitted on one
half of the pairs; its worth is measured on the other.

A certificate holds for the judge as it was asked. With other principles, another method or another
layout, the file is refused.
"""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from constitutional_ai.errors import SettingsError
from constitutional_ai.records import content_hash
from constitutional_ai.stage_settings import LabelSettings
from constitutional_ai.stats.calibration import fit_temperature, log_odds, measured

# What decides a judge's probabilities; the rest of the table is about what is done with them.
ASKED = (
    "principles", "weighted", "method", "samples", "temperature", "top_p", "max_new_tokens",
    "fence", "exemplars", "last_turn",
)  # fmt: skip
SAMPLED = ("samples", "temperature", "top_p", "max_new_tokens")  # only where something is sampled
AGAIN = "run `cai judge calibrate` again, or leave label.calibration out"


def fit(
    p: Sequence[float], labels: Sequence[float], ids: Sequence[str]
) -> tuple[float, dict[str, Any], dict[str, Any]]:
    """(temperature, before, after): fitted on one half of the pairs, measured on the other.

    The ids decide the halves. Raises ValueError where one of them is empty.
    """
    fitted = [int(content_hash("calibration", id_), 16) % 2 == 0 for id_ in ids]
    if all(fitted) or not any(fitted):
        raise ValueError("a half of the labelled pairs is empty")
    rows = list(zip(p, labels, fitted, strict=True))
    mine, theirs = ([(q, y) for q, y, f in rows if f is half] for half in (True, False))
    temperature = fit_temperature(log_odds([q for q, _ in mine]), [y for _, y in mine])
    held_out = [q for q, _ in theirs], [y for _, y in theirs]
    return temperature, measured(*held_out), measured(*held_out, temperature)


def conditions(settings: LabelSettings, constitution: str) -> dict[str, Any]:
    """What a certificate holds for; ``constitution`` is a hash."""
    skipped = SAMPLED if settings.method in ("compare", "score") else ()
    asked = {name: getattr(settings, name) for name in ASKED if name not in skipped}
    return {**asked, "constitution": constitution}


def write(
    path: Path, settings: LabelSettings, constitution: str, judges: Mapping[str, Mapping[str, Any]]
) -> None:
    """``judges`` maps a model spec to its temperature and what was measured."""
    content = {"asked": conditions(settings, constitution), "judges": judges}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=1, allow_nan=False) + "\n", encoding="utf-8")


def temperature_of(settings: LabelSettings, judge: str, constitution: str) -> float:
    """The temperature that ``label.calibration`` names for a judge; 1 where it names no file.

    Raises SettingsError where the file cannot be read, does not know the judge, or was made when
    the judge was asked in another way.
    """
    path = settings.calibration
    if not path:
        return 1.0
    asked, temperatures = _read(path)
    for name, value in conditions(settings, constitution).items():
        if asked.get(name) != value:
            raise SettingsError(
                f"{path}: fitted with {name} = {asked.get(name)!r}, now {value!r}; {AGAIN}"
            )
    temperature = temperatures.get(judge, math.nan)
    if not (math.isfinite(temperature) and temperature > 0):
        raise SettingsError(
            f"{path}: has no temperature for {judge}, only for {', '.join(temperatures)}; {AGAIN}"
        )
    return temperature


def _read(path: str) -> tuple[dict[str, Any], dict[str, float]]:
    """(the conditions, the temperature of each judge). Raises SettingsError."""
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
        judges = content["judges"]
        return dict(content["asked"]), {n: float(j["temperature"]) for n, j in judges.items()}
    except OSError as error:
        raise SettingsError(f"{path}: cannot be read ({error.strerror}); {AGAIN}") from None
    except (ValueError, KeyError, TypeError, AttributeError):
        raise SettingsError(
            f"{path}: not a calibration of `cai judge calibrate`; {AGAIN}"
        ) from None
