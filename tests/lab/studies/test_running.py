"""A study over a pipeline that trains nothing: what is shared, resumed, refused and written."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from constitutional_ai.errors import RunFolderError, SettingsError, UserError
from constitutional_ai.lab.studies import results, running, sharing
from constitutional_ai.lab.studies.running import StudyFailed, Wanted
from constitutional_ai.lab.studies.study import Base, Study
from constitutional_ai.progress import Progress
from constitutional_ai.settings import load_settings
from constitutional_ai.store.run_folder import RunFolder


def wanted(study: Study, base: Base, *seeds: int) -> Wanted:
    return Wanted([study], base, seeds or (0, 1), 0, "cai study NAME --out DIR")


def test_what_variants_have_in_common_is_made_once(toy: Study, base: Base, ran: list[str]) -> None:
    (result,) = running.run(wanted(toy, base, 4), Progress("plain"))
    assert sorted(ran) == [
        "common/1-revise", "common/2-finetune", "common/3-sample", "common/4-label",
        "common/5-reward", "common/6-ppo", "short/1-revise", "short/2-finetune", "strict/6-ppo",
    ]  # fmt: skip
    strict = RunFolder(base.run_folder("strict", 4), seed=4)
    assert (strict.stage("label").path / "made-in").read_text().endswith("common")
    assert (strict.stage("ppo").path / "made-in").read_text().endswith("strict")
    tuned = RunFolder(base.run_folder("tuned", 4), seed=4)
    assert tuned.stage("finetune").done and not tuned.stage("sample").path.exists()
    assert [made.variant for made in result.runs] == ["common", "strict", "short", "tuned"]
    hashes = {made.variant: made.hash for made in result.runs}
    assert len(set(hashes.values())) == 4 and all(len(found) == 16 for found in hashes.values())


def test_a_variants_folder_says_how_it_was_made(toy: Study, base: Base, ran: list[str]) -> None:
    running.run(wanted(toy, base, 4), Progress("plain"))
    settings = load_settings(base.run_folder("strict", 4) / "run.toml")
    assert (settings.ppo.kl_coef, settings.seed, settings.revise.prompts) == (0.5, 4, 2)


def test_the_second_time_nothing_is_left_to_do(toy: Study, base: Base, ran: list[str]) -> None:
    (first,) = running.run(wanted(toy, base), Progress("plain"))
    count = len(ran)
    (second,) = running.run(wanted(toy, base), Progress("plain"))
    assert len(ran) == count
    assert first == second == results.load(base.out / "results" / "toy.json")


def test_a_further_seed_makes_only_its_own(toy: Study, base: Base, ran: list[str]) -> None:
    running.run(wanted(toy, base, 0), Progress("plain"))
    count = len(ran)
    (result,) = running.run(wanted(toy, base, 0, 1), Progress("plain"))
    assert len(ran) == 2 * count
    assert [set(cell.by_seed) for cell in result.cells] == [{"0", "1"}] * len(result.cells)


def test_cells_hold_every_seed_and_intervals_are_over_seeds(
    toy: Study, base: Base, ran: list[str]
) -> None:
    (result,) = running.run(wanted(toy, base, 0, 1, 2), Progress("plain"))
    cell = result.cell("β", "kl", 1)
    assert cell is not None and cell.n == 7
    assert cell.estimate["mean"] == pytest.approx(0.51)
    assert cell.estimate["n"] == 3
    assert cell.estimate["high"] - 0.51 == pytest.approx(4.303 * 0.01 / 3**0.5, rel=1e-3)


def test_a_folder_of_other_settings_is_refused(toy: Study, base: Base, ran: list[str]) -> None:
    running.run(wanted(toy, base, 0), Progress("plain"))
    other = replace(base, overrides=("evaluate.harmful=7",))
    with pytest.raises(RunFolderError, match=r"evaluate\.harmful = 300, now 7"):
        running.run(wanted(toy, other, 0), Progress("plain"))


def test_a_study_of_ppo_is_refused_for_a_run_file_with_another_learner(
    toy: Study, base: Base, ran: list[str]
) -> None:
    other = replace(base, overrides=("learner=dpo",))
    with pytest.raises(SettingsError, match=r'learner = "dpo": the run .* needs the stage ppo'):
        running.run(wanted(toy, other, 0), Progress("plain"))
    assert ran == []


def test_a_step_that_fails_is_told_and_tried_again(
    toy: Study, base: Base, ran: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = sharing.run_pipeline

    def broken(settings, out, stages, progress):  # type: ignore[no-untyped-def]
        if out.name == "strict":
            raise OSError("disk full")
        return whole(settings, out, stages, progress=progress)

    monkeypatch.setattr(sharing, "run_pipeline", broken)
    with pytest.raises(StudyFailed, match=r"2 steps failed .*disk full; not written: toy"):
        running.run(wanted(toy, base, 0), Progress("plain"))
    assert not (base.out / "results" / "toy.json").exists()
    monkeypatch.setattr(sharing, "run_pipeline", whole)
    count = len(ran)
    running.run(wanted(toy, base, 0), Progress("plain"))
    assert ran[count:] == ["strict/6-ppo"]


def test_half_a_link_is_never_a_stage(tmp_path: Path) -> None:
    source, target = tmp_path / "a" / "1-revise", tmp_path / "b" / "1-revise"
    source.mkdir(parents=True)
    (source / "rows.jsonl").write_text("{}\n")
    (source / "manifest.json").write_text("{}")
    sharing.put_together([(source, target)])
    sharing.put_together([(source, target)])
    assert {path.name for path in target.iterdir()} == {"rows.jsonl", "manifest.json"}
    assert [path.name for path in target.parent.iterdir()] == ["1-revise"]
    assert (target / "rows.jsonl").samefile(source / "rows.jsonl")  # a link costs no space


def test_the_plan_tells_what_is_shared(toy: Study, base: Base) -> None:
    text = running.plan_text(wanted(toy, base, 0))
    rows = {line.split()[0]: line for line in text.splitlines()}
    assert rows["strict"].endswith("6-ppo") and "5-reward" not in rows["strict"]
    assert rows["tuned"].endswith("nothing")
    assert "4 runs (1 seeds): 16 stages, 7 of them shared; 12 steps are still to do" in text


def test_results_are_found_or_missed(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no results"):
        results.load_all(tmp_path)
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "toy.json").write_text(json.dumps({"study": "toy"}))
    with pytest.raises(UserError, match="not a study's result"):
        results.load_all(tmp_path)
