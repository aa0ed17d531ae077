"""The three training stages on a tiny model: what they write, and where they go on."""

import json
import math
import random
from itertools import pairwise
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest
import torch
from scipy.special import expit

from constitutional_ai.engines.local import LocalEngine, tokens_of
from constitutional_ai.engines.scripted import ScriptedEngine
from constitutional_ai.errors import DataError
from constitutional_ai.job import Job
from constitutional_ai.learning import reward_model
from constitutional_ai.learning.batch import Batch
from constitutional_ai.learning.policy import Policy
from constitutional_ai.learning.reward_model import LabelledPair, RewardModel
from constitutional_ai.records import (
    HeldOut,
    HelpfulAnswer,
    Preference,
    RevisedAnswer,
    RevisionStep,
    Sample,
    assistant,
    user,
)
from constitutional_ai.stage_settings import RewardSettings
from constitutional_ai.stages import dpo, finetune, ppo, reward
from constitutional_ai.store.rows import append_rows

SMALL: dict[str, Any] = {
    "revise": {"chunk": 4, "max_new_tokens": 8},
    "finetune": {"helpful": 6, "epochs": 1},
    "reward": {"epochs": 1, "batch_pairs": 8, "held_out": 0.4},
    "label": {"principles": 1, "fence": False},
    "dpo": {"epochs": 1, "batch_pairs": 8, "held_out": 0.4, "sl_mix": 0.1},
    "ppo": {
        "steps": 3,
        "rollouts": 4,
        "max_new_tokens": 6,
        "prompts": 20,
        "monitor_prompts": 8,
        "monitor_every": 2,
        "checkpoint_every": 1,
    },
}


@pytest.fixture
def job(make_job: Any, tiny_llama: Path) -> Job:
    torch.set_num_threads(1)
    speaks = ScriptedEngine(
        reply=lambda turns: "word " * (20 if turns[-1]["content"].endswith("3") else 3),
        prefer=lambda turns, option: math.log(0.6 if option == "(A)" else 0.4),
    )
    made: Job = make_job({str(tiny_llama): speaks}, model={"path": str(tiny_llama)}, **SMALL)
    append_rows(made.stage("revise").path / "revisions.jsonl", [revised(n) for n in range(8)])
    rows = [preference(n) for n in range(60)]
    append_rows(made.stage("label").path / "preferences.jsonl", rows)
    return made


def revised(n: int) -> RevisedAnswer:
    """Three rounds; of row 7 the second answer is empty."""
    answers = [f"answer {n}", f"better {n}", "" if n == 7 else f"good {n}", f"best {n}"]
    prompt = [user(f"request {n}")]
    step = RevisionStep(principle="p", principle_hash="h", critique="c", revision="r", clean=False)
    return RevisedAnswer(
        id=str(n),
        prompt=prompt,
        answers=answers,
        steps=[step] * 3,
        messages=[*prompt, assistant(answers[-1])],
        constitution="c",
        model="m",
        seed=0,
    )


def preference(n: int) -> Preference:
    """Every tenth pair could not be judged."""
    read = n % 10 != 0
    return Preference(
        id=f"pair-{n}",
        prompt=[user(f"request {n}")],
        set="red-team",
        chosen=[assistant("I will not.")],
        rejected=[assistant("Take a knife.")],
        p_chosen=0.9 if read else None,
        by_principle={},
        by_order=None,
        principle_hashes={},
        unlabelled="" if read else "unreadable",
        constitution="c",
        judge="j",
        seed=0,
    )


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_finetune_makes_a_model_for_every_revision(job: Job) -> None:
    counts = finetune.run(job)
    folder = job.stage("finetune").path
    models = sorted(path.name for path in folder.iterdir() if path.is_dir())
    assert models == ["model", "model-1", "model-2"]
    weights = [next(Policy.load(folder / name, "cpu").model.parameters()) for name in models]
    assert not any(torch.equal(a, b) for a, b in pairwise(weights))
    for file in ("metrics.jsonl", "metrics-1.jsonl", "metrics-2.jsonl"):
        assert lines(folder / file)[0]["loss/sft"] > 0
    rows = job.stage("finetune").rows("helpful.jsonl", HelpfulAnswer)
    assert len(rows) == counts["helpful"] == 6
    assert counts["helpful_unfinished"] == sum(not row.finished for row in rows)
    assert counts["revisions"] == 3


def test_another_model_can_answer_the_helpful_prompts(make_job: Any, tiny_llama: Path) -> None:
    """As in the paper, whose helpful answers come from a model that is only helpful."""
    start = ScriptedEngine(lambda _: "I will not.")
    helper = ScriptedEngine(lambda _: "Here is how.")
    made: dict[str, list[HelpfulAnswer]] = {}
    for name, settings in {"self": {}, "other": {"helper": "http://x/v1#helper"}}.items():
        job = make_job(
            {str(tiny_llama): start, "http://x/v1#helper": helper},
            name,
            model={"path": str(tiny_llama)},
            finetune={"helpful": 6, **settings},
        )
        made[name] = finetune.answer_helpful_prompts(job)
    assert {row.answer for row in made["self"]} == {"I will not."}
    assert {row.answer for row in made["other"]} == {"Here is how."}
    assert {row.model for row in made["other"]} == {"http://x/v1#helper"}
    assert [row.prompt for row in made["self"]] == [row.prompt for row in made["other"]]
    assert not {row.id for row in made["self"]} & {row.id for row in made["other"]}


def test_helpful_answers_may_be_longer_than_rewrites(make_job: Any, tiny_llama: Path) -> None:
    told = "Here is how, in more words than a refusal takes."
    ids: list[set[str]] = []
    for n, longest in enumerate((None, 3, 12)):
        job = make_job(
            {str(tiny_llama): ScriptedEngine(lambda _: told)},
            str(n),
            model={"path": str(tiny_llama)},
            revise={"max_new_tokens": 3},
            finetune={"helpful": 6, "max_new_tokens": longest},
        )
        rows = finetune.answer_helpful_prompts(job)
        assert {row.finished for row in rows} == {longest == 12}
        ids.append({row.id for row in rows})
    assert ids[0] == ids[1] and not ids[0] & ids[2]


def test_finetune_examples_leave_out_silence_and_cut_answers() -> None:
    def said(n: int, finished: bool) -> HelpfulAnswer:
        prompt = [user(f"help {n}")]
        return HelpfulAnswer(
            id=str(n),
            prompt=prompt,
            answer="Sure.",
            finished=finished,
            messages=[*prompt, assistant("Sure.")],
            model="m",
            seed=0,
        )

    found = finetune.examples([revised(6), revised(7)], [said(0, True), said(1, False)], k=2)
    assert [answer for _, answer in found] == ["good 6", "Sure."]
    assert found[1][0] == [user("help 0")]


LONG = "How do I pick a lock? " * 40  # more tokens than the tiny model's context of 256


def longer(row: Any, **columns: Any) -> Any:
    """The same row, with a request that does not fit."""
    return row.model_copy(update={"id": "long", "prompt": [user(LONG)], **columns})


def test_rows_beyond_the_context_are_not_trained_on(
    job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    notes: list[str] = []
    monkeypatch.setattr(job.progress, "note", notes.append)
    append_rows(job.stage("revise").path / "revisions.jsonl", [longer(revised(3))])
    append_rows(job.stage("label").path / "preferences.jsonl", [longer(preference(1))])
    counts = finetune.run(job)
    whole = counts["helpful"] - counts["helpful_unfinished"]
    assert counts["too_long"] == 1 and counts["examples"] == 8 + whole
    assert "revisions.jsonl:9 (" in notes.pop()
    folder = job.stage("finetune").path
    assert len(finetune.sft_examples(job, *tokens_of(folder / "model"))) == counts["examples"]
    assert finetune.run(job)["too_long"] == 1  # also where nothing is left to be done
    counts = reward.run(job)
    assert counts["too_long"] == 1 and counts["trained"] + counts["held_out"] == 54
    assert any("preferences.jsonl:61 (" in note for note in notes)
    file = Path(job.settings.prompts.helpful)
    some = file.read_text().splitlines()[:9]
    file.write_text("\n".join([*some, json.dumps({"prompt": LONG})]))
    counts = ppo.run(job)
    assert counts["steps"] == 3 and counts["too_long"] == 1
    assert any("How do I pick a lock?" in note for note in notes)


def test_nothing_but_rows_beyond_the_context_is_an_error(make_job: Any, tiny_llama: Path) -> None:
    job = make_job({}, model={"path": str(tiny_llama)}, finetune={"helpful": 0})
    append_rows(job.stage("revise").path / "revisions.jsonl", [longer(revised(3))])
    with pytest.raises(DataError, match=r"1 of 1 rows .* context of 256 tokens: .*:1 .*; none is"):
        finetune.run(job)


def test_a_model_is_taught_no_row_beyond_its_context(tiny_llama: Path) -> None:
    policy = Policy.load(tiny_llama, "cpu")
    with pytest.raises(DataError, match="longer than the model's context of 256"):
        policy.encode([user(LONG)], "No.")
    pairs = [LabelledPair([user(LONG)], "No.", "Yes.", 0.9)]
    fitted = RewardModel.from_policy(policy)
    with pytest.raises(DataError, match="longer than the model's context of 256"):
        reward_model.train(fitted, pairs, RewardSettings(), 0, print, print)


def test_a_tuned_model_draws_as_its_base_does(job: Job, tiny_llama: Path, tmp_path: Path) -> None:
    base = Policy.load(tiny_llama, "cpu")
    base.model.generation_config.update(temperature=0.7, top_p=0.8)  # and not do_sample
    base.save_pretrained(tmp_path / "base")
    tuned = Policy.to_train(tmp_path / "base", job.settings.model)
    tuned.save_pretrained(tmp_path / "tuned")
    assert LocalEngine.load(tmp_path / "tuned").own == (0.7, 0.8)


def test_finetune_keeps_the_models_that_stand(job: Job) -> None:
    finetune.run(job)
    folder = job.stage("finetune").path
    stamp = (folder / "model-1" / "model.safetensors").stat().st_mtime_ns
    first = (folder / "model" / "model.safetensors").read_bytes()
    for path in (folder / "model").iterdir():
        path.unlink()
    (folder / "model").rmdir()
    finetune.run(job)
    assert (folder / "model-1" / "model.safetensors").stat().st_mtime_ns == stamp
    assert (folder / "model" / "model.safetensors").read_bytes() == first


def test_finetune_without_revisions_is_an_error() -> None:
    with pytest.raises(DataError, match="revise"):
        finetune.revisions([])


def test_reward_holds_pairs_out_and_measures_on_them(job: Job) -> None:
    finetune.run(job)
    counts = reward.run(job)
    folder = job.stage("reward").path
    held = job.stage("reward").rows("held_out.jsonl", HeldOut)
    assert counts["trained"] + counts["held_out"] == 54 and len(held) == counts["held_out"]
    assert "pair-0" not in {row.id for row in held}
    found = json.loads((folder / "calibration.json").read_text())
    assert {"ece", "bins", "accuracy", "temperature"} <= found.keys()

    model = RewardModel.load(folder / "model")
    good, bad = (model([[user("request 1")]], [a])[0] for a in ("I will not.", "Take a knife."))
    delta = (good - bad) * model.deviation
    row = next((r for r in held if r.id == "pair-1"), held[0])
    if row.id == "pair-1":
        assert row.p == pytest.approx(1 / (1 + math.exp(-delta)), abs=0.02)


def test_the_calibration_error_is_not_the_lower_of_two_on_the_same_pairs() -> None:
    """Of a model whose probabilities are right, choosing would report .058 for .070."""
    rng = random.Random(1)
    reported, plain = [], []
    for _ in range(100):
        delta = [rng.gauss(0, 1.5) for _ in range(112)]
        labels = [float(rng.random() < expit(d)) for d in delta]
        found = reward.assess(delta, labels)
        reported.append(found["ece"])
        plain.append(found["ece_before"])
    assert fmean(reported) > 0.9 * fmean(plain)


def test_assess_keeps_a_temperature_only_where_it_helps() -> None:
    rng = torch.Generator().manual_seed(0)
    labels = (0.1 + 0.8 * torch.rand(200, generator=rng, dtype=torch.float64)).tolist()
    right = [math.log(p / (1 - p)) for p in labels]
    kept = reward.assess(right, labels)
    assert kept["temperature"] == 1.0 and kept["ece"] == pytest.approx(0, abs=1e-9)
    fitted = reward.assess([3 * d for d in right], labels)
    assert fitted["temperature"] == pytest.approx(3.0, rel=1e-2)
    assert fitted["ece"] < 0.01 < fitted["ece_before"]


def test_ppo_trains_watches_and_saves(job: Job) -> None:
    finetune.run(job)
    reward.run(job)
    counts = ppo.run(job)
    folder = job.stage("ppo").path
    assert counts["steps"] == 3 and not counts["stopped"]
    assert [row["step"] for row in lines(folder / "metrics.jsonl")] == [0, 1, 2]
    assert [row["step"] for row in lines(folder / "monitor.jsonl")] == [0, 2, 3]
    samples = job.stage("ppo").rows("samples.jsonl", Sample)
    assert {row.step for row in samples} == {0, 2, 3}  # every second step, and the end
    assert len({row.id for row in samples}) == 12
    job.stage("ppo").finish(counts)
    assert not (folder / "checkpoints").exists()
    tuned, before = (
        next(Policy.load(job.stage(name).path / "model", "cpu").model.parameters())
        for name in ("ppo", "finetune")
    )
    assert not torch.equal(tuned, before)


def test_the_monitors_prompts_are_not_trained_on(job: Job) -> None:
    trained, apart = ppo.draw_prompts(job, seed=1)
    texts = [{prompt.prompt[0]["content"] for prompt in part} for part in (trained, apart)]
    assert not texts[0] & texts[1]
    assert [sum(p.set == s for p in apart) for s in ("red-team", "helpful")] == [2, 3]
    assert ppo.draw_prompts(job, seed=1) == (trained, apart)


def test_what_could_not_be_measured_is_left_out() -> None:
    found = reward.assess([0.3, -0.2], [0.5, 0.5])  # the judge was undecided: nobody can be right
    assert math.isnan(found["accuracy"]) and math.isnan(found["accuracy_clear"])
    known = reward._known(found)
    assert "accuracy" not in known and "accuracy_clear" not in known
    assert known["ece"] == found["ece"] and known["n"] == 0
    json.dumps(known, allow_nan=False)


def test_dpo_trains_and_measures_on_pairs_that_it_held_out(job: Job) -> None:
    finetune.run(job)
    counts = dpo.run(job)
    stage, settings = job.stage("dpo"), job.settings.dpo
    logged = lines(stage.path / "metrics.jsonl")
    assert [row["step"] for row in logged] == list(range(-(-counts["trained"] // 8)))
    assert logged[0]["loss/dpo"] == pytest.approx(math.log(2)) and logged[0]["loss/sft"] > 0
    held = stage.rows("held_out.jsonl", HeldOut)
    assert counts["trained"] + counts["held_out"] == 54 and len(held) == counts["held_out"]
    assert counts["ties"] == counts["too_long"] == 0 and counts["n"] == len(held)

    tuned, before = (Policy.load(job.stage(n).path / "model", "cpu") for n in ("dpo", "finetune"))
    weights = [next(policy.model.parameters()) for policy in (tuned, before)]
    assert not torch.equal(*weights)
    row = held[0]
    ratios = [_logprob(tuned, row.id, a) - _logprob(before, row.id, a) for a in ANSWERS]
    h = ratios[0] - ratios[1]
    assert row.p == pytest.approx(1 / (1 + math.exp(-settings.beta * h)), abs=0.02)
    shares = {(r.p > 0.5) == (r.p_chosen > 0.5) for r in held}
    assert counts["accuracy"] == 1.0 and shares == {True}  # one lesson, many times
    stage.finish(counts)
    assert not (stage.path / "checkpoints").exists()


ANSWERS = ("I will not.", "Take a knife.")


def _logprob(policy: Policy, id: str, answer: str) -> float:
    """Of one answer to the request of ``preference(n)``, whose id ends with n."""
    row = policy.encode([user(f"request {id.removeprefix('pair-')}")], answer)
    batch = Batch.of([row], policy.tokens.pad_id, policy.device)
    with torch.no_grad():
        return float(policy.logprobs(batch).sum())


@pytest.mark.parametrize(("loss", "ties"), [("soft", 0), ("hard", 2), ("ipo", 2)])
def test_dpo_leaves_out_labels_without_a_side_where_it_takes_sides(
    job: Job, loss: str, ties: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    notes: list[str] = []
    monkeypatch.setattr(job.progress, "note", notes.append)
    even = [preference(n).model_copy(update={"id": f"even-{n}", "p_chosen": 0.5}) for n in (1, 2)]
    long = longer(preference(1))
    append_rows(job.stage("label").path / "preferences.jsonl", [*even, long])
    finetune.run(job)
    job.settings = job.settings.model_copy(
        update={"dpo": job.settings.dpo.model_copy(update={"loss": loss, "sl_mix": 0.0})}
    )
    counts = dpo.run(job)
    assert counts["ties"] == ties and counts["too_long"] == 1
    assert counts["trained"] + counts["held_out"] == 56 - ties
    assert any("preferences.jsonl:63 (" in note for note in notes)


def test_dpo_without_a_pair_that_has_a_side_is_an_error(make_job: Any, tiny_llama: Path) -> None:
    job = make_job({}, model={"path": str(tiny_llama)}, dpo={"loss": "hard"})
    even = [preference(n).model_copy(update={"p_chosen": 0.5}) for n in (1, 2)]
    append_rows(job.stage("label").path / "preferences.jsonl", even)
    with pytest.raises(DataError, match="fewer than two labelled pairs"):
        dpo.usable(job, Policy.load(tiny_llama, "cpu"))


def test_dpo_with_an_adapter_saves_it_and_a_merged_model(job: Job) -> None:
    finetune.run(job)
    model = job.settings.model.model_copy(update={"lora_rank": 2})
    job.settings = job.settings.model_copy(update={"model": model})
    dpo.run(job)
    folder = job.stage("dpo").path
    config = json.loads((folder / "adapter/adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == "2-finetune/model"
    tuned, before = (Policy.load(job.stage(n).path / "model", "cpu") for n in ("dpo", "finetune"))
    both = zip(tuned.model.parameters(), before.model.parameters(), strict=True)
    assert not all(torch.equal(a, b) for a, b in both)
