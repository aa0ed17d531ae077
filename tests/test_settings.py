"""The tables of settings: their defaults, the shipped file, and back to a run file."""

from pathlib import Path
from typing import ClassVar

from constitutional_ai.run_file import setting_names
from constitutional_ai.setting_table import Table
from constitutional_ai.settings import Settings, load_settings
from constitutional_ai.stage_list import STAGE_NAMES


def write(folder: Path, text: str) -> Path:
    path = folder / "run.toml"
    path.write_text(text, encoding="utf-8")
    return path


def test_an_empty_file_gives_the_defaults(tmp_path: Path) -> None:
    assert load_settings(write(tmp_path, "")) == Settings()


def test_the_shipped_file_loads_by_its_bare_name() -> None:
    settings = load_settings("lab")
    assert settings.name == "lab"
    assert settings.model.path == "lab:s"
    assert not settings.label.fence  # the lab's judge was taught the plain layout


def test_the_repository_links_to_the_shipped_files() -> None:
    top = Path(__file__).parents[1]
    for name in ("runs", "constitutions"):
        assert (top / name).resolve() == top / "constitutional_ai" / name


def test_resolved_settings_are_a_run_file_that_gives_them_back(tmp_path: Path) -> None:
    overrides = ['name="naïve 🙂 \\"q\\""', "ppo.kl_target=6", "reward.lr=1e-5"]
    settings = load_settings("lab", overrides)
    assert load_settings(write(tmp_path, settings.to_toml())) == settings
    assert "# kl_target is not set" in Settings().to_toml()


def test_every_stage_has_a_table() -> None:
    names = setting_names(Settings)
    for table in STAGE_NAMES:
        assert any(name.startswith(f"{table}.") for name in names)


def test_a_field_that_came_later_changes_no_identity_until_it_asks_for_something_new() -> None:
    class Grown(Table):
        ADDED: ClassVar[dict[str, str]] = {"gate": "off"}
        rounds: int = 4
        gate: str = "judge"

    assert Grown(gate="off").identity() == {"rounds": 4}
    assert Grown().identity() == {"rounds": 4, "gate": "judge"}
