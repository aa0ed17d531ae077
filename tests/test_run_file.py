"""Run files: overrides, and errors that name file, line and remedy."""

from pathlib import Path

import pytest

from constitutional_ai.errors import SettingsError
from constitutional_ai.run_file import read
from constitutional_ai.settings import Settings


def write(folder: Path, text: str) -> Path:
    path = folder / "run.toml"
    path.write_text(text, encoding="utf-8")
    return path


def complaint(path: str | Path, *overrides: str) -> str:
    with pytest.raises(SettingsError) as caught:
        read(path, overrides).settings(Settings)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_overrides_win_over_the_file_and_are_toml_values(tmp_path: Path) -> None:
    path = write(tmp_path, "[ppo]\nkl_coef = 0.5\nsteps = 7\n")
    settings = read(
        path,
        ["ppo.kl_coef=0.2", "label.clamp=[0, 1]", "ppo.monitor=off", "model.path=/a/folder"],
    ).settings(Settings)
    assert (settings.ppo.kl_coef, settings.ppo.steps) == (0.2, 7)
    assert settings.label.clamp == (0.0, 1.0)
    assert settings.ppo.monitor == "off"  # what is no TOML value is text
    assert settings.model.path == "/a/folder"


@pytest.mark.parametrize(
    ("text", "line", "rest"),
    [
        ("seed = 1\n[ppo]\n# it\nkl_coeff = 1\n", 4, "'ppo.kl_coeff'; did you mean 'ppo.kl_coef'?"),
        ("ppo.kl_coeff = 1\n", 1, "'ppo.kl_coeff'; did you mean 'ppo.kl_coef'?"),
        ("\nppo = { steps = 1, step = 2 }\n", 2, "'ppo.step'; did you mean 'ppo.steps'?"),
        ('name = """\n[pppo]\n"""\n[pppo]\n', 4, "'pppo'; did you mean 'ppo'?"),
        ("kl_coef = 0.1\n", 1, "'kl_coef'; did you mean 'ppo.kl_coef'?"),
        ("[revise]\nzzzzzz = 1\n", 2, "'revise.zzzzzz'"),
    ],
)
def test_an_unknown_key_names_its_line_and_the_nearest_key(
    tmp_path: Path, text: str, line: int, rest: str
) -> None:
    path = write(tmp_path, text)
    assert complaint(path).startswith(f"{path}:{line}: unknown setting {rest}")


@pytest.mark.parametrize(
    ("text", "line", "rest"),
    [
        ("[ppo]\nsteps = 'x'\n", 2, "ppo.steps: expected an integer, got 'x'"),
        ("[ppo]\n\nsteps = 1.5\n", 3, "ppo.steps: expected an integer, got 1.5"),
        ("[ppo]\nsteps = true\n", 2, "ppo.steps: expected an integer, got True"),
        ("[ppo]\nkl_coef = nan\n", 2, "ppo.kl_coef: expected a"),
        ("[revise]\nstop_when_clean = 1\n", 2, "revise.stop_when_clean: expected true or false"),
        ("seed = -1\n", 1, "seed: expected at least 0, got -1"),
        ("name = 3\n", 1, "name: expected text in quotes, got 3"),
        ("[label]\nmode = 'sof'\n", 2, "label.mode: expected 'auto', 'soft', 'hard' or"),
        ("[label]\nclamp = [\n 0.6,\n 0.4]\n", 2, "label.clamp: the first bound is above"),
        ("[label]\nclamp = [0.6]\n", 2, "label.clamp: expected two numbers"),
        ("[revise]\nrounds = 2\nstop_when_clean = true\ncritique = false\n", 3, "revise.stop_when"),
        ("[model]\ndtype = 'auto'\nrevision = 'x'\n", 3, "model.revision: a revision is one of"),
        ("name = 'a/b'\n", 1, "name: 'a/b' names the folder"),
        ("name = 'a\\u0000b'\n".replace("'", '"'), 1, "name: holds"),
        ("\nseed = 9223372036854775808\n", 2, "seed: expected a number below"),
        ("threads = 100000\n", 1, "threads: expected at most 1024"),
        ("[ppo]\nclip = 5\n", 2, "ppo.clip: expected a number below 1"),
        ("ppo = 3\n", 1, "ppo: expected a table, got 3"),
    ],
)
def test_a_wrong_value_names_its_line_and_what_was_expected(
    tmp_path: Path, text: str, line: int, rest: str
) -> None:
    path = write(tmp_path, text)
    assert complaint(path).startswith(f"{path}:{line}: {rest}")


def test_an_integer_is_a_number_too(tmp_path: Path) -> None:
    assert read(write(tmp_path, "[ppo]\nkl_coef = 1\n")).settings(Settings).ppo.kl_coef == 1.0


@pytest.mark.parametrize(
    ("override", "rest"),
    [
        ("evaluate.harm_head=x", "evaluate.harm_head was removed: a judge reads harm"),
        ("ppo.kl_coeff=1", "unknown setting 'ppo.kl_coeff'; did you mean 'ppo.kl_coef'?"),
        ("ppo.steps=x", "ppo.steps: expected an integer, got 'x'"),
        ("ppo.x.y=3", "unknown setting 'ppo.x'"),
        ("name.a=1", "name is a value"),
        ("ppo", "expected name=value"),
        ("=3", "expected name=value"),
    ],
)
def test_a_wrong_override_is_named_as_it_was_typed(override: str, rest: str) -> None:
    assert complaint("lab", override).startswith(f"--set {override}: {rest}")


def test_broken_toml_names_its_line(tmp_path: Path) -> None:
    path = write(tmp_path, "seed = 1\nseed = = 2\n")
    assert complaint(path).startswith(f"{path}:2: not valid TOML")
    path = write(tmp_path, f"name = 'x'\nseed = {'9' * 5000}\n")
    assert complaint(path).startswith(f"{path}:2: not valid TOML: too many digits")
    path = write(tmp_path, f"seed = {'[' * 5000}\n")
    assert complaint(path).startswith(f"{path}:1: not valid TOML: nested too deeply")
    path = write(tmp_path, "name = '''\nnever closed\n")
    assert complaint(path).startswith(f"{path}:3: not valid TOML")


def test_a_missing_file_names_the_shipped_ones(tmp_path: Path) -> None:
    assert "lab" in complaint(tmp_path / "none.toml").split("shipped")[1]
    assert "no such run file" in complaint("labb")


@pytest.mark.parametrize("override", ['http.extra={"api_key": "sk-1"}', "http.keys=['h=sk-1']"])
def test_a_key_in_an_override_is_not_repeated(override: str) -> None:
    assert "sk-1" not in complaint("lab", override)
