"""The command line: exit codes, one-line errors, what a command runs, how light help is."""

import json
import signal
import subprocess
import sys
import tomllib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from typer.testing import CliRunner

from constitutional_ai import __version__
from constitutional_ai.cli.main import app
from constitutional_ai.cli.options import SHIPPED
from constitutional_ai.engines.scripted import ScriptedEngine
from constitutional_ai.errors import TrainingDiverged
from constitutional_ai.judge.questions import questions_for
from constitutional_ai.principles import load_constitution
from constitutional_ai.run_file import shipped
from constitutional_ai.settings import Settings, load_settings
from constitutional_ai.stage_list import STAGE_NAMES, words_of
from constitutional_ai.stages import costs, pipeline, preview

MODEL = ("--set", "model.path=lab:xxs")


def cai(*args: object, code: int = 0) -> Any:
    result = CliRunner().invoke(app, [str(arg) for arg in args])
    assert result.exit_code == code, result.output
    return result


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Stages that do nothing; the list says which ones ran."""
    names: list[str] = []

    def module(name: str) -> Any:
        def run(job: Any) -> dict[str, Any]:
            names.append(name)
            if name == "report":
                (job.stage(name).path / "report.html").touch()
            return {}

        return SimpleNamespace(run=run)

    monkeypatch.setattr(pipeline, "stage_module", module)
    return names


def break_stages(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    def module(name: str) -> Any:
        raise error

    monkeypatch.setattr(pipeline, "stage_module", module)


def test_help_needs_none_of_the_heavy_libraries() -> None:
    heavy = ("torch", "transformers", "pydantic", "numpy", "matplotlib", "rich")
    code = f"""
import sys
from constitutional_ai.cli.main import app
try:
    app(["--help"])
except SystemExit as end:
    assert end.code == 0
print([name for name in {heavy} if name in sys.modules], file=sys.stderr)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr == "[]\n"
    for name in (*STAGE_NAMES, "run", "doctor", "constitution", "lab", "study"):
        assert f"\n  {name}" in done.stdout


def test_the_help_names_every_shipped_run_file() -> None:
    assert sorted(SHIPPED.split(", ")) == shipped()


def test_check_and_dry_run_tell_every_problem_and_write_nothing(tmp_path: Path) -> None:
    bad = ["--set", "model.path=lab:zzz", "--set", "label.calibration=nope"]
    for look in ("--check", "--dry-run"):
        result = cai("run", "lab", *bad, look, "--out", tmp_path / "out", code=2)
        assert [line[:11] for line in result.stderr.splitlines()] == ["cai: --set "] * 2
        assert not (tmp_path / "out").exists()
    assert "nothing is seen" in cai("run", "lab", "--check").stdout


def test_a_folder_that_is_none_of_its_own_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert "a folder of its own" in cai("run", "lab", "--out", "", code=2).stderr
    assert "names the folder" in cai("run", "lab", "--set", "name=../../x", code=2).stderr
    assert ": a folder; name a run file in it" in cai("run", tmp_path, code=2).stderr
    assert list(tmp_path.iterdir()) == []


def test_a_run_file_that_sets_nothing_says_what_it_runs(tmp_path: Path) -> None:
    (tmp_path / "empty.toml").touch()
    result = cai("run", tmp_path / "empty.toml", "--check")
    assert result.stderr == (
        f"cai: {tmp_path / 'empty.toml'} sets nothing, so this is the default run of lab:s\n"
    )


def test_the_version_is_told() -> None:
    assert cai("--version").stdout == f"cai {__version__}\n"


def test_run_runs_everything_and_prints_the_page(tmp_path: Path, ran: list[str]) -> None:
    result = cai("run", "lab", "--out", tmp_path, *MODEL)
    assert ran == list(words_of("ppo"))
    assert result.stdout.splitlines()[-1] == str(tmp_path / "8-report" / "report.html")
    cai("run", "lab", "--out", tmp_path, *MODEL, "--redo", "reward")
    assert ran[8:] == ["reward", "ppo", "evaluate", "report"]


def test_out_defaults_to_the_runs_name(
    tmp_path: Path, ran: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    cai("run", "lab", *MODEL, "--set", "name=mine")
    assert (tmp_path / "out" / "mine" / "8-report" / "manifest.json").exists()


def test_one_stage_runs_alone_and_can_be_redone(tmp_path: Path, ran: list[str]) -> None:
    for times in (1, 1, 2):
        redo = ["--redo"] if times == 2 else []
        cai("revise", "lab", "--out", tmp_path, *MODEL, *redo)
        assert ran == ["revise"] * times
    result = cai("label", "lab", "--out", tmp_path, *MODEL, code=2)
    assert "2-finetune: missing; run `cai finetune` first" in result.stderr


def test_json_puts_only_objects_on_stdout(tmp_path: Path, ran: list[str]) -> None:
    cai("run", "lab", "--out", tmp_path, *MODEL)
    result = cai("run", "lab", "--out", tmp_path, *MODEL, "--json")
    events = [json.loads(line) for line in result.stdout.splitlines()]
    assert {event["event"] for event in events} == {"note"}


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["run", "none.toml"], "none.toml: no such run file"),
        (["run", "lab", "--set", "ppo.kl_coeff=1"], "did you mean 'ppo.kl_coef'?"),
        (["run", "lab", "--set", "nam\ne=1"], "--set nam e=1"),
        (["run", "lab", "--set", "constitution=none"], "none: no such constitution"),
        (["run", "lab", *MODEL, "--set", "prompts.red_team=no.jsonl"], "no.jsonl: cannot be read"),
        (["run", "lab", *MODEL, "--redo", "lable"], "no stage is named 'lable'"),
        (["study", "seeds", "lab", "--out", "x", "--seeds", "0,x"], "--seeds 0,x: expected"),
        (["constitution", "show", "none"], "none: no such constitution"),
    ],
)
def test_a_users_mistake_is_one_line_and_exit_code_two(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, args: list[str], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    result = cai(*args, code=2)
    assert message in result.stderr
    assert result.stderr.startswith("cai: ")
    assert result.stderr.count("\n") == 1
    assert result.stdout == ""


@pytest.mark.parametrize("args", [["rum"], ["run"], ["run", "lab", "--nothing"]])
def test_wrong_usage_is_exit_code_two(args: list[str]) -> None:
    assert "Usage:" in cai(*args, code=2).stderr


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (TrainingDiverged("loss is nan"), 1, "cai: TrainingDiverged: loss is nan\n"),
        (OSError(28, "No space left"), 1, "cai: OSError: [Errno 28] No space left\n"),
        (KeyboardInterrupt(), 130, "cai: interrupted; run the same command again to continue\n"),
    ],
)
def test_failures_and_interrupts_have_their_codes(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    error: BaseException,
    code: int,
    message: str,
) -> None:
    break_stages(monkeypatch, error)
    assert cai("run", "lab", "--out", tmp_path, *MODEL, code=code).stderr == message


def test_a_bug_shows_its_traceback(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    break_stages(monkeypatch, ZeroDivisionError("a bug"))
    result = cai("run", "lab", "--out", tmp_path, *MODEL, code=1)
    assert "Traceback" in result.stderr
    assert result.stderr.endswith("ZeroDivisionError: a bug\n")


# A shell that starts its jobs in the background has them ignore Ctrl-C; here they shall not.
SIGNALLED = """
import os, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
sys.path.insert(0, {top!r})
from constitutional_ai import cli
from constitutional_ai.stages import pipeline
pipeline.stage_module = lambda name: os.kill(os.getpid(), {signal})
sys.argv = ["cai", "run", "lab", "--out", {out!r}, "--set", "model.path=lab:xxs"]
cli.start()
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_end_a_run_with_130_and_the_remedy(tmp_path: Path, number: signal.Signals) -> None:
    top = str(Path(__file__).parents[2])
    code = SIGNALLED.format(top=top, signal=int(number), out=str(tmp_path / "out"))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 130, done.stderr
    assert done.stderr.splitlines()[-1].endswith("run the same command again to continue")


SWALLOWED = """
import os, signal, sys, time
signal.signal(signal.SIGINT, signal.default_int_handler)
sys.path.insert(0, {top!r})
from constitutional_ai import cli
from constitutional_ai.stages import pipeline
class Dying:
    def __del__(self):
        os.kill(os.getpid(), {signal})
        time.sleep(0)  # here the signal is noticed, and Python forgets what is raised
def stage_module(name):
    Dying()
    time.sleep(30)
    raise SystemExit("the signal was lost")
pipeline.stage_module = stage_module
sys.argv = ["cai", "run", "lab", "--out", {out!r}, "--set", "model.path=lab:xxs"]
cli.start()
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_that_comes_inside_a_destructor_is_not_lost(
    tmp_path: Path, number: signal.Signals
) -> None:
    top = str(Path(__file__).parents[2])
    code = SWALLOWED.format(top=top, signal=int(number), out=str(tmp_path / "out"))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 130, done.stderr
    assert done.stderr == "cai: interrupted; run the same command again to continue\n"


def test_a_folder_in_use_is_refused(tmp_path: Path, ran: list[str]) -> None:
    from constitutional_ai.store.run_folder import RunFolder

    with RunFolder(tmp_path).locked():
        result = cai("run", "lab", "--out", tmp_path, *MODEL, code=2)
    assert "in use by pid" in result.stderr
    assert ran == []


def engine() -> ScriptedEngine:
    return ScriptedEngine(reply=lambda turns: "one two three four", prefer=lambda turns, text: -0.7)


def test_a_dry_run_shows_settings_prompts_and_costs_and_runs_nothing(
    tmp_path: Path, ran: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(preview, "engine_or_reason", lambda settings: (engine(), ""))
    text = cai("run", "lab", "--dry-run", "--set", "ppo.steps=3").stdout
    costs, rest = text.split("# critique")
    toml = rest.split("# settings")[1]
    assert Settings.model_validate(tomllib.loads(toml)) == load_settings("lab", ["ppo.steps=3"])
    for part in ("# revision", "# comparison", "(A) …", "Speed measured here on 32 prompts"):
        assert part in text
    for name in STAGE_NAMES:
        assert (f"\n{name} " in costs) == (name != "dpo")
    assert ran == []
    assert not list(tmp_path.iterdir())


def test_a_dry_run_with_dpo_counts_its_stage_and_neither_reward_nor_ppo(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(preview, "engine_or_reason", lambda settings: (engine(), ""))
    text = cai("run", "lab", "--dry-run", "--set", "learner=dpo").stdout
    costs = text.split("# critique")[0]
    assert "\ndpo " in costs and "\nppo " not in costs and "\nreward " not in costs
    assert 'learner = "dpo"' in text.split("# settings")[1]


def test_a_stage_of_another_learner_is_the_users_mistake(tmp_path: Path, ran: list[str]) -> None:
    file = tmp_path / "mine.toml"
    file.write_text('name = "mine"\nlearner = "dpo"\nmodel.path = "lab:xxs"\n')
    for stage in ("ppo", "reward"):
        said = cai(stage, file, "--out", tmp_path / "run", code=2).stderr
        assert said.startswith(f'cai: {file}:2: learner = "dpo"') and f"no stage {stage}" in said
    said = cai("dpo", "lab", "--out", tmp_path / "run", code=2).stderr
    assert 'learner = "ppo"' in said and 'set learner = "dpo"' in said
    assert ran == []
    cai("run", file, "--out", tmp_path / "run")
    assert ran == list(words_of("dpo"))
    assert "nothing is seen that would stop" in cai("run", file, "--check").stdout


def test_a_dry_run_without_a_model_says_what_it_assumes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preview, "engine_or_reason", lambda settings: (None, "no such model"))
    text = cai("run", "lab", "--dry-run").stdout
    assert "Speed assumed: 4,000 tokens/s written, 70,000 read (no such model)" in text


def test_the_estimate_counts_no_more_prompts_than_the_files_hold(tmp_path: Path) -> None:
    for name in ("red_team", "helpful", "test"):
        rows = [json.dumps({"prompt": f"{name} {n}", "kind": "benign"}) for n in range(7)]
        (tmp_path / name).with_suffix(".jsonl").write_text("\n".join(rows))
    files = [f"prompts.{name}={tmp_path / name}.jsonl" for name in ("red_team", "helpful", "test")]
    constitution = load_constitution("lab")
    settings = preview.held(load_settings("lab", [*files, "label.principles=500"]))
    assert settings.revise.prompts == settings.sample.helpful == settings.finetune.helpful == 7
    work = costs.work_by_stage(settings, costs.ASSUMED, constitution)
    red, helpful = (
        len(constitution.usable("preference", name)) for name in ("red-team", "helpful")
    )
    assert work["label"].calls == 2 * 7 * (red + helpful)  # pairs × principles × orders
    assert work["ppo"].calls == 20 * 112 + 2 * 5  # of each file the monitor takes a fifth
    alone = settings.model_copy(
        update={"evaluate": settings.evaluate.model_copy(update={"grade": False, "pairs": "off"})}
    )
    calls = costs.work_by_stage(alone, costs.ASSUMED, constitution)["evaluate"].calls
    assert calls == 7 * 6  # base, four SL-CAI, RL-CAI
    compared = 2 * 5 * 7 * helpful  # both orders, all models against the first
    graded = 6 * 7 * sum(len(question.told) for question in questions_for("lab:s"))
    assert work["evaluate"].calls == calls + compared + graded


def test_a_test_prompt_of_an_unknown_kind_is_told_with_its_line(tmp_path: Path) -> None:
    rows = [
        {"prompt": "one", "kind": "harmful"},
        {"prompt": "two", "kind": "harmfull"},
        {"prompt": "three", "kind": "harmfull"},
        {"prompt": "four", "kind": "poems", "set": "helpful"},
    ]
    file = tmp_path / "test.jsonl"
    file.write_text("\n".join(map(json.dumps, rows)))
    text = cai("run", "lab", "--check", "--set", f"prompts.test={file}").stdout
    (remark, verdict) = text.splitlines()
    assert remark.startswith(f"{file}:2 and 1 more: the kind 'harmfull' is none of harmful, benign")
    assert verdict == "lab: nothing is seen that would stop this run"


def test_the_estimate_counts_the_calls_that_stages_make() -> None:
    counts = ["revise.prompts=600", "sample.red_team=900", "sample.helpful=900"]
    settings = load_settings(
        "lab", [*counts, "ppo.steps=45", "ppo.rollouts=128", "ppo.monitor_prompts=64"]
    )
    work = costs.work_by_stage(settings, costs.ASSUMED)
    assert work["revise"].calls == 600 * 9  # an answer, four critiques, four revisions
    assert work["sample"].calls == 2 * 1800
    assert work["label"].calls == 2 * 2 * 1800  # two orders, two principles
    assert work["evaluate"].calls == 6 * 660  # base, four SL-CAI, RL-CAI
    assert work["ppo"].calls == 45 * 128 + 64 * 10
    table = costs.table(work, 2, costs.ASSUMED)
    assert f"revise    {2 * 5400:>10,}" in table  # two rounds
    assert f"evaluate  {3960:>10,}" in table  # once


def test_rendered_prompts_use_the_constitution_and_real_prompts() -> None:
    constitution = load_constitution("lab")
    made = preview.rendered(load_settings("lab"), constitution)
    assert list(made) == ["critique", "revision", "comparison"]
    assert made["critique"][-1]["content"] in {p.critique_prompt for p in constitution.principles}
    assert made["revision"][-1]["content"] in {p.revision_prompt for p in constitution.principles}
    last = made["comparison"][-1]["content"].splitlines()[-1]
    assert last in {p.preference_prompt for p in constitution.principles}
    assert made["critique"][0]["content"] != made["revision"][0]["content"]


def test_a_preview_without_critiques_shows_the_direct_request() -> None:
    constitution = load_constitution("lab")
    made = preview.rendered(load_settings("lab", ["revise.critique=false"]), constitution)
    assert list(made) == ["revision", "comparison"]


def test_the_estimate_counts_every_judge_and_every_vote() -> None:
    one, more = (
        costs.work_by_stage(load_settings("lab", changed), costs.ASSUMED)["label"].calls
        for changed in ([], ["label.jury=['lab:xs']", "label.method=vote", "label.samples=3"])
    )
    assert more == 2 * 3 * one


def test_doctor_tells_what_the_machine_has() -> None:
    text = cai("doctor").stdout
    for what in ("python", "torch", "cores", "memory", "GPU", "bf16", "GGUF files", "disk"):
        assert f"{what} " in text
    assert "run lab            fits this machine\n" in text
    assert "run qwen-0.5b      not yet: " in text


def test_a_constitution_is_shown_with_its_prompts() -> None:
    text = cai("constitution", "show", "harmless").stdout
    assert text.count("  critique: ") == 16
    assert "harmless" in cai("constitution", "show", "harmless").stdout.splitlines()[0]
