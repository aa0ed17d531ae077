"""Runs that share stages: what two variants of a seed have in common is made once.

A stage's fingerprint names all that its rows depend on, so two runs with equal fingerprints of a
stage would make the same files. The first variant in the plan makes them. The others get hard links
(copies, on a disk without links), whole or not at all, so every variant is a complete run folder.
"""

import os
import shutil
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from constitutional_ai.job import Job
from constitutional_ai.lab.studies import baselines
from constitutional_ai.lab.studies.measures import answering
from constitutional_ai.lab.studies.study import Base, Measurement, Planned, Study, Variant
from constitutional_ai.lab.studies.workers import Task
from constitutional_ai.principles import load_constitution
from constitutional_ai.progress import Progress
from constitutional_ai.run_file import REMOVED
from constitutional_ai.settings import Settings
from constitutional_ai.stage_list import STAGE_NAMES
from constitutional_ai.stages.pipeline import Step, run_pipeline
from constitutional_ai.store.run_folder import RunFolder, StageFolder, fingerprint_hash

Source = tuple[Path, Path]  # a finished stage, and the place where another run wants it
Plan = Mapping[tuple[str, int], Planned]  # by variant and seed


def plan_variants(base: Base, studies: Sequence[Study], seeds: Sequence[int]) -> Plan:
    """Every variant of every study in every seed, each once. Equal names must mean equal runs."""
    planned: dict[tuple[str, int], Planned] = {}
    for seed in seeds:
        wanted: dict[str, Variant] = {}
        for variant in (one for study in studies for one in study.variants(base, seed)):
            wanted[variant.name] = _longer(variant, wanted.get(variant.name, variant))
        for name, variant in wanted.items():
            settings = base.settings(seed, variant)
            constitution = load_constitution(settings.constitution)
            folder = base.run_folder(name, seed)
            planned[name, seed] = Planned(variant, settings, constitution, folder)
    return planned


def _longer(one: Variant, other: Variant) -> Variant:
    """Of two wishes for one variant, the one that runs further."""
    same = (one.overrides, one.constitution) == (other.overrides, other.constitution)
    assert same, f"two variants named {one.name}"
    return max(other, one, key=lambda variant: STAGE_NAMES.index(variant.until))


def tasks(base: Base, planned: Plan, studies: Sequence[Study]) -> list[Task]:
    """A task for each stage and each measurement that is not done yet.

    A variant that makes nothing itself is put together by a task of its own.
    """
    made: dict[str, Path] = {}  # a step's key, and where it is made
    wanted: list[Task] = []
    for one in planned.values():
        links: list[Source] = []
        for number, step in enumerate(one.steps):
            place, key = one.run.stage(*step).path, key_of(one, step)
            if key in made:
                links.append((made[key], place))
                continue
            made[key] = place
            needs = tuple(key_of(one, before) for before in one.steps[:number][-1:])
            if not _done(place):
                work_on = (one.settings, one.folder, step, tuple(links))
                wanted.append(Task(key, needs, make, work_on))
        if len(links) == len(one.steps) and not all(_done(place) for _, place in links):
            key = f"{one.settings.seed} put together {one.variant.name}"
            needs = tuple(key_of(one, step) for step in one.steps)
            wanted.append(Task(key, needs, put_together, (tuple(links),)))
    return wanted + measuring(base, planned, studies, made)


def _done(place: Path) -> bool:
    return (place / "manifest.json").exists()


def measuring(
    base: Base, planned: Plan, studies: Sequence[Study], made: Mapping[str, Path]
) -> list[Task]:
    """A task for each measurement that is not done; two studies may ask for the same one.

    Raises RunFolderError if something else was measured in a folder.
    """
    wanted: dict[str, Task] = {}
    for seed in dict.fromkeys(seed for _, seed in planned):
        for asked in (one for study in studies for one in measurements(study, base, seed)):
            one = planned[asked.variant, seed]
            folder = base.measured(asked.variant, seed, asked.name)
            steps = one.upto(asked.after)
            print_ = fingerprint(one, asked, steps)
            folder.check(print_, REMOVED)
            key = f"{seed} {asked.variant}.{asked.name}"
            if folder.done or key in wanted:
                continue
            links = tuple((made[key_of(one, s)], one.run.stage(*s).path) for s in steps)
            needs = tuple(key_of(one, step) for step in steps[-1:])
            work_on = (asked, one.settings, one.folder, folder, print_, links)
            wanted[key] = Task(key, needs, take, work_on)
    return list(wanted.values())


def measurements(study: Study, base: Base, seed: int) -> list[Measurement]:
    """The answers of every line's model, and what else the study measures."""
    lines = study.lines(base, seed)
    return [*(answering(line) for line in lines), *study.measurements(base, seed)]


def key_of(one: Planned, step: Step) -> str:
    """Equal for two runs exactly where the stage's files would be equal.

    The stage's place in the run is part of it, because rows and seeds name it.
    """
    name = one.run.stage(*step).name
    return f"{one.settings.seed} {name} {fingerprint_hash(one.prints[step])}"


def fingerprint(one: Planned, wanted: Measurement, steps: Sequence[Step]) -> dict[str, object]:
    """What a measurement depends on: the run so far, and how many prompts are asked."""
    before = key_of(one, steps[-1]) if steps else str(one.prints[one.steps[0]]["model files"])
    asked = {f"evaluate.{key}": value for key, value in one.settings.evaluate.identity().items()}
    return {"measured": wanted.name, "the stages before": before, **asked}


# ------------------------------------------------------------------ what another process does


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
    place.claim(print_, REMOVED)
    with (place.path / "progress.log").open("a", encoding="utf-8") as log:
        run = RunFolder(folder, settings.rounds, settings.seed, settings.learner)
        constitution = load_constitution(settings.constitution)
        job = Job(settings, constitution, run, settings.rounds, Progress("plain", log))
        place.finish(dict(wanted.work(job, place)))


def put_together(links: Sequence[Source]) -> None:
    """Link finished stages into a run, each whole or not at all; several processes may do so."""
    for source, target in links:
        if source == target or _done(target):
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
