"""What stands in a stage's folder after a kill, and what the same command makes of it."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from constitutional_ai.cli.main import app
from constitutional_ai.errors import ModelError, TrainingDiverged
from constitutional_ai.job import Job
from constitutional_ai.learning import ppo, sft
from constitutional_ai.learning.policy import Policy
from constitutional_ai.learning.reward import FunctionReward
from constitutional_ai.records import Prompt, user
from constitutional_ai.stage_settings import FinetuneSettings, PPOSettings
from constitutional_ai.stages.pipeline import stage_module
from constitutional_ai.store import atomic, checkpoints
from constitutional_ai.store.checkpoints import Checkpoints, Log, Saving
from constitutional_ai.store.run_folder import RunFolder
from tests.durability.conftest import Killed, MakeJob, preference

TRAINING = ("finetune", "reward", "ppo")


def run_stages(job: Job, *names: str) -> None:
    """As the pipeline does it: a stage that is done is not run again."""
    for name in names:
        if not job.stage(name).done:
            job.stage(name).finish(stage_module(name).run(job))


def content(folder: Path) -> dict[str, bytes | list[Any]]:
    """Every file by its path; of what tells seconds, the rest of it."""
    found: dict[str, bytes | list[Any]] = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if path.name == "manifest.json":
            found[name] = [json.loads(path.read_bytes())["counts"]]
        elif path.name == "seconds.jsonl":
            found[name] = [json.loads(line)["step"] for line in path.read_bytes().splitlines()]
        elif path.is_file():
            found[name] = path.read_bytes()
    return found


def ignore(*args: Any, **kwargs: Any) -> None:
    pass


# --------------------------------------------------------------------------------- half-done files


def test_a_kill_while_a_folder_is_written(make_job: MakeJob) -> None:
    """The first of a stage's folders is a checkpoint, the second another, or a model."""
    whole, job = make_job("whole"), make_job("run")
    run_stages(whole, *TRAINING)
    for name in TRAINING:
        folder = job.stage(name).path
        for number in (1, 2):
            shutil.rmtree(folder)
            job.stage(name).claim({"seed": 7})
            leave_half_a_folder(job, name, number)
            run_stages(job, name)
            assert content(folder) == content(whole.stage(name).path)
            (folder / "manifest.json").unlink()
        run_stages(job, name)


def leave_half_a_folder(job: Job, stage: str, number: int) -> None:
    """Die where the n-th folder would be given its name, its files cut short."""
    move, moved = atomic.os.replace, []

    def killed(source: Path, target: Path) -> None:
        if Path(source).name.endswith(".draft"):
            moved.append(Path(source))
            if len(moved) == number:
                shutil.copytree(source, f"{source}.kept")  # a kill knows no `finally`
                raise Killed
        move(source, target)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(atomic.os, "replace", killed)
        with pytest.raises(Killed):
            run_stages(job, stage)
    Path(f"{moved[-1]}.kept").rename(moved[-1])
    for file in moved[-1].iterdir():
        file.write_bytes(file.read_bytes()[:100])


def test_a_stage_without_its_manifest_is_finished_again(make_job: MakeJob) -> None:
    job = make_job("run")
    for name in TRAINING:
        run_stages(job, name)
        folder = job.stage(name).path
        before = content(folder)
        (folder / "manifest.json").unlink()
        run_stages(job, name)
        assert content(folder) == before


def test_a_kill_between_the_model_and_the_manifest_costs_no_training(
    make_job: MakeJob, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = make_job("run")
    run_stages(job, "finetune", "reward")
    stage_module("ppo").run(job)  # and no manifest
    folder = job.stage("ppo").path
    model, steps, one_step = content(folder / "model"), [], ppo.PPO.one_step

    def counted(self: ppo.PPO, step: int, watched: Any) -> Any:
        steps.append(step)
        return one_step(self, step, watched)

    monkeypatch.setattr(ppo.PPO, "one_step", counted)
    run_stages(job, "ppo")
    assert steps == [3]  # of four, from the checkpoint after three
    assert content(folder / "model") == model
    assert not (folder / "checkpoints").exists()


def test_checkpoints_that_a_kill_left_beside_a_manifest_go(make_job: MakeJob) -> None:
    job = make_job("run")
    run_stages(job, "finetune")
    (job.stage("finetune").path / "checkpoints/model/000003").mkdir(parents=True)
    job.stage("finetune").tidy()
    assert not (job.stage("finetune").path / "checkpoints").exists()


def test_what_fails_while_it_is_written_leaves_nothing(tmp_path: Path) -> None:
    def full(draft: Path) -> None:
        (draft / "half").write_text("x")
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        atomic.write_folder(tmp_path / "model", full)
    assert list(tmp_path.iterdir()) == []


def test_a_model_file_that_was_damaged_is_named(make_job: MakeJob) -> None:
    job = make_job("run")
    run_stages(job, "finetune", "reward")
    for name, next_stage in (("reward", "ppo"), ("finetune", "ppo")):
        file = job.stage(name).path / "model/model.safetensors"
        file.write_bytes(file.read_bytes()[:-100])
        with pytest.raises(ModelError, match=f"{file.parent}: "):
            run_stages(job, next_stage)


def test_a_second_command_in_the_same_folder_is_refused(tmp_path: Path) -> None:
    with RunFolder(tmp_path / "run").locked():
        result = CliRunner().invoke(app, ["run", "lab", "--out", str(tmp_path / "run")])
    assert result.exit_code == 2
    assert "in use by pid" in result.stderr and result.stderr.count("\n") == 1
    assert [path.name for path in (tmp_path / "run").iterdir()] == [".lock"]


# --------------------------------------------------------------------------------------------- NaN


def test_a_poisoned_label_stops_the_reward_model_and_is_named(make_job: MakeJob) -> None:
    """Its file and line are named, alone; put right, the training goes on to the same weights."""
    whole, job = make_job("whole"), make_job("run")
    run_stages(whole, "finetune", "reward")
    run_stages(job, "finetune")
    file = job.stage("label").path / "preferences.jsonl"
    lines = file.read_text().splitlines(keepends=True)
    line = line_of_step(job, 3)  # the first checkpoint is made after step 2
    right = lines[line - 1]
    label = json.loads(right)["p_chosen"]
    lines[line - 1] = right.replace(f'"p_chosen":{label}', '"p_chosen":NaN')
    file.write_text("".join(lines))

    with pytest.raises(TrainingDiverged, match="loss nan") as caught:
        run_stages(job, "reward")
    named = str(caught.value).partition("rows: ")[2]
    assert named == f"preferences.jsonl:{line}"
    folder = job.stage("reward").path
    assert [path.name for path in (folder / "checkpoints/model").iterdir()] == ["000003"]
    assert not (folder / "model").exists() and not job.stage("reward").done

    lines[line - 1] = right
    file.write_text("".join(lines))
    run_stages(job, "reward")
    assert content(folder) == content(whole.stage("reward").path)


def line_of_step(job: Job, step: int) -> int:
    """A line of preferences.jsonl that is first learned from in that step of the first epoch."""
    labels: list[float] = []

    def spied(self: checkpoints.Resumable, saving: Any, part: Any, batch: Any) -> None:
        labels.extend(row[-1] for row in batch(step))
        raise Killed

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(checkpoints.Resumable, "__init__", spied)
        with pytest.raises(Killed):
            run_stages(job, "reward")
    return next(n for n in range(1, 20) if preference(n).p_chosen == labels[0]) + 1


def poisoned(policy: Policy, text: str) -> Any:
    """From now on a row that holds the text's first token has a loss that is no number."""
    token = policy.tokens.answer(text)[0]

    def poison(module: Any, inputs: Any, output: torch.Tensor) -> torch.Tensor:
        return output.masked_fill((inputs[0] == token)[..., None], float("nan"))

    return policy.model.get_input_embeddings().register_forward_hook(poison)


def test_a_poisoned_row_stops_finetuning_and_is_named(tiny_llama: Path, tmp_path: Path) -> None:
    settings = FinetuneSettings(epochs=1, batch_tokens=64)
    examples = [([user("Hello")], f"{n} more words") for n in range(1, 9)] + [([user("Hi")], "Zz")]
    names = [f"rows.jsonl:{n}" for n in range(1, 10)]

    def train(folder: Path, *hooks: str) -> dict[str, torch.Tensor]:
        policy = Policy.load(tiny_llama, "cpu")
        for text in hooks:
            poisoned(policy, text)
        log = Log(folder / "metrics.jsonl")
        saving = Saving(folder / "checkpoints", 1, log)
        sft.train(policy, examples, settings, 5, log.write, ignore, names, saving)
        return dict(policy.model.state_dict())

    whole = train(tmp_path / "whole")
    with pytest.raises(TrainingDiverged) as caught:
        train(tmp_path / "run", "Zz")
    assert str(caught.value).endswith("rows: rows.jsonl:9")
    steps = (tmp_path / "run/metrics.jsonl").read_bytes().count(b"\n")
    found = Checkpoints(tmp_path / "run/checkpoints").load()
    if steps:
        assert found is not None and found[1]["step"] == steps
        assert all(tensor.isfinite().all() for tensor in found[0].values())
    mended = train(tmp_path / "run")
    assert all(torch.equal(mended[name], whole[name]) for name in whole)


def test_a_step_that_leaves_no_numbers_is_never_saved(tiny_llama: Path, tmp_path: Path) -> None:
    """Loss and gradient are fine, the learning rate is not."""
    policy, log = Policy.load(tiny_llama, "cpu"), Log(tmp_path / "metrics.jsonl")
    saving = Saving(tmp_path / "checkpoints", 1, log)
    settings = FinetuneSettings(epochs=1, batch_tokens=64, lr=1e39, warmup_steps=0)
    examples = [([user("Hello")], f"{n} more words") for n in range(1, 9)]
    with pytest.raises(TrainingDiverged, match="weights that are no finite numbers"):
        sft.train(policy, examples, settings, 5, log.write, ignore, saving=saving)
    assert Checkpoints(tmp_path / "checkpoints").load() is None


@pytest.mark.parametrize("where", ["reward", "policy"])
def test_a_poisoned_prompt_stops_ppo_and_is_named(
    tiny_llama: Path, tmp_path: Path, where: str
) -> None:
    prompts = [
        Prompt(id=f"id-{n}", prompt=[user(f"{'Zz' if n == 7 else 'Go'} {n}")], set="helpful")
        for n in range(12)
    ]
    small = {"steps": 6, "rollouts": 3, "max_new_tokens": 4, "checkpoint_every": 1}
    settings = PPOSettings(**small, value="separate", monitor="off", warmup_steps=1)

    def train(folder: Path, broken: bool) -> dict[str, torch.Tensor]:
        policy = Policy.load(tiny_llama, "cpu")

        def reward(asked: list[Any], answers: list[str]) -> list[float]:
            bad = [broken and where == "reward" and "Zz" in turns[-1]["content"] for turns in asked]
            lengths = [-float(len(answer)) for answer in answers]
            return [float("nan") if b else x for b, x in zip(bad, lengths, strict=True)]

        if broken and where == "policy":
            poisoned(policy, "Zz")
        inputs = ppo.Inputs(policy, FunctionReward(reward), prompts, settings, folder, 3)
        ppo.train(inputs, ignore, ignore)
        return dict(policy.model.state_dict())

    whole = train(tmp_path / "whole", broken=False)
    with pytest.raises(TrainingDiverged) as caught:
        train(tmp_path / "run", broken=True)
    assert str(caught.value).endswith("rows: id-7 'Zz 7'")
    mended = train(tmp_path / "run", broken=False)
    assert all(torch.equal(mended[name], whole[name]) for name in whole)
    for file in ("metrics.jsonl", "samples.jsonl"):
        assert (tmp_path / "run" / file).read_bytes() == (tmp_path / "whole" / file).read_bytes()
