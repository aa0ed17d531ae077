"""What would stop a run after hours is told before its first stage, all of it at once."""

from pathlib import Path

import pytest

from constitutional_ai.errors import Problems, SettingsError
from constitutional_ai.settings import load_run_file
from constitutional_ai.stages import check
from constitutional_ai.stages.check import problems, refuse


def told(tmp_path: Path, text: str, *overrides: str) -> list[str]:
    file = tmp_path / "mine.toml"
    file.write_text(text)
    settings, place = load_run_file(file, overrides)
    return list(problems(settings, place=place))


def test_the_shipped_laboratory_has_no_problem(tmp_path: Path) -> None:
    assert told(tmp_path, "") == []


@pytest.mark.parametrize(
    ("text", "line", "complaint"),
    [
        ('\n[model]\npath = "/nope/model"\n', 3, "no such model folder"),
        ('model.path = "lab:zzz"', 1, "unknown lab model"),
        ('model.path = "nope.gguf"', 1, "nope.gguf: no such file"),
        ('[label]\njudge = "nope.gguf"', 2, "nope.gguf: no such file"),
        ('model.path = "org/model@v1"', 1, "not on this machine, and HF_HUB_OFFLINE forbids"),
        ('label.judge = "http://127.0.0.1:99999/v1#m"', 1, "not a server's address"),
        ('[label]\njudge = "http://127.0.0.1:9/v1#m"', 2, "no server answers at 127.0.0.1:9"),
        ('label.jury = ["lab:s", "lab:zzz"]', 1, "unknown lab model"),
        ('[label]\n\ncalibration = "nope.json"', 3, "nope.json: no such file"),
        ('evaluate.judge = "/nope/judge"', 1, "no such model folder"),
        ('evaluate.dialogues = "nope.jsonl#half=2"', 1, "nope.jsonl: cannot be read"),
        ('prompts.red_team = ["lab", "nope.jsonl"]', 1, "'lab' cannot be joined"),
        ('report.beside = ["/nope"]', 1, "/nope holds no finished `cai redteam`"),
        ('prompts.helpful = "nope.jsonl"', 1, "nope.jsonl"),
        ('constitution = "nope.toml"', 1, "nope.toml"),
        ("revise.exemplars = 3", 1, "exemplars"),
        ('model.device = "cuda:9"', 1, "no device 'cuda:9' here"),
        (
            'finetune.helper = "http://127.0.0.1:9/v1#m"\nhttp.keys = ["127.0.0.1=NO_SUCH_KEY"]',
            1,
            "NO_SUCH_KEY",
        ),
    ],
)
def test_a_problem_has_its_line(tmp_path: Path, text: str, line: int, complaint: str) -> None:
    (problem,) = told(tmp_path, text)
    assert complaint in problem
    assert problem.startswith(f"{tmp_path / 'mine.toml'}:{line}: ")


def test_a_constitution_with_no_rationale_to_show(tmp_path: Path) -> None:
    rules = 'name = "c"\nversion = "1"\nrationale = true\n[[principle]]\nname = "n"\ntext = "a"\n'
    (tmp_path / "c.toml").write_text(rules)
    (problem,) = told(tmp_path, f'constitution = "{tmp_path / "c.toml"}"')
    assert "c.toml:1: rationale = true, but no principle has one to show" in problem


@pytest.mark.parametrize("setting", ["rationale=true", "constitution.rationale=true"])
def test_a_rationale_is_no_setting_of_a_run(tmp_path: Path, setting: str) -> None:
    with pytest.raises(SettingsError, match="is a key of the constitution file"):
        told(tmp_path, "", setting)
    with pytest.raises(SettingsError, match=r"mine.toml:1: .* rationale = true into its head"):
        told(tmp_path, setting)


def test_an_extra_that_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(check, "installed", lambda _: "")
    (problem,) = told(tmp_path, "", "model.lora_rank=4")
    assert problem.startswith("--set model.lora_rank=4: ") and "pip install" in problem


def test_a_key_in_an_address_is_not_repeated(tmp_path: Path) -> None:
    (problem,) = told(tmp_path, "", "revise.critic=http://me:sk-SECRET@127.0.0.1:9/v1")
    assert "environment variable" in problem
    assert problem.startswith("--set revise.critic: ") and "SECRET" not in problem


def test_only_stages_that_are_to_run_are_looked_at(tmp_path: Path) -> None:
    settings, _ = load_run_file("lab", ["label.calibration=nope.json"])
    refuse(settings, ["revise", "finetune"])
    with pytest.raises(Problems, match=r"label\.calibration: label\.calibration: nope"):
        refuse(settings, ["label"])


def test_all_problems_are_told_at_once(tmp_path: Path) -> None:
    found = told(tmp_path, 'model.path = "lab:zzz"\nlabel.calibration = "x"\nreport.beside = ["y"]')
    assert len(found) == 3
