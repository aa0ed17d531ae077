"""Runs that share stages: what two variants of a seed have in common is made once.

A stage's fingerprint names all that its rows depend on, so two runs whose fingerprints of a stage
are equal would make the same files. The first variant in the plan that has it makes it; the others
get hard links (copies, where the disk knows none), whole or not at all. So every variant is a
complete run folder.
"""

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from constitutional_ai.errors import RunFolderError
from constitutional_ai.job import Job
from constitutional_ai.lab.studies import baselines
from constitutional_ai.lab.studies.plan import Base, Measurement, Planned, Study, Variant
from constitutional_ai.lab.studies.workers import Task
from constitutional_ai.principles import load_constitution
from constitutional_ai.progress import Progress
from constitutional_ai.settings import Settings
from constitutional_ai.stages.pipeline import Step, run_pipeline
from constitutional_ai.store.run_folder import RunFolder, StageFolder, fingerprint_hash

Source = tuple[Path, Path]  # a finished stage, and the place where another run wants it


def plan_variants(
    base: Base, studies: Sequence[Study], seeds: Sequence[int]
) -> dict[tuple[str, int], Planned]:
    """Every variant of every study in every seed, each once. Two of one name must be the same."""
    found: dict[tuple[str, int], Planned] = {}
    for seed in seeds:
        wanted: dict[str, Variant] = {}
        for study in studies:
            for variant in study.variants(base, seed):
                wanted[variant.name] = _longer(variant, wanted.get(variant.name))
        for name, variant in wanted.items():
            settings = base.settings(seed, variant)
            constitution = load_constitution(settings.constitution)
            folder = base.run_folder(name, seed)
            found[name, seed] = Planned(variant, settings, constitution, folder)
    return found


def _longer(variant: Variant, known: Variant | None) -> Variant:
    """Of two studies' wishes for one variant, the one that runs further."""
    if known is None:
        return variant
    same = (known.overrides, known.constitution) == (variant.overrides, variant.constitution)
    assert same, f"two variants named {variant.name}"
    order = ("revise", "finetune", "sample", "label", "reward", "ppo")
    return max(known, variant, key=lambda one: order.index(one.until))


def tasks(
    base: Base, planned: Mapping[tuple[str, int], Planned], studies: Sequence[Study]
) -> list[Task]:
    """A task for each stage that is to be made, and for each measurement; what is done is none.

    A variant that makes nothing itself is put together by a task of its own.
    """
    made: dict[str, Path] = {}  # a step's key, and where it is made
    found: list[Task] = []
    for one in planned.values():
        links: list[Source] = []
        for number, step in enumerate(one.steps):
            place, key = one.run.stage(*step).path, key_of(one, step)
            if key in made:
                links.append((made[key], place))
                continue
            made[key] = place
            needs = tuple(key_of(one, before) for before in one.steps[:number][-1:])
            if not (place / "manifest.json").exists():
                work_on = (one.settings, one.folder, step, tuple(links))
                found.append(Task(key, needs, make, work_on))
        ready = all((place / "manifest.json").exists() for _, place in links)
        if len(links) == len(one.steps) and not ready:
            key = f"{one.settings.seed} put together {one.variant.name}"
            needs = tuple(key_of(one, step) for step in one.steps)
            found.append(Task(key, needs, put_together, (tuple(links),)))
    return found + measuring(base, planned, studies, made)


def measuring(
    base: Base,
    planned: Mapping[tuple[str, int], Planned],
    studies: Sequence[Study],
    made: Mapping[str, Path],
) -> list[Task]:
    """A task for each measurement that is not done; two studies may ask for the same."""
    found: dict[str, Task] = {}
    for seed in dict.fromkeys(seed for _, seed in planned):
        for study in studies:
            for wanted in study.measurements(base, seed):
                one = planned[wanted.variant, seed]
                folder = base.measured(wanted.variant, seed, wanted.name)
                steps = one.upto(wanted.after)
                print_ = fingerprint(one, wanted, steps)
                refuse_other(folder, print_)
                key = f"{seed} {wanted.variant}.{wanted.name}"
                if folder.done or key in found:
                    continue
                links = tuple((made[key_of(one, s)], one.run.stage(*s).path) for s in steps)
                needs = tuple(key_of(one, step) for step in steps[-1:])
                work_on = (wanted, one.settings, one.folder, folder, print_, links)
                found[key] = Task(key, needs, take, work_on)
    return list(found.values())


def refuse_other(folder: StageFolder, print_: Mapping[str, object]) -> None:
    """Raise RunFolderError where something else was measured in this folder."""
    for name in ("manifest.json", "settings.json"):
        path = folder.path / name
        if not path.exists():
            continue
        before = json.loads(path.read_bytes())["fingerprint"]
        for key in [*print_, *before]:
            if before.get(key) != print_.get(key):
                raise RunFolderError(
                    f"{folder.path}: was measured with {key} = {before.get(key)}, now"
                    f" {print_.get(key)}; delete that folder, or take another --out"
                )
        return


def key_of(one: Planned, step: Step) -> str:
    """Equal for two runs exactly where the stage's files would be equal.

    The stage's place in the run is part of it, since rows and seeds name it.
    """
    name = one.run.stage(*step).name
    return f"{one.settings.seed} {name} {fingerprint_hash(one.prints[step])}"


def fingerprint(one: Planned, wanted: Measurement, steps: Sequence[Step]) -> dict[str, object]:
    """What a measurement depends on: the run up to there, and how many prompts are asked."""
    before = key_of(one, steps[-1]) if steps else str(one.prints[one.steps[0]]["model files"])
    asked = {f"evaluate.{key}": value for key, value in one.settings.evaluate}
    return {"measured": wanted.name, "the stages before": before, **asked}


# ------------------------------------------------------- what another process is handed


def make(settings: Settings, folder: Path, step: Step, links: Sequence[Source]) -> None:
    """Make one stage of a run, after linking what another run has made of it."""
    put_together(links)
    _describe(settings, folder)
    with (folder / "progress.log").open("a", encoding="utf-8") as log:
        progress = Progress("plain", log)
        if baselines.stands_in(settings, step[0]):
            baselines.make(settings, folder, step, progress)
        else:
            run_pipeline(settings, folder, [step[0]], progress=progress)


def take(
    wanted: Measurement,
    settings: Settings,
    folder: Path,
    place: StageFolder,
    print_: dict[str, object],
    links: Sequence[Source],
) -> None:
    """Measure a run."""
    put_together(links)
    place.begin(print_)
    with (place.path / "progress.log").open("a", encoding="utf-8") as log:
        run = RunFolder(folder, settings.rounds, settings.seed)
        constitution = load_constitution(settings.constitution)
        job = Job(settings, constitution, run, settings.rounds, Progress("plain", log))
        place.finish(dict(wanted.work(job, place)))


def put_together(links: Sequence[Source]) -> None:
    """Link finished stages into a run, each whole or not at all; several processes may."""
    for source, target in links:
        if source == target or (target / "manifest.json").exists():
            continue
        draft = target.with_name(f".{target.name}.{os.getpid()}.part")
        shutil.rmtree(draft, ignore_errors=True)
        draft.parent.mkdir(parents=True, exist_ok=True)
        shutil.copytree(source, draft, copy_function=_link)
        with suppress(OSError):  # another process was faster: its folder is the same
            draft.rename(target)
        shutil.rmtree(draft, ignore_errors=True)


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:  # another disk, or one without hard links
        shutil.copy2(source, target)


def _describe(settings: Settings, folder: Path) -> None:
    """Leave the run's settings in its folder, so that `cai run` can go on from there."""
    folder.mkdir(parents=True, exist_ok=True)
    draft = folder / f".run.toml.{os.getpid()}"
    draft.write_text(settings.to_toml(), encoding="utf-8")
    os.replace(draft, folder / "run.toml")
